//! `millpond journal export`.

use std::{
    io::{BufWriter, Write},
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use millpond_actors::STORE_FILE;
use millpond_core::{
    alert::Alert,
    batch::Batch,
    block,
    ids::{Origin, Seq},
    record::{self, RecordKind},
    schema::Pattern,
    window::{LateEvent, Pane},
};
use millpond_gateway::tap::event_line;
use millpond_store::{Options, RecordRef, Store};

use crate::{commands::journal, exit, exit::Failure, exit::Told, roles::edge::store_told};

/// Print records as JSON, one per line, in their order
///
/// An event is a line in the form in which devices may send it again. The state of windows and alerts is not exported.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data directory of the node
    #[arg(value_name = "DATA_DIR")]
    data: PathBuf,
    /// What is printed
    #[arg(long, value_enum, default_value = "events")]
    kind: ExportKind,
    /// Only events of devices whose names match; `*` stands for any run of characters
    #[arg(long, value_name = "PATTERN")]
    device: Option<String>,
    /// Start at the record with this sequence number
    #[arg(long, default_value_t = 0, value_name = "SEQ")]
    from: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ExportKind {
    Events,
    Panes,
    Alerts,
    Late,
    /// The receipts of what was given up
    DropRanges,
    /// Events that count at another node of the site
    LeftOut,
}

impl ExportKind {
    fn record_kind(self) -> RecordKind {
        match self {
            ExportKind::Events => RecordKind::Events,
            ExportKind::Panes => RecordKind::Panes,
            ExportKind::Alerts => RecordKind::Alerts,
            ExportKind::Late => RecordKind::Late,
            ExportKind::DropRanges => RecordKind::DropRange,
            ExportKind::LeftOut => RecordKind::LeftOut,
        }
    }
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let env = journal::world_of(&args.data)?;
    let open = journal::device(&env, STORE_FILE);
    // Opening counts as a boot of the origin that is there; in a journal nothing is founded.
    let store =
        journal::spin(&env, "opening the journal", move || Store::open(open, Options::default(), Origin::default()))
            .await?;
    let (store, _) = store.map_err(|error| store_told("cannot open the journal", error))?;
    let reader = store.reader();
    let written = env
        .unblock(move || {
            let mut lines = Lines {
                out: BufWriter::new(std::io::stdout().lock()),
                args: &args,
                decoder: block::Decoder::new(),
                line: Vec::new(),
            };
            let mut failed = None;
            let exported = millpond_store::export(&reader, Seq(args.from), |record| match lines.record(record) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error.context(format!("record {}", record.seq.0)));
                    ControlFlow::Break(())
                }
            });
            match (failed, exported) {
                (Some(error), _) => Err(error),
                (None, Err(error)) => Err(Told::new("the journal could not be read to its end")
                    .code("MP0402")
                    .failure(Failure::BadInput)
                    .because(error)
                    .into()),
                (None, Ok(())) => lines.out.flush().map_err(anyhow::Error::from),
            }
        })
        .await;
    drop(store);
    written.context("the export panicked: this is a fault of the program")??;
    Ok(exit::OK)
}

struct Lines<'a> {
    out: BufWriter<std::io::StdoutLock<'static>>,
    args: &'a Args,
    decoder: block::Decoder,
    line: Vec<u8>,
}

impl Lines<'_> {
    fn record(&mut self, record: RecordRef<'_>) -> anyhow::Result<()> {
        if record.kind != self.args.kind.record_kind() {
            return Ok(());
        }
        match record.kind {
            RecordKind::Events => {
                let batch = self.decoder.decode(record.payload)?;
                self.events(&batch)?;
            }
            RecordKind::Panes => self.each(record::decode::<Vec<Pane>>(record.payload)?)?,
            RecordKind::Alerts => self.each(record::decode::<Vec<Alert>>(record.payload)?)?,
            RecordKind::Late => self.each(record::decode::<Vec<LateEvent>>(record.payload)?)?,
            RecordKind::Homes => self.each(record::decode::<Vec<record::Home>>(record.payload)?)?,
            RecordKind::Twin => self.each(record::decode::<Vec<serde_json::Value>>(record.payload)?)?,
            RecordKind::LeftOut => self.each(record::decode::<Vec<record::LeftOut>>(record.payload)?)?,
            RecordKind::DropRange => {
                self.each(vec![record::DropRange::decode(record.payload)?])?;
            }
        }
        Ok(())
    }

    fn each<T: serde::Serialize>(&mut self, items: Vec<T>) -> anyhow::Result<()> {
        for item in items {
            serde_json::to_writer(&mut self.out, &item)?;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn events(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let pattern = self.args.device.as_deref().map(Pattern::new);
        for run in batch.runs() {
            let device = batch.device(run);
            if pattern.as_ref().is_some_and(|pattern| !pattern.matches(device)) {
                continue;
            }
            for row in run.rows() {
                self.line.clear();
                event_line(batch, device, row, &mut self.line);
                self.out.write_all(&self.line)?;
            }
        }
        Ok(())
    }
}
