//! Reading the whole journal in order.

use std::{
    collections::VecDeque,
    ops::{ControlFlow, Range},
};

use millpond_core::{ids::Seq, record::Class};

use crate::{
    fault::Fault,
    layout::{RecordRef, Value},
    reader::{ReadError, Reader},
    tables,
};

/// Calls `each` with the records of all classes from `from` on in the order of their sequence numbers, until it breaks.
/// All are of one commit. Holds one value of each class in memory.
pub fn export(
    reader: &Reader,
    from: Seq,
    mut each: impl FnMut(RecordRef<'_>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let txn = reader.begin()?;
    let mut lanes = Vec::new();
    for class in Class::ALL {
        let journal = txn.open_table(tables::journal(class)).map_err(Fault::from)?;
        let start = match journal.range(..=from.0).map_err(Fault::from)?.next_back() {
            Some(entry) => entry.map_err(Fault::from)?.0.value(),
            None => 0,
        };
        let values = journal.range(start..).map_err(Fault::from)?;
        let mut lane = Lane { class, values, value: Vec::new(), records: VecDeque::new() };
        lane.fill(from)?;
        lanes.push(lane);
    }
    while let Some(lane) = lanes.iter_mut().filter(|lane| !lane.records.is_empty()).min_by_key(|lane| lane.next_seq()) {
        if lane.take().is_some_and(|record| each(record).is_break()) {
            break;
        }
        lane.fill(from)?;
    }
    Ok(())
}

/// The records of one class, read value by value.
struct Lane {
    class: Class,
    values: redb::Range<'static, u64, &'static [u8]>,
    value: Vec<u8>,
    /// Records of the value that are still to come: what they say, and where the payload lies.
    records: VecDeque<(RecordRef<'static>, Range<usize>)>,
}

impl Lane {
    fn next_seq(&self) -> Option<Seq> {
        self.records.front().map(|(record, _)| record.seq)
    }

    /// Reads the next values until there are records from `from` on.
    fn fill(&mut self, from: Seq) -> Result<(), ReadError> {
        while self.records.is_empty() {
            let Some(entry) = self.values.next() else { return Ok(()) };
            let (key, value) = entry.map_err(Fault::from)?;
            self.value.clear();
            self.value.extend_from_slice(value.value());
            let bad = |error| Fault::corrupt(format!("journal.{}, value {}: {error}", self.class.name(), key.value()));
            let start = self.value.as_ptr() as usize;
            for record in Value::parse(&self.value).map_err(bad)?.records() {
                let record = record.map_err(bad)?;
                let at = record.payload.as_ptr() as usize - start;
                if record.seq >= from {
                    self.records.push_back((RecordRef { payload: &[], ..record }, at..at + record.payload.len()));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Option<RecordRef<'_>> {
        let (record, payload) = self.records.pop_front()?;
        Some(RecordRef { payload: &self.value[payload], ..record })
    }
}
