//! A disk held against one that keeps every image it ever was.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::world::disk::image::SECTOR;

#[derive(Clone, Debug)]
enum Step {
    Write { offset: u64, len: usize },
    SetLen(u64),
    Sync,
    LosePower,
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..40_000_u64, 1..9000_usize).prop_map(|(offset, len)| Step::Write { offset, len }),
        6 => (0..10_u64, 1..3_usize).prop_map(|(page, pages)| Step::Write { offset: page * 4096, len: pages * 4096 }),
        3 => (0..60_000_u64).prop_map(Step::SetLen),
        2 => Just(Step::Sync),
        2 => Just(Step::LosePower),
        1 => Just(Step::End),
    ]
}

/// The file at the last sync and after each operation since then.
struct Naive {
    images: Vec<Vec<u8>>,
}

impl Naive {
    fn now(&self) -> &Vec<u8> {
        self.images.last().expect("there is an image")
    }

    fn settle(&mut self) {
        self.images.drain(..self.images.len() - 1);
    }

    /// What a power loss left must be made of what was there.
    fn check_torn(&self, found: &[u8]) {
        assert!(self.images.iter().any(|image| image.len() == found.len()), "no image was {} bytes long", found.len());
        for (at, sector) in found.chunks(SECTOR).enumerate() {
            let mut before = self.images.iter().map(|image| {
                let mut sector_then = [0; SECTOR];
                let from = &image[image.len().min(at * SECTOR)..image.len().min((at + 1) * SECTOR)];
                sector_then[..from.len()].copy_from_slice(from);
                sector_then
            });
            assert!(before.any(|then| then[..sector.len()] == *sector), "sector {at} was never so");
        }
    }
}

proptest! {
    #[test]
    fn a_disk_is_what_was_written_and_after_a_power_loss_each_sector_is_old_or_new(
        seed in any::<u64>(),
        steps in vec(step(), 1..60),
    ) {
        let disk = disk(seed);
        let mut device = disk.power_on().open("device").unwrap();
        let mut naive = Naive { images: vec![Vec::new()] };
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { offset, len } => {
                    let data = vec![number as u8 + 1; len];
                    device.write(offset, &data).unwrap();
                    let mut image = naive.now().clone();
                    image.resize(image.len().max(offset as usize + len), 0);
                    image[offset as usize..offset as usize + len].copy_from_slice(&data);
                    naive.images.push(image);
                }
                Step::SetLen(len) => {
                    device.set_len(len).unwrap();
                    let mut image = naive.now().clone();
                    image.resize(len as usize, 0);
                    naive.images.push(image);
                }
                Step::Sync => {
                    device.sync().unwrap();
                    naive.settle();
                }
                Step::LosePower => {
                    disk.freeze();
                    disk.power_off();
                    device = disk.power_on().open("device").unwrap();
                    let found = content(device.as_ref());
                    naive.check_torn(&found);
                    naive.images = vec![found];
                }
                Step::End => {
                    disk.freeze();
                    disk.close();
                    device = disk.power_on().open("device").unwrap();
                    naive.settle();
                }
            }
            prop_assert!(content(device.as_ref()) == *naive.now(), "after step {}", number);
            let image = disk.lock().image("device").unwrap().clone();
            prop_assert_eq!(disk.stats().used, image.pages().count() as u64 * 4096);
            prop_assert!(image.allocated() <= image.len().next_multiple_of(4096));
        }
    }
}
