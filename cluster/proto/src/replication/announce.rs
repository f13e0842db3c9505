//! Telling what is held here, and hearing it of others.

use millpond_core::{
    ids::Origin,
    planted::{self, Bug},
    record::Track,
};

use super::{Effect, Life, Moment, Replication, RunKey, limits::*};
use crate::wire::{HELD_RANGES_MAX, Held};

impl Replication {
    /// Tells a peer everything.
    pub(super) fn announce_all(&mut self, now: Moment, to: Origin, effects: &mut Vec<Effect>) {
        let me = self.settings.me;
        let own = Track::ALL.map(|track| (me, track));
        let copies = self.copies.iter().map(|(key, _)| *key);
        let held: Vec<Held> =
            own.into_iter().chain(copies).filter_map(|(life, track)| self.held(life, track)).collect();
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.changed.clear();
            peer.announce_all_at = now.after_ms(ANNOUNCE_ALL_MS);
        }
        effects.push(Effect::Announce { to, held });
    }

    /// Tells each peer what changed, when its time has come.
    pub(super) fn announce_due(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let up: Vec<Origin> = self.peers.iter().filter(|(_, peer)| peer.is_up).map(|(origin, _)| *origin).collect();
        for to in up {
            let Some(peer) = self.peers.get_mut(&to) else { continue };
            if planted::is(Bug::ForgetToAnnounce) {
                let me = self.settings.me;
                peer.changed.retain(|(life, _), _| *life == me);
            } else if now >= peer.announce_all_at {
                self.announce_all(now, to, effects);
                continue;
            }
            if peer.changed.values().any(|due| *due <= now) {
                let changed = std::mem::take(&mut peer.changed);
                let held = changed.keys().filter_map(|(life, track)| self.held(*life, *track)).collect();
                effects.push(Effect::Announce { to, held });
            }
        }
    }

    /// A copy grew: those that may lack it are told, after a repair sooner than after a live run, which they probably got as well.
    pub(super) fn note_change(&mut self, now: Moment, run: RunKey, repaired: bool) {
        let due = now.after_ms(if repaired { ANNOUNCE_SOON_MS } else { ANNOUNCE_LATER_MS });
        let key = (run.life, run.track);
        let lacking: Vec<Origin> = self
            .peers
            .iter()
            .filter(|(origin, peer)| peer.is_up && self.is_for(**origin, run.life.origin, run.track))
            .filter(|(_, peer)| !peer.held.get(&key).is_some_and(|held| held.covered.covers(run.first.0, run.last.0)))
            .map(|(origin, _)| *origin)
            .collect();
        for origin in lacking {
            if let Some(peer) = self.peers.get_mut(&origin) {
                let at = peer.changed.entry(key).or_insert(due);
                *at = due.min(*at);
            }
        }
    }

    pub(super) fn heard(&mut self, now: Moment, from: Origin, held: Vec<Held>, effects: &mut Vec<Effect>) {
        for held in held {
            let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.is_up) else { return };
            let Some((life, track)) = peer.hear(&held, held.origin == from, now) else { continue };
            if life.origin == self.settings.me.origin {
                let last = held.ranges.last().map_or(0, |(_, last)| *last);
                let covered = &peer.held[&(life, track)].covered;
                peer.pushes[track as usize]
                    .unacknowledged
                    .retain(|(a, b)| life != self.settings.me || !covered.covers(*a, *b));
                self.known_of_me(life.incarnation, last, effects);
            }
        }
    }

    /// What is said of one track of a life; nothing when there is nothing.
    fn held(&self, life: Life, track: Track) -> Option<Held> {
        let Life { origin, incarnation } = life;
        if life == self.settings.me {
            let ranges = if self.head.0 > 0 { vec![(1, self.head.0)] } else { Vec::new() };
            return Some(Held { origin, incarnation, track, ranges, floor: 0 });
        }
        let copy = self.copies.one(life, track).filter(|copy| !copy.covered.is_empty())?;
        let ranges = copy.covered.iter().skip(copy.covered.len().saturating_sub(HELD_RANGES_MAX)).collect();
        Some(Held { origin, incarnation, track, ranges, floor: copy.floor })
    }
}
