use millpond_core::record::DropReason;

use super::*;
use crate::{
    CommitError, Shed,
    testing::{Dice, Disk, open},
};

fn fill(store: &mut Store, dice: &mut Dice) -> u64 {
    for count in 0.. {
        let records = vec![
            append(RecordKind::Events, dice.bytes(60_000)),
            append(RecordKind::Panes, dice.bytes(2_000)),
            append(RecordKind::Alerts, dice.bytes(200)),
        ];
        match store.commit(&Commit { records, ..Commit::default() }) {
            Ok(_) => assert!(count < 10_000, "the disk never got full"),
            Err(CommitError::Full { shed, .. }) => {
                assert!(shed.is_empty());
                return count;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!()
}

#[test]
fn a_full_disk_refuses_then_sheds_by_class_then_recovers() {
    for seed in 0..8 {
        let (disk, mut dice) = (Disk::default(), Dice(seed));
        disk.limit(Some((4 << 20) + dice.below(100) as usize * 4096));
        let (mut store, _) = open(&disk);
        let reader = store.reader();
        let stored = fill(&mut store, &mut dice);
        assert!(stored > 10);
        assert_eq!(everything(&reader).len() as u64, 3 * stored, "the refused commit left nothing");
        assert_eq!(fill(&mut store, &mut dice), 0, "still full");

        let mut retention = Retention::default();
        retention.rules[Class::Raw as usize].floor_bytes = 500_000;
        let mut written = 0;
        for _ in 0..60 {
            let records = vec![append(RecordKind::Events, dice.bytes(60_000))];
            let shed = Some(Shed::new(500_000));
            let commit = Commit { records, shed, retain: Some(retention), ..Commit::default() };
            let committed = store.commit(&commit).expect("there is room after shedding");
            assert!(committed.dropped.iter().all(|range| range.reason == DropReason::DiskFull));
            written += 1;
        }
        let usage = store.usage();
        assert!(usage.class(Class::Raw).bytes >= 500_000, "the floor holds: {}", usage.class(Class::Raw).bytes);
        assert_eq!(usage.class(Class::Alert).records, 0, "raw at its floor, the others gave way in their order");
        let dropped = usage.class(Class::Raw).dropped_for(DropReason::DiskFull).records;
        assert_eq!(dropped + usage.class(Class::Raw).records, stored + written);

        disk.limit(None);
        for _ in 0..50 {
            commit(&mut store, vec![append(RecordKind::Events, dice.bytes(60_000))]);
        }
        drop(store);
        assert_sound(&disk);
    }
}

#[test]
fn no_more_is_given_up_than_new_records_need() {
    for seed in 0..8 {
        let (disk, mut dice) = (Disk::default(), Dice(seed));
        disk.limit(Some((8 << 20) + dice.below(100) as usize * 4096));
        let (mut store, _) = open(&disk);
        let stored = fill(&mut store, &mut dice);
        for _ in 0..200 {
            let records = vec![append(RecordKind::Events, dice.bytes(6_000))];
            let commit = Commit { records, shed: Some(Shed::when_full(500_000)), ..Commit::default() };
            store.commit(&commit).expect("there is room after shedding");
        }
        // 1.2 MB came in, and about half a megabyte goes at a time.
        let dropped = store.usage().class(Class::Raw).dropped_for(DropReason::DiskFull).records;
        assert!((1..60).contains(&dropped), "{dropped} of {stored} large records were given up");
        drop(store);
        assert_sound(&disk);
    }
}

#[test]
fn classes_give_way_in_their_order_and_never_below_the_floor() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    for _ in 0..20 {
        let records = [RecordKind::Events, RecordKind::Panes, RecordKind::Alerts];
        commit(&mut store, records.into_iter().map(|kind| append(kind, vec![1; 10_000])).collect());
    }
    let mut retention = Retention::default();
    retention.rules[Class::Raw as usize].floor_bytes = 100_000;
    retention.rules[Class::Pane as usize].floor_bytes = 150_000;
    let shed = Some(Shed::new(140_000));
    let committed = store.commit(&Commit { shed, retain: Some(retention), ..Commit::default() }).expect("committed");
    let classes: Vec<Class> = committed.dropped.iter().map(|range| range.class).collect();
    assert_eq!(classes, [Class::Raw, Class::Pane]);
    let usage = store.usage();
    assert!((100_000..110_200).contains(&usage.class(Class::Raw).bytes));
    assert!(usage.class(Class::Pane).bytes >= 150_000);
    assert_eq!(usage.class(Class::Alert).records, 20);
    drop(store);
    assert_sound(&disk);
}

#[test]
fn shedding_with_room_on_the_disk_is_never_refused() {
    let (disk, mut dice) = (Disk::default(), Dice(1));
    let (mut store, _) = open(&disk);
    for round in 0..150 {
        let bytes = [100, 5_000, 60_000, 90_000][dice.below(4) as usize];
        let shed = (round % 3 == 2).then(|| Shed::new(dice.below(150_000)));
        store.commit(&Commit { records: vec![raw(bytes)], shed, ..Commit::default() }).expect("committed");
    }
    drop(store);
    assert_sound(&disk);
}

#[test]
fn a_store_opens_on_a_full_disk() {
    for seed in 0..6 {
        let (disk, mut dice) = (Disk::default(), Dice(seed));
        disk.limit(Some((3 << 20) + dice.below(50) as usize * 4096));
        let (mut store, _) = open(&disk);
        let stored = fill(&mut store, &mut dice);
        let kill = dice.below(2) == 0;
        if kill {
            disk.crash_in(0);
            assert!(store.commit(&Commit { records: vec![raw(10)], ..Commit::default() }).is_err());
        }
        drop(store);
        if kill {
            disk.restart(&mut dice);
        }
        disk.limit(Some(disk.allocated_bytes()));
        for _ in 0..5 {
            let (mut store, opened) = open(&disk);
            assert!(opened.next_seq.0 > 3 * stored);
            let shed = Some(Shed::new(200_000));
            store.commit(&Commit { records: vec![raw(10)], shed, ..Commit::default() }).expect("committed");
        }
        assert_sound(&disk);
    }
}

#[test]
fn a_disk_too_small_for_a_new_store_says_so() {
    let disk = Disk::default();
    disk.limit(Some(8 * 4096));
    let refused = Store::open(disk.opener(), crate::testing::small_options(), crate::testing::ORIGIN);
    assert!(matches!(refused, Err(crate::OpenError::Full(_))), "{refused:?}");
    disk.limit(None);
    let (_, opened) = open(&disk);
    assert!(opened.created);
}
