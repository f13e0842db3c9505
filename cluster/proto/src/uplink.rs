//! What a site delivers to the cloud.
//!
//! A node of a site calls a node of the cloud, over a connection between sites ([`sites`](crate::sites)), and opens streams on it; the
//! cloud calls nobody. On each stream the first frame is a [`Question`](crate::sites::Question):
//!
//! - *Ledger*: what the cloud has of the site, on disk, and who is bringing the rest. Whoever asked delivers what is missing.
//! - *Deliver*: a [`Lane`] of a life follows as [`Delivery`] frames, and the cloud answers each with what is on its disk now. Several lanes of a
//!   life run beside each other, so that a backlog does not hold up what is new.
//! - *Obey*: the cloud says what the site is to run, and the node answers what became of it ([`orders`]).
//!
//! Delivery is at least once: what was not confirmed is sent again by whoever is connected next, this node or another one that holds the
//! records. The cloud drops by identity what it has. So each record has its effect once.
//!
//! What must stay true
//! 1. Only what is on disk is delivered, and only what is on disk is confirmed.
//! 2. A range that is delivered holds everything of it that the terms let out, and names what stays behind.

pub mod account;
pub mod budget;
pub mod feed;
pub mod orders;
pub mod pace;
pub mod rollout;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    record::{Track, Undecodable},
};
use serde::{Deserialize, Serialize};

use crate::{
    RangeSet,
    replication::Life,
    wire::{self, FRAME_BYTES_MAX, Run, Stored},
};

/// Ranges of one track in a [`Brought`]; when there are more the lowest are left out, and delivered again.
pub const RANGES_MAX: usize = 4096;
/// Lives of one site of which the cloud keeps records.
pub const LIVES_MAX: usize = 256;
/// Bytes of deliveries of one lane that are not confirmed.
pub const UNCONFIRMED_BYTES_MAX: usize = 8 << 20;

/// What goes beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Lane {
    /// Alerts, state and panes, in the order of their numbers.
    Results = 0,
    /// Events that came since the node was connected.
    Live = 1,
    /// Events from before, the oldest first.
    Backlog = 2,
}

impl Lane {
    pub const ALL: [Lane; 3] = [Lane::Results, Lane::Live, Lane::Backlog];

    pub fn name(self) -> &'static str {
        ["results", "live", "backlog"][self as usize]
    }

    pub fn track(self) -> Track {
        if self == Lane::Results { Track::Results } else { Track::Raw }
    }
}

/// What the node tells on a lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    Sent(Sent),
    /// The same, smaller: MessagePack of a [`Sent`], deflated. Panes and alerts name their fields over and over.
    Packed(Bytes),
    /// How far the life has come at its site.
    Head(Head),
}

/// A run as far as the terms let it out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub run: Run,
    /// The numbers of the run's range whose records stay at the site by its terms with the cloud: ranges, ascending.
    #[serde(default)]
    pub passed: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last record.
    pub head: Seq,
    /// Up to here it is known which events count in other journals: nothing before it will be left out any more.
    pub settled: Seq,
    /// The node's wall clock, in ms since 1970.
    pub wall_ms: i64,
}

/// What the cloud has of a life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    pub origin: Origin,
    pub incarnation: Incarnation,
    /// By track: ranges that are on disk, first and last.
    pub ranges: [Vec<(u64, u64)>; 2],
    /// Who delivers it now.
    #[serde(default)]
    pub by: Option<Origin>,
    /// How long nobody has, in ms; 0 while somebody does.
    #[serde(default)]
    pub idle_ms: u64,
}

impl Brought {
    pub fn life(&self) -> Life {
        Life { origin: self.origin, incarnation: self.incarnation }
    }

    /// The numbers of a track; what cannot be a range is passed over.
    pub fn held(&self, track: Track) -> RangeSet {
        let sound = |(first, last): &(u64, u64)| 1 <= *first && first <= last && *last < u64::MAX;
        self.ranges[track as usize].iter().take(RANGES_MAX).copied().filter(sound).collect()
    }
}

/// What the cloud says on a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receipt {
    /// It is on disk.
    Stored(Stored),
    /// Somebody else delivers this life; come again after this.
    Taken { retry_ms: u32 },
    /// Nothing of it is taken, and why.
    Refused { why: String },
}

/// Bytes of a [`Delivery::Packed`] unpacked.
const UNPACKED_MAX: usize = FRAME_BYTES_MAX;
/// What is shorter is sent as it is.
const PACK_FROM: usize = 256;

impl Sent {
    /// What is sent of it: results packed, blocks of events as they are, for those are dense already.
    pub fn into_delivery(self) -> Delivery {
        if self.run.track == Track::Raw || self.run.bytes() < PACK_FROM {
            return Delivery::Sent(self);
        }
        Delivery::Packed(miniz_oxide::deflate::compress_to_vec(&wire::encode(&self), 6).into())
    }

    /// Reads what [`into_delivery`](Self::into_delivery) has packed.
    ///
    /// # Errors
    /// When the bytes are too many, or no `Sent`.
    pub fn unpack(packed: &[u8]) -> Result<Sent, Undecodable> {
        let bytes = miniz_oxide::inflate::decompress_to_vec_with_limit(packed, UNPACKED_MAX);
        wire::decode(&bytes.map_err(|error| Undecodable::new(format!("not deflated: {error}")))?)
    }

    /// Whether the cloud can take it: a sound run, and nothing is both sent and passed over.
    pub fn is_sound(&self) -> bool {
        let inside =
            |(first, last): &(u64, u64)| self.run.first.0 <= *first && first <= last && *last <= self.run.last.0;
        let passed: RangeSet = self.passed.iter().copied().filter(inside).collect();
        self.run.is_sound()
            && self.passed.iter().all(inside)
            && !self.run.records.iter().any(|record| passed.contains(record.seq.0))
    }
}
