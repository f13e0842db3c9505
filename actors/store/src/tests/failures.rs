//! A device that fails without losing power.

use super::*;
use crate::{
    CommitError, ReadError,
    testing::{Dice, Disk, open},
};

fn one(tag: u8) -> Commit {
    Commit { records: vec![append(RecordKind::Events, vec![tag; 5000])], ..Commit::default() }
}

#[test]
fn a_failed_sync_leaves_nothing_behind_and_the_store_usable() {
    for failures in [1, 2] {
        let disk = Disk::default();
        let (mut store, _) = open(&disk);
        let reader = store.reader();
        store.commit(&one(1)).expect("committed");
        disk.fail_syncs(failures);
        let mut errors = 0;
        // With two failures the reopening fails as well, and the next commit tries it again.
        while let Err(error) = store.commit(&one(2)) {
            assert!(matches!(error, CommitError::Io { .. } | CommitError::Unusable { .. }), "{error:?}");
            errors += 1;
            assert!(errors < 5);
        }
        assert!(errors >= 1);
        let payloads: Vec<u8> = everything(&reader).iter().map(|(.., payload)| payload[0]).collect();
        assert_eq!(payloads, [1, 2], "the failed commit is not there a second time");
        // What the failed sync left unwritten is not needed by anything committed later.
        store.commit(&one(3)).expect("committed");
        disk.crash_in(0);
        assert!(store.commit(&one(4)).is_err());
        drop(store);
        disk.restart(&mut Dice(1));
        assert_sound(&disk);
        let (store, opened) = open(&disk);
        assert_eq!(opened.next_seq, Seq(4));
        assert_eq!(everything(&store.reader()).len(), 3);
    }
}

#[test]
fn a_device_that_cannot_be_opened_again_is_tried_with_every_commit() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    let reader = store.reader();
    store.commit(&one(1)).expect("committed");
    disk.fail_syncs(1);
    disk.fail_opens(2);
    assert!(matches!(store.commit(&one(2)), Err(CommitError::Unusable { .. })));
    assert!(matches!(reader.stats(), Err(ReadError::Closed)));
    assert!(matches!(store.commit(&one(2)), Err(CommitError::Unusable { .. })));
    assert_eq!(store.commit(&one(2)).expect("committed").first, Seq(2));
    assert_eq!(seqs(&reader, Class::Raw), [1, 2]);
}

#[test]
fn a_scan_during_a_reopening_ends_with_an_error_or_is_right() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    for tag in 0..100 {
        store.commit(&Commit { records: vec![raw(60_000)], now_ms: tag, ..Commit::default() }).expect("committed");
    }
    let reader = store.reader();
    let mut found = Vec::new();
    let ended = reader.scan(Class::Raw, Seq(1), |record| {
        found.push(record.seq.0);
        if record.seq.0 == 3 {
            disk.fail_syncs(1);
            assert!(store.commit(&one(1)).is_err());
            for _ in 0..20 {
                store.commit(&one(2)).expect("committed");
            }
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(ended, Err(ReadError::Closed | ReadError::Io(_))), "{ended:?}");
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
    assert_eq!(seqs(&reader, Class::Raw).len(), 120);
}
