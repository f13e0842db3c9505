//! What a copy of another node's journal holds, kept in the transactions that bring and take its records.
//!
//! A covered number was asked for once: the record was copied, or its origin did not have it any more. It stays covered
//! when retention drops the record, or else it would be fetched again for ever.

use millpond_core::{
    ids::Seq,
    ranges::RangeSet,
    record::{Class, DropRange, Track},
};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use crate::{
    fault::Fault,
    layout::u64_at,
    tables::{HELD, STORE, names},
};

/// What a copy covers of each track, and up to where it gave records up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    tracks: [RangeSet; 2],
    floors: [Seq; 4],
}

impl Held {
    /// The sequence numbers that need not be copied again.
    pub fn track(&self, track: Track) -> &RangeSet {
        &self.tracks[track as usize]
    }

    /// No record of the class up to this number is here; 0 when none was given up.
    pub fn class_floor(&self, class: Class) -> Seq {
        self.floors[class as usize]
    }

    /// Up to this number, records of the track may have been given up. Nothing there may be passed on as complete.
    pub fn floor(&self, track: Track) -> Seq {
        let classes = Class::ALL.into_iter().filter(|class| class.track() == track);
        classes.map(|class| self.class_floor(class)).max().unwrap_or_default()
    }

    /// What can be passed on: everything of the track is there that its origin still had.
    pub fn offered(&self, track: Track) -> RangeSet {
        let mut offered = self.track(track).clone();
        offered.remove(0, self.floor(track).0);
        offered
    }

    pub(crate) fn cover(&mut self, track: Track, first: u64, last: u64) {
        self.tracks[track as usize].insert(first, last);
    }

    pub(crate) fn give_up(&mut self, range: &DropRange) {
        let floor = &mut self.floors[range.class as usize];
        *floor = Seq(range.last).max(*floor);
    }

    /// The largest number that is covered.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.tracks.iter().map(RangeSet::last).max().unwrap_or(0))
    }

    /// `None` when the file is a journal of its own and not a copy.
    pub(crate) fn load(
        txn: &ReadTransaction,
        store: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Option<Held>, Fault> {
        let Some(floors) = store.get(names::FLOORS)? else { return Ok(None) };
        let floors = floors.value();
        if floors.len() != 36 || crc32fast::hash(&floors[..32]).to_le_bytes() != floors[32..] {
            return Err(Fault::corrupt("the row that says what the copy gave up is damaged"));
        }
        let mut held = Held { floors: std::array::from_fn(|class| Seq(u64_at(floors, class * 8))), ..Held::default() };
        for row in txn.open_table(HELD)?.range::<(u8, u64)>(..)? {
            let (key, last) = row?;
            let (track, first) = key.value();
            let set = held.tracks.get_mut(usize::from(track));
            set.ok_or_else(|| Fault::corrupt("the copy holds a track that is not known"))?.insert(first, last.value());
        }
        Ok(Some(held))
    }

    /// Four numbers of 8 bytes, little-endian, by class, and their CRC32.
    pub(crate) fn encode_floors(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.floors.iter().flat_map(|floor| floor.0.to_le_bytes()).collect();
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Writes what is different from `before`, which is what the file says.
    pub(crate) fn save(&self, txn: &WriteTransaction, before: &Held) -> Result<(), Fault> {
        let mut rows = txn.open_table(HELD)?;
        for (track, (old, new)) in (0u8..).zip(before.tracks.iter().zip(&self.tracks)) {
            if old == new {
                continue;
            }
            for (first, _) in old.iter().filter(|(first, _)| new.range_of(*first).is_none_or(|range| range.0 != *first))
            {
                rows.remove((track, first))?;
            }
            for (first, last) in new.iter().filter(|range| old.range_of(range.0) != Some(*range)) {
                rows.insert((track, first), last)?;
            }
        }
        if self.floors != before.floors {
            txn.open_table(STORE)?.insert(names::FLOORS, self.encode_floors().as_slice())?;
        }
        Ok(())
    }
}
