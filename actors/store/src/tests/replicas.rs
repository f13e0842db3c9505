//! Copies of journals: what comes in runs, in any order, is what the origin had.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millpond_core::{
    batch::BatchBuilder,
    block,
    ids::{Incarnation, device_hash},
    record::{DropReason, Hlc, Track},
    time::Timestamp,
    value::Value,
};
use proptest::prelude::*;

use super::*;
use crate::{
    CommitError, OpenError, Opened, Options, Put, RecordRef, Replica, ReplicaCommit, ReplicaRun, Shed, Table,
    testing::{Dice, Disk, ORIGIN, open, small_options},
};

const LIFE: Incarnation = Incarnation(3);

fn open_copy(disk: &Disk) -> (Replica, Opened) {
    Replica::open(disk.opener(), small_options(), ORIGIN, LIFE).expect("the copy opens")
}

/// What the origin's journal holds: by sequence number. Some numbers were dropped by retention.
type Journal = BTreeMap<u64, Append>;

fn journal(dice: &mut Dice, records: u64, sizes: &[usize]) -> Journal {
    let kinds = [RecordKind::Events, RecordKind::Events, RecordKind::Panes, RecordKind::Alerts, RecordKind::DropRange];
    let mut journal = Journal::new();
    for seq in 1..=records {
        let kind = kinds[dice.below(5) as usize];
        let mut payload = format!("{seq}/").into_bytes();
        payload.resize(sizes[dice.below(sizes.len() as u64) as usize].max(payload.len()), seq as u8);
        if dice.below(10) > 0 {
            journal.insert(seq, Append { hlc: Hlc(seq << 16), ..append(kind, payload) });
        }
    }
    journal
}

fn run_of(journal: &Journal, track: Track, first: u64, last: u64) -> ReplicaRun {
    let records = journal.range(first..=last).filter(|(_, append)| append.kind.class().track() == track);
    let records = records.map(|(seq, append)| (Seq(*seq), append.clone())).collect();
    ReplicaRun { track, first: Seq(first), last: Seq(last), records }
}

fn some_run(dice: &mut Dice, journal: &Journal, records: u64) -> ReplicaRun {
    let first = 1 + dice.below(records);
    let last = (first + dice.below(1 + records / 4)).min(records);
    run_of(journal, Track::ALL[dice.below(2) as usize], first, last)
}

/// What must be in the copy.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    covered: [BTreeSet<u64>; 2],
    entries: BTreeMap<Vec<u8>, Bytes>,
}

impl Model {
    fn apply(&mut self, commit: &ReplicaCommit) {
        for run in &commit.runs {
            self.covered[run.track as usize].extend(run.first.0..=run.last.0);
        }
        for put in &commit.puts {
            self.entries.insert(put.key.clone(), put.value.clone().unwrap_or_default());
        }
    }

    /// The state of a copy, and that it holds exactly what it says to cover.
    fn of(copy: &Replica, journal: &Journal) -> Model {
        let covered = Track::ALL.map(|track| copy.held().track(track).iter().flat_map(|(a, b)| a..=b).collect());
        let model =
            Model { covered, entries: copy.reader().list(Table::Checkpoints, b"", 99).unwrap().into_iter().collect() };
        let expected: Vec<_> = journal
            .iter()
            .filter(|(seq, append)| model.covered[append.kind.class().track() as usize].contains(seq))
            .map(|(seq, append)| (*seq, append.kind, append.payload.to_vec()))
            .collect();
        assert!(everything(&copy.reader()) == expected, "the copy is not what it covers");
        model
    }
}

fn some_commit(dice: &mut Dice, journal: &Journal, records: u64) -> ReplicaCommit {
    let runs = (0..dice.below(4)).map(|_| some_run(dice, journal, records)).collect();
    let value = Some(Bytes::from(vec![dice.next() as u8; [9, 100_000][dice.below(2) as usize]]));
    let puts = vec![Put { table: Table::Checkpoints, key: vec![1 + dice.below(3) as u8], value }];
    ReplicaCommit { runs, puts, now_ms: dice.below(100) as i64, ..ReplicaCommit::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_copy_holds_exactly_what_its_runs_covered(seed: u64, commits in 1usize..20) {
        let (mut dice, disk, mut model) = (Dice(seed), Disk::default(), Model::default());
        let journal = journal(&mut dice, 200, &[10, 300, 30_000]);
        let (mut copy, opened) = open_copy(&disk);
        prop_assert!(opened.created && (opened.origin, opened.incarnation) == (ORIGIN, LIFE));
        for _ in 0..commits {
            let commit = some_commit(&mut dice, &journal, 200);
            let committed = copy.commit(&commit).expect("committed");
            let before = model.clone();
            model.apply(&commit);
            let fresh = |track: Track| &model.covered[track as usize] - &before.covered[track as usize];
            for track in Track::ALL {
                let covered = committed.covered.iter().filter(|(of, ..)| *of == track);
                prop_assert_eq!(covered.flat_map(|(_, first, last)| first.0..=last.0).collect::<BTreeSet<_>>(), fresh(track));
            }
            prop_assert!(Model::of(&copy, &journal) == model);
            if dice.below(4) == 0 {
                drop(copy);
                assert_sound(&disk);
                copy = open_copy(&disk).0;
                prop_assert!(Model::of(&copy, &journal) == model);
            }
        }
        prop_assert_eq!(copy.usage(), copy.reader().stats().expect("stats"));
    }
}

fn crash_often(seed: u64, options: Options) {
    let (mut dice, disk, mut model) = (Dice(seed), Disk::default(), Model::default());
    let journal = journal(&mut dice, 2000, &[10, 3_000, 62_000]);
    let (mut mid_commit, mut records) = (0, 100);
    for _ in 0..100 {
        disk.crash_in(dice.below(120));
        let mut in_flight = None;
        if let Ok((mut copy, _)) = Replica::open(disk.opener(), options, ORIGIN, LIFE) {
            loop {
                records = (records + dice.below(5)).min(2000);
                let commit = some_commit(&mut dice, &journal, records);
                match copy.commit(&commit) {
                    Ok(_) => model.apply(&commit),
                    Err(CommitError::Unusable { .. } | CommitError::Io { .. }) if disk.is_dead() => {
                        in_flight = Some(commit);
                        break;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        disk.restart(&mut dice);
        assert_sound(&disk);
        let found = Model::of(&open_copy(&disk).0, &journal);
        if let Some(commit) = in_flight {
            mid_commit += 1;
            let mut with = model.clone();
            with.apply(&commit);
            assert!(found == model || found == with, "neither without the commit in flight nor with all of it");
        } else {
            assert!(found == model);
        }
        model = found;
    }
    assert!(mid_commit > 30, "only {mid_commit} crashes hit a commit");
}

#[test]
fn no_power_cut_leaves_part_of_a_run() {
    crash_often(1, small_options());
    crash_often(2, small_options());
}

#[test]
fn no_power_cut_leaves_part_of_a_run_with_quick_repair() {
    crash_often(3, Options { quick_repair_above: 0, ..small_options() });
}

#[test]
fn a_failed_commit_leaves_what_was_held() {
    let (mut dice, disk) = (Dice(1), Disk::default());
    let journal = journal(&mut dice, 50, &[100]);
    let (mut copy, _) = open_copy(&disk);
    let one =
        |first, last| ReplicaCommit { runs: vec![run_of(&journal, Track::Raw, first, last)], ..Default::default() };
    copy.commit(&one(1, 20)).expect("committed");
    let before = Model::of(&copy, &journal);
    disk.fail_syncs(2);
    assert!(copy.commit(&one(10, 30)).is_err());
    let mut tries = 0;
    while copy.commit(&one(10, 30)).is_err() {
        tries += 1;
        assert!(tries < 5);
    }
    let after = Model::of(&copy, &journal);
    assert!(before != after);
    assert_eq!(after.covered[Track::Raw as usize], (1..=30).collect());
}

/// A block of one reading each.
fn events(devices: &[String], at: i64) -> Append {
    let mut builder = BatchBuilder::default();
    for device in devices {
        builder.begin(device);
        builder.time(Timestamp(at));
        assert!(builder.cell("x", Value::F64(1.5)));
        builder.end();
    }
    let mut payload = Vec::new();
    block::encode(&builder.finish()[0], &mut payload);
    let devices: Vec<u64> = devices.iter().map(|device| device_hash(device)).collect();
    let (rows, min_time, max_time) = (devices.len() as u32, Timestamp(at), Timestamp(at));
    let payload = Bytes::from(payload);
    Append { kind: RecordKind::Events, hlc: Hlc(at as u64), rows, min_time, max_time, devices, payload }
}

/// All that a reader tells of a journal, but for the time of writing and how records are packed.
fn told(reader: &Reader) -> Vec<String> {
    let mut told = Vec::new();
    let note = |what: String, told: &mut Vec<String>, record: RecordRef<'_>| {
        told.push(format!("{what} {:?}", RecordRef { written_ms: 0, incarnation: LIFE, ..record }));
        ControlFlow::Continue(())
    };
    for class in Class::ALL {
        reader.scan(class, Seq(40), |record| note(format!("{class:?}"), &mut told, record)).expect("scan");
        reader
            .scan_newest(class, Seq(300), |record| note(format!("newest {class:?}"), &mut told, record))
            .expect("scan");
        let usage = *reader.stats().expect("stats").class(class);
        told.push(format!("{} {} {:?} {:?}", usage.records, usage.events, usage.first_seq, usage.last_seq));
    }
    for device in 0..40 {
        let hash = device_hash(&format!("press-{device}"));
        let each = |record: RecordRef<'_>| {
            // A value that is packed otherwise may give records too many; those that hold the device must all be there.
            let mut inside = false;
            block::devices(record.payload, &mut |name, _| inside |= device_hash(name) == hash).expect("a block");
            if inside { note(format!("press-{device}"), &mut told, record) } else { ControlFlow::Continue(()) }
        };
        reader.scan_series(Timestamp(50), Timestamp(250), hash, each).expect("scan");
    }
    told.push(reader.stats().expect("stats").next_seq.0.to_string());
    told
}

#[test]
fn a_journal_copied_in_any_order_reads_the_same() {
    for seed in 0..12 {
        let (mut dice, disk) = (Dice(seed), Disk::default());
        let options = Options { fresh_incarnation: LIFE, ..small_options() };
        let (mut store, opened) = Store::open(disk.opener(), options, ORIGIN).expect("opens");
        assert_eq!(opened.incarnation, LIFE);
        while store.usage().next_seq < Seq(350) {
            let at = store.usage().next_seq.0 as i64;
            let records = (0..1 + dice.below(6)).map(|i| match dice.below(3) {
                0 => append(RecordKind::Panes, dice.bytes(900)),
                1 => append(RecordKind::Alerts, dice.bytes(90)),
                _ => {
                    let first = dice.below(35);
                    let devices: Vec<String> = (first..first + 5).map(|device| format!("press-{device}")).collect();
                    events(&devices, at + i as i64)
                }
            });
            let records = records.collect();
            let retain = quota(Class::Pane, 60_000);
            store.commit(&Commit { records, retain, now_ms: at, ..Commit::default() }).expect("committed");
        }
        let mut origin = Journal::new();
        crate::export(&store.reader(), Seq(1), |record| {
            let RecordRef { kind, hlc, rows, min_time, max_time, .. } = record;
            let payload = Bytes::copy_from_slice(record.payload);
            // What comes over the wire does not say which devices are inside.
            origin.insert(record.seq.0, Append { kind, hlc, rows, min_time, max_time, devices: Vec::new(), payload });
            ControlFlow::Continue(())
        })
        .expect("export");
        let head = store.usage().next_seq.0 - 1;
        let (copy_disk, mut commits) = (Disk::default(), 0);
        let (mut copy, _) = open_copy(&copy_disk);
        while Track::ALL.iter().any(|track| !copy.held().track(*track).covers(1, head)) {
            let runs = vec![some_run(&mut dice, &origin, head), some_run(&mut dice, &origin, head)];
            copy.commit(&ReplicaCommit { runs, now_ms: commits, ..Default::default() }).expect("committed");
            commits += 1;
        }
        assert_eq!(told(&copy.reader()), told(&store.reader()));
        assert_eq!(everything(&copy.reader()), everything(&store.reader()));
        drop(copy);
        assert_sound(&copy_disk);
    }
}

#[test]
fn devices_are_looked_up_in_the_blocks() {
    let (disk, mut origin) = (Disk::default(), Journal::new());
    for seq in 1..=40u64 {
        let devices: Vec<String> = (0..1800).map(|device| format!("press-{}", seq * 10_000 + device)).collect();
        origin.insert(seq, Append { devices: Vec::new(), ..events(&devices, seq as i64) });
    }
    let (mut copy, _) = open_copy(&disk);
    for seq in 1..=40 {
        let runs = vec![run_of(&origin, Track::Raw, seq, seq)];
        copy.commit(&ReplicaCommit { runs, ..Default::default() }).expect("committed");
    }
    let mut found = Vec::new();
    let each = |record: RecordRef<'_>| {
        found.push(record.seq.0);
        ControlFlow::Continue(())
    };
    copy.reader().scan_series(Timestamp(0), Timestamp(99), device_hash("press-170001"), each).expect("scan");
    assert!(found.contains(&17) && found.len() < 6, "{found:?}");
}

#[test]
fn what_retention_dropped_stays_covered_and_is_not_passed_on() {
    let (mut dice, disk) = (Dice(9), Disk::default());
    let origin = journal(&mut dice, 300, &[20_000]);
    let raw = |first, last| run_of(&origin, Track::Raw, first, last);
    let (mut copy, _) = open_copy(&disk);
    for at in 0..10 {
        let runs = vec![raw(101 + at * 20, 120 + at * 20)];
        let commit =
            ReplicaCommit { runs, retain: quota(Class::Raw, 600_000), now_ms: at as i64, ..Default::default() };
        let dropped = copy.commit(&commit).expect("committed").dropped;
        assert!(dropped.iter().all(|range| range.class == Class::Raw && range.reason == DropReason::Quota));
        assert!(copy.usage().class(Class::Raw).bytes <= 600_000);
    }
    let usage = *copy.usage().class(Class::Raw);
    let held = copy.held().clone();
    assert_eq!(held.track(Track::Raw).iter().collect::<Vec<_>>(), [(101, 300)]);
    assert!(held.floor(Track::Raw) >= Seq(150) && held.floor(Track::Raw) < usage.first_seq);
    assert_eq!(held.offered(Track::Raw).iter().collect::<Vec<_>>(), [(held.floor(Track::Raw).0 + 1, 300)]);
    assert_eq!(held.floor(Track::Results), Seq(0));
    let copied = origin.range(101..).filter(|(_, append)| append.kind == RecordKind::Events).count() as u64;
    assert_eq!(usage.records + usage.dropped_for(DropReason::Quota).records, copied);

    // What is older than that would be the next to go: it is covered, and counted, but not stored.
    let before = everything(&copy.reader());
    let committed = copy.commit(&ReplicaCommit { runs: vec![raw(1, 100)], ..Default::default() }).expect("committed");
    assert_eq!((committed.records, committed.covered.len()), (0, 1));
    assert_eq!(everything(&copy.reader()), before);
    assert!(copy.usage().class(Class::Raw).dropped_for(DropReason::Age).records > 0);
    assert!(copy.held().track(Track::Raw).covers(1, 300));
    let held = copy.held().clone();
    drop(copy);
    assert_sound(&disk);
    assert_eq!(open_copy(&disk).0.held(), &held);
}

#[test]
fn a_full_disk_refuses_a_run_or_gives_up_the_oldest() {
    let (mut dice, disk) = (Dice(5), Disk::default());
    disk.limit(Some(4 << 20));
    let origin = journal(&mut dice, 900, &[30_000]);
    let (mut copy, _) = open_copy(&disk);
    let commit =
        |seq, shed| ReplicaCommit { runs: vec![run_of(&origin, Track::Raw, seq, seq)], shed, ..Default::default() };
    let (mut seq, mut refused) = (1, 0);
    // Opening the file again after the first refusal may cut some room off its end.
    while refused < 3 {
        match copy.commit(&commit(seq, None)) {
            Ok(_) => (seq, refused) = (seq + 1, 0),
            Err(CommitError::Full { .. }) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(seq > 20 && seq < 800);
    assert_eq!(copy.held().track(Track::Raw).last(), seq - 1);
    for seq in seq..seq + 60 {
        let dropped = copy.commit(&commit(seq, Some(Shed::when_full(500_000)))).expect("there is room").dropped;
        assert!(dropped.iter().all(|range| range.reason == DropReason::DiskFull));
    }
    assert!(copy.held().floor(Track::Raw) > Seq(0));
    assert!(copy.held().track(Track::Raw).covers(1, seq + 59));
    drop(copy);
    assert_sound(&disk);
}

#[test]
fn a_file_is_the_copy_of_one_journal_only() {
    let (disk, own) = (Disk::default(), Disk::default());
    drop(open_copy(&disk));
    drop(open(&own));
    let refused = |disk: &Disk, origin, incarnation| {
        matches!(Replica::open(disk.opener(), small_options(), origin, incarnation), Err(OpenError::Foreign { .. }))
    };
    assert!(refused(&disk, ORIGIN, Incarnation(4)));
    assert!(refused(&disk, millpond_core::ids::Origin([1; 16]), LIFE));
    assert!(refused(&own, ORIGIN, Incarnation(1)));

    let (mut store, opened) = open(&disk);
    assert_eq!((opened.origin, opened.incarnation, opened.created), (ORIGIN, LIFE, false));
    assert!(matches!(store.commit(&Commit::default()), Err(CommitError::Refused { .. })));
    drop(store);
    let repaired = crate::repair(&disk.opener(), &Disk::default().opener(), small_options(), 0);
    assert!(matches!(repaired, Err(crate::RepairError::Copy)));
}

#[test]
fn a_run_that_is_not_what_it_says_is_refused() {
    let disk = Disk::default();
    let (mut copy, _) = open_copy(&disk);
    let pane = || append(RecordKind::Panes, "p");
    let run = |track, first, last, records| ReplicaRun { track, first: Seq(first), last: Seq(last), records };
    for bad in [
        run(Track::Results, 0, 3, vec![]),
        run(Track::Results, 4, 3, vec![]),
        run(Track::Raw, 1, 3, vec![(Seq(2), pane())]),
        run(Track::Results, 1, 3, vec![(Seq(4), pane())]),
        run(Track::Results, 1, 3, vec![(Seq(2), pane()), (Seq(2), pane())]),
    ] {
        let commit = ReplicaCommit { runs: vec![run(Track::Results, 1, 1, vec![]), bad], ..Default::default() };
        assert!(matches!(copy.commit(&commit), Err(CommitError::Refused { .. })));
    }
    assert!(copy.held().track(Track::Results).is_empty());
}
