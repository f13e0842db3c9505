//! What stands under a key of a document.
//!
//! ```text
//! hlc u64 | origin 16 bytes | flags u8 (1 removed, 2 carried) | JSON
//! ```
//! The stamp is part of the value and not the CRDT's: it outlives a document, so that an edit that is written again into the next epoch,
//! by however many nodes, stays the same edit.

use millpond_core::{ids::Origin, planted, record::Hlc};

const REMOVED: u8 = 1;
const CARRIED: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    pub hlc: Hlc,
    pub author: Origin,
    /// Nothing is there any more. Of a device: it was deleted.
    pub removed: bool,
    /// Was brought over from an earlier epoch, where it may have been an alternative to nothing.
    pub carried: bool,
    pub json: String,
}

impl Stamped {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(25 + self.json.len());
        bytes.extend(self.hlc.0.to_be_bytes());
        bytes.extend(self.author.0);
        bytes.push(u8::from(self.removed) * REMOVED + u8::from(self.carried) * CARRIED);
        bytes.extend(self.json.as_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Stamped> {
        let (hlc, rest) = bytes.split_first_chunk::<8>()?;
        let (author, rest) = rest.split_first_chunk::<16>()?;
        let (flags, json) = rest.split_first()?;
        let hlc = Hlc(u64::from_be_bytes(*hlc));
        if hlc > Hlc::MAX || *flags > (REMOVED | CARRIED) {
            return None;
        }
        Some(Stamped {
            hlc,
            author: Origin(*author),
            removed: flags & REMOVED != 0,
            carried: flags & CARRIED != 0,
            json: std::str::from_utf8(json).ok()?.to_string(),
        })
    }

    /// Which of two values of a key holds: the later edit. What a device's life is goes by its number, and within a life by whether it
    /// has ended: only a registration that knew of the deletion, and so has the next number, undoes it.
    pub fn beats(&self, other: &Stamped, is_life: bool) -> bool {
        let life = |value: &Stamped| -> (u64, bool) {
            if !is_life || planted::is(planted::Bug::ResurrectDevice) {
                return (0, false);
            }
            (value.life(), value.removed)
        };
        let rank = |value: &Stamped| (life(value), value.hlc, value.author, value.removed, value.json.clone());
        rank(self) > rank(other)
    }

    /// The number of a device's life, when this is one.
    pub fn life(&self) -> u64 {
        self.json.parse().unwrap_or(0)
    }

    /// The same to a reader.
    pub fn says(&self) -> (bool, &str) {
        (self.removed, &self.json)
    }
}
