//! What the journal holds: records by origin, incarnation and sequence number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands in a record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum RecordKind {
    /// A block of events (`crate::block`).
    Events = 1,
    /// Panes that fired: MessagePack of `Vec<crate::window::Pane>`.
    Panes = 2,
    /// Changes of alerts: MessagePack of `Vec<crate::alert::Alert>`.
    Alerts = 3,
    /// Late events of one window: MessagePack of `Vec<crate::window::LateEvent>`.
    Late = 4,
    /// Records that were given up, and why: MessagePack of [`DropRange`].
    DropRange = 5,
    /// Devices that send to this node from now on: MessagePack of `Vec<Home>`.
    Homes = 6,
    /// What devices reported of themselves: MessagePack of `Vec<(device, millpond_proto::twin::Reported)>`.
    Twin = 7,
    /// Events of this journal that count in another one: MessagePack of `Vec<LeftOut>`.
    LeftOut = 8,
}

impl RecordKind {
    pub const ALL: [RecordKind; 8] = [
        RecordKind::Events,
        RecordKind::Panes,
        RecordKind::Alerts,
        RecordKind::Late,
        RecordKind::DropRange,
        RecordKind::Homes,
        RecordKind::Twin,
        RecordKind::LeftOut,
    ];

    pub fn from_u8(code: u8) -> Option<RecordKind> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    pub fn class(self) -> Class {
        match self {
            RecordKind::Events => Class::Raw,
            RecordKind::Panes | RecordKind::Late => Class::Pane,
            RecordKind::Alerts => Class::Alert,
            RecordKind::DropRange | RecordKind::Homes | RecordKind::Twin | RecordKind::LeftOut => Class::State,
        }
    }
}

/// What goes first when the link is thin, and last when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Class {
    /// Alerts and commands.
    Alert = 0,
    /// Twins, registry, configuration, and the book-keeping of what was dropped.
    State = 1,
    /// Results of windows.
    Pane = 2,
    /// Events as the devices sent them.
    Raw = 3,
}

impl Class {
    pub const ALL: [Class; 4] = [Class::Alert, Class::State, Class::Pane, Class::Raw];

    pub fn name(self) -> &'static str {
        ["alert", "state", "pane", "raw"][self as usize]
    }

    pub fn track(self) -> Track {
        if self == Class::Raw { Track::Raw } else { Track::Results }
    }
}

/// Classes that are copied to the same nodes and travel together, in the order of their sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Track {
    /// Alerts, state and panes: small, and of use to every node of a site.
    Results = 0,
    /// Events: large, and held by as many nodes as were asked for.
    Raw = 1,
}

impl Track {
    pub const ALL: [Track; 2] = [Track::Results, Track::Raw];

    pub fn name(self) -> &'static str {
        ["results", "raw"][self as usize]
    }
}

/// Why records are not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Older than the class may become.
    Age,
    /// The class had used up its quota.
    Quota,
    /// The disk was full and the class the first to give way.
    DiskFull,
    /// The bytes on disk were damaged and could not be read back.
    Damaged,
}

/// The receipt for records that were given up: nothing leaves the journal without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRange {
    pub class: Class,
    /// First and last sequence number of the range. Records of other classes inside it may still be there.
    pub first: u64,
    pub last: u64,
    pub records: u64,
    /// Events in those records, when they held any.
    pub events: u64,
    pub reason: DropReason,
}

impl DropRange {
    /// MessagePack with named fields: the payload of a record of kind [`RecordKind::DropRange`].
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("numbers and names always encode")
    }

    pub fn decode(payload: &[u8]) -> Result<DropRange, BadDropRange> {
        rmp_serde::from_slice(payload).map_err(|error| BadDropRange(error.to_string()))
    }
}

/// The payload of a drop range could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a drop range: {0}")]
pub struct BadDropRange(String);

/// A device is at home at the node that wrote this, unless somebody wrote a later move of it. Of two of the same number the one of the greater
/// origin holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    pub device: String,
    /// Counts the moves of the device, as far as the writer knew: no clock is believed.
    pub moves: u64,
}

/// Events of a device in a record of the same journal that stand in the journal of another node as well, and count there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The record's sequence number.
    pub record: u64,
    pub device: String,
    /// The events' own sequence numbers.
    pub seqs: Vec<u64>,
}

/// A hybrid logical clock: 48 bits of wall-clock milliseconds, 16 bits that order what one millisecond holds
/// (Kulkarni et al., "Logical Physical Clocks", 2014).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Hlc(pub u64);

impl Hlc {
    /// Beyond this a reading is a mistake, or made up; the year 6429.
    pub const MAX: Hlc = Hlc(1 << 63);

    /// The next reading, later than every one before it even when the wall clock stands still or goes back.
    pub fn tick(self, wall_ms: i64) -> Hlc {
        Hlc(self.0.saturating_add(1).max((wall_ms.max(0) as u64) << 16))
    }

    pub fn wall_ms(self) -> i64 {
        (self.0 >> 16) as i64
    }
}

/// Lists and maps inside each other, of whatever is read back: JSON has at most 128 of them, and stands in little else. What is deeper would
/// use up the stack of whoever reads it.
const DEPTH_MAX: usize = 192;

/// MessagePack with named fields: how everything but blocks is written to disk and wire.
///
/// # Panics
/// When the type can not be written as MessagePack at all, which is a mistake in the type.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap_or_else(|error| panic!("not expressible as MessagePack: {error}"))
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When the bytes are not MessagePack or do not hold a `T`.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Undecodable> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut reader).map_err(|error| Undecodable(error.to_string()))
}

/// Bytes that do not hold what they should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be read: {0}")]
pub struct Undecodable(String);

impl Undecodable {
    pub fn new(why: impl Into<String>) -> Undecodable {
        Undecodable(why.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Nested(#[expect(dead_code, reason = "it is only read")] Vec<Nested>);

    #[test]
    fn what_is_too_deep_for_the_stack_is_not_read() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0x90]].concat();
        assert!(decode::<Nested>(&nested(100)).is_ok());
        assert!(decode::<Nested>(&nested(1_000)).is_err());
        // Also where nobody knows the field: it has to be passed over.
        let unknown = [b"\x81\xa7weather".to_vec(), nested(1_000)].concat();
        assert!(decode::<Home>(&unknown).is_err());
    }

    #[test]
    fn a_clock_that_somebody_has_set_to_its_end_stands_still() {
        assert_eq!(Hlc(u64::MAX).tick(1), Hlc(u64::MAX));
        assert!(Hlc::MAX.tick(1) > Hlc::MAX);
    }
}
