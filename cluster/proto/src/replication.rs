//! Who copies what from whom.
//!
//! Each node has a journal, and each (origin, incarnation) — a *life* — is a numbering of its own. The track of results is copied to
//! every node of a site, the track of raw events to the nodes that [`placement`](crate::placement) chooses among those alive. One
//! [`Replication`] per node decides it all; its shell reads and writes disks and links and has no opinion.
//!
//! # How records get around
//! - **Push.** What an origin commits it sends at once to those that are to hold it: live first, whatever is missing below. When a link
//!   falls behind, pushing goes on at the head and leaves a gap.
//! - **Pull.** Everybody tells what they hold ([`Held`]): when a link comes up, soon after a repair, a little later after live runs, and
//!   now and then in full. What somebody holds and is wanted here is fetched in slices, results newest first and raw events oldest first.
//! - Once told to hold something, a node keeps it; when holders change, the new ones pull from the old ones. An origin never pulls its own.
//!
//! # What must stay true
//! 1. A live run is kept only when its origin sent it over its own link. A repaired run is kept only when it was asked for, from
//!    whoever sent it.
//! 2. [`Effect::Confirmed`] counts only what peers said to have on disk, and only peers whose link is up: one that was away may have lost it.
//! 3. No number is fetched twice while a fetch of it is under way, or while it waits for the disk here.
//! 4. Nothing is announced or acknowledged before [`Input::Persisted`] said so.
//! 5. What is below a floor (given up by retention) is neither offered nor wanted again.
//! 6. Everything is bounded: fetches and runs under way, lives and ranges remembered of each peer.
//!
//! # Time
//! Monotonic only, as the shell gives it. Grace, back-off and pauses are in [`limits`].

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    planted::{self, Bug},
    ranges::RangeSet,
    record::Track,
};
use serde::{Deserialize, Serialize};

use crate::{
    placement,
    wire::{Held, Run, Stored},
};

mod announce;
mod confirm;
mod copies;
mod ledger;
pub mod limits;
mod peer;
mod push;
mod repair;
#[cfg(test)]
mod tests;

pub use copies::Copied;
pub use ledger::LedgerRow;

use copies::Copies;
use peer::Peer;
use repair::Fetching;

/// A moment of the node's monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    pub fn after_ms(self, ms: u64) -> Moment {
        Moment(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }
}

/// One numbering: an origin between two losses of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    pub origin: Origin,
    pub incarnation: Incarnation,
}

/// Which records a run holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunKey {
    pub life: Life,
    pub track: Track,
    pub first: Seq,
    pub last: Seq,
}

impl RunKey {
    pub fn of(run: &Run) -> RunKey {
        let life = Life { origin: run.origin, incarnation: run.incarnation };
        RunKey { life, track: run.track, first: run.first, last: run.last }
    }

    fn stored(&self) -> Stored {
        let Life { origin, incarnation } = self.life;
        Stored { origin, incarnation, track: self.track, first: self.first, last: self.last }
    }
}

/// Names a fetch of this node until it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(pub u64);

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Who is alive, as membership sees it, this node included. Holders are chosen among them; a link is not needed for that.
    Members(Vec<Origin>),
    /// The link to a peer is up, and its certificate says that it is the peer. What was known of the peer is forgotten. When a new
    /// link takes the place of an old one there may be no [`Input::PeerDown`], but never one afterwards for the old link.
    PeerUp(Origin),
    /// The link is gone, and with it all fetches over it: they need not be ended one by one.
    PeerDown(Origin),
    /// This node's journal is durable up to `head`; `last` is the last record of each track (`Track as usize`), 0 for none.
    Committed { head: Seq, last: [Seq; 2] },
    /// [`Message::Held`](crate::wire::Message::Held) from a peer.
    Heard { from: Origin, held: Vec<Held> },
    /// A run that [is sound](Run::is_sound) came: live on a stream of messages, or as an answer. Answered by [`Effect::Keep`] or
    /// [`Effect::Ignore`].
    Arrived { from: Origin, run: RunKey, live: bool },
    /// A copy is durable. The whole run, not only what was new of it.
    Persisted(RunKey),
    /// A run that was to be kept could not be stored. It is fetched again later, after a pause.
    NotPersisted(RunKey),
    /// Retention gave up records of a copy, up to `floor`.
    Dropped { life: Life, track: Track, floor: Seq },
    /// [`Message::Stored`](crate::wire::Message::Stored) from a peer.
    PeerStored { from: Origin, stored: Vec<Stored> },
    /// A push was not sent: the link's queue was full.
    PushFailed { to: Origin, track: Track },
    /// A fetch is over; no run of it comes after this.
    FetchEnded { id: FetchId, how: FetchEnd },
    /// Time went on. To be given about every 100 ms.
    Tick,
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchEnd {
    /// The peer said all it had to say.
    Done,
    /// It has no permit free for this long.
    Busy { retry_ms: u32 },
    /// It does not hold the range, or not the life.
    Unknown,
    /// The stream broke, took too long, or what came made no sense.
    Failed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send [`Message::Held`](crate::wire::Message::Held).
    Announce { to: Origin, held: Vec<Held> },
    /// Read the own journal and send it as runs that cover the range, ascending. When that fails: [`Input::PushFailed`].
    Push { to: Origin, track: Track, first: Seq, last: Seq },
    /// Ask with [`Request::Repair`](crate::wire::Request::Repair). Each ends with one [`Input::FetchEnded`], unless the link does.
    Fetch { id: FetchId, from: Origin, run: RunKey, bytes_max: u64 },
    /// Send [`Message::Stored`](crate::wire::Message::Stored).
    Acknowledge { to: Origin, stored: Vec<Stored> },
    /// Store the run that just arrived. Answered by [`Input::Persisted`] or [`Input::NotPersisted`].
    Keep(RunKey),
    /// Let go of the run that just arrived.
    Ignore(RunKey, Why),
    /// All records of this node from its start up to here are on `replicas` other nodes, both tracks: acknowledgements that wait for the
    /// site may leave. What came before the start is not waited for; it is copied all the same.
    Confirmed { head: Seq },
    /// Others know more of this node than its journal: it was wiped, or an old disk came back. It must not go on under its present
    /// incarnation; the next is one above this.
    Superseded { incarnation: Incarnation, head: Seq },
}

/// Why a run is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A live run of somebody else than the sender.
    NotItsOrigin,
    /// A repaired run that was not asked for, or not from this peer.
    NotAsked,
    /// A run of this node itself.
    Own,
    /// All of it is here or waits for the disk.
    Held,
    /// More lives than are kept.
    TooMany,
}

/// What is decided once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub me: Life,
    /// Other nodes that are to hold each raw record.
    pub replicas: usize,
}

/// One node's view of who holds what. See the module.
#[derive(Debug)]
pub struct Replication {
    settings: Settings,
    head: Seq,
    last: [Seq; 2],
    alive: Vec<Origin>,
    peers: BTreeMap<Origin, Peer>,
    copies: Copies,
    fetches: BTreeMap<FetchId, Fetching>,
    next_fetch: FetchId,
    /// The head when this machine was made.
    since: Seq,
    confirmed: Seq,
    superseded: Option<(Incarnation, Seq)>,
    /// Nothing is fetched before this, because the disk did not take what came.
    rests_until: Moment,
}

impl Replication {
    /// `head` and `last` as in [`Input::Committed`]; `copies` as they were found on disk.
    pub fn new(settings: Settings, head: Seq, last: [Seq; 2], copies: impl IntoIterator<Item = Copied>) -> Replication {
        Replication {
            settings,
            head,
            last,
            alive: vec![settings.me.origin],
            peers: BTreeMap::new(),
            copies: Copies::new(copies),
            fetches: BTreeMap::new(),
            next_fetch: FetchId(1),
            since: head,
            confirmed: head,
            superseded: None,
            rests_until: Moment(0),
        }
    }

    /// Takes what happened and appends what is to be done.
    pub fn handle(&mut self, now: Moment, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Members(alive) => {
                let me = self.settings.me.origin;
                let before = self.holders(me);
                self.alive = alive;
                // Who is to keep this node's events from now on learns at once what there is: acknowledgements may wait for it.
                for holder in self.holders(me).into_iter().filter(|holder| !before.contains(holder)) {
                    self.peers.entry(holder).and_modify(|peer| peer.announce_all_at = now);
                }
                self.forget_peers();
                self.repair(now, effects);
            }
            Input::PeerUp(peer) => self.peer_up(now, peer, effects),
            Input::PeerDown(peer) => {
                self.fetches.retain(|_, fetch| fetch.from != peer);
                self.peers.entry(peer).and_modify(Peer::down);
                self.forget_peers();
                self.repair(now, effects);
            }
            Input::Committed { head, last } => {
                (self.head, self.last) = (head.max(self.head), last);
                self.push(now, effects);
                self.confirm(effects);
            }
            Input::Heard { from, held } => {
                self.heard(now, from, held, effects);
                self.confirm(effects);
                self.repair(now, effects);
            }
            Input::Arrived { from, run, live } => self.arrived(from, run, live, effects),
            Input::Persisted(run) => self.persisted(now, run, effects),
            Input::NotPersisted(run) => {
                self.copies.lost(run);
                self.rests_until = now.after_ms(limits::DISK_PAUSE_MS);
            }
            Input::Dropped { life, track, floor } => self.copies.raise_floor(life, track, floor),
            Input::PeerStored { from, stored } => {
                self.peer_stored(from, &stored);
                self.confirm(effects);
            }
            Input::PushFailed { to, track } => self.push_failed(now, to, track),
            Input::FetchEnded { id, how } => {
                self.fetch_ended(now, id, how);
                self.repair(now, effects);
            }
            Input::Tick => {
                self.announce_due(now, effects);
                self.repair(now, effects);
            }
        }
    }

    /// What of a range may be given to others: runs must lie inside these, or else they would claim records that are not here.
    pub fn offered(&self, life: Life, track: Track, first: Seq, last: Seq) -> Vec<(u64, u64)> {
        let all = if life == self.settings.me {
            [(1, self.head.0)].into_iter().filter(|(first, last)| first <= last).collect()
        } else {
            self.copies.offered(life, track)
        };
        let asked: RangeSet = [(first.0, last.0)].into_iter().collect();
        all.intersection(&asked).iter().collect()
    }

    /// The head of the last [`Effect::Confirmed`]; at first the head at the start.
    pub fn confirmed(&self) -> Seq {
        self.confirmed
    }

    /// Who holds the raw records of an origin, as things are now.
    pub fn holders(&self, origin: Origin) -> Vec<Origin> {
        placement::holders(origin, &self.alive, self.settings.replicas)
    }

    /// Peers that said to hold something of a track of some lives.
    pub fn who_offers(&self, track: Track, wanted: impl Fn(Life) -> bool) -> Vec<Origin> {
        let offers = |peer: &Peer| {
            let mut lives = peer.held.keys().filter(|(life, held)| *held == track && wanted(*life));
            lives.any(|(life, track)| peer.offers(*life, *track).is_some_and(|offered| !offered.is_empty()))
        };
        self.peers.iter().filter(|(_, known)| offers(known)).map(|(peer, _)| *peer).collect()
    }

    /// Whether a node is to hold a track of an origin.
    fn is_for(&self, node: Origin, origin: Origin, track: Track) -> bool {
        node != origin && (track == Track::Results || self.holders(origin).contains(&node))
    }

    fn peer_up(&mut self, now: Moment, peer: Origin, effects: &mut Vec<Effect>) {
        if peer == self.settings.me.origin {
            return;
        }
        self.fetches.retain(|_, fetch| fetch.from != peer);
        self.peers.insert(peer, Peer::up(now, self.head));
        self.announce_all(now, peer, effects);
        self.forget_peers();
    }

    /// Lets go of peers that are down and not alive either, oldest identity first, when there are too many.
    fn forget_peers(&mut self) {
        let alive: BTreeSet<Origin> = self.alive.iter().copied().collect();
        let mut over = self.peers.len().saturating_sub(limits::PEERS_MAX);
        self.peers.retain(|origin, peer| {
            let goes = over > 0 && !peer.is_up && !alive.contains(origin);
            over -= usize::from(goes);
            !goes
        });
    }

    fn arrived(&mut self, from: Origin, run: RunKey, live: bool, effects: &mut Vec<Effect>) {
        match self.judge(from, run, live) {
            Ok(()) => {
                self.copies.expect(run, live);
                effects.push(Effect::Keep(run));
            }
            Err(why) => {
                // Perhaps the acknowledgement was lost.
                if why == Why::Held && from == run.life.origin && self.copies.covers(run) {
                    effects.push(Effect::Acknowledge { to: from, stored: vec![run.stored()] });
                }
                effects.push(Effect::Ignore(run, why));
            }
        }
    }

    fn judge(&mut self, from: Origin, run: RunKey, live: bool) -> Result<(), Why> {
        if run.life.origin == self.settings.me.origin {
            return Err(Why::Own);
        }
        if live {
            if from != run.life.origin && !planted::is(Bug::SkipIdentityCheck) {
                return Err(Why::NotItsOrigin);
            }
        } else {
            let asked = self.fetches.values_mut().find(|fetch| fetch.from == from && fetch.is_answered_by(&run));
            asked.ok_or(Why::NotAsked)?.progress = true;
        }
        if self.copies.is_expected(run) {
            return Err(Why::Held);
        }
        if self.copies.is_full(run.life) { Err(Why::TooMany) } else { Ok(()) }
    }

    fn persisted(&mut self, now: Moment, run: RunKey, effects: &mut Vec<Effect>) {
        let repaired = self.copies.persisted(run);
        if self.peers.get(&run.life.origin).is_some_and(|peer| peer.is_up) {
            effects.push(Effect::Acknowledge { to: run.life.origin, stored: vec![run.stored()] });
        }
        self.note_change(now, run, repaired);
    }
}
