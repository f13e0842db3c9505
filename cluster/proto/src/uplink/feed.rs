//! What of a life is delivered next.
//!
//! The lanes share the book of what is confirmed and what is under way, so that none of them sends what another one has sent. What was new
//! when the connection came up is the live lane's; what lay before is the backlog's, and it becomes live only by a new connection.

use millpond_core::{ids::Seq, record::Track};

use super::{Lane, UNCONFIRMED_BYTES_MAX};
use crate::RangeSet;

/// Numbers of one delivery: a run is cut by its bytes long before.
const NUMBERS_MAX: u64 = 65_536;

#[derive(Debug)]
pub struct Feed {
    /// By track.
    held: [RangeSet; 2],
    sent: [RangeSet; 2],
    lanes: [Flight; 3],
    /// The first number of the live lane.
    live: Seq,
}

/// Deliveries of a lane that are not confirmed.
#[derive(Debug, Default)]
struct Flight {
    bytes: usize,
    deliveries: std::collections::VecDeque<(u64, u64, usize)>,
}

/// What is left to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Numbers that are here and not confirmed, by track.
    pub left: [u64; 2],
    pub unconfirmed_bytes: usize,
}

impl Feed {
    /// With what the cloud has, by track, and the life's last number when the connection came up.
    pub fn new(held: [RangeSet; 2], head: Seq) -> Feed {
        Feed { held, sent: Default::default(), lanes: Default::default(), live: head.next() }
    }

    /// The next range of a lane, out of what is here of its track. It is under way from now on: [`Feed::sent`] or [`Feed::unsent`] follows.
    pub fn next(&mut self, lane: Lane, here: &RangeSet) -> Option<(Seq, Seq)> {
        self.next_within(lane, here, UNCONFIRMED_BYTES_MAX)
    }

    /// The same, while fewer bytes of the lane than these are not confirmed.
    pub fn next_within(&mut self, lane: Lane, here: &RangeSet, window: usize) -> Option<(Seq, Seq)> {
        if self.lanes[lane as usize].bytes >= window.min(UNCONFIRMED_BYTES_MAX) {
            return None;
        }
        let (from, to) = match lane {
            Lane::Results => (1, u64::MAX - 1),
            Lane::Live => (self.live.0, u64::MAX - 1),
            Lane::Backlog => (1, self.live.0 - 1),
        };
        let track = lane.track() as usize;
        let (first, last) = here.iter().find_map(|(first, last)| {
            let (first, last) = (first.max(from), last.min(to));
            self.gap(track, first, last)
        })?;
        let last = last.min(first.saturating_add(NUMBERS_MAX - 1));
        self.sent[track].insert(first, last);
        Some((Seq(first), Seq(last)))
    }

    /// The first numbers of a range that are neither confirmed nor under way.
    fn gap(&self, track: usize, mut first: u64, last: u64) -> Option<(u64, u64)> {
        while first <= last {
            if let Some((_, end)) = self.held[track].range_of(first).or_else(|| self.sent[track].range_of(first)) {
                first = end.saturating_add(1);
                continue;
            }
            let next = |set: &RangeSet| set.gaps(first, last).first().map_or(first, |gap| gap.1);
            return Some((first, next(&self.held[track]).min(next(&self.sent[track]))));
        }
        None
    }

    /// A part of what [`Feed::next`] gave has left, `first..=last`; the rest of the range up to `end` is not under way any more.
    pub fn sent(&mut self, lane: Lane, (first, last): (Seq, Seq), end: Seq, bytes: usize) {
        let track = lane.track() as usize;
        if last < end {
            self.sent[track].remove(last.0 + 1, end.0);
        }
        let flight = &mut self.lanes[lane as usize];
        flight.bytes += bytes;
        flight.deliveries.push_back((first.0, last.0, bytes));
    }

    /// It could not be read or sent.
    pub fn unsent(&mut self, lane: Lane, (first, last): (Seq, Seq)) {
        self.sent[lane.track() as usize].remove(first.0, last.0);
    }

    /// The cloud has it on disk. What was never sent on this lane is not believed.
    pub fn stored(&mut self, lane: Lane, (first, last): (Seq, Seq)) {
        let track = lane.track() as usize;
        let flight = &mut self.lanes[lane as usize];
        let Some(at) = flight.deliveries.iter().position(|(from, to, _)| (*from, *to) == (first.0, last.0)) else {
            return;
        };
        let (_, _, bytes) = flight.deliveries.remove(at).unwrap_or_default();
        flight.bytes -= bytes;
        self.sent[track].remove(first.0, last.0);
        self.held[track].insert(first.0, last.0);
    }

    /// What the cloud says that it has besides: others may have brought it.
    pub fn has(&mut self, track: Track, ranges: &RangeSet) {
        self.held[track as usize].merge(ranges);
    }

    /// What the cloud has confirmed, by track.
    pub fn held(&self, track: Track) -> &RangeSet {
        &self.held[track as usize]
    }

    pub fn progress(&self, here: &[RangeSet; 2]) -> Progress {
        let left = |track: usize| here[track].count() - here[track].intersection(&self.held[track]).count();
        Progress { left: [left(0), left(1)], unconfirmed_bytes: self.lanes.iter().map(|flight| flight.bytes).sum() }
    }
}
