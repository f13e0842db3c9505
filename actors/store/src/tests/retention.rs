use millpond_core::record::{DropRange, DropReason};

use super::*;
use crate::testing::{Disk, open};

fn receipts(reader: &Reader) -> Vec<DropRange> {
    let mut found = Vec::new();
    reader
        .scan(Class::State, Seq(0), |record| {
            found.push(DropRange::decode(record.payload).expect("a receipt"));
            ControlFlow::Continue(())
        })
        .expect("scan");
    found
}

#[test]
fn a_full_class_gives_up_its_oldest_with_a_receipt() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    for _ in 0..40 {
        let records = vec![raw(60_000), append(RecordKind::Panes, "pane")];
        let retain = quota(Class::Raw, 1_000_000);
        store.commit(&Commit { records, retain, now_ms: 5, ..Commit::default() }).expect("committed");
        assert!(store.usage().class(Class::Raw).bytes <= 1_000_000);
    }
    let usage = *store.usage().class(Class::Raw);
    let reader = store.reader();
    let dropped: u64 = receipts(&reader).iter().map(|range| range.records).sum();
    assert_eq!(usage.dropped_for(DropReason::Quota).records, dropped);
    assert_eq!(usage.records + dropped, 40);
    assert_eq!(seqs(&reader, Class::Pane).len(), 40, "other classes stay");
    assert_eq!(seqs(&reader, Class::Raw).first().copied(), Some(usage.first_seq.0));
    assert!(receipts(&reader).iter().all(|range| range.class == Class::Raw && range.reason == DropReason::Quota));
    drop(store);
    assert_sound(&disk);
}

#[test]
fn what_is_too_old_goes() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    let mut retention = Retention::default();
    retention.rules[Class::Pane as usize].max_age_ms = 100;
    let mut dropped = Vec::new();
    for step in 0..10 {
        let records = vec![append(RecordKind::Panes, "p"), raw(10)];
        let (retain, now_ms) = (Some(retention), step * 50);
        let committed = store.commit(&Commit { records, retain, now_ms, ..Commit::default() }).expect("committed");
        dropped.extend(committed.dropped);
    }
    let usage = store.usage();
    assert_eq!(usage.class(Class::Pane).records, 3, "written at 350, 400 and 450");
    assert_eq!((usage.class(Class::Pane).oldest_ms, usage.class(Class::Pane).newest_ms), (350, 450));
    assert_eq!(usage.class(Class::Raw).records, 10);
    assert_eq!(dropped, receipts(&store.reader()));
    assert!(dropped.iter().all(|range| range.reason == DropReason::Age && range.records == 1));
    drop(store);
    assert_sound(&disk);
}

#[test]
fn receipts_that_are_dropped_are_merged_and_lose_nothing() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    let mut retention = Retention::default();
    retention.rules[Class::Raw as usize].max_bytes = 100_000;
    retention.rules[Class::State as usize].max_bytes = 2_000;
    for round in 0..300 {
        let records = vec![raw(40_000), append(RecordKind::Alerts, "a")];
        let (retain, now_ms) = (Some(retention), round);
        store.commit(&Commit { records, retain, now_ms, ..Commit::default() }).expect("committed");
        assert!(store.usage().class(Class::State).bytes < 4_000, "bounded: {:?}", store.usage());
    }
    let raw_dropped: u64 =
        receipts(&store.reader()).iter().filter(|range| range.class == Class::Raw).map(|range| range.records).sum();
    assert_eq!(raw_dropped + store.usage().class(Class::Raw).records, 300);
    drop(store);
    assert_sound(&disk);
}

#[test]
fn a_commit_never_drops_its_own_records() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    let retain = quota(Class::Raw, 0);
    for _ in 0..3 {
        let records = vec![raw(1000), raw(65_000)];
        store.commit(&Commit { records, retain, ..Commit::default() }).expect("committed");
        assert_eq!(store.usage().class(Class::Raw).records, 2);
    }
    drop(store);
    assert_sound(&disk);
}
