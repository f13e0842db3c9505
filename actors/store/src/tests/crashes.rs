//! Power cuts at every kind of moment, against a model.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::{
    CommitError, Put, Retention, Shed, Table,
    testing::{Dice, Disk, ORIGIN, open, small_options},
};

type Records = BTreeMap<u64, (RecordKind, Vec<u8>)>;
type Entries = BTreeMap<(Table, Vec<u8>), Bytes>;

/// What must be in the store.
#[derive(Clone, Debug, Default)]
struct Model {
    records: Records,
    entries: Entries,
    dead_letters: u64,
    next_seq: u64,
}

impl Model {
    fn apply(&mut self, commit: &Commit, first: u64) {
        for (seq, append) in (first..).zip(&commit.records) {
            self.records.insert(seq, (append.kind, append.payload.to_vec()));
        }
        for put in &commit.puts {
            match &put.value {
                Some(value) => self.entries.insert((put.table, put.key.clone()), value.clone()),
                None => self.entries.remove(&(put.table, put.key.clone())),
            };
        }
        self.dead_letters += commit.dead_letters.len() as u64;
        self.next_seq = first + commit.records.len() as u64;
    }

    /// Compares with the store. What is not there any more must be covered by a receipt: `verify` proved that every
    /// number is there or covered, and that the sums are right; here each record that is there is the right one.
    fn compare(&self, reader: &Reader) {
        let mut seen = 0;
        let mut dropped = Vec::new();
        for (seq, kind, payload) in everything(reader) {
            assert!(seq > seen, "{seq} after {seen}");
            seen = seq;
            if kind == RecordKind::DropRange {
                dropped.push(millpond_core::record::DropRange::decode(&payload).expect("a receipt"));
            } else {
                assert_eq!(self.records.get(&seq), Some(&(kind, payload)), "record {seq}");
            }
        }
        let present: std::collections::BTreeSet<u64> = everything(reader).into_iter().map(|(seq, ..)| seq).collect();
        for (seq, (kind, _)) in self.records.iter().filter(|(seq, _)| !present.contains(seq)) {
            let covered = dropped.iter().any(|d| d.class == kind.class() && d.first <= *seq && *seq <= d.last);
            assert!(covered, "record {seq} is lost");
        }
        let mut entries = Entries::new();
        for table in [Table::Cursors, Table::Checkpoints] {
            entries.extend(
                reader.list(table, b"", 1000).expect("list").into_iter().map(|(key, value)| ((table, key), value)),
            );
        }
        assert!(entries == self.entries, "entries differ");
        assert_eq!(reader.stats().expect("stats").dead_letters.next_id, self.dead_letters + 1);
    }
}

fn some_commit(dice: &mut Dice, tag: u64) -> Commit {
    let kinds = [RecordKind::Events, RecordKind::Events, RecordKind::Panes, RecordKind::Alerts];
    let records = (0..dice.below(5))
        .map(|i| {
            let size = [20, 300, 5_000, 61_000, 90_000][dice.below(5) as usize];
            let mut payload = format!("{tag}/{i}/").into_bytes();
            payload.resize(size, tag as u8);
            append(kinds[dice.below(4) as usize], payload)
        })
        .collect();
    let puts = (0..dice.below(3))
        .map(|_| {
            let table = if dice.below(2) == 0 { Table::Cursors } else { Table::Checkpoints };
            let (key, size) = (vec![dice.below(5) as u8], [8, 3000, 150_000][dice.below(3) as usize]);
            Put { table, key, value: (dice.below(5) > 0).then(|| Bytes::from(vec![tag as u8; size])) }
        })
        .collect();
    let mut retention = Retention::default();
    for (rule, max_bytes) in retention.rules.iter_mut().zip([100_000, 5_000, 200_000, 600_000]) {
        rule.max_bytes = max_bytes;
    }
    let dead_letters = (0..dice.below(2)).map(|_| Bytes::from_static(b"bad")).collect();
    let shed = (dice.below(10) == 0).then(|| Shed::new(70_000));
    Commit { records, puts, dead_letters, retain: Some(retention), shed, now_ms: tag as i64, ..Commit::default() }
}

/// Commits until the power fails; the commit during which it failed may be there or not.
fn run_until_crash(disk: &Disk, dice: &mut Dice, model: &mut Model, tag: &mut u64) -> Option<Commit> {
    let Ok((mut store, opened)) = Store::open(disk.opener(), small_options(), ORIGIN) else {
        assert!(disk.is_dead(), "only a power cut keeps a store from opening");
        return None;
    };
    if !opened.created {
        assert_eq!(opened.next_seq.0, store.usage().next_seq.0);
    }
    loop {
        *tag += 1;
        let commit = some_commit(dice, *tag);
        match store.commit(&commit) {
            Ok(committed) => {
                // Shedding takes sequence numbers for its receipts before the records.
                model.apply(&commit, committed.first.0);
                model.next_seq = store.usage().next_seq.0;
            }
            Err(CommitError::Unusable { .. } | CommitError::Io { .. }) if disk.is_dead() => return Some(commit),
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn check_after(disk: &Disk, model: &mut Model, in_flight: Option<&Commit>) {
    assert_sound(disk);
    let (store, opened) = open(disk);
    let Some(commit) = in_flight else {
        model.next_seq = opened.next_seq.0;
        return model.compare(&store.reader());
    };
    // The records of the commit in flight may follow receipts of its shedding.
    let mut with = model.clone();
    let payloads: Vec<(u64, Vec<u8>)> = everything(&store.reader())
        .into_iter()
        .filter(|(seq, kind, _)| *kind != RecordKind::DropRange && *seq >= model.next_seq)
        .map(|(seq, _, payload)| (seq, payload))
        .collect();
    let dead = store.usage().dead_letters.next_id - 1;
    let applied = !payloads.is_empty() || dead > model.dead_letters || {
        let mut reader_entries = Entries::new();
        for table in [Table::Cursors, Table::Checkpoints] {
            let list = store.reader().list(table, b"", 1000).expect("list");
            reader_entries.extend(list.into_iter().map(|(key, value)| ((table, key), value)));
        }
        reader_entries != model.entries
    };
    if applied {
        with.apply(commit, payloads.first().map_or(model.next_seq, |(seq, _)| *seq));
        *model = with;
    }
    model.next_seq = opened.next_seq.0;
    model.compare(&store.reader());
}

fn crash_often(seed: u64, crashes: u32) {
    let (disk, mut dice, mut model, mut tag) = (Disk::default(), Dice(seed), Model::default(), 0);
    let mut mid_commit = 0;
    for _ in 0..crashes {
        let horizon = if dice.below(4) == 0 { 12 } else { 120 };
        disk.crash_in(dice.below(horizon));
        let in_flight = run_until_crash(&disk, &mut dice, &mut model, &mut tag);
        mid_commit += u32::from(in_flight.is_some());
        disk.restart(&mut dice);
        check_after(&disk, &mut model, in_flight.as_ref());
        // The check opened the store and closed it again; half the time the next life starts from a power cut after it.
    }
    assert!(mid_commit > crashes / 3, "only {mid_commit} crashes hit a commit");
    assert!(model.next_seq > u64::from(crashes), "too little was written: {}", model.next_seq);
}

#[test]
fn no_power_cut_loses_or_doubles_a_commit_a() {
    crash_often(1, 150);
}

#[test]
fn no_power_cut_loses_or_doubles_a_commit_b() {
    crash_often(2, 150);
}

#[test]
fn no_power_cut_loses_or_doubles_a_commit_c() {
    crash_often(3, 150);
}

#[test]
fn no_power_cut_loses_or_doubles_a_commit_with_quick_repair() {
    let (mut dice, mut model, mut tag) = (Dice(4), Model::default(), 0);
    let disk = Disk::default();
    let options = crate::Options { quick_repair_above: 0, ..small_options() };
    for _ in 0..100 {
        disk.crash_in(dice.below(150));
        let in_flight = match Store::open(disk.opener(), options, ORIGIN) {
            Err(_) => None,
            Ok((mut store, _)) => loop {
                tag += 1;
                let commit = some_commit(&mut dice, tag);
                match store.commit(&commit) {
                    Ok(committed) => {
                        model.apply(&commit, committed.first.0);
                        model.next_seq = store.usage().next_seq.0;
                    }
                    Err(_) => break Some(commit),
                }
            },
        };
        disk.restart(&mut dice);
        check_after(&disk, &mut model, in_flight.as_ref());
    }
}

#[test]
fn a_crash_while_the_file_is_founded_leaves_a_file_that_opens() {
    for at in 0..60 {
        let (disk, mut dice) = (Disk::default(), Dice(at));
        disk.crash_in(at);
        let founded = Store::open(disk.opener(), small_options(), ORIGIN).is_ok();
        disk.restart(&mut dice);
        let (store, opened) = open(&disk);
        assert!(!founded || !opened.created, "what was founded stays, cut at {at}");
        assert_eq!(opened.next_seq, Seq(1));
        drop(store);
        assert_sound(&disk);
    }
}
