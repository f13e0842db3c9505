//! What several people may change on several nodes at once, with or without a network: devices, what they should be, rules, windows,
//! schemas, device types, configuration.
//!
//! What it decides: which edit holds, when an edit becomes a change, when a change may leave, who is told, and when a document has
//! grown too old. It believes monotonic time for intervals, and the wall clock only inside stamps that never go back.
//!
//! **Values.** A document is an automerge map from keys to [`value`]s. Each value has a stamp, (hybrid clock, author), later than every
//! value its author had seen. Of values that were written without knowing of each other the later one holds, on every node; the others
//! are a [`Conflict`] until somebody decides. Devices are spread over [`DEVICE_SHARDS`] documents, the other kinds have one each.
//!
//! **Deletion.** A device has numbered lives, and everything said of it belongs to one. Deleting ends the life; edits of people who do
//! not know yet, even of one who comes back after a year, belong to a life that is over and are not seen. Only [`Documents::set_device`]
//! by somebody who knows of the deletion begins the next life. The price is one value per deleted name, kept in all later epochs.
//!
//! **Epochs.** Cost grows with history, so a document of more than [`OPS_MAX`] operations (or four times its content) ends: its values
//! are written with their stamps into a new document, of the next epoch. Among the nodes that see each other the one with the lowest
//! origin does it, and anybody once it is a quarter over, so several may at once. That is harmless: the new documents have one name and
//! merge, and a value that several carried is the same value. Whoever meets a later epoch takes it in place of its own document and
//! writes there each value it knows that is later than what it finds. So no edit is lost, whichever epoch it was made in and whether it
//! had been sent or not, and repeating any of this changes nothing. The limits: history, and conflicts nobody decided, end with the
//! epoch; an edit that only one node has is known to the others once that node has been back.
//!
//! **Durability.** An edit holds here at once. [`COALESCE`] after the first of them the edits of a document become one change, which is
//! given to be saved, and leaves when the shell says it is [`Input::Saved`]. What is received is saved before it is confirmed. An edit is
//! lost by a crash until it is saved, and nobody else has seen it by then. Each life of a node has an automerge actor of its own, so
//! that a node that lost its disk never uses a number of its earlier life for a different change.
//!
//! **Exchange.** Changes are pushed to all connected peers. What that misses is found by digests, at connection and every few seconds,
//! and repaired by automerge's synchronisation, one document at a time per peer: see [`exchange`].
//!
//! Invariants:
//! 1. What leaves is on disk: changes, digests and synchronisation speak of durable heads only.
//! 2. For each key the view holds the value that beats all others that were ever seen under it, and only a later one replaces it.
//! 3. Nothing is pending while others' changes are applied.
//! 4. Saves of a document follow each other; rows of an epoch are deleted in the save that brings the next one.
//!
//! Memory: every document stays in memory with its history, at about 0.9 kB per change and 0.2 kB per value (measured). When all of them
//! together have more than [`CHANGES_MAX`] changes, some 20 MB, the longest begins its next epoch, so that the total stays there. They
//! are not dropped and reloaded: digests, conflicts and pushes need them at any time.
//!
//! Kleppmann, Beresford: "A Conflict-Free Replicated JSON Datatype", 2017; Kleppmann, Howard: "Byzantine Eventual Consistency", 2020, for
//! synchronisation by heads and Bloom filters.

mod doc;
mod edit;
mod exchange;
mod name;
mod peer;
mod read;
mod said;
#[cfg(test)]
mod tests;
pub(crate) mod tree;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ActorId, ChangeHash};
use millpond_core::{ids::Origin, planted, record::Hlc, time::Span};

use crate::Now;

use self::{doc::Doc, doc::Rows, name::read_part_key, peer::Peer, value::Stamped};

pub use self::{
    edit::{NAME_BYTES_MAX, Refused, VALUE_BYTES_MAX},
    name::{DEVICE_SHARDS, Kind, Slot},
    read::{Conflict, Head, Version},
};

/// How long edits are collected into one change.
pub const COALESCE: Span = Span::from_millis(250);
/// Operations of a document before its next epoch begins.
pub const OPS_MAX: u64 = 10_000;
/// Changes that all documents keep together; above it the longest one begins its next epoch, however short it is.
pub const CHANGES_MAX: u64 = 20_000;
/// How often connected nodes compare what they have.
pub const SUM_PERIOD: Span = Span::from_secs(2);
/// After this long without a word a synchronisation is given up; the next comparison begins another.
pub const TURN_TIMEOUT: Span = Span::from_secs(5);

/// Names a save until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SaveId(pub u64);

#[derive(Clone, Debug)]
pub enum Input<'a> {
    PeerUp(Origin),
    PeerDown(Origin),
    /// The content of a `wire::Message::Document`.
    Heard {
        from: Origin,
        bytes: &'a [u8],
    },
    /// The rows of [`Effect::Save`] are on disk.
    Saved(SaveId),
    /// Some time went by: given when [`Documents::next_due`] says so, and at least every second.
    Tick,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Rows of a table to put or, without a value, delete, in one transaction; saves are done in the order they are given.
    Save { id: SaveId, rows: Rows },
    /// To be sent as a `wire::Message::Document`, in order, at most about 1 MiB.
    Send { to: Origin, bytes: Vec<u8> },
    /// A device or text reads differently now; here edited, or received.
    Changed(Kind, String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that could not be read.
    pub malformed: u64,
    /// Messages from nobody who is connected.
    pub strangers: u64,
    /// Changes that automerge refused, such as two with one number.
    pub refused: u64,
    /// Rows on disk that could not be read; peers bring back what was in them.
    pub unreadable: u64,
    /// Documents that had to be synchronised because a push did not fit.
    pub repairs: u64,
    /// Epochs begun here, and epochs taken over from others.
    pub epochs_begun: u64,
    pub epochs_taken: u64,
}

/// What an operator wants to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub documents: usize,
    pub operations: u64,
    pub changes: u64,
    pub values: usize,
    /// The latest epoch of any document.
    pub epoch: u32,
}

pub struct Documents {
    me: Origin,
    actor: ActorId,
    clock: Hlc,
    docs: BTreeMap<Slot, Doc>,
    /// Documents of later epochs of which nothing has arrived yet.
    incoming: BTreeMap<Slot, Doc>,
    saves: BTreeMap<SaveId, (Slot, u32)>,
    next_save: u64,
    /// Documents that may have something to save.
    dirty: BTreeSet<Slot>,
    changed: BTreeSet<(Kind, String)>,
    peers: BTreeMap<Origin, Peer>,
    next_turn: u64,
    next_sum: Now,
    counts: Counts,
    ops_max: u64,
    changes_max: u64,
}

impl Documents {
    /// `life` is a number that this origin never had before: the boot, or a durable count of incarnations that is raised with each.
    /// `saved` are the rows of the state table in any order. What cannot be read is counted and left there.
    pub fn new(me: Origin, life: u64, saved: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Documents {
        let life = if planted::is(planted::Bug::ReuseDocumentActor) { 0 } else { life };
        let actor = ActorId::from([&me.0[..], &life.to_be_bytes()].concat());
        let mut documents = Documents {
            me,
            actor,
            clock: Hlc::default(),
            docs: BTreeMap::new(),
            incoming: BTreeMap::new(),
            saves: BTreeMap::new(),
            next_save: 0,
            dirty: BTreeSet::new(),
            changed: BTreeSet::new(),
            peers: BTreeMap::new(),
            next_turn: life << 32,
            next_sum: Now::default(),
            counts: Counts::default(),
            ops_max: OPS_MAX,
            changes_max: CHANGES_MAX,
        };
        documents.load(saved);
        documents
    }

    /// With this many operations a document's next epoch begins, instead of [`OPS_MAX`]: for rehearsals, in which nobody edits as much.
    #[must_use]
    pub fn with_operations_max(self, operations: u64) -> Documents {
        Documents { ops_max: operations, ..self }
    }

    fn load(&mut self, saved: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) {
        let mut parts = BTreeMap::new();
        for (key, bytes) in saved {
            match read_part_key(&key) {
                Some((slot, epoch, part)) => drop(parts.insert((slot, epoch, part), bytes)),
                None => self.counts.unreadable += 1,
            }
        }
        let mut epochs: BTreeMap<(Slot, u32), Doc> = BTreeMap::new();
        for ((slot, epoch, part), bytes) in parts {
            let doc = epochs.entry((slot, epoch)).or_insert_with(|| Doc::new(slot, epoch, &self.actor));
            self.counts.unreadable += u64::from(doc.load(part, &bytes, &self.actor).is_err());
        }
        for ((slot, _), mut doc) in epochs {
            doc.loaded();
            self.clock = self.clock.max(doc.latest);
            // Of two epochs on disk the later one takes the earlier one over.
            match self.docs.remove(&slot) {
                Some(earlier) => self.succeed(earlier, doc, false),
                None => drop(self.docs.insert(slot, doc)),
            }
        }
        self.changed.clear();
    }

    /// When [`Input::Tick`] is wanted next.
    pub fn next_due(&self) -> Now {
        let pending = self.docs.values().filter_map(|doc| doc.pending_since).map(|since| since.after(COALESCE));
        pending.min().unwrap_or(self.next_sum).min(self.next_sum)
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn size(&self) -> Size {
        let documents = self.docs.len();
        let operations = self.docs.values().map(Doc::operations).sum();
        let changes = self.docs.values().map(Doc::changes).sum();
        let epoch = self.docs.values().map(|doc| doc.epoch).max().unwrap_or_default();
        Size { documents, operations, changes, values: self.docs.values().map(|doc| doc.view.len()).sum(), epoch }
    }

    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut Vec<Effect>) {
        match input {
            Input::PeerUp(peer) => self.peer_up(peer, effects),
            Input::PeerDown(peer) => drop(self.peers.remove(&peer)),
            Input::Heard { from, bytes } => self.hear(now, from, bytes, effects),
            Input::Saved(id) => self.saved(now, id, effects),
            Input::Tick => {
                self.commit_due(now);
                self.renew();
                self.compare_notes(now, effects);
            }
        }
        self.save(now, effects);
        effects.extend(std::mem::take(&mut self.changed).into_iter().map(|(kind, name)| Effect::Changed(kind, name)));
    }

    fn commit_due(&mut self, now: Now) {
        for doc in self.docs.values_mut() {
            if doc.pending_since.is_some_and(|since| now >= since.after(COALESCE)) {
                doc.commit();
                self.dirty.insert(doc.slot);
            }
        }
    }

    /// Begins the next epoch of documents that have grown too long, each by itself or all together.
    fn renew(&mut self) {
        let first = self.peers.keys().all(|peer| self.me < *peer);
        let settled = |doc: &&Doc| doc.is_durable() && doc.saving.is_none();
        let due =
            |doc: &&Doc| settled(doc) && doc.is_longer_than(if first { self.ops_max } else { self.ops_max / 4 * 5 });
        let mut slots: BTreeSet<Slot> = self.docs.values().filter(due).map(|doc| doc.slot).collect();
        let changes: u64 = self.docs.values().map(Doc::changes).sum();
        if changes > if first { self.changes_max } else { self.changes_max / 4 * 5 } {
            let several = self.docs.values().filter(settled).filter(|doc| doc.changes() > 1);
            let longest = several.max_by_key(|doc| doc.changes());
            slots.extend(longest.map(|doc| doc.slot));
        }
        for slot in slots {
            let Some(old) = self.docs.remove(&slot) else { continue };
            let new = Doc::new(slot, old.epoch + 1, &self.actor);
            self.succeed(old, new, true);
            self.counts.epochs_begun += 1;
        }
    }

    /// Puts a document in the place of its earlier epoch, and writes into it what that knew better.
    fn succeed(&mut self, old: Doc, mut new: Doc, begun_here: bool) {
        let slot = new.slot;
        new.leftovers.extend(old.rows());
        // Lives are looked up where they are: in the registry of the same shard.
        self.docs.insert(slot, old);
        let old = &self.docs[&slot];
        if begun_here || !planted::is(planted::Bug::ForgetUnsentEdits) {
            new.take_over(old, begun_here, |key| self.is_gone(old, key));
        }
        let differ = new.view.iter().filter(|(key, value)| old.view.get(*key).map(Stamped::says) != Some(value.says()));
        let differ: Vec<_> = differ.map(|(key, _)| (slot.kind, name::subject(key))).collect();
        self.changed.extend(differ);
        self.docs.insert(slot, new);
        self.dirty.insert(slot);
    }

    /// After changes were applied to the document of this epoch.
    fn absorb(&mut self, slot: Slot, epoch: u32, before: &[ChangeHash]) {
        if self.incoming.get(&slot).is_some_and(|doc| doc.epoch == epoch) {
            let Some(mut doc) = self.incoming.remove(&slot) else { return };
            doc.absorb(before);
            self.clock = self.clock.max(doc.latest);
            match self.docs.remove(&slot) {
                Some(old) if !doc.view.is_empty() => {
                    self.succeed(old, doc, false);
                    self.counts.epochs_taken += 1;
                }
                Some(old) => {
                    self.docs.insert(slot, old);
                    self.incoming.insert(slot, doc);
                }
                None => drop(self.docs.insert(slot, doc)),
            }
        } else if let Some(doc) = self.docs.get_mut(&slot).filter(|doc| doc.epoch == epoch) {
            let keys = doc.absorb(before);
            self.clock = self.clock.max(doc.latest);
            self.changed.extend(keys.iter().map(|key| (slot.kind, name::subject(key))));
        }
        self.dirty.insert(slot);
    }

    /// An edit made here.
    fn put(&mut self, now: Now, slot: Slot, key: String, value: Stamped) {
        self.changed.insert((slot.kind, name::subject(&key)));
        self.docs.entry(slot).or_insert_with(|| Doc::new(slot, 0, &self.actor)).edit(now, key, value);
    }

    fn save(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for slot in std::mem::take(&mut self.dirty) {
            let Some(doc) = self.docs.get_mut(&slot) else { continue };
            let id = SaveId(self.next_save);
            let Some(rows) = doc.rows_to_save(id) else { continue };
            self.next_save += 1;
            self.saves.insert(id, (slot, doc.epoch));
            effects.push(Effect::Save { id, rows });
            if planted::is(planted::Bug::ShipBeforeDurable) {
                self.now_durable(now, slot, effects);
            }
        }
    }

    fn saved(&mut self, now: Now, id: SaveId, effects: &mut Vec<Effect>) {
        let Some((slot, epoch)) = self.saves.remove(&id) else { return };
        if self.docs.get(&slot).is_some_and(|doc| doc.epoch == epoch && doc.saving == Some(id)) {
            self.now_durable(now, slot, effects);
        }
    }

    fn now_durable(&mut self, now: Now, slot: Slot, effects: &mut Vec<Effect>) {
        let Some(doc) = self.docs.get_mut(&slot) else { return };
        let (epoch, changes) = (doc.epoch, doc.saved());
        // More may have been committed while the save was on its way.
        self.dirty.insert(slot);
        self.ship(slot, epoch, &changes, effects);
        self.go_on(now, slot, effects);
    }
}
