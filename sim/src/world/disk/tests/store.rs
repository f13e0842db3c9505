//! A real store on a disk that dies.

use millpond_core::{
    ids::{Origin, Seq},
    record::{Hlc, RecordKind},
    time::Timestamp,
};
use millpond_store::{Append, Commit, OpenDevice, Opened, Options, Store};

use super::*;

const FILE: &str = "journal.redb";

fn opener(disk: &Disk) -> OpenDevice {
    let boot = disk.power_on();
    Box::new(move || boot.open(FILE))
}

fn open(disk: &Disk) -> Option<(Store, Opened)> {
    let options = Options { cache_bytes: 1 << 20, ballast_bytes: 64 << 10, ..Options::default() };
    Store::open(opener(disk), options, Origin([7; 16])).ok()
}

fn some_commit(tag: u64) -> Commit {
    let records = (0..3)
        .map(|i| {
            let mut payload = format!("{tag}/{i}/").into_bytes();
            payload.resize([20, 5000, 61_000][(tag + i) as usize % 3], tag as u8);
            Append {
                kind: RecordKind::Events,
                hlc: Hlc(1),
                rows: 1,
                min_time: Timestamp(0),
                max_time: Timestamp(0),
                devices: Vec::new(),
                payload: payload.into(),
            }
        })
        .collect();
    Commit { records, now_ms: tag as i64, ..Commit::default() }
}

/// Commits until `commits` are there or the power is gone. Returns how many are acknowledged, and whether the store was founded.
fn run(disk: &Disk, commits: u64) -> (u64, bool) {
    let Some((mut store, opened)) = open(disk) else { return (0, false) };
    assert!(opened.created);
    let acknowledged = (0..commits).take_while(|tag| store.commit(&some_commit(*tag)).is_ok()).count();
    (acknowledged as u64, true)
}

/// How many commits are in the store, each whole; `None` when it does not open or is not sound.
fn commits_found(disk: &Disk) -> Option<(u64, Opened)> {
    if !millpond_store::verify(&opener(disk)).ok()?.is_sound() {
        return None;
    }
    let (store, opened) = open(disk)?;
    let mut found = Vec::new();
    millpond_store::export(&store.reader(), Seq(1), |record| {
        found.push(record.payload.to_vec());
        std::ops::ControlFlow::Continue(())
    })
    .ok()?;
    let commits = found.len() as u64 / 3;
    let expected = (0..commits).flat_map(|tag| some_commit(tag).records).map(|append| append.payload.to_vec());
    (expected.collect::<Vec<_>>() == found).then_some((commits, opened))
}

#[test]
fn nothing_acknowledged_is_lost_in_whichever_operation_the_power_goes() {
    let mut stats = DiskStats::default();
    for k in 1.. {
        let disk = disk(k);
        disk.die_in(k);
        let (acknowledged, founded) = run(&disk, 6);
        let died = disk.is_dead();
        disk.freeze();
        disk.power_off();
        let (found, opened) = commits_found(&disk).unwrap_or_else(|| panic!("killed in operation {k}"));
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} of {acknowledged}, killed in {k}");
        assert!(!(founded && opened.created), "what was founded stays, killed in {k}");
        let this = disk.stats();
        stats.torn += this.torn;
        stats.power_losses_mid_commit += this.power_losses_mid_commit;
        if !died {
            assert!(acknowledged == 6 && k > 50, "{acknowledged} commits in {k} operations");
            break;
        }
    }
    assert!(stats.power_losses_mid_commit > 20 && stats.torn > 10, "{stats:?}");
}

#[test]
fn a_store_on_a_disk_that_lies_does_lose() {
    let lost = (1..20).filter(|seed| {
        let disk = disk(*seed);
        disk.set_lies(true);
        let (acknowledged, _) = run(&disk, 6);
        disk.freeze();
        disk.power_off();
        disk.set_lies(false);
        commits_found(&disk).is_none_or(|(found, _)| found < acknowledged)
    });
    assert!(lost.count() > 5, "the check above can fail");
}

#[test]
fn a_snapshot_of_a_running_store_is_a_store() {
    let disk = disk(1);
    let (mut store, _) = open(&disk).unwrap();
    for tag in 0..5 {
        store.commit(&some_commit(tag)).unwrap();
    }
    let before = content(disk.snapshot(FILE).unwrap().as_ref());
    let seen = disk.clone();
    let view: OpenDevice = Box::new(move || seen.snapshot(FILE).ok_or_else(|| io::ErrorKind::NotFound.into()));
    let report = millpond_store::verify(&view).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.usage.next_seq, Seq(16));
    assert!(content(disk.snapshot(FILE).unwrap().as_ref()) == before, "looking changes nothing");
}
