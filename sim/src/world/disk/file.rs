//! One file: what readers see, what can be undone, and what only seems to be written.

use std::collections::BTreeMap;

use rand::{RngExt, rngs::StdRng};

use super::{
    image::{Image, PAGE, Page, SECTOR, SECTORS_PER_PAGE, Spare},
    log::{Log, What},
    tear::{Mood, Tally, tear},
};

#[derive(Debug, Default)]
pub struct File {
    pub image: Image,
    log: Log,
    /// Sectors that a failed sync has not written although readers see them, with what is on the medium.
    doomed: BTreeMap<u64, Sector>,
    /// The boot that has it open.
    pub owner: Option<u64>,
    /// It has no name any more and goes when its owner drops it.
    pub unlinked: bool,
}

/// A page of which one sector matters; `None` is zeros.
type Sector = Option<Page>;

impl File {
    /// A file with durable content.
    pub fn with_content(content: &[u8], spare: &mut Spare) -> File {
        let mut file = File::default();
        file.image.write(0, content, spare, |_, _| {});
        file
    }

    /// Un-synced operations.
    pub fn unsynced(&self) -> usize {
        self.log.ops().len()
    }

    /// Pages with un-synced or doomed content.
    pub fn dirty_pages(&self) -> impl Iterator<Item = u64> {
        self.log.pages().chain(self.doomed.keys().map(|sector| sector / SECTORS_PER_PAGE))
    }

    /// Sectors that only seem to be written.
    #[cfg(test)]
    pub fn doomed_sectors(&self) -> Vec<u64> {
        self.doomed.keys().copied().collect()
    }

    pub fn write(&mut self, offset: u64, data: &[u8], spare: &mut Spare) {
        let (before, log) = (self.image.len(), &mut self.log);
        self.image.write(offset, data, spare, |page, old| log.push_old(page, old));
        log.push(What::Write { offset, len: data.len() as u64 }, before, self.image.len());
        self.write_back(self.log.surplus(), spare);
    }

    pub fn set_len(&mut self, len: u64, spare: &mut Spare) {
        let (before, log) = (self.image.len(), &mut self.log);
        self.image.set_len(len, spare, |page, old| log.push_old(page, old));
        log.push(What::SetLen, before, len);
        self.write_back(self.log.surplus(), spare);
    }

    pub fn sync(&mut self, spare: &mut Spare) {
        self.write_back(self.log.ops().len(), spare);
    }

    /// The `count` oldest operations are on the medium.
    fn write_back(&mut self, count: usize, spare: &mut Spare) {
        if count == 0 {
            return;
        }
        if !self.doomed.is_empty() {
            for op in &self.log.ops()[..count] {
                let written = op.sectors();
                self.doomed.retain(|sector, _| !written.contains(sector));
            }
        }
        self.log.forget(count, spare);
    }

    /// Some of what was to be written has failed. Changes of length are in the file system's journal, and happen.
    pub fn fail_sync(&mut self, rng: &mut StdRng) {
        let mood = if rng.random() { Mood::Lose } else { Mood::Mix };
        let mut failed = BTreeMap::new();
        let settled = tear(&mut self.log, mood, usize::MAX, rng, &mut Tally::default(), |page, old, mask| {
            for bit in (0..SECTORS_PER_PAGE).filter(|bit| mask & 1 << bit != 0) {
                failed.insert(page * SECTORS_PER_PAGE + bit, old.clone());
            }
        });
        self.doomed.retain(|sector, _| !settled.contains(*sector));
        for (sector, content) in failed {
            // What an earlier failure left on the medium is still there.
            self.doomed.entry(sector).or_insert(content);
        }
    }

    /// The power is gone: what readers see is now what was on the medium.
    pub fn lose_power(&mut self, rng: &mut StdRng, tally: &mut Tally) {
        if self.log.ops().is_empty() && self.doomed.is_empty() {
            return;
        }
        let mood = Mood::draw(rng);
        let lengths: Vec<u64> = self.log.ops().iter().filter(|op| op.changes_len()).map(|op| op.len_before).collect();
        let lengths_kept = match mood {
            Mood::Keep => lengths.len(),
            Mood::Lose => 0,
            Mood::Mix => rng.random_range(0..=lengths.len()),
        };
        let len = lengths.get(lengths_kept).copied().unwrap_or(self.image.len());
        let image = &mut self.image;
        let settled =
            tear(&mut self.log, mood, lengths_kept, rng, tally, |page, old, mask| image.put_back(page, old, mask));
        for (sector, content) in std::mem::take(&mut self.doomed) {
            if !settled.contains(sector) {
                image.put_back(sector / SECTORS_PER_PAGE, content, 1 << (sector % SECTORS_PER_PAGE));
            }
        }
        image.cut(len);
    }
}

const _: () = assert!(PAGE / SECTOR == 8, "a mask of sectors is a byte");
