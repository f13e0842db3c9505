//! What leaves the journal: the oldest values of a class, for age, quota or a full disk, each time with a receipt.
//!
//! A receipt is a record of the class `State` and can itself be dropped. Then the receipts inside are merged into one per
//! class and reason and written again, so that what they say never gets lost: their sums and their outer bounds stay.

use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_core::{
    ids::Seq,
    planted::{self, Bug},
    record::{Class, DropRange, DropReason, Hlc, RecordKind},
    time::Timestamp,
};
use redb::{ReadableTable, WriteTransaction};

use crate::{
    Append,
    commit::{Retention, Shed},
    fault::Fault,
    index::IndexRow,
    layout::{Author, Value},
    packing, tables,
    usage::{ClassUsage, Usage},
};

/// What was dropped in a transaction, until it is written down.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    fresh: Vec<DropRange>,
    merged: BTreeMap<(Class, DropReason), DropRange>,
}

impl Receipts {
    /// Appends a record for each receipt; returns the new ones, without those that only were merged, and the bytes.
    pub fn write(
        self,
        txn: &WriteTransaction,
        usage: &mut Usage,
        author: Author,
        hlc: Hlc,
    ) -> Result<(Vec<DropRange>, u64), Fault> {
        let records: Vec<Append> = self.merged.values().chain(&self.fresh).map(|range| receipt(range, hlc)).collect();
        let bytes = packing::append(txn, usage, author, &records)?;
        Ok((self.fresh, bytes))
    }

    /// What was dropped, for a file that gives no numbers of its own and writes no receipts.
    pub fn into_fresh(self) -> Vec<DropRange> {
        self.fresh
    }

    fn merge(&mut self, range: DropRange) {
        let merged =
            self.merged.entry((range.class, range.reason)).or_insert(DropRange { records: 0, events: 0, ..range });
        merged.first = merged.first.min(range.first);
        merged.last = merged.last.max(range.last);
        merged.records += range.records;
        merged.events += range.events;
    }
}

/// The record that says what was dropped.
pub(crate) fn receipt(range: &DropRange, hlc: Hlc) -> Append {
    Append {
        kind: RecordKind::DropRange,
        hlc,
        rows: 0,
        min_time: Timestamp::MAX,
        max_time: Timestamp::MIN,
        devices: Vec::new(),
        payload: Bytes::from(range.encode()),
    }
}

/// Drops what is too old or too much. Records from `keep_from` on, those of the present commit, stay.
pub(crate) fn retain(
    txn: &WriteTransaction,
    usage: &mut Usage,
    retention: &Retention,
    now_ms: i64,
    keep_from: Seq,
    receipts: &mut Receipts,
) -> Result<(), Fault> {
    for class in Class::ALL {
        let rule = retention.rules[class as usize];
        let too_old = now_ms.saturating_sub(rule.max_age_ms);
        let held = *usage.class(class);
        if held.values > 0 && held.oldest_ms < too_old {
            let goes = |_: &ClassUsage, _: Seq, row: &IndexRow| row.written_ms < too_old && row.last < keep_from;
            drop_oldest(txn, usage, class, DropReason::Age, receipts, goes)?;
        }
        if usage.class(class).bytes > rule.max_bytes {
            let target = rule.max_bytes - rule.max_bytes / 256;
            let goes = |left: &ClassUsage, _: Seq, row: &IndexRow| left.bytes > target && row.last < keep_from;
            drop_oldest(txn, usage, class, DropReason::Quota, receipts, goes)?;
        }
    }
    Ok(())
}

/// Drops at least `shed.bytes` in the given order of classes, if their floors allow it. Returns the bytes dropped.
pub(crate) fn shed(
    txn: &WriteTransaction,
    usage: &mut Usage,
    shed: &Shed,
    floors: &Retention,
    receipts: &mut Receipts,
) -> Result<u64, Fault> {
    let start = usage.journal_bytes();
    for class in &shed.order {
        let wanted = shed.bytes.saturating_sub(start - usage.journal_bytes());
        let floor = floors.rules[*class as usize].floor_bytes;
        let until = usage.class(*class).bytes.saturating_sub(wanted);
        let goes = |left: &ClassUsage, _: Seq, row: &IndexRow| {
            left.bytes > until && left.bytes >= floor.saturating_add(u64::from(row.bytes))
        };
        if wanted > 0 {
            drop_oldest(txn, usage, *class, DropReason::DiskFull, receipts, goes)?;
        }
    }
    Ok(start - usage.journal_bytes())
}

/// Drops the values of a class from the oldest on while `goes(what is left, first number, row)` says so.
fn drop_oldest(
    txn: &WriteTransaction,
    usage: &mut Usage,
    class: Class,
    reason: DropReason,
    receipts: &mut Receipts,
    goes: impl Fn(&ClassUsage, Seq, &IndexRow) -> bool,
) -> Result<(), Fault> {
    let mut index = txn.open_table(tables::INDEX)?;
    let mut left = *usage.class(class);
    let mut range: Option<DropRange> = None;
    let (mut last_key, mut next) = (0, None);
    for entry in index.range((class as u8, 0)..=(class as u8, u64::MAX))? {
        let (key, row) = entry?;
        let (first, row) = (Seq(key.value().1), IndexRow::decode(row.value())?);
        if !goes(&left, first, &row) {
            next = Some((first, row.written_ms));
            break;
        }
        let empty = DropRange { class, first: first.0, last: 0, records: 0, events: 0, reason };
        let range = range.get_or_insert(empty);
        range.last = row.last.0;
        range.records += u64::from(row.records);
        range.events += row.events;
        left.values = left.values.saturating_sub(1);
        left.bytes = left.bytes.saturating_sub(u64::from(row.bytes));
        last_key = first.0;
    }
    let Some(range) = range else { return Ok(()) };
    (left.first_seq, left.oldest_ms) = next.unwrap_or_default();
    if next.is_none() {
        (left.last_seq, left.newest_ms) = Default::default();
    }
    left.records = left.records.saturating_sub(range.records);
    left.events = left.events.saturating_sub(range.events);
    left.dropped[reason as usize].records += range.records;
    left.dropped[reason as usize].events += range.events;

    let mut journal = txn.open_table(tables::journal(class))?;
    if class == Class::State {
        merge_receipts(&journal, last_key, receipts)?;
    }
    journal.retain_in(..=last_key, |_, _| false)?;
    index.retain_in((class as u8, 0)..=(class as u8, last_key), |_, _| false)?;
    if class == Class::Raw {
        txn.open_table(tables::BLOOM)?.retain_in(..=last_key, |_, _| false)?;
    }
    *usage.class_mut(class) = left;
    if !planted::is(Bug::DropWithoutRecord) {
        receipts.fresh.push(range);
    }
    Ok(())
}

/// Keeps what the receipts say that are about to go. One that cannot be read any more cannot be kept.
fn merge_receipts(
    journal: &impl ReadableTable<u64, &'static [u8]>,
    last_key: u64,
    receipts: &mut Receipts,
) -> Result<(), Fault> {
    for entry in journal.range(..=last_key)? {
        let (_, value) = entry?;
        let Ok(value) = Value::parse(value.value()) else { continue };
        for record in value.records().map_while(Result::ok).filter(|record| record.kind == RecordKind::DropRange) {
            if let Ok(range) = DropRange::decode(record.payload) {
                receipts.merge(range);
            }
        }
    }
    Ok(())
}
