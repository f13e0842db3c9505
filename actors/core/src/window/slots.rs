//! Open slices in memory: blocks of compact slots, one slot per metric.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    PartMetric,
    exact::{ExactSum, add_pairs, two_sum},
    stats::{Extra, Stats, Wants},
};
use crate::{map::FixedMap, time::Timestamp};

/// Count, exact sum, least and greatest of one metric in one open slice.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Slot {
    high: f64,
    low: f64,
    min: f64,
    max: f64,
    count: u64,
}

const _: () = assert!(size_of::<Slot>() <= 64);

const EMPTY: Slot = Slot { high: 0.0, low: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, count: 0 };

/// Values are added in this many interleaved sums, one for each half of a vector register.
const LANES: usize = 2;

impl Slot {
    /// Adds all of `values`, or none: false when one is not finite, or when the sum needs more than two doubles.
    #[inline]
    fn add(&mut self, values: &[f64]) -> bool {
        let (mut high, mut low) = ([self.high, 0.0], [self.low, 0.0]);
        let (mut min, mut max) = ([self.min; LANES], [self.max; LANES]);
        let mut lost = [0u64; LANES];
        let mut add = |lane: usize, value: f64| {
            let (sum, rest) = two_sum(high[lane], value);
            let (rest, cut) = two_sum(low[lane], rest);
            (high[lane], low[lane]) = (sum, rest);
            lost[lane] |= cut.to_bits();
            min[lane] = if value < min[lane] { value } else { min[lane] };
            max[lane] = if value > max[lane] { value } else { max[lane] };
        };
        let (groups, tail) = values.as_chunks::<LANES>();
        for group in groups {
            (0..LANES).for_each(|lane| add(lane, group[lane]));
        }
        tail.iter().for_each(|value| add(0, *value));
        // What an addition lost is ±0 when it was exact, and NaN when the sum or a value is not finite.
        let exact = (lost[0] | lost[1]) << 1 == 0;
        let sum = add_pairs((high[0], low[0]), (high[1], low[1]));
        let (true, Some((high, low))) = (exact, sum) else { return false };
        (self.high, self.low) = (high, low);
        self.min = min.into_iter().fold(f64::INFINITY, f64::min);
        self.max = max.into_iter().fold(f64::NEG_INFINITY, f64::max);
        self.count += values.len() as u64;
        true
    }

    fn stats(&self) -> Stats {
        let sum = ExactSum::of_pair(self.high, self.low);
        Stats { count: self.count, skipped: 0, sum, min: self.min, max: self.max, extra: None }
    }
}

/// Blocks of slots. A block belongs to one open slice of one key and has a slot for each metric of the key, in the order of
/// their names. Freed blocks are used again: in the steady state nothing is allocated.
#[derive(Debug)]
pub struct Slots {
    wants: Wants,
    slots: Vec<Slot>,
    /// Beside `slots`; empty when nothing beyond the slots is wanted.
    extras: Vec<Extra>,
    /// What a slot could not take, by its number: values that are not finite, sums that need more than two doubles.
    sides: FixedMap<u32, Box<Stats>>,
    /// Free blocks by their length.
    free: BTreeMap<u32, Vec<u32>>,
}

/// A block of `len` slots from slot `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub at: u32,
    pub len: u32,
}

impl Block {
    pub const NONE: Block = Block { at: 0, len: 0 };
}

impl Slots {
    pub fn new(wants: Wants) -> Slots {
        Slots { wants, slots: Vec::new(), extras: Vec::new(), sides: FixedMap::default(), free: BTreeMap::new() }
    }

    /// An empty block.
    pub fn alloc(&mut self, len: u32) -> Block {
        if len == 0 {
            return Block::NONE;
        }
        if let Some(at) = self.free.get_mut(&len).and_then(Vec::pop) {
            return Block { at, len };
        }
        let at = self.slots.len() as u32;
        self.slots.resize(self.slots.len() + len as usize, EMPTY);
        if self.wants.any() {
            self.extras.resize_with(self.slots.len(), Extra::default);
        }
        Block { at, len }
    }

    /// Gives back a block that [`take`](Self::take) or [`move_to`](Self::move_to) emptied.
    pub fn free(&mut self, block: Block) {
        if block.len > 0 {
            self.free.entry(block.len).or_default().push(block.at);
        }
    }

    /// Adds values, each with its event time, to slot `slot` of `block`. `times` may be empty when the order of events is not wanted.
    #[inline]
    pub fn add(&mut self, block: Block, slot: u32, times: &[Timestamp], values: &[f64]) {
        let at = (block.at + slot) as usize;
        if !self.slots[at].add(values) {
            return self.add_aside(at, times, values);
        }
        if let Some(extra) = self.extras.get_mut(at) {
            for (row, value) in values.iter().enumerate() {
                extra.add(times.get(row).copied().unwrap_or_default(), *value, self.wants);
            }
        }
    }

    /// Reads all of a block, for [`Slicer::warm`](super::Slicer).
    #[inline]
    pub fn touch(&self, block: Block) -> u64 {
        let slots = self.slots.get(block.at as usize..(block.at + block.len) as usize).unwrap_or_default();
        slots.iter().fold(0, |touched, slot| touched ^ slot.count)
    }

    #[cold]
    fn add_aside(&mut self, at: usize, times: &[Timestamp], values: &[f64]) {
        let side = self.sides.entry(at as u32).or_default();
        for (row, value) in values.iter().enumerate() {
            side.add(times.get(row).copied().unwrap_or_default(), *value, self.wants);
        }
    }

    /// Adds what was taken out of a slot before.
    pub fn restore(&mut self, block: Block, slot: u32, stats: &Stats) {
        self.sides.entry(block.at + slot).or_default().merge(stats);
    }

    /// Empties a block; `names` are the metrics of its slots. Metrics without any value are not listed.
    pub fn take(&mut self, block: Block, names: &[Arc<str>]) -> Vec<PartMetric> {
        let mut metrics = Vec::with_capacity(names.len());
        for (at, name) in (block.at..block.at + block.len).zip(names) {
            let stats = self.take_slot(at);
            if !stats.is_empty() {
                metrics.push(PartMetric { name: name.clone(), stats });
            }
        }
        metrics
    }

    /// What [`take`](Self::take) would give, leaving the block as it is.
    pub fn peek(&self, block: Block, names: &[Arc<str>]) -> Vec<PartMetric> {
        let metric = |(at, name): (u32, &Arc<str>)| {
            let mut stats = self.slots[at as usize].stats();
            if stats.count > 0 {
                stats.extra = self.extras.get(at as usize).map(|extra| Box::new(extra.clone()));
            }
            if let Some(side) = self.sides.get(&at) {
                stats.merge(side);
            }
            (!stats.is_empty()).then(|| PartMetric { name: name.clone(), stats })
        };
        (block.at..block.at + block.len).zip(names).filter_map(metric).collect()
    }

    /// Moves what `from` holds into the empty block `to`; `slots` says for each slot of `from` which of `to` it becomes.
    pub fn move_to(&mut self, from: Block, to: Block, slots: impl Iterator<Item = u32>) {
        for (at, slot) in (from.at..from.at + from.len).zip(slots) {
            let target = to.at + slot;
            self.slots[target as usize] = std::mem::replace(&mut self.slots[at as usize], EMPTY);
            if self.wants.any() {
                self.extras.swap(at as usize, target as usize);
            }
            if let Some(side) = self.sides.remove(&at) {
                self.sides.insert(target, side);
            }
        }
    }

    fn take_slot(&mut self, at: u32) -> Stats {
        let mut stats = std::mem::replace(&mut self.slots[at as usize], EMPTY).stats();
        if stats.count > 0 {
            stats.extra = self.extras.get_mut(at as usize).map(|extra| Box::new(std::mem::take(extra)));
        }
        if !self.sides.is_empty()
            && let Some(side) = self.sides.remove(&at)
        {
            stats.merge(&side);
        }
        stats
    }
}
