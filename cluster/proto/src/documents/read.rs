//! What documents say: devices, what they should be, texts, and where people disagreed.

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{ids::Origin, record::Hlc};
use serde_json::Value as Json;

use super::{
    Documents,
    doc::Doc,
    name::{self, Kind, Slot, life_prefix, segment, subject},
    tree,
    value::Stamped,
};

/// A hash of all that a kind of documents says; the same on every node that knows the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head(pub [u8; 16]);

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Several people wrote one thing without knowing of each other. The first version holds until somebody decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    pub kind: Kind,
    /// The device or text.
    pub name: String,
    /// A JSON pointer into what is said of a device; empty for a text, and for whether the device is there at all.
    pub path: String,
    pub versions: Vec<Version>,
    pub(super) key: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub author: Origin,
    pub at: Hlc,
    /// None: it was removed.
    pub value: Option<Json>,
    pub(super) json: String,
}

/// What is known of whether a device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Unknown,
    Alive(u64),
    Deleted(u64),
}

impl Documents {
    pub(super) fn life(&self, device: &str) -> Life {
        let doc = self.docs.get(&Slot::of(Kind::Registry, device));
        match doc.and_then(|doc| doc.view.get(&segment(device))) {
            None => Life::Unknown,
            Some(value) if value.removed => Life::Deleted(value.life()),
            Some(value) => Life::Alive(value.life()),
        }
    }

    /// Whether all that is said here of a device or text is on disk.
    pub fn is_settled(&self, kind: Kind, name: &str) -> bool {
        self.docs.get(&Slot::of(kind, name)).is_none_or(|doc| doc.pending.is_empty() && doc.is_durable())
    }

    /// Whether all that is said here of a kind is on disk.
    pub fn are_settled(&self, kind: Kind) -> bool {
        let mut docs = self.docs.iter().filter(|(slot, _)| slot.kind == kind);
        docs.all(|(_, doc)| doc.pending.is_empty() && doc.is_durable())
    }

    /// Whether a device was deleted, and not registered since.
    pub fn is_deleted(&self, device: &str) -> bool {
        matches!(self.life(device), Life::Deleted(_))
    }

    /// Whether nobody ever registered a device.
    pub fn is_unknown(&self, device: &str) -> bool {
        self.life(device) == Life::Unknown
    }

    /// Devices of which somebody said what they should be, deleted ones among them.
    pub fn with_desired(&self) -> BTreeSet<String> {
        let desired = self.docs.values().filter(|doc| doc.slot.kind == Kind::Desired);
        desired.flat_map(|doc| doc.view.keys()).map(|key| subject(key)).collect()
    }

    /// What is said of a device that is registered.
    pub fn device(&self, name: &str) -> Option<Json> {
        let Life::Alive(life) = self.life(name) else { return None };
        Some(self.object(Kind::Registry, name, life))
    }

    /// Names of the registered devices.
    pub fn devices(&self) -> BTreeSet<String> {
        let registry = self.docs.values().filter(|doc| doc.slot.kind == Kind::Registry);
        let lives =
            registry.flat_map(|doc| doc.view.iter().filter(|(key, value)| !key.contains('/') && !value.removed));
        lives.map(|(key, _)| subject(key)).collect()
    }

    /// What a device should be: an object, empty when nothing was said. Whoever was never registered counts as in its first life.
    pub fn desired(&self, device: &str) -> Json {
        match self.life(device) {
            Life::Deleted(_) => tree::object(std::iter::empty()),
            Life::Unknown => self.object(Kind::Desired, device, 1),
            Life::Alive(life) => self.object(Kind::Desired, device, life),
        }
    }

    fn object(&self, kind: Kind, name: &str, life: u64) -> Json {
        let prefix = life_prefix(name, life);
        let leaves = self.docs.get(&Slot::of(kind, name)).map(|doc| doc.leaves(&prefix)).unwrap_or_default();
        let below =
            leaves.iter().filter_map(|(key, json)| Some((key.strip_prefix(&prefix)?.strip_prefix('/')?, *json)));
        tree::object(below)
    }

    pub fn texts(&self, kind: Kind) -> BTreeMap<String, String> {
        let doc = self.docs.get(&Slot { kind, shard: 0 }).filter(|_| kind.is_text());
        let live = doc.into_iter().flat_map(|doc| doc.view.iter()).filter(|(_, value)| !value.removed);
        live.map(|(key, value)| (subject(key), serde_json::from_str(&value.json).unwrap_or_default())).collect()
    }

    pub fn text(&self, kind: Kind, name: &str) -> Option<String> {
        let json = self.docs.get(&Slot::of(kind, name)).filter(|_| kind.is_text())?.live(&segment(name))?;
        serde_json::from_str(json).ok()
    }

    /// Does not depend on how a state came about, nor on who wrote what when: a text that is put back has its old head back.
    pub fn head(&self, kind: Kind) -> Head {
        let mut hasher = blake3::Hasher::new();
        for doc in self.docs.values().filter(|doc| doc.slot.kind == kind) {
            let live = doc.view.iter().filter(|(key, value)| !value.removed && !self.is_gone(doc, key));
            for (key, value) in live {
                for part in [key, &value.json] {
                    hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
                }
            }
        }
        let mut head = Head([0; 16]);
        head.0.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        head
    }

    /// Whether a key belongs to a life of a device that is over.
    pub(super) fn is_gone(&self, doc: &Doc, key: &str) -> bool {
        let Some(life) = name::life(key).filter(|_| !doc.slot.kind.is_text()) else { return false };
        match self.life(&subject(key)) {
            Life::Unknown => false,
            Life::Alive(now) => life < now,
            Life::Deleted(last) => life <= last,
        }
    }

    /// In the order of kinds, documents and keys.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut all = Vec::new();
        for doc in self.docs.values() {
            for key in doc.contested.iter().filter(|key| !self.is_gone(doc, key)) {
                let mut versions: Vec<Stamped> = doc.values(key).into_iter().filter(|value| !value.carried).collect();
                let holds = doc.view.get(key);
                versions.sort_by_key(|value| (holds != Some(value), std::cmp::Reverse((value.hlc, value.author))));
                let skip = if doc.slot.kind.is_text() { 1 } else { 2 };
                let path: String = key.split('/').skip(skip).map(|part| format!("/{part}")).collect();
                let versions = versions.into_iter().map(|value| Version {
                    author: value.author,
                    at: value.hlc,
                    value: (!value.removed).then(|| serde_json::from_str(&value.json).unwrap_or(Json::Null)),
                    json: value.json,
                });
                let (kind, name) = (doc.slot.kind, subject(key));
                all.push(Conflict { kind, name, path, versions: versions.collect(), key: key.clone() });
            }
        }
        all
    }
}
