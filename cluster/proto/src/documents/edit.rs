//! What a person or program on this node may change. Each holds at once for readers here, and travels when it is on disk.

use millpond_core::planted;
use serde_json::Value as Json;

use super::{
    Documents,
    name::{Kind, Slot, life_prefix, segment},
    read::{Conflict, Life},
    tree,
    value::Stamped,
};
use crate::Now;

/// Bytes of one text or one leaf of a device.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// Bytes of the name of a device or text.
pub const NAME_BYTES_MAX: usize = 512;

/// Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes")]
    Name,
    #[error("a value has at most {VALUE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("what is said of a device is an object")]
    NotAnObject,
    #[error("{0} was deleted")]
    Deleted(String),
    #[error("{0} is not registered")]
    NotRegistered(String),
    #[error("{} does not hold texts", .0.name())]
    NotTexts(Kind),
    #[error("there is no such version")]
    NoSuchVersion,
}

/// (key, JSON or removed)
type Writes = Vec<(String, Option<String>)>;

impl Documents {
    /// Says all of a device, and registers it when it is not there. A device that was deleted begins a new life: nothing that was said
    /// of an earlier one, by whomever and whenever, counts for it.
    pub fn set_device(&mut self, now: Now, wall_ms: i64, name: &str, fields: &Json) -> Result<(), Refused> {
        let Json::Object(fields) = fields else { return Err(Refused::NotAnObject) };
        check_name(name)?;
        let (life, register) = match self.life(name) {
            Life::Unknown => (1, true),
            Life::Alive(life) => (life, planted::is(planted::Bug::ResurrectDevice)),
            Life::Deleted(life) => (life + 1, true),
        };
        let (slot, prefix) = (Slot::of(Kind::Registry, name), life_prefix(name, life));
        let leaves = self.docs.get(&slot).map(|doc| doc.leaves(&prefix)).unwrap_or_default();
        let mut writes = tree::replace(&leaves, &prefix, fields);
        if register {
            writes.push((segment(name), Some(life.to_string())));
        }
        self.write(now, wall_ms, slot, writes)
    }

    /// Ends a device's life, for everybody, however long they were away.
    pub fn delete_device(&mut self, now: Now, wall_ms: i64, name: &str) -> Result<(), Refused> {
        let Life::Alive(life) = self.life(name) else { return Err(Refused::NotRegistered(name.to_string())) };
        let value = self.stamp(wall_ms, Some(life.to_string()));
        let slot = Slot::of(Kind::Registry, name);
        self.put(now, slot, segment(name), Stamped { removed: true, ..value });
        Ok(())
    }

    /// Merges a patch (RFC 7396) into what a device should be. It need not be registered, but must not have been deleted.
    pub fn set_desired(&mut self, now: Now, wall_ms: i64, device: &str, patch: &Json) -> Result<(), Refused> {
        let Json::Object(patch) = patch else { return Err(Refused::NotAnObject) };
        check_name(device)?;
        let life = match self.life(device) {
            Life::Unknown => 1,
            Life::Alive(life) => life,
            Life::Deleted(_) => return Err(Refused::Deleted(device.to_string())),
        };
        let (slot, prefix) = (Slot::of(Kind::Desired, device), life_prefix(device, life));
        let leaves = self.docs.get(&slot).map(|doc| doc.leaves(&prefix)).unwrap_or_default();
        let writes = tree::merge(&leaves, &prefix, patch);
        self.write(now, wall_ms, slot, writes)
    }

    pub fn put_text(&mut self, now: Now, wall_ms: i64, kind: Kind, name: &str, text: &str) -> Result<(), Refused> {
        check_text(kind, name)?;
        let json = Json::from(text).to_string();
        self.write(now, wall_ms, Slot::of(kind, name), vec![(segment(name), Some(json))])
    }

    /// Somebody who changes the text at the same time, but later by the clock, has it back.
    pub fn remove_text(&mut self, now: Now, wall_ms: i64, kind: Kind, name: &str) -> Result<(), Refused> {
        check_text(kind, name)?;
        self.write(now, wall_ms, Slot::of(kind, name), vec![(segment(name), None)])
    }

    /// Decides for one of the versions; it becomes an edit like any other.
    pub fn resolve(&mut self, now: Now, wall_ms: i64, conflict: &Conflict, version: usize) -> Result<(), Refused> {
        let version = conflict.versions.get(version).ok_or(Refused::NoSuchVersion)?;
        let value = self.stamp(wall_ms, Some(version.json.clone()));
        let slot = Slot::of(conflict.kind, &conflict.name);
        self.put(now, slot, conflict.key.clone(), Stamped { removed: version.value.is_none(), ..value });
        Ok(())
    }

    fn write(&mut self, now: Now, wall_ms: i64, slot: Slot, writes: Writes) -> Result<(), Refused> {
        if writes.iter().any(|(key, json)| key.len() + json.as_ref().map_or(0, String::len) > VALUE_BYTES_MAX) {
            return Err(Refused::TooLarge);
        }
        for (key, json) in writes {
            let present = self.docs.get(&slot).and_then(|doc| doc.live(&key));
            if present == json.as_deref() && !planted::is(planted::Bug::ResurrectDevice) {
                continue;
            }
            let value = self.stamp(wall_ms, json);
            self.put(now, slot, key, value);
        }
        Ok(())
    }

    /// Later than everything this node has seen, so that who knew of a value is later than it.
    fn stamp(&mut self, wall_ms: i64, json: Option<String>) -> Stamped {
        self.clock = self.clock.tick(wall_ms);
        Stamped {
            hlc: self.clock,
            author: self.me,
            removed: json.is_none(),
            carried: false,
            json: json.unwrap_or_default(),
        }
    }
}

fn check_name(name: &str) -> Result<(), Refused> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX { Err(Refused::Name) } else { Ok(()) }
}

fn check_text(kind: Kind, name: &str) -> Result<(), Refused> {
    if kind.is_text() { check_name(name) } else { Err(Refused::NotTexts(kind)) }
}
