use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_core::{ids::Incarnation, record::DropReason};

use super::*;
use crate::{
    Put, Repaired, Retention, Table,
    testing::{Dice, Disk, ORIGIN, open, small_options},
};

/// A store with everything in it, and what its records are.
fn filled(dice: &mut Dice, retain: Option<Retention>) -> (Disk, BTreeMap<u64, Vec<u8>>) {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    for round in 0..60u64 {
        let records = vec![
            append(RecordKind::Events, dice.bytes(20_000)),
            append(RecordKind::Events, dice.bytes(45_000)),
            append(RecordKind::Panes, dice.bytes(3_000)),
        ];
        let value = Some(dice.bytes([10, 100_000][round as usize % 2]));
        let puts = vec![Put { table: Table::Checkpoints, key: vec![1, round as u8 % 4], value }];
        let dead_letters = vec![Bytes::from_static(b"dead")];
        let now_ms = round as i64;
        let commit = Commit { records, puts, dead_letters, retain, now_ms, ..Commit::default() };
        store.commit(&commit).expect("committed");
    }
    let records = everything(&store.reader())
        .into_iter()
        .filter(|(_, kind, _)| *kind != RecordKind::DropRange)
        .map(|(seq, _, payload)| (seq, payload))
        .collect();
    (disk, records)
}

fn repaired(disk: &Disk) -> (Disk, Repaired) {
    let (fresh, before) = (Disk::default(), disk.bytes());
    let repaired = crate::repair(&disk.opener(), &fresh.opener(), small_options(), 99).expect("repaired");
    assert!(disk.bytes() == before, "the damaged file is left as it was");
    assert_sound(&fresh);
    (fresh, repaired)
}

fn saved(disk: &Disk) -> BTreeMap<u64, Vec<u8>> {
    let (store, opened) = open(disk);
    assert_eq!(opened.origin, ORIGIN);
    everything(&store.reader())
        .into_iter()
        .filter(|(_, kind, _)| *kind != RecordKind::DropRange)
        .map(|(seq, _, payload)| (seq, payload))
        .collect()
}

fn zero(disk: &Disk, range: std::ops::Range<usize>) -> Disk {
    let mut bytes = disk.bytes();
    bytes[range].fill(0);
    Disk::with_bytes(bytes)
}

#[test]
fn a_sound_file_is_copied_whole_under_the_next_incarnation() {
    let (disk, records) = filled(&mut Dice(1), quota(Class::Raw, 1_000_000));
    let (fresh, repaired) = repaired(&disk);
    assert_eq!((repaired.incarnation, repaired.values_from_ruins, repaired.entries), (Incarnation(2), 0, 64));
    assert_eq!((repaired.lost.len(), repaired.damage.len()), (0, 0));
    assert_eq!(saved(&fresh), records);
    let (old, new) = (open(&disk).0, open(&fresh).0);
    for table in [Table::Checkpoints, Table::DeadLetters] {
        let list = |store: &Store| store.reader().list(table, b"", 1000).expect("list");
        assert_eq!(list(&old), list(&new));
    }
    assert_eq!(old.usage().classes, new.usage().classes);
    drop(new);
    let (mut store, opened) = open(&fresh);
    assert_eq!(opened.incarnation, Incarnation(2));
    assert!(commit(&mut store, vec![raw(1)]).first >= opened.next_seq);
}

#[test]
fn a_damaged_value_is_named_and_only_it_is_lost() {
    let (disk, mut records) = filled(&mut Dice(2), None);
    let mut bytes = disk.bytes();
    let victim = &records[&61];
    let at = bytes.windows(64).rposition(|window| window == &victim[500..564]).expect("the record is in the file");
    bytes[at] ^= 1;
    let disk = Disk::with_bytes(bytes);
    let report = crate::verify(&disk.opener()).expect("read");
    assert!(report.damage.iter().any(|damage| damage.place == "journal.raw, value 61"), "{:?}", report.damage);
    let (fresh, repaired) = repaired(&disk);
    let lost: Vec<u64> = repaired.lost.iter().flat_map(|range| range.first..=range.last).collect();
    assert_eq!(lost, [61, 62], "the value held two records");
    assert_eq!(repaired.lost.iter().map(|range| range.events).sum::<u64>(), 2);
    assert!(repaired.lost.iter().all(|range| (range.class, range.reason) == (Class::Raw, DropReason::Damaged)));
    records.retain(|seq, _| !lost.contains(seq));
    assert_eq!(saved(&fresh), records);
}

#[test]
fn a_file_without_header_gives_its_journal_back() {
    let (disk, records) = filled(&mut Dice(3), None);
    let ruin = zero(&disk, 0..4096);
    assert!(matches!(Store::open(ruin.opener(), small_options(), ORIGIN), Err(crate::OpenError::Corrupt { .. })));
    assert!(crate::verify(&ruin.opener()).expect("read").values_in_ruins >= 120);
    let (fresh, repaired) = repaired(&ruin);
    assert_eq!(repaired.incarnation, Incarnation(2));
    assert_eq!((repaired.entries, repaired.lost.len()), (0, 0));
    assert_eq!(saved(&fresh), records);
}

#[test]
fn what_retention_dropped_does_not_rise_from_the_ruins() {
    let (disk, records) = filled(&mut Dice(4), quota(Class::Raw, 1_000_000));
    let (fresh, _) = repaired(&zero(&disk, 0..4096));
    assert_eq!(saved(&fresh).keys().collect::<Vec<_>>(), records.keys().collect::<Vec<_>>());
}

#[test]
fn a_disk_that_lied_about_syncs_is_repaired() {
    for seed in 0..30 {
        let mut dice = Dice(100 + seed);
        let (disk, records) = filled(&mut dice, None);
        let mut bytes = disk.bytes();
        // Pages that were reported as written and never were.
        for _ in 0..1 + dice.below(40) {
            let page = dice.below(bytes.len() as u64 / 4096) as usize * 4096;
            bytes[page..page + 4096].fill(0);
        }
        let ruin = Disk::with_bytes(bytes);
        let (fresh, repaired) = repaired(&ruin);
        let saved = saved(&fresh);
        for (seq, payload) in &saved {
            assert_eq!(records.get(seq), Some(payload), "record {seq}");
        }
        // Beyond the last number that was found nothing is known; the next incarnation takes care of that.
        let last = repaired.usage.next_seq.0 - repaired.lost.len() as u64;
        for seq in records.keys().filter(|seq| **seq < last && !saved.contains_key(seq)) {
            let receipted = repaired.lost.iter().any(|range| range.first <= *seq && *seq <= range.last);
            assert!(receipted, "record {seq} is lost without a receipt");
        }
    }
}

#[test]
fn random_damage_never_makes_verify_panic() {
    let (disk, _) = filled(&mut Dice(5), None);
    let sound = disk.bytes();
    for seed in 0..60 {
        let (mut dice, mut bytes) = (Dice(seed), sound.clone());
        for _ in 0..20 {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = dice.next() as u8;
        }
        let ruin = Disk::with_bytes(bytes.clone());
        let _ = crate::verify(&ruin.opener()).expect("the device can be read");
        let _ = crate::inspect(&ruin.opener());
        assert!(ruin.bytes() == bytes);
    }
}

#[test]
fn repair_refuses_what_it_should_not_touch() {
    let (disk, _) = filled(&mut Dice(6), None);
    let used = Disk::with_bytes(vec![1; 10]);
    let into_used = crate::repair(&disk.opener(), &used.opener(), small_options(), 0);
    assert!(matches!(into_used, Err(crate::RepairError::TargetInUse)));
    let nothing = Disk::with_bytes(vec![3; 100_000]);
    let from_nothing = crate::repair(&nothing.opener(), &Disk::default().opener(), small_options(), 0);
    assert!(matches!(from_nothing, Err(crate::RepairError::NothingFound)));
}

#[test]
fn a_file_that_was_cut_off_is_damaged_and_what_is_left_is_saved() {
    let mut dice = Dice(3);
    let (disk, records) = filled(&mut dice, None);
    let mut bytes = disk.bytes();
    bytes.truncate(bytes.len() / 2 / 4096 * 4096);
    let disk = Disk::with_bytes(bytes);
    let opened = Store::open(disk.opener(), small_options(), ORIGIN);
    assert!(matches!(opened, Err(crate::OpenError::Corrupt { .. })), "{:?}", opened.err());
    let disk = Disk::with_bytes(disk.bytes());
    let (fresh, _) = repaired(&disk);
    let (store, _) = open(&fresh);
    let saved = everything(&store.reader());
    let saved = saved.iter().filter(|(seq, _, payload)| records.get(seq) == Some(payload)).count();
    assert!(saved > 0, "nothing was saved of half a file");
}
