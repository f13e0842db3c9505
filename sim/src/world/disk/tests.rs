//! Disks alone; `model` holds them against a naive one, `store` puts a real store on them.

mod faults;
mod model;
mod store;
mod tearing;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use millpond_core::time::Span;
use millpond_env::BlockDevice;

use super::*;

const MB: u64 = 1 << 20;

fn disk_of(seed: u64, spec: DiskSpec) -> Disk {
    Disk::new(Core::new(seed, 0.0), HostId(0), "test", spec)
}

fn disk(seed: u64) -> Disk {
    disk_of(seed, DiskSpec::default())
}

fn content(device: &dyn BlockDevice) -> Vec<u8> {
    let mut out = vec![0; device.len().unwrap() as usize];
    device.read(0, &mut out).unwrap();
    out
}

/// Switches the disk's host off and on again, and reads a file.
fn after_power_loss(disk: &Disk, path: &str) -> Vec<u8> {
    disk.freeze();
    disk.power_off();
    content(disk.power_on().open(path).unwrap().as_ref())
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn what_was_synced_is_there_after_a_power_loss() {
    let disk = disk(1);
    let device = disk.power_on().open("a/device").unwrap();
    device.write(1000, &[7; 10_000]).unwrap();
    device.sync().unwrap();
    let before = content(device.as_ref());
    assert_eq!(after_power_loss(&disk, "a/device"), before);
    assert_eq!((disk.stats().power_losses, disk.stats().power_losses_mid_commit), (1, 0));
}

#[test]
fn writes_that_were_not_synced_are_kept_lost_or_torn() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..100 {
        let disk = disk(seed);
        let device = disk.power_on().open("device").unwrap();
        device.write(0, &[1; 4096]).unwrap();
        device.sync().unwrap();
        device.write(0, &[2; 4096]).unwrap();
        assert!(disk.is_mid_commit());
        let found = after_power_loss(&disk, "device");
        for sector in found.chunks(512) {
            assert!(sector == [1; 512] || sector == [2; 512], "a sector is never half written");
        }
        let twos = found.iter().filter(|byte| **byte == 2).count();
        let stats = disk.stats();
        assert_eq!((stats.sectors_kept, stats.sectors_lost), (twos as u64 / 512, 8 - twos as u64 / 512));
        assert_eq!(stats.power_losses_mid_commit, 1);
        assert_eq!(stats.torn, u64::from(twos % 4096 != 0));
        kept += u32::from(twos == 4096);
        lost += u32::from(twos == 0);
        torn += u32::from(twos % 4096 != 0);
    }
    assert!(kept > 10 && lost > 10 && torn > 10, "{kept} kept, {lost} lost, {torn} torn");
}

#[test]
fn a_program_that_ends_leaves_its_writes_to_the_system() {
    let disk = disk(1);
    let device = disk.power_on().open("device").unwrap();
    device.write(0, &[7; 4096]).unwrap();
    disk.freeze();
    disk.close();
    disk.power_on();
    assert_eq!(after_power_loss(&disk, "device"), [7; 4096]);
}

#[test]
fn handles_of_an_earlier_boot_reach_nothing() {
    let disk = disk(1);
    let boot = disk.power_on();
    let device = boot.open("device").unwrap();
    disk.freeze();
    assert!(device.write(0, b"x").is_err() && boot.open("device").is_err() && boot.list("").is_err());
    disk.close();
    let next = disk.power_on();
    let again = next.open("device").unwrap();
    assert!(device.write(0, b"x").is_err() && device.len().is_err() && boot.space().is_err());
    drop(device);
    assert_eq!(kind(next.open("device")), io::ErrorKind::ResourceBusy, "an old handle owns nothing");
    drop(again);
    assert_eq!(next.open("device").unwrap().len().unwrap(), 0);
}

#[test]
fn a_file_has_one_owner_at_a_time_even_under_another_name() {
    let boot = disk(1).power_on();
    let device = boot.open("a").unwrap();
    assert_eq!(kind(boot.open("a")), io::ErrorKind::ResourceBusy);
    boot.rename("a", "b").unwrap();
    assert_eq!(kind(boot.open("b")), io::ErrorKind::ResourceBusy);
    device.write(0, b"pond").unwrap();
    assert_eq!(boot.read("b").unwrap().unwrap(), b"pond");
    drop(device);
    boot.open("b").unwrap();
}

#[test]
fn a_removed_file_lives_until_its_owner_drops_it() {
    let disk = disk(1);
    let boot = disk.power_on();
    let device = boot.open("a").unwrap();
    device.write(0, &[1; 8192]).unwrap();
    boot.remove("a").unwrap();
    assert_eq!((boot.read("a").unwrap(), kind(boot.remove("a"))), (None, io::ErrorKind::NotFound));
    assert_eq!((content(device.as_ref()), disk.stats().used), (vec![1; 8192], 8192));
    drop(device);
    assert_eq!(disk.stats().used, 0);
}

#[test]
fn whole_files_are_replaced_moved_listed_and_removed() {
    let disk = disk(1);
    let boot = disk.power_on();
    assert_eq!(boot.read("a").unwrap(), None);
    for (path, content) in [("keys/a", "one"), ("keys/a", "two"), ("keys-old", ""), ("keys/z/y", "x"), ("keys/b", "b")]
    {
        boot.write(path, content.as_bytes()).unwrap();
    }
    assert_eq!(boot.list("").unwrap(), ["keys", "keys-old"]);
    assert_eq!(boot.list("./keys/").unwrap(), ["a", "b", "z"]);
    boot.rename("keys/a", "keys/b").unwrap();
    assert_eq!(boot.read("keys/b").unwrap().unwrap(), b"two");
    assert_eq!(kind(boot.rename("keys/a", "c")), io::ErrorKind::NotFound);
    boot.remove("keys/z/y").unwrap();
    disk.power_off();
    let boot = disk.power_on();
    assert_eq!((boot.list("keys").unwrap(), boot.list("none").unwrap()), (vec!["b".to_owned()], vec![]));
    for path in ["../x", "/etc/passwd", "a/../../x"] {
        assert_eq!(kind(boot.read(path)), io::ErrorKind::InvalidInput, "{path}");
    }
}

#[test]
fn holes_cost_no_space_and_what_is_cut_off_is_free_again() {
    let disk = disk_of(1, DiskSpec { size: MB, ..DiskSpec::default() });
    let boot = disk.power_on();
    let device = boot.open("device").unwrap();
    device.set_len(100 * MB).unwrap();
    assert_eq!((disk.stats().used, boot.space().unwrap().free), (0, MB));
    device.write(99 * MB + 4000, &[1; 200]).unwrap();
    assert_eq!((disk.stats().used, boot.space().unwrap().free), (8192, MB - 8192));
    assert_eq!(content(device.as_ref()).iter().filter(|byte| **byte == 1).count(), 200);
    device.set_len(99 * MB + 4001).unwrap();
    assert_eq!(disk.stats().used, 4096);
    device.set_len(10).unwrap();
    assert_eq!((disk.stats().used, disk.stats().peak_used), (0, 8192));
    let mut beyond = [0; 2];
    assert_eq!(kind(device.read(9, &mut beyond)), io::ErrorKind::UnexpectedEof);
}

#[test]
fn jobs_take_the_time_of_their_operations_and_nothing_else_does() {
    let spec = DiskSpec { sync: (Span(1000), Span(2000)), bytes_per_second: 1_000_000_000, ..DiskSpec::default() };
    let disk = disk_of(1, spec);
    let device = disk.power_on().open("device").unwrap();
    device.write(0, &[0; 4096]).unwrap();
    device.sync().unwrap();
    assert_eq!(disk.end_job(), 0);
    let behind = Arc::new(AtomicU64::new(0));
    let foreseen = disk.foresee();
    assert!((1000..=2000).contains(&foreseen));
    disk.begin_job(behind.clone(), 4196);
    assert_eq!(behind.load(Ordering::Relaxed), 4196);
    device.write(0, &[0; 4096]).unwrap();
    assert_eq!(behind.load(Ordering::Relaxed), 100);
    device.read(0, &mut [0; 50]).unwrap();
    assert_eq!(behind.load(Ordering::Relaxed), 50);
    device.sync().unwrap();
    assert_eq!(behind.load(Ordering::Relaxed), 0, "a clock is never ahead");
    let spent = disk.end_job();
    assert!((4096 + 50 + 1000..=4096 + 50 + 2000).contains(&spent), "{spent}");
}

#[test]
fn a_job_within_a_job_spends_the_time_of_both() {
    let disk = disk_of(1, DiskSpec { bytes_per_second: 1_000_000_000, ..DiskSpec::default() });
    let device = disk.power_on().open("device").unwrap();
    let (outer, inner) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    disk.begin_job(outer.clone(), 5000);
    device.write(0, &[0; 1000]).unwrap();
    disk.begin_job(inner.clone(), 0);
    device.write(0, &[0; 300]).unwrap();
    assert_eq!((disk.end_job(), outer.load(Ordering::Relaxed)), (300, 3700));
    assert_eq!(disk.end_job(), 1300);
}

#[test]
fn the_same_seed_tears_the_same_whatever_a_sync_takes() {
    let run = |seed, sync_ns: i64| {
        let core = Core::new(seed, 0.0);
        let disk = Disk::new(core.clone(), HostId(0), "test", DiskSpec::default());
        disk.set_sync_time((Span(0), Span(sync_ns)));
        let device = disk.power_on().open("device").unwrap();
        disk.begin_job(Arc::default(), 0);
        for round in 0..100_u64 {
            device.write(round * 3000 % 70_000, &[round as u8; 9000]).unwrap();
            if round % 60 == 7 {
                device.sync().unwrap();
            }
        }
        let spent = disk.end_job();
        let torn = after_power_loss(&disk, "device");
        (torn, core.tracer().hash(), spent)
    };
    assert_eq!(run(1, 5000), run(1, 5000));
    let ((one, hash, spent), (other, other_hash, other_spent)) = (run(1, 5000), run(1, 90_000));
    assert!(one == other && hash == other_hash && spent != other_spent);
    let (another, another_hash, _) = run(2, 5000);
    assert!(one != another && hash != another_hash);
}

#[test]
fn the_trace_knows_which_bytes_were_written() {
    let hash = |byte: u8| {
        let core = Core::new(1, 0.0);
        let disk = Disk::new(core.clone(), HostId(0), "test", DiskSpec::default());
        disk.power_on().open("device").unwrap().write(0, &[byte; 5000]).unwrap();
        core.tracer().hash()
    };
    assert!(hash(1) == hash(1) && hash(1) != hash(2));
}

#[test]
fn a_snapshot_and_its_file_do_not_see_each_others_writes() {
    let disk = disk(1);
    let device = disk.power_on().open("device").unwrap();
    device.write(0, &[1; 10_000]).unwrap();
    assert!(disk.snapshot("other").is_none());
    let view = disk.snapshot("device").unwrap();
    device.write(0, &[2; 5000]).unwrap();
    device.sync().unwrap();
    device.write(0, &[2; 5000]).unwrap();
    assert_eq!(content(view.as_ref()), [1; 10_000]);
    view.write(3000, &[3; 9000]).unwrap();
    view.set_len(11_000).unwrap();
    let expected = [vec![1; 3000], vec![3; 8000]].concat();
    assert_eq!(content(view.as_ref()), expected);
    assert_eq!(content(device.as_ref()), [vec![2; 5000], vec![1; 5000]].concat());
    disk.freeze();
    assert_eq!(content(disk.snapshot("device").unwrap().as_ref()).len(), 10_000, "a frozen disk can be looked at");
}
