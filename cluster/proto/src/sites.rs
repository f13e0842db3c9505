//! What nodes of different sites say to each other.
//!
//! Each site has an authority of its own, and a node of the other one is believed only where its authority was entered by hand. Such a
//! connection speaks [`ALPN`] and carries nothing but the requests of this module: it is not part of the mesh. The site that wants
//! records asks for them ([`taking`]); the one that has them answers with what its [`terms`] let the other one have. Nothing is said
//! without being asked.
//!
//! A record keeps its name (origin, incarnation, sequence number) on the way, so that it is there once, however often and from
//! whomever it comes. A [`Run`] says here: *all that you may have* of `first..=last`. What the terms leave out is covered by it as
//! well, and is not asked for again when the terms become wider later.
//!
//! Frames and versions are as in [`wire`](crate::wire), of which this has the runs.

pub mod mask;
pub mod taking;
pub mod terms;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    record::{Class, Track},
    window::WindowSpec,
};
use serde::{Deserialize, Serialize};

use crate::{
    RangeSet,
    replication::Life,
    uplink::{Brought, Lane},
    wire::Run,
};

/// Application protocol of a connection between nodes of two sites.
pub const ALPN: &[u8] = b"millpond-site/1";
/// 2: deliveries to a cloud ([`uplink`](crate::uplink)). Who does not know a question says [`Answer::Unknown`].
pub const VERSION: u16 = 2;
/// Bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 256 << 10;
/// Lives of one site that are copied; what it offers beyond is passed over.
pub const LIVES_MAX: usize = 64;
/// Ranges of one [`Offer`]; when there are more the lowest are left out.
pub const RANGES_MAX: usize = 64;
/// Definitions of windows that come with an answer.
pub const WINDOWS_MAX: usize = 1024;

/// What is asked on a bidirectional stream, by the site that wants something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What can be had here. Answered with [`Answer::Offers`].
    Offers {
        version: u16,
        /// Nodes that the asking site's authority has revoked, signed by it; empty when there are none.
        #[serde(default)]
        revoked: Bytes,
    },
    /// Answered with runs that follow each other from `first` on, without gaps among what is offered, then the end of the stream. They may
    /// end long before `last`. Records of other classes than these are left out.
    Range { origin: Origin, incarnation: Incarnation, track: Track, first: Seq, last: Seq, classes: Vec<Class> },
    /// What the cloud has of the asking site. Answered with [`Answer::Ledger`].
    Ledger { version: u16 },
    /// A lane of a life follows: frames of [`Delivery`](crate::uplink::Delivery) one way, of [`Receipt`](crate::uplink::Receipt) the other.
    Deliver {
        origin: Origin,
        incarnation: Incarnation,
        lane: Lane,
        /// The name of the life's node, for people.
        #[serde(default)]
        name: String,
        /// How the windows are defined whose panes are delivered.
        #[serde(default)]
        windows: Vec<WindowSpec>,
    },
    /// What is the asking site to run? Frames of [`Order`](crate::uplink::orders::Order) come for as long as the stream is open, and
    /// frames of [`Outcome`](crate::uplink::orders::Outcome) go the other way.
    Obey { version: u16, node: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Offers(Offers),
    Run(Run),
    /// Too much is asked for at a time; come again after this.
    Busy {
        retry_ms: u32,
    },
    /// The range is not here, or not for the asking site; or the question is not known.
    Unknown,
    Ledger(Vec<Brought>),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offers {
    pub offers: Vec<Offer>,
    /// How the windows are defined whose panes can be had: panes of several nodes are merged by it.
    #[serde(default)]
    pub windows: Vec<WindowSpec>,
    /// As in [`Question::Offers`], of the answering site.
    #[serde(default)]
    pub revoked: Bytes,
}

/// What is there of a track of an origin, at the node that says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub origin: Origin,
    pub incarnation: Incarnation,
    /// The name of the origin's node, for people.
    #[serde(default)]
    pub name: String,
    pub track: Track,
    /// First and last, both inclusive.
    pub ranges: Vec<(u64, u64)>,
}

impl Offer {
    pub fn life(&self) -> Life {
        Life { origin: self.origin, incarnation: self.incarnation }
    }

    /// The numbers of it that can be asked for; what cannot be a range is passed over.
    pub fn numbers(&self) -> RangeSet {
        let sound = |(first, last): &(u64, u64)| 1 <= *first && first <= last && *last < u64::MAX;
        self.ranges.iter().take(RANGES_MAX).copied().filter(sound).collect()
    }
}
