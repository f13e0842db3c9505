//! What is held here of others.

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{ids::Seq, ranges::RangeSet, record::Track};

use super::{Life, RunKey, limits::LIVES_MAX};

/// A copy as it was found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    pub life: Life,
    pub track: Track,
    pub covered: RangeSet,
    /// Records up to here may have been given up by retention.
    pub floor: Seq,
}

#[derive(Debug, Default)]
pub(super) struct Copies {
    tracks: BTreeMap<(Life, Track), Copy>,
    lives: BTreeSet<Life>,
}

/// What is held of one track of one life.
#[derive(Clone, Debug, Default)]
pub(super) struct Copy {
    pub covered: RangeSet,
    pub floor: u64,
    /// On the way to the disk.
    expected: RangeSet,
    /// The part of it that a fetch brought.
    repaired: RangeSet,
}

impl Copies {
    pub fn new(found: impl IntoIterator<Item = Copied>) -> Copies {
        let mut copies = Copies::default();
        for Copied { life, track, covered, floor } in found {
            copies.tracks.insert((life, track), Copy { covered, floor: floor.0, ..Copy::default() });
            copies.lives.insert(life);
        }
        copies
    }

    pub fn iter(&self) -> impl Iterator<Item = (&(Life, Track), &Copy)> {
        self.tracks.iter()
    }

    pub fn one(&self, life: Life, track: Track) -> Option<&Copy> {
        self.tracks.get(&(life, track))
    }

    /// Whether this life would be one too many.
    pub fn is_full(&self, life: Life) -> bool {
        self.lives.len() >= LIVES_MAX && !self.lives.contains(&life)
    }

    /// On disk, all of it.
    pub fn covers(&self, run: RunKey) -> bool {
        self.one(run.life, run.track).is_some_and(|copy| copy.covered.covers(run.first.0, run.last.0))
    }

    /// On disk or on the way there, all of it.
    pub fn is_expected(&self, run: RunKey) -> bool {
        self.one(run.life, run.track).is_some_and(|copy| {
            let gaps = copy.covered.gaps(run.first.0, run.last.0);
            gaps.into_iter().all(|(first, last)| copy.expected.covers(first, last))
        })
    }

    /// What need not be fetched: on disk, on the way there, or given up.
    pub fn known(&self, life: Life, track: Track) -> RangeSet {
        let Some(copy) = self.one(life, track) else { return RangeSet::default() };
        let mut known = copy.covered.clone();
        known.merge(&copy.expected);
        known.insert(1, copy.floor);
        known
    }

    pub fn offered(&self, life: Life, track: Track) -> RangeSet {
        let Some(copy) = self.one(life, track) else { return RangeSet::default() };
        let mut offered = copy.covered.clone();
        offered.remove(0, copy.floor);
        offered
    }

    pub fn expect(&mut self, run: RunKey, live: bool) {
        self.lives.insert(run.life);
        let copy = self.tracks.entry((run.life, run.track)).or_default();
        copy.expected.insert(run.first.0, run.last.0);
        if !live {
            copy.repaired.insert(run.first.0, run.last.0);
        }
    }

    /// Returns whether a fetch brought it.
    pub fn persisted(&mut self, run: RunKey) -> bool {
        self.lives.insert(run.life);
        let copy = self.tracks.entry((run.life, run.track)).or_default();
        let (first, last) = (run.first.0, run.last.0);
        let repaired = copy.repaired.gaps(first, last) != [(first, last)];
        copy.covered.insert(first, last);
        copy.expected.remove(first, last);
        copy.repaired.remove(first, last);
        repaired
    }

    pub fn lost(&mut self, run: RunKey) {
        if let Some(copy) = self.tracks.get_mut(&(run.life, run.track)) {
            copy.expected.remove(run.first.0, run.last.0);
            copy.repaired.remove(run.first.0, run.last.0);
        }
    }

    pub fn raise_floor(&mut self, life: Life, track: Track, floor: Seq) {
        if let Some(copy) = self.tracks.get_mut(&(life, track)) {
            copy.floor = copy.floor.max(floor.0);
        }
    }
}
