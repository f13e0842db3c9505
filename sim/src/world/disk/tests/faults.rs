//! What goes wrong on request.

use super::*;
use crate::world::disk::log::OLD_PAGES_MAX;

#[test]
fn a_full_disk_refuses_a_write_and_changes_nothing() {
    let disk = disk_of(1, DiskSpec { size: 16 * 4096, ..DiskSpec::default() });
    let boot = disk.power_on();
    let device = boot.open("device").unwrap();
    device.write(0, &[1; 10 * 4096]).unwrap();
    disk.set_fill(4 * 4096);
    let before = content(device.as_ref());
    assert_eq!(kind(device.write(9 * 4096, &[2; 4 * 4096])), io::ErrorKind::StorageFull);
    assert_eq!(kind(boot.write("file", &[3; 3 * 4096])), io::ErrorKind::StorageFull);
    assert!(content(device.as_ref()) == before && boot.read("file").unwrap().is_none());
    assert_eq!((disk.stats().full, disk.stats().used, boot.space().unwrap().free), (2, 10 * 4096, 2 * 4096));
    device.write(9 * 4096, &[2; 3 * 4096]).unwrap();
    assert_eq!(kind(device.write(12 * 4096, b"x")), io::ErrorKind::StorageFull);
    device.write(0, &[4; 12 * 4096]).unwrap();
    disk.free_leave(4096);
    boot.write("file", &[3; 4096]).unwrap();
    assert_eq!(
        kind(boot.write("file", b"x")),
        io::ErrorKind::StorageFull,
        "the old content holds its space until then"
    );
    assert_eq!(boot.read("file").unwrap().unwrap(), [3; 4096]);
}

#[test]
fn a_disk_that_lies_loses_what_it_said_was_synced() {
    let mut lost = 0;
    for seed in 0..30 {
        let disk = disk(seed);
        disk.set_lies(true);
        let device = disk.power_on().open("device").unwrap();
        device.write(0, &[1; 4096]).unwrap();
        device.sync().unwrap();
        let found = after_power_loss(&disk, "device");
        lost += u32::from(found != [1; 4096]);
        disk.set_lies(false);
        let device = disk.power_on().open("device").unwrap();
        device.write(0, &[2; 4096]).unwrap();
        device.sync().unwrap();
        assert_eq!(after_power_loss(&disk, "device"), [2; 4096]);
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn a_disk_that_lies_for_long_remembers_only_so_much() {
    let disk = disk(1);
    disk.set_lies(true);
    let device = disk.power_on().open("device").unwrap();
    for round in 0..40_u64 {
        device.write(round % 3 * MB, &vec![round as u8; MB as usize * 4]).unwrap();
        device.sync().unwrap();
        assert!(disk.lock().file(0).unwrap().dirty_pages().count() <= OLD_PAGES_MAX);
    }
    assert!(disk.is_mid_commit());
    let found = after_power_loss(&disk, "device");
    assert!(found.iter().all(|byte| *byte >= 20), "the older half was written back");
}

#[test]
fn what_a_failed_sync_did_not_write_is_seen_until_the_power_goes() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = disk(seed);
        let device = disk.power_on().open("device").unwrap();
        device.write(0, &[1; 8192]).unwrap();
        device.sync().unwrap();
        device.write(0, &[2; 8192]).unwrap();
        device.set_len(12_000).unwrap();
        disk.fail_syncs(1);
        assert!(device.sync().is_err());
        device.sync().unwrap();
        assert_eq!(content(device.as_ref())[..8192], [2; 8192], "it counts as written");
        device.write(4096, &[3; 4096]).unwrap();
        device.sync().unwrap();
        let found = after_power_loss(&disk, "device");
        assert_eq!(found[4096..8192], [3; 4096], "what was written once more is there");
        assert!(found[..4096].chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
        assert_eq!(found[8192..], [0; 12_000 - 8192]);
        lost += u32::from(found[..4096] != [2; 4096]);
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn a_file_whose_sync_fails_is_not_replaced() {
    let disk = disk(1);
    let boot = disk.power_on();
    boot.write("file", b"old").unwrap();
    disk.fail_syncs(1);
    assert!(boot.write("file", b"new").is_err());
    assert_eq!(boot.read("file").unwrap().unwrap(), b"old");
    boot.write("file", b"new").unwrap();
    assert_eq!(boot.read("file").unwrap().unwrap(), b"new");
}

#[test]
fn rot_turns_bits_of_durable_pages_only() {
    let disk = disk(1);
    let boot = disk.power_on();
    assert_eq!(disk.flip_bits(5), 0, "there is nothing yet");
    let device = boot.open("device").unwrap();
    device.write(0, &[0; 100 * 4096]).unwrap();
    device.sync().unwrap();
    device.write(50 * 4096, &[0; 50 * 4096]).unwrap();
    let view = disk.snapshot("device").unwrap();
    assert_eq!(disk.flip_bits(20), 20);
    let found = content(device.as_ref());
    let (durable, fresh) = found.split_at(50 * 4096);
    assert_eq!(durable.iter().map(|byte| byte.count_ones()).sum::<u32>(), 20);
    assert!(fresh.iter().all(|byte| *byte == 0));
    assert!(content(view.as_ref()).iter().all(|byte| *byte == 0), "a view does not rot");
}

#[test]
fn a_wiped_disk_is_new() {
    let disk = disk(1);
    let boot = disk.power_on();
    let device = boot.open("device").unwrap();
    device.write(0, b"pond").unwrap();
    disk.wipe();
    assert!(device.len().is_err());
    let boot = disk.power_on();
    assert!(boot.list("").unwrap().is_empty());
    assert_eq!((boot.open("device").unwrap().len().unwrap(), disk.stats().used), (0, 0));
}

/// One commit as redb does it: pages, a sync, the header that names them, a sync: twelve operations.
fn commit(device: &dyn BlockDevice, generation: u8) -> io::Result<()> {
    let body = 4096 * (1 + u64::from(generation % 2) * 8);
    device.set_len(20 * 4096 + u64::from(generation) * 4096)?;
    for page in 0..8 {
        device.write(body + page * 4096, &[generation; 4096])?;
    }
    device.sync()?;
    device.write(0, &[generation; 512])?;
    device.sync()
}

#[test]
fn a_power_loss_during_any_operation_leaves_the_old_commit_or_the_new() {
    let (mut old, mut new) = ([0; 14], [0; 14]);
    for seed in 0..20 {
        for k in 1..=13 {
            let disk = disk(seed);
            let device = disk.power_on().open("device").unwrap();
            commit(device.as_ref(), 1).unwrap();
            disk.die_in(k);
            let result = commit(device.as_ref(), 2);
            assert_eq!((result.is_err(), disk.is_dead()), (k <= 12, k <= 12), "killed in {k}");
            if disk.is_dead() {
                assert!(device.len().is_err() && device.sync().is_err() && device.read(0, &mut []).is_err());
            }
            let found = after_power_loss(&disk, "device");
            assert!(!disk.is_dead());
            let generation = found[0];
            assert!(generation == 2 || result.is_err());
            assert_eq!(found[..512], [generation; 512]);
            let body = 4096 * (1 + usize::from(generation % 2) * 8);
            assert!(found[body..body + 8 * 4096].iter().all(|byte| *byte == generation), "killed in {k}");
            assert!(k > 10 || generation == 1);
            old[k as usize] += u32::from(generation == 1);
            new[k as usize] += u32::from(generation == 2);
        }
    }
    for k in [11, 12] {
        assert!(old[k] > 3 && new[k] > 3, "killed in {k}: {old:?} old, {new:?} new");
    }
}

#[test]
fn a_power_loss_while_a_file_is_replaced_leaves_the_old_or_the_new() {
    let mut new = 0;
    for seed in 0..40 {
        let disk = disk(seed);
        disk.power_on().write("file", b"old").unwrap();
        disk.power_off();
        disk.die_in(1);
        assert!(disk.power_on().write("file", b"new").is_err(), "armed before the boot");
        disk.power_off();
        let found = disk.power_on().read("file").unwrap().unwrap();
        assert!(found == b"old" || found == b"new");
        new += u32::from(found == b"new");
    }
    assert!((5..35).contains(&new), "{new}");
}

#[test]
fn a_dead_disk_tears_even_when_its_program_is_said_to_have_ended() {
    let disk = disk(1);
    let _boot = disk.power_on();
    disk.die_in(0);
    assert!(disk.is_dead());
    disk.close();
    assert_eq!((disk.is_dead(), disk.stats().power_losses), (false, 1));
}
