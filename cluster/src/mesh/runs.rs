//! Runs of records out of a journal or a copy.

use std::ops::ControlFlow;

use bytes::Bytes;
use millpond_core::{
    ids::Seq,
    record::{Class, Track},
};
use millpond_proto::{
    replication::Life,
    wire::{RUN_BYTES_MAX, Record, Run, is_known},
};
use millpond_store::{ReadError, Reader, RecordRef};

/// Whose records, and which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub life: Life,
    pub track: Track,
    /// What whom it is for understands ([`is_known`]).
    pub version: u16,
}

/// Gives the records from `first` to `last` to `each`, as runs that follow each other without gaps and have at most [`RUN_BYTES_MAX`]
/// bytes, or one record. Everything up to `last` is committed.
///
/// # Errors
/// When the journal cannot be read.
pub fn read(
    reader: &Reader,
    source: Source,
    mut first: Seq,
    last: Seq,
    mut each: impl FnMut(Run) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    while first <= last {
        let run = read_one(reader, source, first, last, RUN_BYTES_MAX)?;
        first = run.last.next();
        if each(run).is_break() {
            break;
        }
    }
    Ok(())
}

/// The first of these runs, of at most so many bytes, or one record.
///
/// # Errors
/// When the journal cannot be read.
pub fn read_one(reader: &Reader, source: Source, first: Seq, last: Seq, bytes_max: usize) -> Result<Run, ReadError> {
    let classes = Class::ALL.into_iter().filter(|class| class.track() == source.track);
    let (mut records, mut end): (Vec<Record>, Seq) = (Vec::new(), last);
    for class in classes {
        let mut bytes = 0;
        reader.scan(class, first, |row| {
            if row.seq > end {
                return ControlFlow::Break(());
            }
            if bytes > 0 && bytes + row.payload.len() > bytes_max {
                // What the other classes have beyond this goes into the next run.
                end = Seq(row.seq.0 - 1);
                return ControlFlow::Break(());
            }
            if is_known(row.kind, source.version) {
                bytes += row.payload.len();
                records.push(record_of(&row));
            }
            ControlFlow::Continue(())
        })?;
    }
    records.retain(|record| record.seq <= end);
    records.sort_by_key(|record| record.seq);
    let Life { origin, incarnation } = source.life;
    Ok(Run { origin, incarnation, track: source.track, first, last: end, records })
}

fn record_of(row: &RecordRef<'_>) -> Record {
    Record {
        seq: row.seq,
        kind: row.kind,
        hlc: row.hlc,
        rows: row.rows,
        min_time: row.min_time,
        max_time: row.max_time,
        payload: Bytes::copy_from_slice(row.payload),
    }
}
