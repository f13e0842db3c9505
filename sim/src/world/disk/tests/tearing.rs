//! Exactly which of the contents of a sector is left: what the walk back has counted says it.

use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::world::disk::{file::File, image::Spare};

fn sectors(content: &[u8]) -> Vec<u8> {
    content.chunks(512).map(|sector| sector[0]).collect()
}

fn count(content: &[u8], byte: u8) -> u64 {
    sectors(content).into_iter().filter(|first| *first == byte).count() as u64
}

#[test]
fn a_sector_holds_the_latest_write_that_was_kept() {
    let mut seen = [0; 5];
    for seed in 0..400 {
        let disk = disk(seed);
        let device = disk.power_on().open("device").unwrap();
        device.write(0, &[0; 512]).unwrap();
        device.sync().unwrap();
        for version in 1..=4 {
            device.write(0, &[version; 512]).unwrap();
        }
        let found = after_power_loss(&disk, "device")[0];
        let stats = disk.stats();
        assert_eq!(u64::from(found), 4 - stats.sectors_lost, "what is older than a kept write decides nothing");
        assert_eq!(stats.sectors_kept, u64::from(found > 0));
        seen[usize::from(found)] += 1;
    }
    assert!(seen.iter().all(|times| *times > 5), "{seen:?}");
}

#[test]
fn what_a_cut_took_is_gone_exactly_when_it_has_happened() {
    let mut seen = [0; 3];
    for seed in 0..100 {
        let disk = disk(seed);
        let device = disk.power_on().open("device").unwrap();
        device.write(0, &[1; 8192]).unwrap();
        device.sync().unwrap();
        device.write(4096, &[2; 4096]).unwrap();
        device.set_len(4096).unwrap();
        device.set_len(9000).unwrap();
        let found = after_power_loss(&disk, "device");
        let rest = &found[4096..];
        let case = [8192, 4096, 9000].into_iter().position(|len| len == found.len()).expect("a length that it had");
        match case {
            0 => assert_eq!(count(rest, 1) + count(rest, 2), 8, "the cut was lost"),
            1 => assert!(rest.is_empty()),
            _ => assert!(rest.iter().all(|byte| *byte == 0), "both changes of length have happened"),
        }
        seen[case] += 1;
    }
    assert!(seen.iter().all(|times| *times > 5), "{seen:?}");
}

#[test]
fn a_write_after_a_cut_that_was_lost_is_kept_on_its_own() {
    let mut mixed = 0;
    for seed in 0..100 {
        let disk = disk(seed);
        let device = disk.power_on().open("device").unwrap();
        device.write(0, &[1; 8192]).unwrap();
        device.sync().unwrap();
        device.set_len(4096).unwrap();
        device.write(4096, &[3; 2048]).unwrap();
        let found = after_power_loss(&disk, "device");
        if found.len() == 8192 {
            assert_eq!(count(&found[4096..], 3), disk.stats().sectors_kept);
            mixed += u32::from((1..4).contains(&count(&found, 3)));
        }
    }
    assert!(mixed > 3, "{mixed}");
}

#[test]
fn a_sector_that_failed_to_be_written_keeps_what_was_on_the_medium() {
    let (mut rescued, mut twice) = (0, 0);
    for seed in 0..50 {
        let (mut file, mut spare, mut rng) = (File::default(), Spare::default(), StdRng::seed_from_u64(seed));
        file.write(0, &[1; 4096], &mut spare);
        file.sync(&mut spare);
        file.write(0, &[2; 4096], &mut spare);
        file.fail_sync(&mut rng);
        let first = file.doomed_sectors();
        file.write(0, &[3; 4096], &mut spare);
        file.fail_sync(&mut rng);
        let second = file.doomed_sectors();
        file.lose_power(&mut rng, &mut Default::default());
        let mut found = vec![0; 4096];
        file.image.read(0, &mut found).unwrap();
        for (at, byte) in (0..).zip(sectors(&found)) {
            let expected = match (first.contains(&at), second.contains(&at)) {
                (_, false) => 3,
                (true, true) => 1,
                (false, true) => 2,
            };
            assert_eq!(byte, expected, "sector {at}");
        }
        rescued += first.iter().filter(|at| !second.contains(at)).count();
        twice += first.iter().filter(|at| second.contains(at)).count();
    }
    assert!(rescued > 10 && twice > 10, "{rescued} rescued, {twice} failed twice");
}

#[test]
fn a_write_over_a_failed_one_can_be_kept_by_a_power_loss() {
    let mut kept = 0;
    for seed in 0..50 {
        let disk = disk(seed);
        let device = disk.power_on().open("device").unwrap();
        device.write(0, &[2; 4096]).unwrap();
        disk.fail_syncs(1);
        device.sync().unwrap_err();
        device.write(0, &[3; 4096]).unwrap();
        let found = after_power_loss(&disk, "device");
        assert_eq!(count(&found, 3), disk.stats().sectors_kept);
        kept += count(&found, 3);
    }
    assert!(kept > 50, "{kept}");
}
