//! What a device says it is, how that differs from what it should be, and what it was told to do.
//!
//! **Reported.** Each leaf of what a device reports is a register of which the last writer wins, by (hybrid clock, origin, sequence
//! number). Merging two states takes the later register of each: it does not matter in which order, how often, or by which way states
//! reach a node. A leaf that was removed stays as an empty register, or an older report would bring it back.
//!
//! **Desired** lives in `documents`; [`delta`] is what the device still has to do about it.
//!
//! **Commands** are in [`commands`].

pub mod commands;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use millpond_core::{ids::Origin, record::Hlc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::documents::tree;

/// Leaves of what one device reports, removed ones included, and bytes of each.
pub const LEAVES_MAX: usize = 1_024;
pub const LEAF_BYTES_MAX: usize = 16 << 10;

/// When and by whom something was reported: total, and never the same twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Stamp {
    pub hlc: Hlc,
    pub origin: Origin,
    pub seq: u64,
}

/// What a device reports. MessagePack or JSON of it is its form on disk and wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reported {
    /// By JSON pointer.
    leaves: BTreeMap<String, Leaf>,
}

/// Ordered as they win.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Leaf {
    stamp: Stamp,
    /// JSON; none when it was removed.
    value: Option<String>,
}

impl Leaf {
    fn is_sound(&self, key: &str) -> bool {
        let bytes = self.value.as_ref().map_or(0, String::len);
        self.stamp.hlc <= Hlc::MAX && key.len() <= LEAF_BYTES_MAX && bytes <= LEAF_BYTES_MAX
    }
}

/// Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("what a device reports is an object")]
    NotAnObject,
    #[error("a device reports at most {LEAVES_MAX} values of {LEAF_BYTES_MAX} bytes each")]
    TooMuch,
}

impl Reported {
    /// Merges a patch (RFC 7396) that the device reported. What was reported later already stays. Returns whether anything changed.
    pub fn report(&mut self, stamp: Stamp, patch: &Json) -> Result<bool, Refused> {
        let Json::Object(patch) = patch else { return Err(Refused::NotAnObject) };
        let live = self.leaves.iter().filter_map(|(key, leaf)| Some((key.clone(), leaf.value.as_deref()?)));
        let writes = tree::merge(&live.collect(), "", patch);
        let new = writes.iter().filter(|(key, _)| !self.leaves.contains_key(key)).count();
        let too_long = |json: &Option<String>| json.as_ref().is_some_and(|json| json.len() > LEAF_BYTES_MAX);
        if self.leaves.len() + new > LEAVES_MAX
            || writes.iter().any(|(key, json)| key.len() > LEAF_BYTES_MAX || too_long(json))
        {
            return Err(Refused::TooMuch);
        }
        let mut changed = false;
        for (key, value) in writes {
            changed |= self.take(&key, &Leaf { stamp, value });
        }
        Ok(changed)
    }

    /// Takes over what another node knows later. Returns whether anything changed. What no report can have said is passed over, by
    /// everybody alike.
    pub fn merge(&mut self, other: &Reported) -> bool {
        let mut changed = false;
        for (key, leaf) in other.leaves.iter().filter(|(key, leaf)| leaf.is_sound(key)) {
            changed |= self.take(key, leaf);
        }
        changed
    }

    /// The part that was written with one stamp: what a report has changed. Merged into the state before it, it gives the state after.
    pub fn written(&self, stamp: Stamp) -> Reported {
        let leaves = self.leaves.iter().filter(|(_, leaf)| leaf.stamp == stamp);
        Reported { leaves: leaves.map(|(key, leaf)| (key.clone(), leaf.clone())).collect() }
    }

    /// What is left when some leaves are taken out, by JSON pointer and JSON (none when the leaf was removed).
    pub fn without(&self, out: impl Fn(&str, Option<&str>) -> bool) -> Reported {
        let left = self.leaves.iter().filter(|(key, leaf)| !out(key, leaf.value.as_deref()));
        Reported { leaves: left.map(|(key, leaf)| (key.clone(), leaf.clone())).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// As the device would say it.
    pub fn value(&self) -> Json {
        let live = self.leaves.iter().filter_map(|(key, leaf)| Some((key.strip_prefix('/')?, leaf.value.as_deref()?)));
        tree::object(live)
    }

    /// When it was last reported.
    pub fn latest(&self) -> Option<Stamp> {
        self.leaves.values().map(|leaf| leaf.stamp).max()
    }

    fn take(&mut self, key: &str, leaf: &Leaf) -> bool {
        if self.leaves.get(key).is_some_and(|have| have >= leaf) {
            return false;
        }
        self.leaves.insert(key.to_string(), leaf.clone());
        true
    }
}

/// The part of `desired` that `reported` does not match, as a patch (RFC 7396): an object, empty when all is as it should be. What
/// desired does not name is the device's own business; a null in it asks for removal.
pub fn delta(desired: &Json, reported: &Json) -> Json {
    let (Json::Object(desired), Json::Object(reported)) = (desired, reported) else {
        return if desired == reported { Json::Object(Map::new()) } else { desired.clone() };
    };
    let differ = desired.iter().filter_map(|(name, want)| Some((name.clone(), difference(want, reported.get(name))?)));
    Json::Object(differ.collect())
}

fn difference(want: &Json, have: Option<&Json>) -> Option<Json> {
    match (want, have) {
        (Json::Null, have) => have.filter(|have| !have.is_null()).map(|_| Json::Null),
        (Json::Object(fields), Some(Json::Object(_))) if fields.is_empty() => None,
        (Json::Object(_), Some(have @ Json::Object(_))) => {
            let inner = delta(want, have);
            inner.as_object().is_some_and(|inner| !inner.is_empty()).then_some(inner)
        }
        (Json::Object(fields), have) => {
            let inner = delta(want, &Json::Object(Map::new()));
            let says_something =
                inner.as_object().is_some_and(|inner| !inner.is_empty()) || fields.is_empty() || have.is_some();
            says_something.then_some(inner)
        }
        (want, have) => (have != Some(want)).then(|| want.clone()),
    }
}
