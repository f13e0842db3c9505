//! What nodes say to each other.
//!
//! A frame on a stream is its length (u32, little-endian, at most [`FRAME_BYTES_MAX`]) and the MessagePack of a [`Message`], [`Request`] or
//! [`Reply`] with named fields. Which of them is expected follows from the lane: unidirectional streams carry messages, bidirectional
//! ones a request and its replies; datagrams carry membership and nothing else.
//!
//! Versions. A field that is added has a default; a field that is not known is passed over; a message that is not known is counted and
//! passed over. What cannot be told in this way raises [`VERSION`], and a node speaks the highest version that both sides know.
//!
//! Everything here comes from strangers until a certificate was checked, and from a peer that may be broken afterwards: decoding has
//! bounds and never panics.

use core::net::SocketAddr;

use bytes::Bytes;
use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    limits::RECORD_BYTES_MAX,
    record::{self, Hlc, Home, RecordKind, Track, Undecodable},
    time::Timestamp,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Application protocol of a connection between members of a site.
pub const ALPN: &[u8] = b"millpond/1";
/// The newest version that this program speaks, and the oldest that it understands.
pub const VERSION: u16 = 2;
pub const OLDEST: u16 = 1;
/// The first version of which nodes can be asked for [`Request::Homes`], [`Request::Known`] and [`Request::Doubles`].
pub const SETTLES: u16 = 2;
/// Whether nodes of a version can read records of a kind: a run with one that they do not know would be lost to them as a whole.
pub fn is_known(kind: RecordKind, version: u16) -> bool {
    kind != RecordKind::LeftOut || version >= SETTLES
}

/// Bytes of one frame without its length.
pub const FRAME_BYTES_MAX: usize = 32 << 20;
/// Bytes of records of one run; one record may exceed it alone.
pub const RUN_BYTES_MAX: usize = 1 << 20;
/// Ranges of one [`Held`].
pub const HELD_RANGES_MAX: usize = 64;

/// What is said without being asked, on unidirectional streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// First on every connection, from both sides.
    Hello(Hello),
    /// What the sender holds of each origin, on disk. Told at the start, after changes, and again after a repair.
    Held(Vec<Held>),
    /// Records as they are committed, from their origin itself.
    Run(Run),
    /// The sender has these on disk now.
    Stored(Vec<Stored>),
    /// The state that the origin's windows, alerts and devices had at a cursor, from the origin itself.
    Checkpoint(Checkpoint),
    /// Documents: see `documents`.
    Document(Bytes),
    /// A clock reading to be answered with [`Message::Pong`].
    Ping {
        sent_ns: u64,
    },
    Pong {
        sent_ns: u64,
        wall_ms: i64,
    },
    /// Where the sender reaches others.
    Peers(Vec<(Origin, SocketAddr)>),
    /// Nodes that are not believed any more, signed by the site's authority. Whoever has it passes it on.
    Revoked(Bytes),
    /// The sender goes down in good order.
    Bye,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u16,
    pub oldest: u16,
    pub incarnation: Incarnation,
    /// The node's name, for people.
    pub name: String,
    pub wall_ms: i64,
}

/// What somebody holds of a track of an origin: ranges of sequence numbers, ascending, with gaps between them. Within them every record of
/// the track is there that its origin still had when it was copied. When there are more than [`HELD_RANGES_MAX`] the lowest are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub track: Track,
    pub ranges: Vec<(u64, u64)>,
    /// Of these, records up to here may have been given up since: they were held, but nobody gets them here any more.
    #[serde(default)]
    pub floor: u64,
}

/// All records of a track from `first` to `last`, both inclusive, that their origin still has. A record never travels in parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub track: Track,
    pub first: Seq,
    pub last: Seq,
    /// In the order of their sequence numbers.
    pub records: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub seq: Seq,
    pub kind: RecordKind,
    pub hlc: Hlc,
    /// Events in the payload.
    pub rows: u32,
    pub min_time: Timestamp,
    pub max_time: Timestamp,
    pub payload: Bytes,
}

/// A range that is on the sender's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub track: Track,
    pub first: Seq,
    pub last: Seq,
}

/// Rows of the origin's state tables as of `cursor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub cursor: Seq,
    /// (table, key, value)
    pub rows: Vec<(u8, Bytes, Bytes)>,
}

/// What is asked on a bidirectional stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Answered with runs that lie in the range, oldest first, of about `bytes_max` together, then the end of the stream.
    Repair { origin: Origin, incarnation: Incarnation, track: Track, first: Seq, last: Seq, bytes_max: u64 },
    /// A question in JSON that an operator asked another node.
    Ask { what: String, body: Bytes },
    /// Which events of these devices the answering node knows: of its own, or of the origin whose records it holds.
    Seen { origin: Origin, devices: Vec<String> },
    /// A node of version 1 asks so for what it is to leave out. It is told of nothing: this one leaves out what it has to by itself.
    Accepted { devices: Vec<Home> },
    /// Which devices came to the answering node, by records of its journal after this one.
    Homes { after: Seq },
    /// Which of these events the answering node knows too.
    Known { claims: Vec<Claim> },
    /// Which of these events of a device stand in the journal of the answering node and count there.
    Doubles { device: String, events: Vec<Claimed> },
}

/// Events of a device by their sequence numbers: ranges, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub device: String,
    pub seqs: Vec<(u64, u64)>,
}

/// An event, as it can be told from another one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    pub seq: u64,
    pub time: Timestamp,
    /// `millpond_core::admission::content::values`
    pub values: u64,
}

/// An event that stands in the journal of the answering node as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Double {
    pub seq: u64,
    /// How often its device had moved when it was taken in there: of two nodes the later one keeps an event, ...
    pub moves: u64,
    /// ... unless one has asked everybody already.
    pub settled: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Run(Run),
    /// No permit is free; come again after this.
    Busy {
        retry_ms: u32,
    },
    /// The range, or the origin, is not held here.
    Unknown,
    Answer {
        status: u16,
        body: Bytes,
    },
    /// What is known of each device, in the order of the question.
    Seen(Vec<Bytes>),
    /// In the order of the journal, from what was asked for to `through`; when that is not its end there are more.
    Homes {
        homes: Vec<Home>,
        through: Seq,
        head: Seq,
    },
    /// In the order of the question, those that are known.
    Known(Vec<Claim>),
    Doubles(Vec<Double>),
}

/// A frame's content.
///
/// # Panics
/// Never for the types of this module.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    record::encode(message).into()
}

/// # Errors
/// When the bytes are too many or are not a `T`.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, Undecodable> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(Undecodable::new("longer than a frame may be"));
    }
    record::decode(frame)
}

impl Run {
    /// Bytes of its records' payloads.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.payload.len()).sum()
    }

    /// Whether it is what it says and can be kept: a range that is not empty and has a number behind it, records inside it, ascending, of its
    /// track, none of them longer than a journal takes. One that a journal refused would hold up those that come with it.
    pub fn is_sound(&self) -> bool {
        let inside = |record: &Record| self.first <= record.seq && record.seq <= self.last;
        let fits = |record: &Record| record.payload.len() <= RECORD_BYTES_MAX;
        self.first.0 >= 1
            && self.first <= self.last
            && self.last.0 < u64::MAX
            && self.records.iter().all(|record| inside(record) && fits(record))
            && self.records.iter().all(|record| record.kind.class().track() == self.track)
            && self.records.windows(2).all(|pair| pair[0].seq < pair[1].seq)
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
