//! What is known of a peer.

use std::collections::{BTreeMap, VecDeque};

use millpond_core::{ids::Seq, ranges::RangeSet, record::Track};

use super::{Life, Moment, limits::*};
use crate::wire::Held;

#[derive(Debug)]
pub(super) struct Peer {
    pub is_up: bool,
    /// What it said to hold since the link came up.
    pub held: BTreeMap<(Life, Track), Heard>,
    /// How live runs go to it, by track.
    pub pushes: [Pushes; 2],
    /// How far its own records may be fetched, by track.
    pub settled: [Option<Settled>; 2],
    /// What changed here since it was told, and when it is to be told.
    pub changed: BTreeMap<(Life, Track), Moment>,
    pub announce_all_at: Moment,
    /// No fetch from it before this.
    pub rests_until: Moment,
    pub failures: u32,
}

/// What it holds of one track of one life.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub covered: RangeSet,
    pub floor: u64,
    /// What can be fetched from it: without what it gave up, or turned out not to have.
    pub offered: RangeSet,
}

#[derive(Debug)]
pub(super) struct Pushes {
    /// What was pushed and not acknowledged, oldest first.
    pub unacknowledged: VecDeque<(u64, u64)>,
    /// The next number to push. Below it lies what was pushed, or left to be fetched.
    pub next: u64,
}

/// Live runs and announcements take different ways, and what is announced may still come live. So numbers are fetched only after a
/// while; what lies below the first announcement of a link never comes live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub upto: u64,
    seen: u64,
    seen_at: Moment,
}

impl Settled {
    fn new(last: u64, now: Moment) -> Settled {
        Settled { upto: last, seen: last, seen_at: now }
    }

    /// Takes note that numbers up to `last` are there.
    fn see(&mut self, last: u64, now: Moment) {
        self.pass(now);
        if self.seen == self.upto && last > self.seen {
            (self.seen, self.seen_at) = (last, now);
        }
    }

    pub fn pass(&mut self, now: Moment) {
        if now >= self.seen_at.after_ms(LIVE_GRACE_MS) {
            self.upto = self.seen;
        }
    }
}

impl Peer {
    /// A peer whose link just came up, when this node's journal ends at `head`.
    pub fn up(now: Moment, head: Seq) -> Peer {
        let pushes = || Pushes { unacknowledged: VecDeque::new(), next: head.0 + 1 };
        Peer {
            is_up: true,
            held: BTreeMap::new(),
            pushes: [pushes(), pushes()],
            settled: [None; 2],
            changed: BTreeMap::new(),
            announce_all_at: now.after_ms(ANNOUNCE_ALL_MS),
            rests_until: now,
            failures: 0,
        }
    }

    pub fn down(&mut self) {
        self.is_up = false;
        self.changed.clear();
        self.pushes.iter_mut().for_each(|pushes| pushes.unacknowledged.clear());
    }

    /// Takes in what it says; `None` when it is not kept because it is malformed or too much.
    pub fn hear(&mut self, held: &Held, own: bool, now: Moment) -> Option<(Life, Track)> {
        let life = Life { origin: held.origin, incarnation: held.incarnation };
        let key = (life, held.track);
        let sound = held.ranges.iter().all(|(first, last)| 1 <= *first && first <= last && *last < u64::MAX);
        if !sound || held.ranges.len() > RANGES_MAX {
            return None;
        }
        if self.held.len() >= 2 * LIVES_MAX && !self.held.contains_key(&key) {
            return None;
        }
        let covered: RangeSet = held.ranges.iter().copied().collect();
        let mut offered = covered.clone();
        offered.remove(0, held.floor);
        if own {
            let last = covered.last();
            match &mut self.settled[held.track as usize] {
                Some(settled) => settled.see(last, now),
                first => *first = Some(Settled::new(last, now)),
            }
        }
        self.held.insert(key, Heard { covered, floor: held.floor, offered });
        Some(key)
    }

    pub fn offers(&self, life: Life, track: Track) -> Option<&RangeSet> {
        self.held.get(&(life, track)).filter(|_| self.is_up).map(|heard| &heard.offered)
    }
}
