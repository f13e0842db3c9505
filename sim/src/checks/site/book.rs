//! One journal, or a copy of one, as the checkers of a site need it.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher,
    ops::ControlFlow,
};

use foldhash::fast::FixedState;
use millpond_core::{
    block,
    ids::{Incarnation, Seq},
    record::{self, Class, DropRange, Home, LeftOut, RecordKind, Track},
    window::LateEvent,
};
use millpond_store::{Reader, RecordRef};

use super::super::{letters, tally::Tally};
use crate::witness::Witness;

/// A reading: the witness's number of the device, and its own.
pub type Reading = (u32, u64);

#[derive(Debug, Default)]
pub struct Book {
    /// By sequence number.
    pub records: BTreeMap<u64, Row>,
    /// In which record each reading stands.
    pub readings: BTreeMap<Reading, u64>,
    /// Readings that were rejected. Of copies there are none.
    pub letters: BTreeSet<Reading>,
    /// Readings by record that the node leaves out of its windows, because another node has them too.
    pub left_out: BTreeSet<(u64, Reading)>,
    pub receipts: Vec<DropRange>,
    pub homes: Vec<Home>,
    pub late: Vec<LateEvent>,
    /// The number that the next record would get.
    pub next_seq: u64,
    /// Records that copies tell differently.
    pub differing: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub class: Class,
    /// Of all that its origin wrote.
    pub digest: u64,
    /// When its origin wrote it, by the origin's clock.
    pub said_ms: i64,
    /// When it was written here.
    pub written_ms: i64,
    /// It leaves events out of windows.
    pub leaves_out: bool,
}

impl Book {
    /// The books in a node's own journal: a repair begins another one.
    pub fn read(reader: &Reader, witness: &Witness) -> Result<BTreeMap<Incarnation, Book>, String> {
        let mut books: BTreeMap<Incarnation, Book> = BTreeMap::new();
        each(reader, |row| books.entry(row.incarnation).or_default().take(row, witness))?;
        if let Some((_, newest)) = books.iter_mut().next_back() {
            newest.next_seq = reader.stats().map_err(|error| error.to_string())?.next_seq.0;
            letters::read(reader, |device, seq| {
                newest.letters.extend(witness.by_name.get(device).map(|number| (*number, seq)));
            })?;
        }
        Ok(books)
    }

    pub fn of_copy(reader: &Reader, witness: &Witness) -> Result<Book, String> {
        let mut book = Book::default();
        each(reader, |row| book.take(row, witness))?;
        Ok(book)
    }

    /// Takes in another copy of the same journal.
    pub fn absorb(&mut self, other: &Book) {
        for (seq, row) in &other.records {
            let known = *self.records.entry(*seq).or_insert(*row);
            if (known.class, known.digest) != (row.class, row.digest) {
                self.differing.add(|| format!("record {seq}"));
            }
        }
        self.readings.extend(&other.readings);
        for receipt in &other.receipts {
            if !self.receipts.contains(receipt) {
                self.receipts.push(receipt.clone());
            }
        }
        self.homes.extend(other.homes.iter().cloned());
        self.left_out.extend(&other.left_out);
        for late in &other.late {
            if !self.late.contains(late) {
                self.late.push(late.clone());
            }
        }
    }

    /// Whether a record of the class was given up with a receipt.
    pub fn gave_up(&self, class: Class, seq: u64) -> bool {
        self.receipts.iter().any(|receipt| receipt.class == class && (receipt.first..=receipt.last).contains(&seq))
    }

    fn take(&mut self, row: &RecordRef<'_>, witness: &Witness) {
        let class = row.kind.class();
        let said = (row.kind as u8, row.hlc.0, row.rows, row.min_time.0, row.max_time.0, row.payload);
        let digest = FixedState::with_seed(3).hash_one(said);
        let (said_ms, written_ms) = (row.hlc.wall_ms(), row.written_ms);
        let leaves_out = row.kind == RecordKind::LeftOut;
        let kept = Row { class, digest, said_ms, written_ms, leaves_out };
        self.records.insert(row.seq.0, kept);
        self.next_seq = self.next_seq.max(row.seq.0 + 1);
        match row.kind {
            RecordKind::Events => self.take_events(row, witness),
            RecordKind::DropRange => self.receipts.extend(DropRange::decode(row.payload)),
            RecordKind::Homes => self.homes.extend(record::decode::<Vec<Home>>(row.payload).unwrap_or_default()),
            RecordKind::Late => self.late.extend(record::decode::<Vec<LateEvent>>(row.payload).unwrap_or_default()),
            RecordKind::LeftOut => {
                for left in record::decode::<Vec<LeftOut>>(row.payload).unwrap_or_default() {
                    let Some(device) = witness.by_name.get(&*left.device) else { continue };
                    self.left_out.extend(left.seqs.iter().map(|seq| (left.record, (*device, *seq))));
                }
            }
            RecordKind::Panes | RecordKind::Alerts | RecordKind::Twin => {}
        }
    }

    fn take_events(&mut self, row: &RecordRef<'_>, witness: &Witness) {
        // What cannot be decoded was said elsewhere.
        let mut decoder = block::Decoder::new();
        let Ok(batch) = decoder.decode(row.payload) else { return };
        for run in batch.runs() {
            let Some(device) = witness.by_name.get(batch.device(run)) else { continue };
            let seqs = run.rows().filter_map(|at| batch.seq(at));
            self.readings.extend(seqs.map(|seq| ((*device, seq), row.seq.0)));
        }
    }
}

/// The numbers of the records of a track, ascending.
pub fn sequence_of(reader: &Reader, track: Track) -> Result<Vec<u64>, String> {
    let mut all = Vec::new();
    each(reader, |row| {
        if row.kind.class().track() == track {
            all.push(row.seq.0);
        }
    })?;
    all.sort_unstable();
    Ok(all)
}

fn each(reader: &Reader, mut f: impl FnMut(&RecordRef<'_>)) -> Result<(), String> {
    for class in Class::ALL {
        let scan = reader.scan(class, Seq(0), |row| {
            f(&row);
            ControlFlow::Continue(())
        });
        scan.map_err(|error| error.to_string())?;
    }
    Ok(())
}
