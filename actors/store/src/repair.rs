//! Saving what can be read of a damaged file into a new one.
//!
//! First the trees are walked as far as they can be. When they are damaged, or a sequence number is unaccounted for, the raw
//! file is searched for values as well. Of two values that claim the same sequence number the one in the tree wins, then
//! the one of the later opening; a value that a receipt says was dropped stays dropped. State tables cannot be found in a
//! raw file: when the trees are lost they are empty, and cursors and windows start again from the journal.
//!
//! The new file carries the next incarnation: nobody knows which numbers were given beyond the last that was found.

use std::{collections::BTreeMap, io, sync::Arc};

use millpond_core::{
    disk::BlockDevice,
    ids::{Incarnation, Origin, Seq},
    ranges::RangeSet,
    record::{Class, DropRange, DropReason, Hlc, RecordKind},
};
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::{
    device::{OpenDevice, Watch},
    entries,
    fault::Fault,
    file::{self, Found, State},
    index::{Filter, IndexRow},
    layout::{Author, Value, ValueHeader},
    options::Options,
    packing, retention, salvage,
    tables::{self, BLOOM, INDEX, PIECES, STORE, Table, names},
    transaction::{self, Identity},
    usage::Usage,
    verify::{self, Damage, Report, guarded, state_table},
};

/// Bytes of values copied in one transaction.
const COPY_BYTES: u64 = 8 << 20;

/// What a repair saved and what it could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    pub origin: Origin,
    /// Of the new file.
    pub incarnation: Incarnation,
    /// The new file, receipts included.
    pub usage: Usage,
    /// Values that were found only by searching the raw file.
    pub values_from_ruins: u64,
    pub entries: u64,
    /// Receipts for what is lost, as they stand in the new file.
    pub lost: Vec<DropRange>,
    /// What was wrong with the old file.
    pub damage: Vec<Damage>,
}

/// The old file is as it was. What stands in the new one is of no use unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error("the damaged file cannot be read")]
    Source(#[source] io::Error),
    #[error("the new file cannot be written: {detail}")]
    Target { detail: String },
    /// It was not touched.
    #[error("the new file is not empty")]
    TargetInUse,
    /// There is nothing in it that others do not have.
    #[error("the file is a copy of another node's journal: delete it, and what others still hold is copied again")]
    Copy,
    #[error("nothing in the damaged file is a store of Millpond")]
    NothingFound,
    #[error("the file was written by a newer Millpond (schema {found})")]
    TooNew { found: u32 },
}

/// Saves every readable record and entry of `from` into the empty file `to`.
pub fn repair(from: &OpenDevice, to: &OpenDevice, options: Options, now_ms: i64) -> Result<Repaired, RepairError> {
    let source: Arc<dyn BlockDevice> = Arc::from(from().map_err(RepairError::Source)?);
    let target = to().map_err(|error| RepairError::Target { detail: error.to_string() })?;
    if target.len().map_err(|error| RepairError::Target { detail: error.to_string() })? > 0 {
        return Err(RepairError::TargetInUse);
    }
    let mut survey = survey(&source)?;
    let Some(identity) = survey.identity else { return Err(RepairError::NothingFound) };
    let failed = |fault: Fault| RepairError::Target { detail: fault.detail() };
    let (db, _) = file::open_database(target, Arc::new(Watch::default()), &options).map_err(failed)?;
    let (usage, lost, entries) = rebuild(&db, &source, &mut survey, identity, options, now_ms).map_err(failed)?;
    Ok(Repaired {
        origin: identity.origin,
        incarnation: identity.incarnation,
        usage,
        values_from_ruins: survey.values.values().filter(|value| matches!(value.place, Place::Raw(_))).count() as u64,
        entries,
        lost,
        damage: survey.report.damage,
    })
}

/// Where a value that will be saved lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    Tree,
    Raw(u64),
}

#[derive(Clone, Copy, Debug)]
struct Saved {
    place: Place,
    header: ValueHeader,
}

/// What the old file holds.
struct Survey {
    db: Option<Database>,
    /// Of the new file: the incarnation is raised already.
    identity: Option<Identity>,
    /// What the kept row says, when it can be read.
    kept: Option<Usage>,
    /// By class and first sequence number.
    values: BTreeMap<(Class, u64), Saved>,
    present: RangeSet,
    receipts: Vec<DropRange>,
    /// What the index says of values that cannot be read.
    hints: Vec<DropRange>,
    report: Report,
}

fn survey(source: &Arc<dyn BlockDevice>) -> Result<Survey, RepairError> {
    let mut survey = Survey {
        db: None,
        identity: None,
        kept: None,
        values: BTreeMap::new(),
        present: RangeSet::default(),
        receipts: Vec::new(),
        hints: Vec::new(),
        report: Report::default(),
    };
    match verify::open_overlay(source) {
        Ok((_, Some(Found { schema, .. }))) if schema > tables::SCHEMA_VERSION => {
            return Err(RepairError::TooNew { found: schema });
        }
        Ok((_, Some(Found { state: State { held: Some(_), .. }, .. }))) => return Err(RepairError::Copy),
        Ok((db, found)) => {
            survey.identity = found.as_ref().map(|found| found.identity);
            survey.kept = found.map(|found| found.state.usage);
            survey.walk_trees(&db);
            survey.db = Some(db);
        }
        Err(fault) => survey.report.note("database", fault.detail()),
    }
    if !survey.is_complete() {
        survey.search_raw(source).map_err(RepairError::Source)?;
    }
    if let Some(identity) = &mut survey.identity {
        identity.incarnation.0 += 1;
        identity.boots += 1;
    }
    Ok(survey)
}

impl Survey {
    fn walk_trees(&mut self, db: &Database) {
        for class in Class::ALL {
            let walked = guarded(|| {
                let txn = db.begin_read()?;
                self.walk_class(&txn, class)
            });
            if let Err(fault) = walked {
                self.report.note(format!("journal.{}", class.name()), fault.detail());
            }
        }
    }

    fn walk_class(&mut self, txn: &ReadTransaction, class: Class) -> Result<(), Fault> {
        let journal = txn.open_table(tables::journal(class))?;
        let index = txn.open_table(INDEX)?;
        for entry in journal.range(0..)? {
            let (key, value) = entry?;
            let first = key.value();
            let accepted = Value::parse(value.value())
                .map_err(|error| error.to_string())
                .and_then(|value| self.accept(&value, Place::Tree, class, first));
            let Err(what) = accepted else { continue };
            self.report.note(format!("journal.{}, value {first}", class.name()), what);
            if let Some(Ok(row)) = index.get((class as u8, first))?.map(|row| IndexRow::decode(row.value())) {
                let (last, records, events) = (row.last.0, u64::from(row.records), row.events);
                self.hints.push(DropRange { class, first, last, records, events, reason: DropReason::Damaged });
            }
        }
        Ok(())
    }

    /// Takes a value if all of it can be read and none of its sequence numbers is taken.
    fn accept(&mut self, value: &Value<'_>, place: Place, class: Class, first: u64) -> Result<(), String> {
        let header = value.header;
        if header.class != class || header.first.0 != first {
            return Err("holds another value than its key says".into());
        }
        verify::seen_row(value)?;
        if value.records().flatten().any(|record| self.present.contains(record.seq.0)) {
            return Err("its sequence numbers belong to another value".into());
        }
        for record in value.records().flatten() {
            self.present.insert(record.seq.0, record.seq.0);
            if record.kind == RecordKind::DropRange {
                self.receipts.extend(DropRange::decode(record.payload).ok());
            }
        }
        self.values.insert((class, first), Saved { place, header });
        Ok(())
    }

    /// Whether the trees gave every record there should be.
    fn is_complete(&self) -> bool {
        let Some(kept) = &self.kept else { return false };
        let records: u64 = kept.classes.iter().map(|class| class.records).sum();
        let found: u64 = self.values.values().map(|value| u64::from(value.header.records)).sum();
        self.report.damage.is_empty() && records == found
    }

    fn search_raw(&mut self, source: &Arc<dyn BlockDevice>) -> io::Result<()> {
        let mut places = Vec::new();
        salvage::scan(source.as_ref(), |place, header| places.push((place, header)))?;
        if self.identity.is_none() {
            let newest =
                places.iter().map(|(_, header)| header).max_by_key(|header| (header.incarnation, header.opening));
            self.identity = newest.map(|header| Identity {
                origin: header.origin,
                incarnation: header.incarnation,
                boots: header.opening >> 10,
            });
        }
        // Receipts first: they say which of the other values were given up and only happen to be still legible.
        places
            .sort_by_key(|(_, header)| (header.class != Class::State, std::cmp::Reverse(header.opening), header.first));
        let mut bytes = Vec::new();
        for (place, header) in places {
            if self.is_stale(&header) || salvage::read_at(source.as_ref(), place, &mut bytes).is_none() {
                continue;
            }
            if let Ok(value) = Value::parse(&bytes) {
                // A value that is refused is an older copy of one that was taken.
                let _ = self.accept(&value, Place::Raw(place), header.class, header.first.0);
            }
        }
        Ok(())
    }

    fn is_stale(&self, header: &ValueHeader) -> bool {
        let foreign = self.identity.is_none_or(|identity| identity.origin != header.origin);
        let uncommitted = self.kept.is_some_and(|kept| header.last >= kept.next_seq);
        let dropped = self
            .receipts
            .iter()
            .any(|range| range.class == header.class && range.first <= header.first.0 && header.last.0 <= range.last);
        foreign || uncommitted || dropped
    }

    /// Receipts for every record that is neither there nor receipted.
    fn lost(&mut self, next_seq: Seq) -> Vec<DropRange> {
        let given = next_seq.0 - 1;
        let mut accounted = self.present.clone();
        self.receipts.iter().for_each(|range| accounted.insert(range.first, range.last));
        let mut lost = Vec::new();
        for (first, last) in accounted.gaps(1, given) {
            let hint = self.hints.iter_mut().find(|hint| hint.first <= last && first <= hint.last);
            let (class, events) = hint.map_or((Class::Raw, 0), |hint| (hint.class, std::mem::take(&mut hint.events)));
            lost.push(DropRange { class, first, last, records: last - first + 1, events, reason: DropReason::Damaged });
        }
        // What is lost inside the range of an older receipt of another class shows only in the sums.
        let here: u64 = self.values.values().map(|value| u64::from(value.header.records)).sum();
        let receipted: u64 = self.receipts.iter().chain(&lost).map(|range| range.records).sum();
        let rest = given.saturating_sub(here + receipted);
        if rest > 0 {
            let class = self.hints.first().map_or(Class::Raw, |hint| hint.class);
            let (first, last) = self.hints.first().map_or((1, given), |hint| (hint.first, hint.last));
            lost.push(DropRange { class, first, last, records: rest, events: 0, reason: DropReason::Damaged });
        }
        lost
    }
}

/// Writes the new file. Returns its usage, the receipts for what is lost, and the number of entries.
fn rebuild(
    db: &Database,
    source: &Arc<dyn BlockDevice>,
    survey: &mut Survey,
    identity: Identity,
    options: Options,
    now_ms: i64,
) -> Result<(Usage, Vec<DropRange>, u64), Fault> {
    let mut usage = transaction::empty_usage();
    if let Some(kept) = survey.kept {
        (usage.commits, usage.next_seq, usage.dead_letters) = (kept.commits, kept.next_seq, kept.dead_letters);
        (usage.dead_letters.count, usage.dead_letters.bytes) = (0, 0);
    }
    usage.next_seq = usage.next_seq.max(Seq(survey.present.last() + 1));
    let lost = survey.lost(usage.next_seq);
    in_transaction(db, |txn| transaction::found(txn, identity, &State { usage, held: None }))?;
    copy_values(db, source, survey, &mut usage)?;
    let entries = in_transaction(db, |txn| copy_entries(txn, survey, &mut usage))?;
    for range in survey.receipts.iter().chain(&lost) {
        let total = &mut usage.class_mut(range.class).dropped[range.reason as usize];
        total.records += range.records;
        total.events += range.events;
    }
    in_transaction(db, |txn| {
        let Identity { origin, incarnation, boots } = identity;
        let author = Author { origin, incarnation, opening: boots << 10, written_ms: now_ms };
        let hlc = Hlc((now_ms.max(0) as u64) << 16);
        let records: Vec<_> = lost.iter().map(|range| retention::receipt(range, hlc)).collect();
        packing::append(txn, &mut usage, author, &records)?;
        usage.commits += 1;
        txn.open_table(STORE)?.insert(names::USAGE, usage.encode().as_slice())?;
        transaction::set_ballast(txn, &options, true)
    })?;
    Ok((usage, lost, entries))
}

fn copy_values(db: &Database, source: &Arc<dyn BlockDevice>, survey: &Survey, usage: &mut Usage) -> Result<(), Fault> {
    let mut left = survey.values.iter().peekable();
    while left.peek().is_some() {
        in_transaction(db, |txn| {
            let mut copied = 0;
            while copied < COPY_BYTES
                && let Some(((class, first), saved)) = left.next()
            {
                let mut bytes = Vec::new();
                let mut filter = Filter::None;
                match saved.place {
                    Place::Raw(place) => {
                        salvage::read_at(source.as_ref(), place, &mut bytes);
                    }
                    Place::Tree => filter = read_tree(survey, txn, *class, *first, &mut bytes)?,
                }
                let value = Value::parse(&bytes).map_err(|error| Fault::corrupt(error.to_string()))?;
                let row = IndexRow { filter, ..verify::seen_row(&value).map_err(Fault::corrupt)? };
                txn.open_table(tables::journal(*class))?.insert(first, bytes.as_slice())?;
                txn.open_table(INDEX)?.insert((*class as u8, *first), row.encode().as_slice())?;
                packing::count_in(usage, *class, Seq(*first), &row);
                copied += bytes.len() as u64;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Copies a value from the old tree, and its filter into the new file. A filter that cannot be read is left out.
fn read_tree(
    survey: &Survey,
    target: &WriteTransaction,
    class: Class,
    first: u64,
    bytes: &mut Vec<u8>,
) -> Result<Filter, Fault> {
    let db = survey.db.as_ref().ok_or(Fault::Closed)?;
    guarded(|| {
        let value = db.begin_read()?.open_table(tables::journal(class))?.get(first)?;
        bytes.extend_from_slice(value.ok_or_else(|| Fault::corrupt("a value is gone"))?.value());
        Ok(())
    })?;
    let old = guarded(|| {
        let txn = db.begin_read()?;
        let row = txn.open_table(INDEX)?.get((class as u8, first))?;
        let filter = row.map_or(Ok(Filter::None), |row| IndexRow::decode(row.value()).map(|row| row.filter))?;
        let apart = txn.open_table(BLOOM)?.get(first)?.map(|filter| filter.value().to_vec());
        Ok((filter, apart))
    });
    match old {
        Ok((Filter::Apart, Some(apart))) => {
            target.open_table(BLOOM)?.insert(first, apart.as_slice())?;
            Ok(Filter::Apart)
        }
        Ok((Filter::Inline(filter), _)) => Ok(Filter::Inline(filter)),
        _ => Ok(Filter::None),
    }
}

fn copy_entries(txn: &WriteTransaction, survey: &mut Survey, usage: &mut Usage) -> Result<u64, Fault> {
    let Some(db) = &survey.db else { return Ok(0) };
    let mut copied = 0;
    for table in Table::ALL {
        let mut readable = Vec::new();
        let report = &mut survey.report;
        let walked = guarded(|| {
            let old = db.begin_read()?;
            let pieces = old.open_table(PIECES)?;
            let Some(rows) = state_table(&old, table)? else { return Ok(()) };
            for entry in rows.range::<&[u8]>(..)? {
                let (key, row) = entry?;
                match entries::read_value(row.value(), table, key.value(), &pieces) {
                    Ok(_) => readable.push(key.value().to_vec()),
                    Err(fault) => {
                        report.note(format!("{}, key {}", table.name(), key.value().escape_ascii()), fault.detail());
                    }
                }
            }
            Ok(())
        });
        if let Err(fault) = walked {
            report.note(table.name(), fault.detail());
        }
        for key in readable {
            let value = read_entry(db, table, &key)?;
            if table == Table::DeadLetters {
                usage.dead_letters.count += 1;
                usage.dead_letters.bytes += value.len() as u64;
            }
            entries::replace(txn, table, &key, Some(&value))?;
            copied += 1;
        }
    }
    Ok(copied)
}

fn read_entry(db: &Database, table: Table, key: &[u8]) -> Result<bytes::Bytes, Fault> {
    guarded(|| {
        let old = db.begin_read()?;
        let row = old.open_table(table.definition())?.get(key)?.ok_or_else(|| Fault::corrupt("an entry is gone"))?;
        entries::read_value(row.value(), table, key, &old.open_table(PIECES)?)
    })
}

fn in_transaction<T>(db: &Database, body: impl FnOnce(&WriteTransaction) -> Result<T, Fault>) -> Result<T, Fault> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    let value = body(&txn)?;
    txn.commit()?;
    Ok(value)
}
