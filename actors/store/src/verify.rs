//! Checking a file without changing it, and summing it up for people.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    ranges::RangeSet,
    record::{Class, DropRange, RecordKind},
    time::Timestamp,
};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableError};

use crate::{
    device::{OpenDevice, Watch},
    entries,
    fault::Fault,
    file::{self, Found},
    held::Held,
    index::IndexRow,
    layout::{Value, ValueHeader},
    options::Options,
    overlay::Overlay,
    packing, salvage,
    tables::{self, PIECES, SCHEMA_VERSION, Table},
    usage::{DeadLetterUsage, Usage},
};

/// What a walk through a whole file found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `None` when the file is empty or cannot be opened. Empty is also one whose founding a crash cut short.
    pub origin: Option<Origin>,
    pub incarnation: Incarnation,
    /// What was counted in the walk.
    pub usage: Usage,
    /// Entries of the state tables that are whole.
    pub entries: u64,
    /// Sequence numbers that are neither there nor in the range of a receipt: runs, both ends inclusive.
    pub missing: Vec<(u64, u64)>,
    pub damage: Vec<Damage>,
    /// When the database could not be opened: whole values found by reading the raw file, committed or not.
    pub values_in_ruins: u64,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.missing.is_empty()
    }
}

/// Something that is not as it should be, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// As in `journal.raw, value 4711`.
    pub place: String,
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Reads everything in the file: checksums, the index, the counts, the entries, and whether every sequence number is
/// accounted for. Writes nothing.
///
/// # Errors
/// Only when the device itself cannot be opened or read; everything else stands in the report.
pub fn verify(open: &OpenDevice) -> io::Result<Report> {
    let device: Arc<dyn millpond_core::disk::BlockDevice> = Arc::from(open()?);
    let mut report = Report::default();
    if device.len()? == 0 || salvage::is_unfinished(device.as_ref())? {
        return Ok(report);
    }
    match open_overlay(&device) {
        Ok((db, Some(found))) => walk(&db, &found, &mut report),
        // A crash came between setting the file up and founding the store: nothing was in it yet.
        Ok((_, None)) => {}
        Err(fault) => {
            report.note("database", fault.detail());
            salvage::scan(device.as_ref(), |_, _| report.values_in_ruins += 1)?;
        }
    }
    Ok(report)
}

/// A summary for people; its `Display` is what `journal inspect` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub schema: u32,
    pub origin: Origin,
    pub incarnation: Incarnation,
    /// How often a process opened the file.
    pub boots: u32,
    pub usage: Usage,
    /// Entries of each state table, in the order of `Table::ALL`.
    pub entries: Vec<(Table, u64)>,
}

/// Reads the few rows that sum the store up. Writes nothing; after a crash redb reads the whole file first.
pub fn inspect(open: &OpenDevice) -> Result<Inspection, file::OpenError> {
    let device = Arc::from(open().map_err(file::OpenError::Device)?);
    let look = || {
        let (db, found) = open_overlay(&device)?;
        let found = found.ok_or_else(|| Fault::corrupt("the file was never set up"))?;
        let txn = db.begin_read()?;
        let mut entries = Vec::new();
        for table in Table::ALL.into_iter().filter(|_| found.schema <= SCHEMA_VERSION) {
            entries.push((table, state_table(&txn, table)?.map_or(Ok(0), |rows| rows.len())?));
        }
        Ok((found, entries))
    };
    let (Found { schema, identity, state, .. }, entries) =
        look().map_err(|fault: Fault| file::OpenError::Corrupt { detail: fault.detail() })?;
    if schema > SCHEMA_VERSION {
        return Err(file::OpenError::TooNew { found: schema, known: SCHEMA_VERSION });
    }
    let (origin, incarnation, boots) = (identity.origin, identity.incarnation, identity.boots);
    Ok(Inspection { schema, origin, incarnation, boots, usage: state.usage, entries })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inspection { schema, origin, incarnation, boots, usage, entries } = self;
        writeln!(f, "origin       {origin}, incarnation {}, schema {schema}, opened {boots} times", incarnation.0)?;
        writeln!(
            f,
            "file         {} bytes, {} commits, next record {}",
            usage.file_bytes, usage.commits, usage.next_seq.0
        )?;
        for class in Class::ALL {
            let held = usage.class(class);
            let dropped: u64 = held.dropped.iter().map(|dropped| dropped.records).sum();
            write!(f, "{:<12} {} records, {} events, {} bytes", class.name(), held.records, held.events, held.bytes)?;
            if held.records > 0 {
                let (oldest, newest) = (Timestamp::from_millis(held.oldest_ms), Timestamp::from_millis(held.newest_ms));
                write!(f, ", {} to {}, written {oldest} to {newest}", held.first_seq.0, held.last_seq.0)?;
            }
            writeln!(f, ", {dropped} records dropped")?;
        }
        let dead = &usage.dead_letters;
        writeln!(f, "dead letters {} of {} bytes, {} pushed out", dead.count, dead.bytes, dead.dropped)?;
        for (table, count) in entries.iter().filter(|(table, _)| *table != Table::DeadLetters) {
            writeln!(f, "{:<12} {count} entries", table.name())?;
        }
        Ok(())
    }
}

/// Opens the database so that the device is only read. redb checks little of what it reads in a damaged file and may
/// panic over it; here that is one more kind of damage.
pub(crate) fn open_overlay(
    device: &Arc<dyn millpond_core::disk::BlockDevice>,
) -> Result<(Database, Option<Found>), Fault> {
    guarded(|| {
        let overlay = Overlay::new(device.clone()).map_err(Fault::io)?;
        let watch = Arc::new(Watch::default());
        let (db, _) = file::open_database(Box::new(overlay), watch.clone(), &Options::default())?;
        let found = file::load(&db, &watch)?;
        Ok((db, found))
    })
}

/// Runs `f`; a panic in it becomes a fault.
pub(crate) fn guarded<T>(f: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err(Fault::corrupt("the tree is damaged")))
}

fn walk(db: &Database, found: &Found, report: &mut Report) {
    report.origin = Some(found.identity.origin);
    report.incarnation = found.identity.incarnation;
    if found.schema > SCHEMA_VERSION {
        let what = format!("written with schema {}, this one knows {SCHEMA_VERSION}", found.schema);
        return report.note("store", what);
    }
    report.usage = Usage {
        commits: found.state.usage.commits,
        next_seq: found.state.usage.next_seq,
        file_bytes: found.state.usage.file_bytes,
        dead_letters: DeadLetterUsage { count: 0, bytes: 0, ..found.state.usage.dead_letters },
        ..Usage::default()
    };
    let txn = match db.begin_read() {
        Ok(txn) => txn,
        Err(error) => return report.note("database", error.to_string()),
    };
    let mut seqs = Seqs::default();
    for class in Class::ALL {
        if let Err(fault) = guarded(|| walk_class(&txn, class, found, report, &mut seqs)) {
            report.note(format!("journal.{}", class.name()), fault.detail());
        }
    }
    for table in Table::ALL {
        if let Err(fault) = guarded(|| walk_entries(&txn, table, report)) {
            report.note(table.name(), fault.detail());
        }
    }
    match &found.state.held {
        None => seqs.account(report),
        Some(held) => seqs.account_in_copy(held, &found.state.usage, report),
    }
    report.compare(&found.state.usage);
}

/// Which sequence numbers were seen.
#[derive(Debug, Default)]
struct Seqs {
    accounted: RangeSet,
    receipts: Vec<DropRange>,
}

impl Seqs {
    fn account(mut self, report: &mut Report) {
        let dropped: u64 = self.receipts.iter().map(|range| range.records).sum();
        for range in &self.receipts {
            self.accounted.insert(range.first, range.last);
            let total = &mut report.usage.class_mut(range.class).dropped[range.reason as usize];
            total.records += range.records;
            total.events += range.events;
        }
        let given = report.usage.next_seq.0.saturating_sub(1);
        report.missing = self.accounted.gaps(1, given);
        let here: u64 = report.usage.classes.iter().map(|class| class.records).sum();
        if here + dropped != given {
            let what = format!("{given} records were written, {here} are there and receipts speak of {dropped}");
            report.note("journal", what);
        }
    }

    /// A copy has what its origin had: only what it says to hold is its own. What it gave up left no receipts.
    fn account_in_copy(&self, held: &Held, kept: &Usage, report: &mut Report) {
        for class in Class::ALL {
            report.usage.class_mut(class).dropped = kept.class(class).dropped;
        }
        if held.last().next() != kept.next_seq {
            report.note("held", format!("covers up to {}, but the next record is {}", held.last().0, kept.next_seq.0));
        }
    }
}

fn walk_class(
    txn: &ReadTransaction,
    class: Class,
    found: &Found,
    report: &mut Report,
    seqs: &mut Seqs,
) -> Result<(), Fault> {
    let journal = txn.open_table(tables::journal(class))?;
    let index = txn.open_table(tables::INDEX)?;
    let mut values = 0;
    let mut last = Seq(0);
    for entry in journal.range(0..)? {
        let (key, value) = entry?;
        let first = key.value();
        let place = || format!("journal.{}, value {first}", class.name());
        values += 1;
        let row = match index.get((class as u8, first))?.map(|row| IndexRow::decode(row.value())) {
            Some(Ok(row)) => row,
            Some(Err(fault)) => {
                report.note(place(), fault.detail());
                continue;
            }
            None => {
                report.note(place(), "is not in the index");
                continue;
            }
        };
        match check_value(value.value(), class, first, last, found, &row, seqs) {
            Ok(header) => {
                last = header.last;
                packing::count_in(&mut report.usage, class, header.first, &row);
            }
            Err(what) => report.note(place(), what),
        }
    }
    let rows = index.range((class as u8, 0)..=(class as u8, u64::MAX))?.count();
    if rows != values {
        report.note(format!("index of {}", class.name()), format!("{rows} rows for {values} values"));
    }
    Ok(())
}

/// Checks a value and what the index says of it.
fn check_value(
    bytes: &[u8],
    class: Class,
    first: u64,
    before: Seq,
    found: &Found,
    row: &IndexRow,
    seqs: &mut Seqs,
) -> Result<ValueHeader, String> {
    let value = Value::parse(bytes).map_err(|error| error.to_string())?;
    let header = value.header;
    if header.class != class || header.first.0 != first || header.value_bytes() != bytes.len() as u64 {
        return Err("holds another value than its key says".into());
    }
    if header.origin != found.identity.origin || header.incarnation > found.identity.incarnation {
        return Err(format!("is of origin {}, incarnation {}", header.origin, header.incarnation.0));
    }
    if header.first <= before || header.last >= found.state.usage.next_seq {
        return Err("its sequence numbers do not follow".into());
    }
    if found.state.held.as_ref().is_some_and(|held| !held.track(class.track()).covers(first, header.last.0)) {
        return Err("the copy does not say that it holds it".into());
    }
    let seen = seen_row(&value)?;
    let same_times = (row.min_time, row.max_time) == (seen.min_time, seen.max_time);
    let same_counts =
        (row.events, row.records, row.bytes, row.last) == (seen.events, seen.records, seen.bytes, seen.last);
    if !same_times || !same_counts || row.written_ms != seen.written_ms {
        return Err("the index says something else of it".into());
    }
    for record in value.records().flatten() {
        seqs.accounted.insert(record.seq.0, record.seq.0);
        // In a copy they are the origin's receipts, and say nothing of what is missing here.
        if record.kind == RecordKind::DropRange && found.state.held.is_none() {
            seqs.receipts.push(DropRange::decode(record.payload).map_err(|error| error.to_string())?);
        }
    }
    Ok(header)
}

/// The row of the index as it follows from the value, without filter.
pub(crate) fn seen_row(value: &Value<'_>) -> Result<IndexRow, String> {
    let header = value.header;
    let mut row = IndexRow {
        min_time: Timestamp::MAX,
        max_time: Timestamp::MIN,
        written_ms: header.written_ms,
        events: 0,
        records: header.records,
        bytes: header.value_bytes() as u32,
        last: Seq(0),
        filter: crate::index::Filter::None,
    };
    for record in value.records() {
        let record = record.map_err(|error| error.to_string())?;
        if record.seq <= row.last {
            return Err("its records are out of order".into());
        }
        if record.min_time <= record.max_time {
            row.min_time = row.min_time.min(record.min_time);
            row.max_time = row.max_time.max(record.max_time);
        }
        row.events += u64::from(record.rows);
        row.last = record.seq;
    }
    if row.last != header.last { Err("its last record is another than its header says".into()) } else { Ok(row) }
}

/// Nothing, when the file is from before there was such a table.
pub(crate) fn state_table(txn: &ReadTransaction, table: Table) -> Result<Option<StateTable>, Fault> {
    match txn.open_table(table.definition()) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

type StateTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

fn walk_entries(txn: &ReadTransaction, table: Table, report: &mut Report) -> Result<(), Fault> {
    let Some(rows) = state_table(txn, table)? else { return Ok(()) };
    let pieces = txn.open_table(PIECES)?;
    for entry in rows.range::<&[u8]>(..)? {
        let (key, row) = entry?;
        match entries::read_value(row.value(), table, key.value(), &pieces) {
            Ok(value) => {
                report.entries += 1;
                if table == Table::DeadLetters {
                    report.usage.dead_letters.count += 1;
                    report.usage.dead_letters.bytes += value.len() as u64;
                }
            }
            Err(fault) => report.note(format!("{}, key {}", table.name(), key.value().escape_ascii()), fault.detail()),
        }
    }
    Ok(())
}

impl Report {
    pub(crate) fn note(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.damage.push(Damage { place: place.into(), what: what.into() });
    }

    /// Compares what was counted with the row that is kept.
    fn compare(&mut self, kept: &Usage) {
        for class in Class::ALL {
            let (seen, kept) = (*self.usage.class(class), *kept.class(class));
            if seen != kept {
                self.note(format!("usage of {}", class.name()), format!("kept {kept:?}, counted {seen:?}"));
            }
        }
        if self.usage.dead_letters != kept.dead_letters {
            let (seen, kept) = (self.usage.dead_letters, kept.dead_letters);
            self.note("usage of dead letters", format!("kept {kept:?}, counted {seen:?}"));
        }
    }
}
