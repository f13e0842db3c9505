//! Names of devices to dense indices and back.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

/// Names in the order in which they were added, in one piece of memory: a sender that reports its devices in the same order each time
/// walks through it from front to back. Besides each name it takes 12 to 20 bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    text: String,
    ends: Vec<u32>,
    /// Open addressing with linear probing, at most half full: a part of the name's hash, and its index plus one (0 is a free place).
    table: Vec<(u32, u32)>,
}

impl Names {
    pub(super) fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// # Panics
    /// When there is no such index.
    pub(super) fn name(&self, index: u32) -> &str {
        let at = index as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[at] as usize]
    }

    /// `guess` is tried before the table is asked.
    #[inline]
    pub(super) fn find(&self, name: &str, guess: u32) -> Option<u32> {
        if guess < self.len() && self.name(guess) == name {
            return Some(guess);
        }
        if self.table.is_empty() {
            return None;
        }
        let mask = self.table.len() - 1;
        let hash = hash(name);
        let mut at = hash as usize & mask;
        loop {
            match self.table[at] {
                (_, 0) => return None,
                (tag, index) if tag == (hash >> 32) as u32 && self.name(index - 1) == name => return Some(index - 1),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// Adds a name that is not there yet. `None` when four gigabytes of names are full.
    pub(super) fn add(&mut self, name: &str) -> Option<u32> {
        let end = u32::try_from(self.text.len() + name.len()).ok()?;
        if (self.ends.len() + 1) * 2 > self.table.len() {
            self.grow();
        }
        self.text.push_str(name);
        self.ends.push(end);
        let index = self.len() - 1;
        self.place(index);
        Some(index)
    }

    fn grow(&mut self) {
        let places = (self.table.len() * 2).max(64);
        self.table.clear();
        self.table.resize(places, (0, 0));
        (0..self.len()).for_each(|index| self.place(index));
    }

    fn place(&mut self, index: u32) {
        let mask = self.table.len() - 1;
        let hash = hash(self.name(index));
        let mut at = hash as usize & mask;
        while self.table[at].1 != 0 {
            at = (at + 1) & mask;
        }
        self.table[at] = ((hash >> 32) as u32, index + 1);
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    hasher.write(name.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_again() {
        let mut names = Names::default();
        assert_eq!(names.find("press-0", 0), None);
        for index in 0..5000 {
            assert_eq!(names.add(&format!("press-{index}")), Some(index));
        }
        for index in 0..5000 {
            let name = format!("press-{index}");
            assert_eq!(names.name(index), name);
            assert_eq!(names.find(&name, index), Some(index));
            assert_eq!(names.find(&name, index + 1), Some(index));
        }
        assert_eq!(names.find("press-5000", 0), None);
        assert_eq!(names.find("", 0), None);
    }
}
