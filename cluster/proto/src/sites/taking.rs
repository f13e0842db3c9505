//! What to ask another site for next.
//!
//! A site is reached by *doors*: addresses of its nodes. Each node offers what it has, its own records and its copies of the
//! others'; one door may be enough for all of them, and when it is not the rest comes from the next. The machine asks each door what it
//! offers, again and again, and in between for one range at a time that is offered and not held: results before events, and the
//! lives in turn, so that no one waits behind another's backlog. One question is under way at a time: between sites the way is thin, and
//! what comes is the other site's to lose.
//!
//! Invariants
//! 1. Nothing is asked for that is held. What is held is what its owner said is on disk, at the start and by
//!    [`stored`](Taking::stored): after a crash the same machine goes on at the exact record.
//! 2. A door that fails is left alone for a pause that doubles, up to a minute, and costs the others nothing.
//! 3. A range that brings nothing is not asked for again before the door has made another offer.
//!
//! Clock: the caller's, which must not go back. Limits: lives ([`LIVES_MAX`]), ranges per offer, doors by the caller.

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{ids::Seq, record::Track};

use super::{LIVES_MAX, Offer};
use crate::{
    RangeSet,
    replication::{FetchEnd, Life, Moment, RunKey},
};

/// How often a door is asked for its offers.
pub const LOOK_EVERY_MS: u64 = 5_000;
/// A door that failed is left alone for so long, doubled with each failure in a row.
pub const BACK_OFF_MS: u64 = 1_000;
pub const BACK_OFF_MS_MAX: u64 = 60_000;
/// After a run could not be stored nothing is asked for.
pub const DISK_PAUSE_MS: u64 = 5_000;

const _: () = assert!(BACK_OFF_MS <= BACK_OFF_MS_MAX && LOOK_EVERY_MS < BACK_OFF_MS_MAX);

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for offers. Answered by [`Taking::offered`] or [`Taking::failed`].
    Look { door: usize },
    /// Ask for a range. Each run that comes and is on disk is told by [`Taking::stored`]; the end by [`Taking::ended`].
    Fetch { door: usize, wanted: RunKey },
    /// Nothing before then.
    Wait { until: Moment },
}

/// One of a life's two numberings of records.
type Lane = (Track, Life);

#[derive(Debug, Default)]
struct Door {
    /// What can be asked for.
    offers: BTreeMap<Lane, RangeSet>,
    /// What it said last, also when it has failed since.
    heard: BTreeMap<Lane, RangeSet>,
    look_at: Moment,
    /// Left alone until then.
    again_at: Moment,
    failures: u32,
}

#[derive(Debug)]
pub struct Taking {
    held: BTreeMap<Lane, RangeSet>,
    doors: Vec<Door>,
    /// The lane that was fetched last.
    last: Option<Lane>,
    paused_until: Moment,
    progress: bool,
}

impl Taking {
    /// With what is on disk.
    pub fn new(doors: usize, held: impl IntoIterator<Item = (Life, Track, RangeSet)>) -> Taking {
        Taking {
            held: held.into_iter().map(|(life, track, ranges)| ((track, life), ranges)).collect(),
            doors: (0..doors).map(|_| Door::default()).collect(),
            last: None,
            paused_until: Moment(0),
            progress: false,
        }
    }

    pub fn step(&mut self, now: Moment) -> Step {
        if now < self.paused_until {
            return Step::Wait { until: self.paused_until };
        }
        let awake = |door: &&(usize, &Door)| door.1.again_at <= now;
        if let Some((door, _)) = self.doors.iter().enumerate().filter(|d| awake(&d)).find(|(_, d)| d.look_at <= now) {
            return Step::Look { door };
        }
        match self.next_fetch(now) {
            Some((door, wanted)) => {
                (self.last, self.progress) = (Some((wanted.track, wanted.life)), false);
                Step::Fetch { door, wanted }
            }
            None => {
                let next = self.doors.iter().map(|door| door.look_at.max(door.again_at)).min();
                Step::Wait { until: next.unwrap_or(now.after_ms(BACK_OFF_MS_MAX)) }
            }
        }
    }

    /// What a door has.
    pub fn offered(&mut self, door: usize, now: Moment, offers: &[Offer]) {
        let mut lives: BTreeSet<Life> = self.held.keys().map(|(_, life)| *life).collect();
        let mut taken: BTreeMap<Lane, RangeSet> = BTreeMap::new();
        for offer in offers {
            let life = offer.life();
            if !lives.contains(&life) && lives.len() >= LIVES_MAX {
                continue;
            }
            lives.insert(life);
            taken.entry((offer.track, life)).or_default().merge(&offer.numbers());
        }
        for lane in taken.keys() {
            self.held.entry(*lane).or_default();
        }
        let Some(door) = self.doors.get_mut(door) else { return };
        (door.heard, door.offers) = (taken.clone(), taken);
        (door.look_at, door.failures) = (now.after_ms(LOOK_EVERY_MS), 0);
    }

    /// A run is on disk.
    pub fn stored(&mut self, run: RunKey) {
        self.progress = true;
        self.held.entry((run.track, run.life)).or_default().insert(run.first.0, run.last.0);
    }

    /// A run came and could not be stored.
    pub fn not_stored(&mut self, now: Moment) {
        self.paused_until = now.after_ms(DISK_PAUSE_MS);
    }

    /// The fetch of the last step is over.
    pub fn ended(&mut self, door: usize, now: Moment, how: FetchEnd) {
        let (progress, lane) = (self.progress, self.last);
        let Some(at) = self.doors.get_mut(door) else { return };
        match how {
            FetchEnd::Done if progress => at.failures = 0,
            FetchEnd::Done | FetchEnd::Unknown => {
                if let Some(lane) = lane {
                    at.offers.remove(&lane);
                }
            }
            FetchEnd::Busy { retry_ms } => at.again_at = now.after_ms(u64::from(retry_ms).clamp(1, BACK_OFF_MS_MAX)),
            FetchEnd::Failed => self.failed(door, now),
        }
    }

    /// A door cannot be reached, or does not answer as it should.
    pub fn failed(&mut self, door: usize, now: Moment) {
        let Some(door) = self.doors.get_mut(door) else { return };
        let pause = BACK_OFF_MS.saturating_mul(1 << door.failures.min(16)).min(BACK_OFF_MS_MAX);
        door.failures = door.failures.saturating_add(1);
        // Its node may be another one, or know less, when it is back.
        door.offers.clear();
        (door.again_at, door.look_at) = (now.after_ms(pause), now);
    }

    /// What is held of each life and track that was ever offered or held, and the last number that is offered.
    pub fn lanes(&self) -> impl Iterator<Item = (Life, Track, &RangeSet, u64)> {
        self.held.iter().map(|(lane, held)| {
            let offers = self.doors.iter().filter_map(|door| door.heard.get(lane));
            (lane.1, lane.0, held, offers.map(RangeSet::last).max().unwrap_or(0).max(held.last()))
        })
    }

    /// Numbers that were offered when a door was asked last, and are not held.
    pub fn missing(&self) -> u64 {
        let mut offered: BTreeMap<Lane, RangeSet> = BTreeMap::new();
        for (lane, ranges) in self.doors.iter().flat_map(|door| &door.heard) {
            offered.entry(*lane).or_default().merge(ranges);
        }
        let gaps = offered.iter().flat_map(|(lane, ranges)| ranges.iter().flat_map(|range| self.gaps(*lane, range)));
        gaps.map(|(first, last)| (last - first).saturating_add(1)).fold(0, u64::saturating_add)
    }

    fn gaps(&self, lane: Lane, (first, last): (u64, u64)) -> Vec<(u64, u64)> {
        self.held.get(&lane).map_or_else(|| vec![(first, last)], |held| held.gaps(first, last))
    }

    fn next_fetch(&self, now: Moment) -> Option<(usize, RunKey)> {
        let awake = || self.doors.iter().enumerate().filter(|(_, door)| door.again_at <= now);
        let lanes: BTreeSet<Lane> = awake().flat_map(|(_, door)| door.offers.keys().copied()).collect();
        let wanted = |lane: Lane| {
            let first_gap = |ranges: &RangeSet| ranges.iter().find_map(|range| self.gaps(lane, range).first().copied());
            awake().find_map(|(at, door)| Some((at, first_gap(door.offers.get(&lane)?)?)))
        };
        for track in Track::ALL {
            let of_track = || lanes.iter().copied().filter(move |lane| lane.0 == track);
            let behind = of_track().filter(|lane| Some(*lane) > self.last);
            let before = of_track().filter(|lane| Some(*lane) <= self.last);
            for lane in behind.chain(before) {
                if let Some((door, (first, last))) = wanted(lane) {
                    return Some((door, RunKey { life: lane.1, track, first: Seq(first), last: Seq(last) }));
                }
            }
        }
        None
    }
}
