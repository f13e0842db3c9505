//! What nodes say to each other about documents: the content of `wire::Message::Document`.

use bytes::Bytes;
use millpond_core::record;
use serde::{Deserialize, Serialize};

use super::name::Slot;

/// Bytes of a synchronisation message in one piece; a longer one travels in parts.
pub const PART_BYTES_MAX: usize = 1 << 20;
/// Parts of one message: 32 MiB.
pub const PARTS_MAX: u32 = 32;

/// No site begins so many epochs of a document; there must be numbers left for those that follow.
const EPOCH_MAX: u32 = 1 << 31;

pub type Hash = [u8; 16];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// A hash over all that the sender would tell in a digest.
    Sum(Hash),
    /// Let me see your digest.
    Ask,
    /// The sender's documents on disk; all of them, or only those in question.
    Digest { whole: bool, entries: Vec<Entry> },
    /// Changes that the sender made, now on its disk.
    Changes { slot: Slot, epoch: u32, changes: Vec<Bytes> },
    /// Part of a message of automerge's synchronisation. `turn` is counted by who asked.
    Sync { asker: bool, turn: u64, slot: Slot, epoch: u32, message: u32, part: u32, parts: u32, bytes: Bytes },
    /// Nothing more to say in the turn that the receiver asked for.
    Settled { turn: u64 },
}

/// The epoch of a document and a hash of its heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry(pub Slot, pub u32, pub Hash);

impl Said {
    pub fn encode(&self) -> Vec<u8> {
        record::encode(self)
    }

    /// Nothing when it is not sound in itself.
    pub fn decode(bytes: &[u8]) -> Option<Said> {
        let said: Said = record::decode(bytes).ok()?;
        let sound = match &said {
            Said::Sum(_) | Said::Ask | Said::Settled { .. } => true,
            Said::Digest { entries, .. } => entries.iter().all(|entry| entry.0.is_sound() && entry.1 <= EPOCH_MAX),
            Said::Changes { slot, epoch, changes } => slot.is_sound() && *epoch <= EPOCH_MAX && !changes.is_empty(),
            Said::Sync { slot, epoch, part, parts, bytes, .. } => {
                let is_part = part < parts && *parts <= PARTS_MAX && bytes.len() <= PART_BYTES_MAX;
                slot.is_sound() && *epoch <= EPOCH_MAX && is_part
            }
        };
        sound.then_some(said)
    }
}
