//! How far this node's records are safe with others.
//!
//! Nobody waits for records of an earlier run of the process, and those may be many: only what was committed since the start counts, so
//! that a backlog does not hold up fresh acknowledgements.

use millpond_core::{
    ids::{Incarnation, Seq},
    record::Track,
};

use super::{Effect, Replication};

impl Replication {
    pub(super) fn confirm(&mut self, effects: &mut Vec<Effect>) {
        let confirmed = self.confirmed_by_peers();
        if confirmed > self.confirmed {
            self.confirmed = confirmed;
            effects.push(Effect::Confirmed { head: confirmed });
        }
    }

    fn confirmed_by_peers(&self) -> Seq {
        let Some(nth) = self.settings.replicas.checked_sub(1) else { return self.head };
        let tracks = Track::ALL.into_iter().map(|track| {
            let mut ends: Vec<u64> =
                self.peers.values().filter(|peer| peer.is_up).map(|peer| self.confirmed_end(peer, track)).collect();
            ends.sort_unstable_by(|a, b| b.cmp(a));
            ends.get(nth).copied().unwrap_or(0)
        });
        Seq(tracks.min().unwrap_or(0)).max(self.since)
    }

    /// Up to where one peer has all of a track that this node wrote since it started.
    pub(super) fn confirmed_end(&self, peer: &super::Peer, track: Track) -> u64 {
        let heard = peer.held.get(&(self.settings.me, track));
        // What the peer had to give up since is not waited for: it holds nothing that is older.
        let from = self.since.0.max(heard.map_or(0, |heard| heard.floor));
        let end = heard.and_then(|heard| heard.covered.range_of(from + 1)).map_or(from, |(_, end)| end);
        // Behind the track's last record there is nothing that could be missing.
        if end >= self.last[track as usize].0 { self.head.0 } else { end.min(self.head.0) }
    }

    /// Others know this much of this node.
    pub(super) fn known_of_me(&mut self, incarnation: Incarnation, last: u64, effects: &mut Vec<Effect>) {
        let (mine, head) = (self.settings.me.incarnation, self.head);
        let known = (incarnation, Seq(last));
        if known > (mine, head) && self.superseded.is_none_or(|told| known > told) {
            self.superseded = Some(known);
            effects.push(Effect::Superseded { incarnation, head: Seq(last) });
        }
    }
}
