//! One document: its history, what is read from it, what waits to become a change, and how much of it is on disk.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{
    ActorId, Automerge, AutomergeError, Change, ChangeHash, ROOT, ReadDoc, ScalarValue, Value,
    legacy::{Key, ObjectId},
    transaction::{CommitOptions, Transactable},
};
use millpond_core::record::Hlc;

use super::{
    SaveId,
    name::{Kind, Slot, part_key},
    said::Hash,
    value::Stamped,
};
use crate::Now;

/// Parts on disk before they are put together.
const PARTS_BEFORE_COMPACTION: usize = 32;

pub struct Doc {
    pub slot: Slot,
    pub epoch: u32,
    pub history: Automerge,
    /// What holds under each key, pending edits included.
    pub view: BTreeMap<String, Stamped>,
    /// Keys under which more than one thing was written at once.
    pub contested: BTreeSet<String>,
    /// The latest stamp that was seen in it.
    pub latest: Hlc,
    pub pending: BTreeMap<String, Stamped>,
    pub pending_since: Option<Now>,
    /// Heads that are on disk, and those that are on the way there.
    pub durable: Vec<ChangeHash>,
    submitted: Vec<ChangeHash>,
    pub saving: Option<SaveId>,
    /// This node's changes among those that are on the way to disk.
    shipping: Vec<Change>,
    /// Rows of earlier epochs, to be deleted with the next save.
    pub leftovers: Vec<Vec<u8>>,
    /// Numbers of the parts on disk, and bytes of all but the first.
    pub parts: BTreeSet<u32>,
    loose_bytes: usize,
    first_bytes: usize,
}

pub type Rows = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl Doc {
    pub fn new(slot: Slot, epoch: u32, actor: &ActorId) -> Doc {
        Doc {
            slot,
            epoch,
            history: Automerge::new().with_actor(actor.clone()),
            view: BTreeMap::new(),
            contested: BTreeSet::new(),
            latest: Hlc::default(),
            pending: BTreeMap::new(),
            pending_since: None,
            durable: Vec::new(),
            submitted: Vec::new(),
            saving: None,
            shipping: Vec::new(),
            leftovers: Vec::new(),
            parts: BTreeSet::new(),
            loose_bytes: 0,
            first_bytes: 0,
        }
    }

    /// Reads a part back from disk; parts may come in any order but are best read in that of their numbers.
    pub fn load(&mut self, part: u32, bytes: &[u8], actor: &ActorId) -> Result<(), AutomergeError> {
        self.parts.insert(part);
        self.loose_bytes += bytes.len();
        self.history.load_incremental(bytes)?;
        self.history.set_actor(actor.clone());
        Ok(())
    }

    /// After the last part.
    pub fn loaded(&mut self) {
        self.durable = self.history.get_heads();
        self.submitted.clone_from(&self.durable);
        let keys: Vec<String> = self.history.keys(ROOT).collect();
        keys.iter().for_each(|key| {
            self.resolve(key);
        });
    }

    /// Whether all changes are on disk; pending edits are no changes yet.
    pub fn is_durable(&self) -> bool {
        self.durable == self.history.get_heads()
    }

    pub fn operations(&self) -> u64 {
        self.history.stats().num_ops
    }

    pub fn changes(&self) -> u64 {
        self.history.stats().num_changes
    }

    /// A document whose very content is large is given more.
    pub fn is_longer_than(&self, operations: u64) -> bool {
        self.operations() > operations.max(self.view.len() as u64 * 4)
    }

    pub fn live(&self, key: &str) -> Option<&str> {
        self.view.get(key).filter(|value| !value.removed).map(|value| value.json.as_str())
    }

    /// Leaves at and below a prefix.
    pub fn leaves(&self, prefix: &str) -> BTreeMap<String, &str> {
        let below = format!("{prefix}/");
        let inside = self.view.range(below.clone()..).take_while(|(key, _)| key.starts_with(&below));
        let own = self.view.get_key_value(prefix);
        let live = own.into_iter().chain(inside).filter(|(_, value)| !value.removed);
        live.map(|(key, value)| (key.clone(), value.json.as_str())).collect()
    }

    /// Holds at once, and becomes part of the next change.
    pub fn edit(&mut self, now: Now, key: String, value: Stamped) {
        self.pending_since.get_or_insert(now);
        self.view.insert(key.clone(), value.clone());
        self.pending.insert(key, value);
    }

    /// Makes a change of what is pending.
    pub fn commit(&mut self) {
        self.pending_since = None;
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let wall_ms = pending.values().map(|value| value.hlc.wall_ms()).max().unwrap_or(0);
        let done = self.history.transact_with::<_, _, AutomergeError, _>(
            |_| CommitOptions::default().with_time(wall_ms / 1_000),
            |tx| {
                pending
                    .iter()
                    .try_for_each(|(key, value)| tx.put(ROOT, key.as_str(), ScalarValue::Bytes(value.encode())))
            },
        );
        debug_assert!(done.is_ok(), "a map takes any key");
        for key in pending.keys() {
            self.contested.remove(key);
        }
    }

    /// Brings the view up to what has been applied since `before`; returns the keys that read differently now.
    ///
    /// Nothing is pending while others' changes are applied: an edit must not stand over what its author had not seen.
    pub fn absorb(&mut self, before: &[ChangeHash]) -> Vec<String> {
        debug_assert!(self.pending.is_empty());
        let mut touched = BTreeSet::new();
        for change in self.history.get_changes(before) {
            let operations = change.decode().operations.into_iter();
            touched.extend(operations.filter_map(|operation| match (operation.obj, operation.key) {
                (ObjectId::Root, Key::Map(key)) => Some(key.to_string()),
                _ => None,
            }));
        }
        touched.into_iter().filter(|key| self.resolve(key)).collect()
    }

    /// Everything that stands under a key, each once.
    pub fn values(&self, key: &str) -> Vec<Stamped> {
        let all = self.history.get_all(ROOT, key).unwrap_or_default();
        let decoded = all.into_iter().filter_map(|(value, _)| match value {
            Value::Scalar(scalar) => match scalar.as_ref() {
                ScalarValue::Bytes(bytes) => Stamped::decode(bytes),
                _ => None,
            },
            Value::Object(_) => None,
        });
        let mut values: Vec<Stamped> = Vec::new();
        for value in decoded {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    }

    fn is_life(&self, key: &str) -> bool {
        self.slot.kind == Kind::Registry && !key.contains('/')
    }

    fn resolve(&mut self, key: &str) -> bool {
        let values = self.values(key);
        let is_life = self.is_life(key);
        self.latest = values.iter().map(|value| value.hlc).max().unwrap_or_default().max(self.latest);
        let mut fresh = values.iter().filter(|value| !value.carried);
        let contested = fresh.next().is_some_and(|first| fresh.any(|other| other.says() != first.says()));
        if contested {
            self.contested.insert(key.to_string());
        } else {
            self.contested.remove(key);
        }
        let best = values.into_iter().reduce(|best, next| if next.beats(&best, is_life) { next } else { best });
        let Some(best) = best else { return false };
        let says_else = self.view.get(key).is_none_or(|old| old.says() != best.says());
        self.view.insert(key.to_string(), best);
        says_else
    }

    /// Takes over what an earlier epoch knew better; `gone` names keys that nobody can read any more.
    pub fn take_over(&mut self, earlier: &Doc, carried: bool, gone: impl Fn(&str) -> bool) -> Vec<String> {
        let mut taken = Vec::new();
        for (key, value) in &earlier.view {
            let is_life = self.is_life(key);
            let better = self.view.get(key).is_none_or(|have| value.beats(have, is_life));
            if better && !gone(key) {
                let value = Stamped { carried: carried || value.carried, ..value.clone() };
                self.edit(Now(0), key.clone(), value);
                taken.push(key.clone());
            }
        }
        self.commit();
        taken
    }

    /// What brings the disk up to date, when that is needed and nothing is on the way.
    pub fn rows_to_save(&mut self, id: SaveId) -> Option<Rows> {
        let heads = self.history.get_heads();
        if self.saving.is_some() || heads == self.submitted {
            return None;
        }
        let next = self.parts.last().map_or(0, |last| last + 1);
        let mut rows = Rows::new();
        let scattered = self.parts.len() >= PARTS_BEFORE_COMPACTION || self.loose_bytes > 65_536 + self.first_bytes;
        if self.parts.is_empty() || scattered {
            let whole = self.history.save();
            (self.first_bytes, self.loose_bytes) = (whole.len(), 0);
            rows.push((part_key(self.slot, self.epoch, next), Some(whole)));
            let old = std::mem::take(&mut self.parts);
            rows.extend(old.into_iter().map(|part| (part_key(self.slot, self.epoch, part), None)));
        } else {
            let new = self.history.save_after(&self.submitted);
            self.loose_bytes += new.len();
            rows.push((part_key(self.slot, self.epoch, next), Some(new)));
        }
        self.parts.insert(next);
        rows.extend(std::mem::take(&mut self.leftovers).into_iter().map(|key| (key, None)));
        let (new, actor) = (self.history.get_changes(&self.submitted), self.history.get_actor());
        self.shipping = new.into_iter().filter(|change| change.actor_id() == actor).collect();
        self.submitted = heads;
        self.saving = Some(id);
        Some(rows)
    }

    /// What was on the way is on disk. Returns this node's changes that may be told now.
    pub fn saved(&mut self) -> Vec<Change> {
        self.saving = None;
        self.durable.clone_from(&self.submitted);
        std::mem::take(&mut self.shipping)
    }

    /// Keys of its rows on disk.
    pub fn rows(&self) -> impl Iterator<Item = Vec<u8>> {
        let parts = self.parts.iter().map(|part| part_key(self.slot, self.epoch, *part));
        parts.chain(self.leftovers.iter().cloned())
    }

    pub fn digest(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        for head in &self.durable {
            hasher.update(&head.0);
        }
        let mut hash = Hash::default();
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        hash
    }
}
