//! Several sorted files become one, or as many as needed, without more of them in memory than a few rows of each.

use std::sync::Arc;

use crate::{
    cursor::Cursor,
    error::{LakeError, Result},
    lake::{Lake, hash_of},
    manifest::{File, NewFile, Tier, Unit},
    names,
    rows::Head,
    upload::Upload,
    write::FileWriter,
};

/// What is made of some files of one tenant, day and shape.
pub(crate) struct Plan<'a> {
    pub sources: Vec<&'a File>,
    pub tier: Tier,
    pub zstd: i32,
    /// The manifest that the files are written for.
    pub number: u64,
    /// Says what else than the sources the result depends on, so that no two results have one name.
    pub salt: String,
}

impl Lake {
    /// Writes the rows of the sources that `keep` wants, in order, and says of which files there are now.
    pub(crate) async fn merge(
        &self,
        plan: &Plan<'_>,
        keep: &(dyn Fn(&Head<'_>) -> bool + Sync),
    ) -> Result<Vec<NewFile>> {
        let mut cursors = Vec::new();
        for file in &plan.sources {
            cursors.push(Cursor::open(self, file).await?);
        }
        let Some(first) = plan.sources.first() else { return Ok(Vec::new()) };
        let unit = plan.sources.iter().map(|file| file.unit).max().unwrap_or(Unit::Ns);
        let mut output = Output {
            lake: self,
            plan,
            unit,
            tenant: first.tenant.clone(),
            day: first.day,
            files: Vec::new(),
            open: None,
        };
        let done = run(&mut cursors, &mut output, keep).await;
        match done {
            Ok(()) => output.end().await?,
            Err(error) => {
                output.abandon().await;
                return Err(error);
            }
        }
        Ok(output.files)
    }
}

/// Takes the least row of all cursors until there is none. Rows of one cursor come in runs: as long as they are less than the least of
/// the others, only that one is looked at.
async fn run(cursors: &mut [Cursor], output: &mut Output<'_>, keep: &(dyn Fn(&Head<'_>) -> bool + Sync)) -> Result<()> {
    // By their next rows, the least last.
    let mut order: Vec<usize> = (0..cursors.len()).filter(|at| cursors[*at].head().is_some()).collect();
    order.sort_by(|a, b| cursors[*b].head().cmp(&cursors[*a].head()).then(b.cmp(a)));
    while let Some(least) = order.pop() {
        while let Some(head) = cursors[least].head() {
            if order.last().and_then(|next| cursors[*next].head()).is_some_and(|other| other < head) {
                break;
            }
            if keep(&head) {
                if output.must_end(&head) {
                    output.end().await?;
                    continue;
                }
                output.push(&head, &cursors[least])?;
            }
            cursors[least].step();
            if cursors[least].is_dry() {
                cursors[least].fill().await?;
                output.drain().await?;
            }
        }
        if let Some(head) = cursors[least].head() {
            let at = order.partition_point(|other| cursors[*other].head().is_some_and(|other| other > head));
            order.insert(at, least);
        }
    }
    Ok(())
}

struct Output<'a> {
    lake: &'a Lake,
    plan: &'a Plan<'a>,
    unit: Unit,
    tenant: Arc<str>,
    day: i32,
    files: Vec<NewFile>,
    open: Option<Open>,
}

struct Open {
    writer: FileWriter,
    upload: Upload,
    path: String,
    device: String,
}

impl Output<'_> {
    /// A file that is large enough ends where a device does.
    fn must_end(&self, head: &Head<'_>) -> bool {
        let limit = self.lake.inner().options.file_bytes;
        self.open.as_ref().is_some_and(|open| open.device != *head.device && open.writer.bytes_written() >= limit)
    }

    fn push(&mut self, head: &Head<'_>, cursor: &Cursor) -> Result<()> {
        if self.open.is_none() {
            self.open = Some(self.begin(cursor)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.device != *head.device {
            open.device = head.device.to_owned();
        }
        open.writer.push(head, |column| cursor.cell(column)).map_err(unwritable(&open.path))
    }

    fn begin(&self, cursor: &Cursor) -> Result<Open> {
        let (plan, options) = (self.plan, &self.lake.inner().options);
        let top = if plan.tier == Tier::Cold { names::COLD } else { names::EVENTS };
        let sources: Vec<&str> = plan.sources.iter().map(|file| file.path.as_str()).collect();
        let part = self.files.len();
        let made_of =
            format!("{sources:?} {:?} {} {part} {} {}", plan.tier, plan.zstd, plan.salt, env!("CARGO_PKG_VERSION"));
        let columns = cursor.columns().clone();
        let id = hash_of(made_of.as_bytes());
        let path = names::data_path(top, &self.tenant, self.day, &columns.id, plan.number, &id);
        let writer = FileWriter::new(columns, self.unit, plan.zstd, options.cut).map_err(unwritable(&path))?;
        let upload = Upload::new(self.lake.store_of(plan.tier).clone(), path.clone(), options.cut.part);
        Ok(Open { writer, upload, path, device: String::new() })
    }

    /// Sends off what is ready.
    async fn drain(&mut self) -> Result<()> {
        match &mut self.open {
            Some(open) => open.upload.push(open.writer.take_bytes()).await,
            None => Ok(()),
        }
    }

    async fn end(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let (finished, rest) = open.writer.finish().map_err(unwritable(&open.path))?;
        open.upload.push(rest).await?;
        open.upload.finish().await?;
        self.files.push(finished.into_file(open.path, self.plan.tier, self.tenant.clone(), self.day));
        Ok(())
    }

    async fn abandon(&mut self) {
        if let Some(open) = self.open.take() {
            open.upload.abandon().await;
        }
    }
}

fn unwritable(path: &str) -> impl FnOnce(parquet::errors::ParquetError) -> LakeError {
    let path = path.to_owned();
    move |error| LakeError::Unwritable { path, why: error.to_string() }
}
