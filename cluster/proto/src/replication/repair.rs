//! Fetching what is missing here and somebody else has.

use std::{cmp::Reverse, collections::BTreeSet};

use millpond_core::{
    ids::{Origin, Seq},
    ranges::RangeSet,
    record::Track,
};

use super::{Effect, FetchEnd, FetchId, Life, Moment, Replication, RunKey, limits::*};
use crate::placement;

/// A fetch under way.
#[derive(Debug)]
pub(super) struct Fetching {
    pub from: Origin,
    pub run: RunKey,
    /// Something of it arrived.
    pub progress: bool,
}

impl Fetching {
    pub fn is_answered_by(&self, run: &RunKey) -> bool {
        (self.run.life, self.run.track) == (run.life, run.track)
            && self.run.first <= run.first
            && run.last <= self.run.last
    }
}

impl Replication {
    /// Starts as many fetches as there are places: results before raw events, and one slice of each life in turn.
    pub(super) fn repair(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for peer in self.peers.values_mut() {
            peer.settled.iter_mut().flatten().for_each(|settled| settled.pass(now));
        }
        if now < self.rests_until {
            return;
        }
        for track in Track::ALL {
            let mut wanted = self.wanted(track);
            while !wanted.is_empty() && self.has_place(track) {
                wanted.retain(|life| self.has_place(track) && self.fetch_slice(now, *life, track, effects));
            }
        }
    }

    fn has_place(&self, track: Track) -> bool {
        let raw = self.fetches.values().filter(|fetch| fetch.run.track == Track::Raw).count();
        self.fetches.len() < FETCHES_MAX && (track == Track::Results || raw < RAW_FETCHES_MAX)
    }

    /// Lives that somebody holds and that are to be held here.
    fn wanted(&self, track: Track) -> BTreeSet<Life> {
        let up = self.peers.values().filter(|peer| peer.is_up);
        let lives: BTreeSet<Life> =
            up.flat_map(|peer| peer.held.keys()).filter(|(_, of)| *of == track).map(|(life, _)| *life).collect();
        let me = self.settings.me.origin;
        lives.into_iter().filter(|life| self.is_for(me, life.origin, track) && !self.copies.is_full(*life)).collect()
    }

    /// Asks for the next slice of a life, if anything of it is missing and somebody free has it.
    fn fetch_slice(&mut self, now: Moment, life: Life, track: Track, effects: &mut Vec<Effect>) -> bool {
        let Some((from, first, last)) = self.next_slice(now, life, track) else { return false };
        let run = RunKey { life, track, first: Seq(first), last: Seq(last) };
        let id = self.next_fetch;
        self.next_fetch.0 += 1;
        self.fetches.insert(id, Fetching { from, run, progress: false });
        effects.push(Effect::Fetch { id, from, run, bytes_max: FETCH_BYTES });
        true
    }

    fn next_slice(&self, now: Moment, life: Life, track: Track) -> Option<(Origin, u64, u64)> {
        let known = self.known(life, track);
        let mut best: Option<(_, Origin, u64, u64)> = None;
        for (origin, peer) in self.peers.iter().filter(|(_, peer)| peer.is_up && peer.rests_until <= now) {
            let load = self.fetches.values().filter(|fetch| fetch.from == *origin).count();
            let Some(offered) = peer.offers(life, track).filter(|_| load < FETCHES_PER_PEER_MAX) else { continue };
            let Some((first, last)) = gap(offered, &known, track) else { continue };
            // What is most urgent, then from whom; nodes that miss the same do not all ask the same one.
            let urgency = if track == Track::Raw { first } else { u64::MAX - last };
            let rank = (urgency, load, Reverse(placement::score(self.settings.me.origin, *origin)));
            if best.as_ref().is_none_or(|(other, ..)| rank < *other) {
                best = Some((rank, *origin, first, last));
            }
        }
        let (_, from, first, last) = best?;
        Some(match track {
            Track::Raw => (from, first, last.min(first + (FETCH_NUMBERS_MAX - 1))),
            Track::Results => (from, first.max(last.saturating_sub(FETCH_NUMBERS_MAX - 1)), last),
        })
    }

    /// What is not to be fetched: it is here, on the way, or may still come live.
    fn known(&self, life: Life, track: Track) -> RangeSet {
        let mut known = self.copies.known(life, track);
        for fetch in self.fetches.values().filter(|fetch| (fetch.run.life, fetch.run.track) == (life, track)) {
            known.insert(fetch.run.first.0, fetch.run.last.0);
        }
        let origin = self.peers.get(&life.origin).filter(|peer| peer.is_up && is_newest(peer, life));
        if let Some(settled) = origin.and_then(|peer| peer.settled[track as usize]) {
            known.insert(settled.upto.saturating_add(1), u64::MAX);
        }
        known
    }

    pub(super) fn fetch_ended(&mut self, now: Moment, id: FetchId, how: FetchEnd) {
        let Some(fetch) = self.fetches.remove(&id) else { return };
        let Some(peer) = self.peers.get_mut(&fetch.from) else { return };
        let mut has_it = true;
        match how {
            FetchEnd::Done => (peer.failures, has_it) = (0, fetch.progress),
            FetchEnd::Unknown => has_it = false,
            FetchEnd::Busy { retry_ms } => {
                let pause = u64::from(retry_ms).clamp(ANNOUNCE_SOON_MS, BACK_OFF_MS_MAX);
                peer.rests_until = peer.rests_until.max(now.after_ms(pause));
            }
            FetchEnd::Failed => {
                let pause = BACK_OFF_MS.saturating_mul(1 << peer.failures.min(16)).min(BACK_OFF_MS_MAX);
                peer.failures = peer.failures.saturating_add(1);
                peer.rests_until = peer.rests_until.max(now.after_ms(pause));
            }
        }
        if !has_it && let Some(heard) = peer.held.get_mut(&(fetch.run.life, fetch.run.track)) {
            // Until it says again that it does.
            heard.offered.remove(fetch.run.first.0, fetch.run.last.0);
        }
    }
}

/// Whether no later life of the origin was told by itself: only of that one anything comes live.
fn is_newest(peer: &super::Peer, life: Life) -> bool {
    let newest = peer.held.keys().filter(|(of, _)| of.origin == life.origin).map(|(of, _)| of.incarnation).max();
    newest == Some(life.incarnation)
}

/// The most urgent range that is offered and not known.
fn gap(offered: &RangeSet, known: &RangeSet, track: Track) -> Option<(u64, u64)> {
    match track {
        Track::Raw => offered.iter().find_map(|(first, last)| known.gaps(first, last).first().copied()),
        Track::Results => offered.iter().rev().find_map(|(first, last)| known.gaps(first, last).last().copied()),
    }
}
