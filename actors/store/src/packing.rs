//! Appends records to the journal: packs them into values and keeps index and usage in step.

use millpond_core::{ids::Seq, limits::JOURNAL_VALUE_BYTES, record::Class, time::Timestamp};
use redb::WriteTransaction;

use crate::{
    Append, bloom,
    fault::Fault,
    index::{Filter, IndexRow},
    layout::{Author, RECORD_HEADER, VALUE_HEADER, write_value},
    tables,
    usage::Usage,
};

/// Gives `records` the next sequence numbers and writes them. Returns the bytes of the values written.
pub(crate) fn append(
    txn: &WriteTransaction,
    usage: &mut Usage,
    author: Author,
    records: &[Append],
) -> Result<u64, Fault> {
    let first = usage.next_seq.0;
    usage.next_seq = Seq(first + records.len() as u64);
    let records: Vec<(Seq, &Append)> = (first..).map(Seq).zip(records).collect();
    append_numbered(txn, usage, author, &records)
}

/// Writes records that have their numbers, in ascending order. Values of other records must not lie between them.
pub(crate) fn append_numbered(
    txn: &WriteTransaction,
    usage: &mut Usage,
    author: Author,
    records: &[(Seq, &Append)],
) -> Result<u64, Fault> {
    let mut bytes = 0;
    for class in Class::ALL {
        let numbered: Vec<(Seq, &Append)> =
            records.iter().filter(|(_, append)| append.kind.class() == class).copied().collect();
        if !numbered.is_empty() {
            bytes += append_class(txn, usage, author, class, &numbered)?;
        }
    }
    Ok(bytes)
}

fn append_class(
    txn: &WriteTransaction,
    usage: &mut Usage,
    author: Author,
    class: Class,
    mut records: &[(Seq, &Append)],
) -> Result<u64, Fault> {
    let mut journal = txn.open_table(tables::journal(class))?;
    let mut index = txn.open_table(tables::INDEX)?;
    let mut total = 0;
    while !records.is_empty() {
        let (count, bytes) = fill(records);
        let (inside, rest) = records.split_at(count);
        let first = inside[0].0;
        {
            let mut value = journal.insert_reserve(first.0, bytes)?;
            write_value(value.as_mut(), author, class, inside.iter().copied());
        }
        let (mut row, filter) = index_row(inside, bytes, author.written_ms);
        if let Some(filter) = filter.filter(|_| class == Class::Raw) {
            if IndexRow::fits_inline(&filter) {
                row.filter = Filter::Inline(filter);
            } else {
                txn.open_table(tables::BLOOM)?.insert(first.0, filter.as_slice())?;
                row.filter = Filter::Apart;
            }
        }
        index.insert((class as u8, first.0), row.encode().as_slice())?;
        count_in(usage, class, first, &row);
        total += bytes as u64;
        records = rest;
    }
    Ok(total)
}

/// How many of `records` go into the next value, and its length: as many as fit, but one at least.
fn fill(records: &[(Seq, &Append)]) -> (usize, usize) {
    let mut bytes = VALUE_HEADER;
    let first = records.first().map_or(0, |(seq, _)| seq.0);
    for (count, (seq, append)) in records.iter().enumerate() {
        let next = bytes + RECORD_HEADER + append.payload.len();
        if count > 0 && (next > JOURNAL_VALUE_BYTES || seq.0 - first > u64::from(u32::MAX)) {
            return (count, bytes);
        }
        bytes = next;
    }
    (records.len(), bytes)
}

fn index_row(inside: &[(Seq, &Append)], bytes: usize, written_ms: i64) -> (IndexRow, Option<Vec<u8>>) {
    let (mut min_time, mut max_time, mut events) = (Timestamp::MAX, Timestamp::MIN, 0);
    for (_, append) in inside.iter().filter(|(_, append)| append.min_time <= append.max_time) {
        min_time = min_time.min(append.min_time);
        max_time = max_time.max(append.max_time);
    }
    for (_, append) in inside {
        events += u64::from(append.rows);
    }
    let devices_known = inside.iter().all(|(_, append)| !append.devices.is_empty());
    let filter = if devices_known { bloom::build(inside.iter().flat_map(|(_, append)| &append.devices)) } else { None };
    let last = inside[inside.len() - 1].0;
    let (records, bytes) = (inside.len() as u32, bytes as u32);
    (IndexRow { min_time, max_time, written_ms, events, records, bytes, last, filter: Filter::None }, filter)
}

/// Adds a value to what the class holds. The oldest and the newest are those with the lowest and the highest numbers.
pub(crate) fn count_in(usage: &mut Usage, class: Class, first: Seq, row: &IndexRow) {
    let class = usage.class_mut(class);
    if class.values == 0 || first < class.first_seq {
        class.first_seq = first;
        class.oldest_ms = row.written_ms;
    }
    if class.values == 0 || row.last > class.last_seq {
        class.last_seq = row.last;
        class.newest_ms = row.written_ms;
    }
    class.values += 1;
    class.records += u64::from(row.records);
    class.events += row.events;
    class.bytes += u64::from(row.bytes);
}
