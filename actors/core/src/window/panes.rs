//! The window actor's half of a window: slices of all shards become panes.
//!
//! Time is event time only. Panes are fired when the watermark of their key passes their end, and again, with a higher
//! revision, when a late event that was let in changes them. They are forgotten once they are closed for good.
//!
//! **Watermarks.** A device's comes with its shard's deltas. That of a group is the least of what its shards reached; a shard that
//! said nothing yet holds it back (it may be blocked), one whose devices are all idle does not. It never goes back.
//!
//! **Sessions.** Parts that meet or touch are one session. When a session that was announced becomes part of a longer one, it is
//! retracted by a pane of its old bounds without metrics, and the longer one fires when the watermark passes its end, with a revision
//! above those of all that it absorbed.
//!
//! **Recovery.** After a crash the window actor starts from a checkpoint, is told what the journal holds since
//! ([`emitted`](Panes::emitted), [`emitted_late`](Panes::emitted_late)), and sees the same deltas again. What it says then is compared
//! with what is in the journal, in the order of revisions, and said only when it is not there.
//!
//! Invariants
//! 1. A pane is emitted only if it differs from the one emitted last under its name, and then with the next revision.
//! 2. A pane is a function of the rows in it: neither order, batches, shards nor slices show (see [`Stats`](super::Stats)).
//! 3. A window takes no rows that were judged when it was closed for good, and is kept until no shard can send other ones.
//! 4. A watermark never goes back.

mod key;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use self::key::Key;
use super::{
    CheckpointError, Delta, Emit, GroupBy, LateEvent, Pane, Progress, WindowEffect, WindowSpec, checkpoint,
    digest::digest_of_late, grid::Grid,
};
use crate::time::Timestamp;

/// Combines the deltas of all shards into panes.
#[derive(Debug)]
pub struct Panes {
    definition: Definition,
    shards: usize,
    keys: BTreeMap<Arc<str>, Key>,
    /// Keys that changed since the last tick (`emit = "update"`).
    updated: BTreeSet<Arc<str>>,
    /// Late events that the journal has and the deltas will bring again, by digest: how many.
    known_late: BTreeMap<u64, u32>,
    left_out: u64,
}

/// What all keys need to know.
#[derive(Debug)]
struct Definition {
    spec: Arc<WindowSpec>,
    grid: Grid,
    /// Panes carry their partial aggregates.
    shares: bool,
}

#[derive(Serialize, Deserialize)]
struct Saved<K, L> {
    keys: K,
    known_late: L,
    left_out: u64,
}

impl Panes {
    /// `spec` has no [`problems`](WindowSpec::problems); `shards` is how many shards send deltas.
    pub fn new(spec: Arc<WindowSpec>, shards: usize) -> Panes {
        Panes {
            definition: Definition { grid: Grid::of(&spec), spec, shares: false },
            shards,
            keys: BTreeMap::new(),
            updated: BTreeSet::new(),
            known_late: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Panes carry their partial aggregates from now on, to be merged with those of other nodes.
    pub fn with_shares(mut self, shares: bool) -> Panes {
        self.definition.shares = shares;
        self
    }

    pub fn spec(&self) -> &Arc<WindowSpec> {
        &self.definition.spec
    }

    /// Values that came after a group had more slices than [`WINDOW_PARTS_MAX`](crate::limits::WINDOW_PARTS_MAX) open and the oldest
    /// had to be closed.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes deltas of shard `shard` (from 0), in its order.
    pub fn apply(&mut self, shard: usize, deltas: Vec<Delta>, out: &mut Vec<WindowEffect>) {
        for delta in deltas {
            self.apply_one(shard, delta, out);
        }
    }

    /// With `emit = "update"`: says the open panes that changed since they were last said.
    pub fn tick(&mut self, out: &mut Vec<WindowEffect>) {
        while let Some(name) = self.updated.pop_first() {
            if let Some(key) = self.keys.get_mut(&name) {
                key.fire_open(&self.definition, &name, out);
            }
        }
    }

    /// The journal holds this pane already: for each pane that was committed after the checkpoint, in the order of the journal, before
    /// deltas are applied again.
    pub fn emitted(&mut self, pane: &Pane) {
        let shards = self.shards_of_key();
        let key = self.keys.entry(pane.key.as_str().into()).or_insert_with(|| Key::new(shards));
        key.emitted(pane);
    }

    /// The journal holds this pane, but all that was in it, or what had closed it, is left out by now: it is taken back, or said as it stands.
    /// Call it when the deltas were applied again.
    pub fn take_back(&mut self, pane: &Pane, out: &mut Vec<WindowEffect>) {
        if let Some(key) = self.keys.get_mut(pane.key.as_str()) {
            key.take_back(&self.definition, pane, out);
        }
    }

    /// The journal holds this late event already.
    pub fn emitted_late(&mut self, event: &LateEvent) {
        *self.known_late.entry(digest_of_late(event)).or_default() += 1;
    }

    /// All panes whose end the watermark has not passed, as they stand, by key. What the slicers have not shipped is not in them.
    pub fn open(&self) -> Vec<Pane> {
        self.keys.iter().flat_map(|(name, key)| key.open(&self.definition, name)).collect()
    }

    /// The whole state, valid between any two calls.
    pub fn save(&self) -> Vec<u8> {
        let saved = Saved { keys: &self.keys, known_late: &self.known_late, left_out: self.left_out };
        checkpoint::encode(&self.definition.spec, &saved)
    }

    /// Takes the state of a checkpoint in place of its own. The number of shards may have changed since.
    ///
    /// # Errors
    /// When the bytes are no checkpoint of this definition; the panes are as before.
    pub fn load(&mut self, checkpoint: &[u8]) -> Result<(), CheckpointError> {
        type Loaded = Saved<BTreeMap<Arc<str>, Key>, BTreeMap<u64, u32>>;
        let saved: Loaded = checkpoint::decode(&self.definition.spec, checkpoint)?;
        self.keys = saved.keys;
        let shards = self.shards_of_key();
        self.keys.values_mut().for_each(|key| key.expect_shards(shards));
        self.known_late = saved.known_late;
        self.left_out = saved.left_out;
        self.updated = self.keys.keys().cloned().collect();
        Ok(())
    }

    fn apply_one(&mut self, shard: usize, delta: Delta, out: &mut Vec<WindowEffect>) {
        for event in delta.late {
            self.say_late(event, out);
        }
        let by_device = self.definition.spec.by == GroupBy::Device;
        if by_device && delta.parts.is_empty() && !self.keys.contains_key(&delta.key) {
            return;
        }
        let shards = self.shards_of_key();
        let key = self.keys.entry(delta.key.clone()).or_insert_with(|| Key::new(shards));
        let changes = !delta.parts.is_empty();
        if by_device {
            // What was closed for good when these rows were judged is not there for them to join.
            key.reach(delta.judged.0);
            key.fire_closed(&self.definition, &delta.key, out);
            key.forget(&self.definition);
        }
        for part in delta.parts {
            self.left_out += key.add(&self.definition, &delta.key, part, delta.judged.0, out);
        }
        let watermark = key.watermark;
        key.hear(if by_device { 0 } else { shard }, delta.judged.0, delta.progress);
        key.bound_parts(&self.definition);
        key.fire_closed(&self.definition, &delta.key, out);
        if key.idle && delta.progress == Progress::Idle {
            key.fire_open(&self.definition, &delta.key, out);
        }
        key.forget(&self.definition);
        if !by_device && key.watermark > watermark {
            out.push(WindowEffect::Watermark { key: delta.key.to_string(), at: Timestamp(key.watermark) });
        }
        if by_device && key.is_empty() {
            self.keys.remove(&delta.key);
        } else if changes && self.definition.spec.emit == Emit::Update {
            self.updated.insert(delta.key);
        }
    }

    fn say_late(&mut self, event: LateEvent, out: &mut Vec<WindowEffect>) {
        if !self.known_late.is_empty() {
            let digest = digest_of_late(&event);
            if let Some(times) = self.known_late.get_mut(&digest) {
                *times -= 1;
                if *times == 0 {
                    self.known_late.remove(&digest);
                }
                return;
            }
        }
        out.push(WindowEffect::Late(event));
    }

    /// A device belongs to one shard, whichever; a group to all.
    fn shards_of_key(&self) -> usize {
        if self.definition.spec.by == GroupBy::Device { 1 } else { self.shards }
    }
}
