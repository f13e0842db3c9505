//! The ledger as people see it.

use std::collections::BTreeSet;

use millpond_core::{
    ids::{Incarnation, Origin},
    ranges::RangeSet,
    record::Track,
};
use serde::{Deserialize, Serialize};

use super::{Life, Replication};

/// What is known of one track of one life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub track: Track,
    /// This node wrote it.
    pub own: bool,
    /// This node is to hold it.
    pub wanted: bool,
    /// Held here: first and last, both inclusive.
    pub held: Vec<(u64, u64)>,
    /// Records up to here may have been given up by retention.
    pub floor: u64,
    /// The highest number that anybody reachable holds, and who does.
    pub head: u64,
    pub head_at: Vec<Origin>,
    /// Numbers up to the head that are not held here, and were not given up.
    pub missing: u64,
    /// Those of them that are being fetched.
    pub fetching: u64,
    /// Up to where each reachable peer holds everything.
    pub peers: Vec<(Origin, u64)>,
}

impl Replication {
    /// One row for each life and track that is held here or was heard of.
    pub fn ledger(&self) -> Vec<LedgerRow> {
        let up = self.peers.values().filter(|peer| peer.is_up);
        let mut keys: BTreeSet<(Life, Track)> = up.flat_map(|peer| peer.held.keys().copied()).collect();
        keys.extend(self.copies.iter().map(|(key, _)| *key));
        keys.extend(Track::ALL.map(|track| (self.settings.me, track)));
        keys.into_iter().map(|(life, track)| self.row(life, track)).collect()
    }

    fn row(&self, life: Life, track: Track) -> LedgerRow {
        let me = self.settings.me;
        let (mut held, mut floor) = (RangeSet::default(), 0);
        if life == me {
            held.insert(1, self.head.0);
        } else if let Some(copy) = self.copies.one(life, track) {
            (held, floor) = (copy.covered.clone(), copy.floor);
        }
        let heard: Vec<(Origin, &RangeSet)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_up)
            .filter_map(|(origin, peer)| Some((*origin, &peer.held.get(&(life, track))?.covered)))
            .collect();
        let head = heard.iter().map(|(_, covered)| covered.last()).chain([held.last()]).max().unwrap_or(0);
        let here = [(me.origin, held.last())];
        let lasts = heard.iter().map(|(origin, covered)| (*origin, covered.last())).chain(here);
        let fetching = self.fetches.values().filter(|fetch| (fetch.run.life, fetch.run.track) == (life, track));
        let mut known = held.clone();
        known.insert(1, floor);
        LedgerRow {
            origin: life.origin,
            incarnation: life.incarnation,
            track,
            own: life == me,
            wanted: self.is_for(me.origin, life.origin, track),
            held: held.iter().collect(),
            floor,
            head,
            head_at: lasts.filter(|(_, last)| head > 0 && *last == head).map(|(origin, _)| origin).collect(),
            missing: known.gaps(1, head).iter().map(|(first, last)| last - first + 1).sum(),
            fetching: fetching.map(|fetch| fetch.run.last.0 - fetch.run.first.0 + 1).sum(),
            peers: heard.iter().map(|(origin, covered)| (*origin, covered.prefix_end())).collect(),
        }
    }
}
