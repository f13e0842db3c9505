//! The lake on stores that fail, race and lie. What counts is always the same: the rows.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use millpond_core::{
    batch::{Batch, BatchBuilder},
    ids::{Incarnation, Origin, RecordId, Seq},
    time::{Span, Timestamp},
    value::{Quality, Value},
};
use object_store::{ObjectStore, memory::InMemory};

use crate::{Cell, Filter, Lake, Options, Piece, Taken, write::Cut};

mod append;
mod crash;
mod damage;
mod engines;
mod faulty;
mod forget;
mod queries;
mod races;
#[cfg(feature = "s3")]
mod s3;
mod upkeep;

pub const T0: i64 = 1_795_046_400_000;
pub const DAY_MS: i64 = 86_400_000;
pub const TENANT: &str = "acme";

pub fn block_on<T>(future: impl Future<Output = T> + Send) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime is built");
    runtime.block_on(future)
}

pub fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// Small enough that a few hundred rows make several row groups, pages and parts.
pub fn small() -> Options {
    let cut = Cut { rows: 40, rows_max: 90, heap_max: 4000, page_rows: 16, part: 3000 };
    Options { cut, grace: Span::from_secs(60), ..Options::default() }
}

pub async fn open(store: &Arc<dyn ObjectStore>) -> Lake {
    Lake::open(store.clone(), small()).await.expect("the lake opens")
}

/// One event as a test says it.
#[derive(Clone, Debug)]
pub struct Event {
    pub device: String,
    pub ms: i64,
    pub seq: Option<u64>,
    pub cells: Vec<(&'static str, Cell)>,
}

pub fn event(device: &str, ms: i64, seq: u64, temperature: f64) -> Event {
    let cells = vec![("temperature", Cell::F64(temperature)), ("running", Cell::Bool(seq.is_multiple_of(3)))];
    Event { device: device.into(), ms, seq: Some(seq), cells }
}

pub fn record(number: u64) -> RecordId {
    RecordId { origin: Origin([7; 16]), incarnation: Incarnation(1), seq: Seq(number) }
}

pub fn batches(events: &[Event]) -> Vec<Batch> {
    let mut builder = BatchBuilder::default();
    for event in events {
        builder.begin(&event.device);
        builder.time(Timestamp::from_millis(event.ms));
        event.seq.into_iter().for_each(|seq| builder.seq(seq));
        builder.quality(if event.ms % 7 == 0 { Quality::Bad } else { Quality::Good });
        for (name, cell) in &event.cells {
            assert!(builder.cell(name, cell.as_value()), "{name} twice");
        }
        builder.end();
    }
    builder.finish()
}

pub fn piece(number: u64, events: &[Event]) -> Piece {
    let batch = batches(events).pop().expect("events of one shape");
    Piece { tenant: TENANT.into(), site: "north".into(), record: record(number), batch, left_out: Vec::new() }
}

pub fn taken(first: u64, last: u64) -> Taken {
    let RecordId { origin, incarnation, .. } = record(1);
    Taken { site: "north".into(), origin, incarnation, first, last }
}

/// Records `first..=last`: each has some rows of some devices of one day and a half.
pub fn records(first: u64, last: u64) -> Vec<Piece> {
    let of = |number: u64| {
        let events: Vec<Event> = (0..12)
            .map(|at| {
                let seq = number * 100 + at;
                let ms = T0 + (seq as i64 * 9_770_123) % (DAY_MS + DAY_MS / 2);
                event(&format!("press-{}", seq % 5), ms, seq, (seq % 40) as f64 / 4.0)
            })
            .collect();
        piece(number, &events)
    };
    (first..=last).map(of).collect()
}

/// What a row says, without where it stands.
pub type Said = (String, String, i64, Option<u64>, u64, Quality, Vec<(String, String)>);

pub fn said(pieces: &[Piece]) -> Vec<Said> {
    let mut rows = Vec::new();
    for piece in pieces {
        let (batch, metrics) = (&piece.batch, piece.batch.shape.metrics());
        for run in batch.runs() {
            for row in run.rows() {
                let cells = metrics.iter().zip(&batch.columns);
                let mut cells: Vec<(String, String)> = cells
                    .filter_map(|(metric, column)| Some((metric.name.to_string(), format!("{:?}", column.value(row)?))))
                    .collect();
                cells.sort();
                rows.push((
                    piece.tenant.to_string(),
                    batch.device(run).to_owned(),
                    batch.times[row].0,
                    batch.seq(row),
                    piece.record.seq.0,
                    batch.quality_of(row),
                    cells,
                ));
            }
        }
    }
    rows.sort();
    rows
}

pub async fn rows(lake: &Lake) -> Vec<Said> {
    let mut rows = Vec::new();
    let mut see = |row: &crate::Row<'_>| {
        let mut cells: Vec<(String, String)> =
            row.cells().map(|(metric, value): (_, Value<'_>)| (metric.name.clone(), format!("{value:?}"))).collect();
        cells.sort();
        rows.push((row.tenant.to_owned(), row.device.to_owned(), row.time.0, row.seq, row.record, row.quality, cells));
    };
    lake.scan(&lake.manifest(), &Filter::default(), &mut see).await.expect("every file is read");
    rows.sort();
    rows
}

/// Rows as the manifest counts them, too.
pub async fn assert_rows(lake: &Lake, pieces: &[Piece]) {
    let expected = said(pieces);
    assert_eq!(lake.manifest().rows(), expected.len() as u64);
    assert_eq!(rows(lake).await, expected);
}

pub fn files_by_day(lake: &Lake) -> BTreeMap<i32, usize> {
    let mut days = BTreeMap::new();
    lake.manifest().files.iter().for_each(|file| *days.entry(file.day).or_default() += 1);
    days
}
