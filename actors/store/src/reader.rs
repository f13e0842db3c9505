//! Readers: any number, on any thread, each call on the last commit.

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use millpond_core::{ids::Seq, record::Class, time::Timestamp};
use redb::{ReadTransaction, ReadableDatabase, ReadableTable};

use crate::{
    bloom, entries,
    fault::Fault,
    file::Shared,
    index::{Filter, IndexRow},
    layout::{RecordRef, Value},
    tables::{self, PIECES, STORE, Table, names},
    usage::Usage,
};

/// Reads a store. A call sees one commit throughout, however long it lasts; while it lasts, pages of that commit that were
/// deleted since cannot be used again, so a callback should not dawdle.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// The call found out nothing, or stopped where it was. Readers can be used further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store was closed, or reopened after a failure while the call lasted: then calling again helps.
    #[error("the store was closed")]
    Closed,
    #[error("the disk failed")]
    Io(#[source] io::Error),
    #[error("the store is damaged: {detail}")]
    Corrupt { detail: String },
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    /// The records of a class from sequence number `from` on, oldest first, until `each` breaks.
    pub fn scan(
        &self,
        class: Class,
        from: Seq,
        mut each: impl FnMut(RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let journal = self.begin()?.open_table(tables::journal(class)).map_err(Fault::from)?;
        let start = match journal.range(..=from.0).map_err(Fault::from)?.next_back() {
            Some(entry) => entry.map_err(Fault::from)?.0.value(),
            None => 0,
        };
        for entry in journal.range(start..).map_err(Fault::from)? {
            let (key, value) = entry.map_err(Fault::from)?;
            let flow = each_record(class, key.value(), value.value(), |record| {
                if record.seq < from { ControlFlow::Continue(()) } else { each(record) }
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The records of a class before sequence number `before`, newest first, until `each` breaks.
    pub fn scan_newest(
        &self,
        class: Class,
        before: Seq,
        mut each: impl FnMut(RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let journal = self.begin()?.open_table(tables::journal(class)).map_err(Fault::from)?;
        for entry in journal.range(..before.0).map_err(Fault::from)?.rev() {
            let (key, value) = entry.map_err(Fault::from)?;
            let mut records = Vec::new();
            let _ = each_record(class, key.value(), value.value(), |record| {
                records.push(record);
                ControlFlow::Continue(())
            })?;
            for record in records.into_iter().rev().filter(|record| record.seq < before) {
                if each(record).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The records of events that may hold readings of a device from `start` up to but without `end`, oldest record first.
    ///
    /// Values that cannot hold any are not read; but a record that is given may turn out to hold none.
    pub fn scan_series(
        &self,
        start: Timestamp,
        end: Timestamp,
        device_hash: u64,
        each: impl FnMut(RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.scan_events(start, end, Some(device_hash), each)
    }

    /// The records of events that may hold readings from `start` up to but without `end`, of one device or of all, oldest record first.
    ///
    /// As with [`Reader::scan_series`], a record that is given may turn out to hold none.
    pub fn scan_events(
        &self,
        start: Timestamp,
        end: Timestamp,
        device_hash: Option<u64>,
        mut each: impl FnMut(RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let txn = self.begin()?;
        let journal = txn.open_table(tables::journal(Class::Raw)).map_err(Fault::from)?;
        let index = txn.open_table(tables::INDEX).map_err(Fault::from)?;
        let blooms = txn.open_table(tables::BLOOM).map_err(Fault::from)?;
        let raw = Class::Raw as u8;
        for entry in index.range((raw, 0)..=(raw, u64::MAX)).map_err(Fault::from)? {
            let (key, row) = entry.map_err(Fault::from)?;
            let (first, row) = (key.value().1, IndexRow::decode(row.value())?);
            if !row.overlaps(start, end) {
                continue;
            }
            if let Some(hash) = device_hash
                && !may_hold(&row.filter, first, hash, &blooms)?
            {
                continue;
            }
            let value = journal.get(first).map_err(Fault::from)?.ok_or_else(|| missing(Class::Raw, first))?;
            let flow = each_record(Class::Raw, first, value.value(), |record| {
                if record.min_time < end && record.max_time >= start { each(record) } else { ControlFlow::Continue(()) }
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// One entry of a state table.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let txn = self.begin()?;
        let rows = txn.open_table(table.definition()).map_err(Fault::from)?;
        let Some(row) = rows.get(key).map_err(Fault::from)? else { return Ok(None) };
        let pieces = txn.open_table(PIECES).map_err(Fault::from)?;
        Ok(Some(entries::read_value(row.value(), table, key, &pieces)?))
    }

    /// The entries of a state table from key `from` on, in the order of the keys, until `each` breaks.
    pub fn range(
        &self,
        table: Table,
        from: &[u8],
        mut each: impl FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let txn = self.begin()?;
        let rows = txn.open_table(table.definition()).map_err(Fault::from)?;
        let pieces = txn.open_table(PIECES).map_err(Fault::from)?;
        for entry in rows.range(from..).map_err(Fault::from)? {
            let (key, row) = entry.map_err(Fault::from)?;
            let value = entries::read_value(row.value(), table, key.value(), &pieces)?;
            if each(key.value(), value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// At most `limit` entries of a state table from key `from` on.
    pub fn list(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, ReadError> {
        let mut found = Vec::new();
        if limit > 0 {
            self.range(table, from, |key, value| {
                found.push((key.to_vec(), value));
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(found)
    }

    /// What the store holds; costs one row.
    pub fn stats(&self) -> Result<Usage, ReadError> {
        let store = self.begin()?.open_table(STORE).map_err(Fault::from)?;
        let row = store.get(names::USAGE).map_err(Fault::from)?;
        let row = row.ok_or_else(|| Fault::corrupt("the row that counts what the store holds is missing"))?;
        Ok(Usage::decode(row.value(), self.shared.watch.len())?)
    }

    pub(crate) fn begin(&self) -> Result<ReadTransaction, Fault> {
        let db = self.shared.db.read().unwrap_or_else(PoisonError::into_inner);
        Ok(db.as_ref().ok_or(Fault::Closed)?.begin_read()?)
    }
}

/// Calls `each` for the records of a value; an error names the value.
fn each_record<'a>(
    class: Class,
    first: u64,
    value: &'a [u8],
    mut each: impl FnMut(RecordRef<'a>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Fault> {
    let bad = |error| Fault::corrupt(format!("journal.{}, value {first}: {error}", class.name()));
    for record in Value::parse(value).map_err(bad)?.records() {
        if each(record.map_err(bad)?).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn may_hold(
    filter: &Filter,
    first: u64,
    device_hash: u64,
    blooms: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<bool, Fault> {
    Ok(match filter {
        Filter::None => true,
        Filter::Inline(filter) => bloom::may_contain(filter, device_hash),
        Filter::Apart => blooms.get(first)?.is_none_or(|filter| bloom::may_contain(filter.value(), device_hash)),
    })
}

fn missing(class: Class, first: u64) -> Fault {
    Fault::corrupt(format!("journal.{}, value {first}: in the index, but not there", class.name()))
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> ReadError {
        match fault {
            Fault::Closed => ReadError::Closed,
            Fault::Io(error) | Fault::Full(error) => ReadError::Io(error),
            Fault::Corrupt(detail) => ReadError::Corrupt { detail },
        }
    }
}
