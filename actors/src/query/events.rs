//! All events of a journal, for who has to see each of them.

use std::{collections::BTreeMap, ops::ControlFlow};

use millpond_core::{
    batch::Batch,
    block::Decoder,
    ids::{Seq, device_hash},
    ranges::RangeSet,
    record::RecordKind,
    time::Timestamp,
    value::{Quality, Value},
};
use millpond_gateway::port::AskError;

use super::{Journal, each_left_out};

/// Which events to see: from `start` up to but without `end`, of one device or of all.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub device: Option<String>,
    pub start: Timestamp,
    pub end: Timestamp,
}

/// One event.
pub struct Event<'a> {
    pub device: &'a str,
    pub time: Timestamp,
    pub quality: Quality,
    batch: &'a Batch,
    row: usize,
}

impl<'a> Event<'a> {
    /// Its metrics, by name; those that it does not have are not there.
    pub fn cells(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let (batch, row) = (self.batch, self.row);
        let columns = batch.shape.metrics().iter().zip(&batch.columns);
        columns.filter_map(move |(metric, column)| Some((&*metric.name, column.value(row)?)))
    }
}

/// Calls `see` for each event that counts in this journal, record by record, until it breaks.
///
/// # Errors
/// When the journal cannot be read; events before that were seen.
pub fn each_event(
    journal: &Journal,
    wanted: &Wanted,
    mut see: impl FnMut(&Event<'_>) -> ControlFlow<()>,
) -> Result<(), AskError> {
    let device = wanted.device.as_deref();
    let is_wanted = |name: &str| device.is_none_or(|device| device == name);
    let mut left_out: BTreeMap<Seq, BTreeMap<String, RangeSet>> = BTreeMap::new();
    each_left_out(&journal.reader, |left| {
        if is_wanted(&left.device) {
            let seqs = left_out.entry(Seq(left.record)).or_default().entry(left.device).or_default();
            left.seqs.iter().for_each(|seq| seqs.insert(*seq, *seq));
        }
    })?;
    let mut decoder = Decoder::new();
    let mut damaged = None;
    let scanned = journal.reader.scan_events(wanted.start, wanted.end, device.map(device_hash), |record| {
        if record.kind != RecordKind::Events || journal.without.contains(record.seq.0) {
            return ControlFlow::Continue(());
        }
        let batch = match decoder.decode(record.payload) {
            Ok(batch) => batch,
            Err(error) => {
                damaged = Some(AskError::Failed(format!("record {} is damaged (MP0402): {error}", record.seq.0)));
                return ControlFlow::Break(());
            }
        };
        let left_out = left_out.get(&record.seq);
        for run in batch.runs() {
            let device = batch.device(run);
            if !is_wanted(device) {
                continue;
            }
            let left_out = left_out.and_then(|left_out| left_out.get(device));
            for row in run.rows() {
                let time = batch.times[row];
                let is_out = || left_out.zip(batch.seq(row)).is_some_and(|(out, seq)| out.contains(seq));
                if time < wanted.start || time >= wanted.end || is_out() {
                    continue;
                }
                see(&Event { device, time, quality: batch.quality_of(row), batch: &batch, row })?;
            }
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(crate::api::unreadable)?;
    damaged.map_or(Ok(()), Err)
}
