//! What documents and the keys in them are called.
//!
//! A document is a flat map. A key is a path of segments with `/` between them, in which `~` and `/` are written `~0` and `~1` as in a
//! JSON pointer:
//!
//! ```text
//! registry         device                    the life of a device: its number, and whether it was deleted
//!                  device/LIFE/field/…       a leaf of what was said of it in that life
//! desired          device/LIFE/key/…         a leaf of what it should be
//! the others       name                      a text
//! ```

use std::fmt;

use millpond_core::ids::device_hash;
use serde::{Deserialize, Serialize};

/// Documents over which devices are spread. It is part of their names: with another number they are other documents.
pub const DEVICE_SHARDS: u16 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Registry,
    Desired,
    Rules,
    Windows,
    Schemas,
    DeviceTypes,
    Configuration,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Registry,
        Kind::Desired,
        Kind::Rules,
        Kind::Windows,
        Kind::Schemas,
        Kind::DeviceTypes,
        Kind::Configuration,
    ];

    pub fn name(self) -> &'static str {
        ["registry", "desired", "rules", "windows", "schemas", "device_types", "configuration"][self as usize]
    }

    pub fn is_text(self) -> bool {
        !matches!(self, Kind::Registry | Kind::Desired)
    }

    pub fn shards(self) -> u16 {
        if self.is_text() { 1 } else { DEVICE_SHARDS }
    }
}

/// The place of a document; over time several documents, its epochs, have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    pub kind: Kind,
    pub shard: u16,
}

impl Slot {
    /// Where `name` is kept.
    pub fn of(kind: Kind, name: &str) -> Slot {
        Slot { kind, shard: (device_hash(name) % u64::from(kind.shards())) as u16 }
    }

    pub fn is_sound(self) -> bool {
        self.shard < self.kind.shards()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}of{}", self.kind.name(), self.shard, self.kind.shards())
    }
}

/// Key of a part of a document in the state table: `registry/17of64@3#000002`.
pub fn part_key(slot: Slot, epoch: u32, part: u32) -> Vec<u8> {
    format!("{slot}@{epoch}#{part:06}").into_bytes()
}

pub fn read_part_key(key: &[u8]) -> Option<(Slot, u32, u32)> {
    let (slot, rest) = std::str::from_utf8(key).ok()?.split_once('@')?;
    let (kind, shard) = slot.split_once('/')?;
    let kind = Kind::ALL.into_iter().find(|any| any.name() == kind)?;
    let (shard, shards) = shard.split_once("of")?;
    if shards.parse() != Ok(kind.shards()) {
        return None;
    }
    let (epoch, part) = rest.split_once('#')?;
    let slot = Slot { kind, shard: shard.parse().ok().filter(|shard| *shard < kind.shards())? };
    Some((slot, epoch.parse().ok()?, part.parse().ok()?))
}

/// A name as a segment of a key.
pub fn segment(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

pub fn unsegment(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// The device or text that a key is about.
pub fn subject(key: &str) -> String {
    unsegment(key.split('/').next().unwrap_or_default())
}

/// The life of a device that a key below its name belongs to.
pub fn life(key: &str) -> Option<u64> {
    key.split('/').nth(1)?.parse().ok()
}

/// What stands before all keys of a life of a device, without the last `/`.
pub fn life_prefix(device: &str, life: u64) -> String {
    format!("{}/{life}", segment(device))
}
