use bytes::Bytes;
use millpond_core::ids::Incarnation;

use super::*;
use crate::{
    CommitError, DeadLetterLimits, OpenError, Options, Put, ReadError, Table,
    testing::{Dice, Disk, ORIGIN, open, small_options},
};

#[test]
fn a_new_file_gets_the_given_identity_and_keeps_it() {
    let disk = Disk::default();
    let (store, opened) = open(&disk);
    assert!(opened.created && !opened.repaired);
    assert_eq!((opened.origin, opened.incarnation, opened.next_seq), (ORIGIN, Incarnation(1), Seq(1)));
    drop(store);
    let (_store, opened) =
        Store::open(disk.opener(), small_options(), millpond_core::ids::Origin([1; 16])).expect("opens");
    assert!(!opened.created && !opened.repaired);
    assert_eq!((opened.origin, opened.incarnation), (ORIGIN, Incarnation(1)));
}

#[test]
fn records_of_all_classes_share_one_row_of_numbers() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    let kinds = [RecordKind::Events, RecordKind::Alerts, RecordKind::Panes, RecordKind::Events, RecordKind::Late];
    let records = kinds.iter().enumerate().map(|(i, kind)| append(*kind, vec![i as u8; i])).collect();
    let committed = commit(&mut store, records);
    assert_eq!((committed.first, committed.records), (Seq(1), 5));
    assert_eq!(commit(&mut store, vec![raw(10)]).first, Seq(6));
    let reader = store.reader();
    assert_eq!(seqs(&reader, Class::Raw), [1, 4, 6]);
    assert_eq!(seqs(&reader, Class::Pane), [3, 5]);
    assert_eq!(seqs(&reader, Class::Alert), [2]);
    let all = everything(&reader);
    assert_eq!(all.iter().map(|(seq, ..)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(all[3], (4, RecordKind::Events, vec![3; 3]));
    drop(store);
    assert_sound(&disk);
}

#[test]
fn records_are_packed_and_large_ones_stand_alone() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    let sizes = [30_000, 30_000, 30_000, 200_000, 10, 65_400, 65_401, 1 << 20];
    commit(&mut store, sizes.iter().map(|size| raw(*size)).collect());
    let usage = store.reader().stats().expect("stats");
    assert_eq!(usage, store.usage());
    assert_eq!(usage.class(Class::Raw).records, 8);
    assert_eq!(usage.class(Class::Raw).values, 7, "two of 30,000; one; 200,000; 10; 65,400; 65,401; 1 MB");
    let lens: Vec<usize> = everything(&store.reader()).iter().map(|(.., payload)| payload.len()).collect();
    assert_eq!(lens, sizes);
    drop(store);
    assert_sound(&disk);
}

#[test]
fn scans_start_anywhere_in_either_direction() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    for _ in 0..10 {
        commit(&mut store, (0..7).map(|i| append(RecordKind::Panes, vec![i; 20_000])).collect());
    }
    let reader = store.reader();
    for from in 0..72 {
        let mut found = Vec::new();
        let mut each = |record: crate::RecordRef<'_>| {
            found.push(record.seq.0);
            if found.len() < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        reader.scan(Class::Pane, Seq(from), &mut each).expect("scan");
        assert_eq!(found, (from.max(1)..=70).take(5).collect::<Vec<_>>());
        found.clear();
        let mut each = |record: crate::RecordRef<'_>| {
            found.push(record.seq.0);
            if found.len() < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        reader.scan_newest(Class::Pane, Seq(from), &mut each).expect("scan");
        assert_eq!(found, (1..from.min(71)).rev().take(5).collect::<Vec<_>>());
    }
}

#[test]
fn entries_of_any_size_are_replaced_and_deleted_whole() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    let mut dice = Dice(1);
    let mut model = std::collections::BTreeMap::new();
    for round in 0..60 {
        let key = vec![b'k', dice.below(4) as u8];
        let size = [0, 1, 100, 65_400, 65_450, 65_500, 65_536, 200_000, 1_000_000][dice.below(9) as usize];
        let value = (dice.below(4) > 0).then(|| dice.bytes(size));
        model.insert(key.clone(), value.clone());
        let puts = vec![Put { table: Table::Checkpoints, key, value }];
        store.commit(&Commit { puts, ..Commit::default() }).expect("committed");
        if round % 10 == 9 {
            drop(store);
            assert_sound(&disk);
            store = open(&disk).0;
        }
        let expected: Vec<(Vec<u8>, Bytes)> =
            model.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
        assert_eq!(store.reader().list(Table::Checkpoints, b"", 100).expect("list"), expected);
    }
    assert_eq!(store.reader().list(Table::Checkpoints, b"l", 100).expect("list"), []);
    assert_eq!(store.reader().get(Table::Outbox, b"k").expect("get"), None);
}

#[test]
fn dead_letters_have_ids_of_their_own_and_the_oldest_go_first() {
    let disk = Disk::default();
    let limits = DeadLetterLimits { count_max: 3, bytes_max: 1000 };
    let options = Options { dead_letters: limits, ..small_options() };
    let (mut store, _) = Store::open(disk.opener(), options, ORIGIN).expect("opens");
    let letters = |sizes: &[usize]| sizes.iter().map(|size| Bytes::from(vec![1; *size])).collect::<Vec<_>>();
    let send = |store: &mut Store, dead_letters, forget_dead_letters| {
        store.commit(&Commit { dead_letters, forget_dead_letters, ..Commit::default() }).expect("committed")
    };
    assert_eq!(send(&mut store, letters(&[10, 20]), vec![]).first_dead_letter, 1);
    let committed = send(&mut store, letters(&[30, 40]), vec![]);
    assert_eq!((committed.first_dead_letter, committed.dead_letters_dropped), (3, 1));
    send(&mut store, vec![], vec![3, 99]);
    let committed = send(&mut store, letters(&[990]), vec![]);
    assert_eq!((committed.first_dead_letter, committed.dead_letters_dropped), (5, 2));
    let dead = store.usage().dead_letters;
    assert_eq!((dead.count, dead.bytes, dead.next_id), (1, 990, 6));
    assert_eq!((dead.dropped, dead.dropped_bytes, dead.dropped_through), (3, 70, 4));
    let kept = store.reader().list(Table::DeadLetters, &[], 10).expect("list");
    assert_eq!(kept.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [5u64.to_be_bytes().to_vec()]);
    drop(store);
    assert_sound(&disk);
}

#[test]
fn a_commit_beyond_the_bounds_is_refused_and_changes_nothing() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    let put = |table, key: Vec<u8>| Commit {
        records: vec![raw(1)],
        puts: vec![Put { table, key, value: None }],
        ..Commit::default()
    };
    let too_big = Commit { records: vec![raw((16 << 20) + 1)], ..Commit::default() };
    for bad in [put(Table::Meta, vec![]), put(Table::Meta, vec![0; 1025]), put(Table::DeadLetters, vec![1]), too_big] {
        assert!(matches!(store.commit(&bad), Err(CommitError::Refused { .. })));
    }
    assert_eq!(store.usage().next_seq, Seq(1));
    assert_eq!(commit(&mut store, vec![raw(1)]).first, Seq(1));
}

#[test]
fn a_reader_sees_one_commit_while_others_follow() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    commit(&mut store, (0..50).map(|_| raw(30_000)).collect());
    let reader = store.reader();
    let mut found = 0;
    reader
        .scan(Class::Raw, Seq(1), |record| {
            if record.seq.0 % 10 == 1 {
                commit(&mut store, vec![raw(30_000)]);
            }
            found += 1;
            ControlFlow::Continue(())
        })
        .expect("scan");
    assert_eq!(found, 50);
    assert_eq!(seqs(&reader, Class::Raw).len(), 55);
    drop(store);
    assert!(matches!(reader.stats(), Err(ReadError::Closed)));
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let disk = Disk::default();
    drop(open(&disk));
    {
        let device = disk.opener()().expect("device");
        let (db, _) = crate::file::open_database(device, Default::default(), &small_options()).expect("opens");
        let txn = db.begin_write().expect("transaction");
        let newer = (crate::SCHEMA_VERSION + 1).to_le_bytes();
        txn.open_table(crate::tables::STORE).expect("table").insert("schema", newer.as_slice()).expect("put");
        txn.commit().expect("committed");
    }
    let before = disk.bytes();
    let refused = Store::open(disk.opener(), small_options(), ORIGIN);
    assert!(matches!(refused, Err(OpenError::TooNew { found: 2, known: 1 })));
    assert!(matches!(crate::inspect(&disk.opener()), Err(OpenError::TooNew { .. })));
    assert!(!crate::verify(&disk.opener()).expect("read").is_sound());
    assert_eq!(disk.bytes().len(), before.len());
}

#[test]
fn a_file_from_before_a_table_is_read_and_given_it() {
    let disk = Disk::default();
    drop(open(&disk));
    {
        let device = disk.opener()().expect("device");
        let (db, _) = crate::file::open_database(device, Default::default(), &small_options()).expect("opens");
        let txn = db.begin_write().expect("transaction");
        assert!(txn.delete_table(Table::Documents.definition()).expect("deleted"));
        txn.commit().expect("committed");
    }
    let entries = crate::inspect(&disk.opener()).expect("read").entries;
    assert_eq!(entries.iter().find(|(table, _)| *table == Table::Documents), Some(&(Table::Documents, 0)));
    assert!(crate::verify(&disk.opener()).expect("read").is_sound());
    let (store, _) = open(&disk);
    assert_eq!(store.reader().get(Table::Documents, b"x").expect("there is such a table"), None);
}

#[test]
fn something_else_is_not_taken_for_a_store() {
    for bytes in [b"SQLite format 3\0 and so on, for longer than a page".repeat(200), vec![1; 5]] {
        let disk = Disk::with_bytes(bytes.clone());
        let refused = Store::open(disk.opener(), small_options(), ORIGIN);
        assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "{refused:?}");
        assert_eq!(disk.bytes(), bytes);
    }
}

#[test]
fn inspection_says_what_is_there() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    commit(&mut store, vec![raw(100), append(RecordKind::Panes, "p")]);
    let puts = vec![Put { table: Table::Cursors, key: b"uplink".to_vec(), value: Some(Bytes::from_static(b"1")) }];
    store.commit(&Commit { puts, ..Commit::default() }).expect("committed");
    drop(store);
    let before = disk.bytes();
    let inspection = crate::inspect(&disk.opener()).expect("inspected");
    assert!(disk.bytes() == before, "inspecting writes nothing");
    assert_eq!((inspection.origin, inspection.incarnation, inspection.boots), (ORIGIN, Incarnation(1), 1));
    let text = inspection.to_string();
    assert!(text.contains("raw          1 records, 1 events, 220 bytes, 1 to 1"), "{text}");
    assert!(text.contains("cursors      1 entries"), "{text}");
}
