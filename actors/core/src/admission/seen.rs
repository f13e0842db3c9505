//! Which events of a device were accepted already.

/// Sequence numbers that were accepted, as ranges: a device that leaves no gaps has one.
///
/// At most [`RANGES_MAX`] ranges are kept. When there are more, the lowest is forgotten, so that a number of it would be accepted
/// again: an event may then be there twice, but none is ever lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The highest range; empty when `low > high`.
    low: u64,
    high: u64,
    more: Option<Box<More>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct More {
    /// The ranges below, ascending, with gaps between them.
    lower: Vec<(u64, u64)>,
    previous: Option<Generation>,
}

/// What was accepted before the device began to count anew. Its newest event time tells its events from those after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) until: i64,
    pub(super) seen: Seen,
}

pub(super) const RANGES_MAX: usize = 16;

impl Default for Seen {
    fn default() -> Seen {
        Seen { low: 1, high: 0, more: None }
    }
}

impl Seen {
    /// Ranges in ascending order, as [`ranges`](Self::ranges) gives them.
    pub(super) fn of(ranges: &[(u64, u64)], previous: Option<Generation>) -> Seen {
        let (&(low, high), lower) = ranges.split_last().unwrap_or((&(1, 0), &[]));
        let more =
            (!lower.is_empty() || previous.is_some()).then(|| Box::new(More { lower: lower.to_vec(), previous }));
        Seen { low, high, more }
    }

    pub(super) fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges = self.more.as_ref().map(|more| more.lower.clone()).unwrap_or_default();
        ranges.extend((!self.is_empty()).then_some((self.low, self.high)));
        ranges
    }

    pub(super) fn previous(&self) -> Option<&Generation> {
        self.more.as_ref()?.previous.as_ref()
    }

    /// The generation that an event of this time belongs to, when it is not the present one.
    pub(super) fn previous_of(&mut self, time: i64) -> Option<&mut Seen> {
        let previous = self.more.as_mut()?.previous.as_mut()?;
        (time <= previous.until).then_some(&mut previous.seen)
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        (self.low <= seq && seq <= self.high)
            || self.more.as_ref().is_some_and(|more| more.lower.iter().any(|&(low, high)| low <= seq && seq <= high))
    }

    /// Accepts `first..=last` when they follow the highest number without a gap, or are the first.
    #[inline]
    pub(super) fn extend(&mut self, first: u64, last: u64) -> bool {
        if self.is_empty() {
            (self.low, self.high) = (first, last);
            return true;
        }
        let next = self.high.checked_add(1) == Some(first);
        if next {
            self.high = last;
        }
        next
    }

    pub(super) fn insert(&mut self, seq: u64) {
        if self.contains(seq) || self.extend(seq, seq) {
            return;
        }
        let mut ranges = self.ranges();
        let at = ranges.partition_point(|&(_, high)| high < seq);
        let joins_before = at > 0 && ranges[at - 1].1 + 1 == seq;
        let joins_after = ranges.get(at).is_some_and(|&(low, _)| seq + 1 == low);
        match (joins_before, joins_after) {
            (true, true) => {
                ranges[at - 1].1 = ranges[at].1;
                ranges.remove(at);
            }
            (true, false) => ranges[at - 1].1 = seq,
            (false, true) => ranges[at].0 = seq,
            (false, false) => ranges.insert(at, (seq, seq)),
        }
        self.replace(ranges);
    }

    pub(super) fn remove(&mut self, seq: u64) {
        let mut ranges = self.ranges();
        let Some(at) = ranges.iter().position(|&(low, high)| low <= seq && seq <= high) else { return };
        let (low, high) = ranges.remove(at);
        if seq < high {
            ranges.insert(at, (seq + 1, high));
        }
        if low < seq {
            ranges.insert(at, (low, seq - 1));
        }
        self.replace(ranges);
    }

    /// The device counts anew, from `seq`; `until` is its newest event time so far.
    pub(super) fn restart(&mut self, seq: u64, until: i64) {
        let mut before = std::mem::replace(self, Seen { low: seq, high: seq, more: None });
        if let Some(more) = &mut before.more {
            more.previous = None;
        }
        self.more = Some(Box::new(More { lower: Vec::new(), previous: Some(Generation { until, seen: before }) }));
    }

    fn is_empty(&self) -> bool {
        self.low > self.high
    }

    fn replace(&mut self, mut ranges: Vec<(u64, u64)>) {
        if ranges.len() > RANGES_MAX {
            ranges.remove(0);
        }
        (self.low, self.high) = ranges.pop().unwrap_or((1, 0));
        match &mut self.more {
            Some(more) => more.lower = ranges,
            None if ranges.is_empty() => {}
            None => self.more = Some(Box::new(More { lower: ranges, previous: None })),
        }
        if self.more.as_ref().is_some_and(|more| **more == More::default()) {
            self.more = None;
        }
    }
}

/// The last [`RING_MAX`] events of a device that can only be told by their content, as hashes of it. Grows as it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ring {
    keys: Vec<u64>,
    /// Where the next key goes once the ring is full.
    next: u32,
}

pub(super) const RING_MAX: usize = 64;

impl Ring {
    /// Keys from the oldest to the newest.
    pub(super) fn of(keys: Vec<u64>) -> Ring {
        Ring { keys: keys.into_iter().take(RING_MAX).collect(), next: 0 }
    }

    pub(super) fn keys(&self) -> Vec<u64> {
        let (new, old) = self.keys.split_at(self.next as usize);
        [old, new].concat()
    }

    /// Whether `key` is among the `last` newest.
    pub(super) fn contains(&self, key: u64, last: usize) -> bool {
        if last >= self.keys.len() {
            return self.keys.contains(&key);
        }
        let newest = (self.next as usize + self.keys.len() - 1) % self.keys.len();
        (0..last).any(|back| self.keys[(newest + self.keys.len() - back) % self.keys.len()] == key)
    }

    /// The key that had to give way, for [`pop`](Self::pop).
    pub(super) fn push(&mut self, key: u64) -> Option<u64> {
        if self.keys.len() < RING_MAX {
            self.keys.push(key);
            return None;
        }
        let lost = std::mem::replace(&mut self.keys[self.next as usize], key);
        self.next = (self.next + 1) % RING_MAX as u32;
        Some(lost)
    }

    /// Takes the newest key back, and puts the one there that had given way to it.
    pub(super) fn pop(&mut self, lost: Option<u64>) {
        match lost {
            None => drop(self.keys.pop()),
            Some(lost) => {
                self.next = (self.next + RING_MAX as u32 - 1) % RING_MAX as u32;
                self.keys[self.next as usize] = lost;
            }
        }
    }

    /// Forgets one key, wherever it is.
    pub(super) fn forget(&mut self, key: u64) {
        let mut keys = self.keys();
        if let Some(at) = keys.iter().rposition(|&known| known == key) {
            keys.remove(at);
            *self = Ring::of(keys);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_of_too_many_ranges_is_forgotten() {
        let mut seen = Seen::default();
        (0..20).for_each(|n| seen.insert(n * 10));
        assert_eq!(seen.ranges().len(), RANGES_MAX);
        assert!(!seen.contains(30) && seen.contains(40) && seen.contains(190));
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trap() {
        let mut seen = Seen::default();
        seen.insert(u64::MAX);
        seen.insert(0);
        seen.insert(u64::MAX - 1);
        assert_eq!(seen.ranges(), [(0, 0), (u64::MAX - 1, u64::MAX)]);
        assert!(!seen.extend(0, 5));
        seen.remove(u64::MAX);
        seen.remove(0);
        assert_eq!(seen.ranges(), [(u64::MAX - 1, u64::MAX - 1)]);
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(steps in prop::collection::vec((0u64..24, prop::bool::weighted(0.7)), 0..200)) {
            let (mut seen, mut model) = (Seen::default(), BTreeSet::new());
            for (seq, insert) in steps {
                let before = seen.clone();
                if insert {
                    seen.insert(seq);
                    if model.insert(seq) {
                        let mut back = seen.clone();
                        back.remove(seq);
                        prop_assert_eq!(back, before, "removing undoes inserting");
                    }
                } else {
                    seen.remove(seq);
                    model.remove(&seq);
                }
                let all = seen.ranges().into_iter().flat_map(|(low, high)| low..=high).collect();
                prop_assert_eq!(&model, &all);
                prop_assert!((0..24).all(|seq| seen.contains(seq) == model.contains(&seq)));
            }
        }

        #[test]
        fn the_ring_holds_the_last_keys(keys in prop::collection::vec(0u64..100, 0..200), last in 0usize..70, pops in 0usize..20) {
            let (mut ring, mut model) = (Ring::default(), VecDeque::new());
            let mut lost = Vec::new();
            for &key in &keys {
                lost.push(ring.push(key));
                model.push_back(key);
            }
            for _ in 0..pops.min(keys.len()) {
                ring.pop(lost.pop().unwrap());
                model.pop_back();
            }
            let kept: Vec<u64> = model.iter().rev().take(RING_MAX).rev().copied().collect();
            prop_assert!(ring.keys().ends_with(&kept) || kept.ends_with(&ring.keys()));
            let newest: Vec<u64> = kept.iter().rev().take(last).copied().collect();
            if pops == 0 {
                prop_assert!((0..100).all(|key| ring.contains(key, last) == newest.contains(&key)));
            }
        }
    }
}
