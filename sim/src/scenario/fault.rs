//! What befalls a site.

use millpond_core::time::Span;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::range::Range;

/// A fault and when it happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheduled {
    pub when: When,
    pub fault: Fault,
}

/// From the beginning of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Once, then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Range>,
    /// Again and again, with pauses of this length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Range>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Span>,
}

/// One fault. `lasts` and `down` are drawn from their ranges for each time it happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The power goes; with `mid_commit` while the disk writes. Un-synced sectors are there afterwards, or not.
    PowerLoss {
        node: String,
        #[serde(default)]
        mid_commit: bool,
        #[serde(default = "some_seconds")]
        down: Range,
    },
    /// The program is killed; the operating system lives on.
    Kill {
        node: String,
        #[serde(default = "some_seconds")]
        down: Range,
    },
    /// The program is stopped in good order and started again.
    Restart {
        node: String,
        #[serde(default = "some_seconds")]
        down: Range,
    },
    /// The power goes and the disk is lost; the box comes back with a new one.
    Wipe {
        node: String,
        #[serde(default = "some_seconds")]
        down: Range,
    },
    /// Nothing passes between the node and `whom` (a host by name; default: everybody).
    Partition {
        node: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        whom: Option<String>,
        /// `in` or `out`: only what goes to the node, or comes from it, is lost. Default: both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<Way>,
        lasts: Range,
    },
    /// A poor link between the node and everybody.
    Link {
        node: String,
        #[serde(default)]
        loss: f64,
        #[serde(default)]
        duplicate: f64,
        #[serde(default)]
        reorder: f64,
        #[serde(default = "poor_latency")]
        latency: Range,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes_per_second: Option<u64>,
        lasts: Range,
    },
    /// The node's wall clock jumps.
    ClockStep {
        node: String,
        #[serde(default)]
        ahead: Range,
        #[serde(default)]
        back: Range,
    },
    /// The node's wall clock is set right.
    ClockSetRight { node: String },
    /// The node's clocks run fast (or, negative, slow).
    ClockDrift { node: String, ppm: f64, lasts: Range },
    SlowDisk {
        node: String,
        sync: Range,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes_per_second: Option<u64>,
        lasts: Range,
    },
    /// Somebody else's files leave only so many bytes free.
    FullDisk {
        node: String,
        #[serde(default)]
        leave_bytes: u64,
        lasts: Range,
    },
    /// The disk says that it has synced, and has not.
    LyingDisk { node: String, lasts: Range },
    /// Bits of what is on disk turn over.
    FlipBits { node: String, bits: u32 },
    /// The next syncs fail.
    FailingSyncs { node: String, syncs: u32 },
    /// The object store of a node of a cloud fails a share of what it is asked for: `refused` is not done, `lied` is done and said to have
    /// failed, `duplicate` of what is written is done a second time later; and it takes its time.
    PoorStore {
        node: String,
        #[serde(default)]
        refused: f64,
        #[serde(default)]
        lied: f64,
        #[serde(default)]
        duplicate: f64,
        #[serde(default = "poor_latency")]
        latency: Range,
        lasts: Range,
    },
    /// An operator ends the program, repairs its journal and starts it again.
    Repair { node: String },
    /// An actor of the node panics.
    Panic { node: String },
    /// From the next start on, the data of a device makes its shard panic: in its `gate` or in its `windows`.
    Poison { node: String, device: String, place: String },
    /// A share of the devices sends nothing, and then everything it measured.
    Silence {
        fleet: String,
        #[serde(default = "all")]
        share: f64,
        lasts: Range,
    },
    /// All connections of a fleet break and come back at once.
    ReconnectStorm { fleet: String },
    /// A receiver of notifications answers 500.
    FailingReceiver { receiver: String, lasts: Range },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    In,
    Out,
}

impl Fault {
    pub fn node(&self) -> Option<&str> {
        match self {
            Fault::PowerLoss { node, .. }
            | Fault::Kill { node, .. }
            | Fault::Restart { node, .. }
            | Fault::Wipe { node, .. }
            | Fault::Partition { node, .. }
            | Fault::Link { node, .. }
            | Fault::ClockStep { node, .. }
            | Fault::ClockSetRight { node }
            | Fault::ClockDrift { node, .. }
            | Fault::SlowDisk { node, .. }
            | Fault::FullDisk { node, .. }
            | Fault::LyingDisk { node, .. }
            | Fault::FlipBits { node, .. }
            | Fault::FailingSyncs { node, .. }
            | Fault::PoorStore { node, .. }
            | Fault::Repair { node }
            | Fault::Panic { node }
            | Fault::Poison { node, .. } => Some(node),
            Fault::Silence { .. } | Fault::ReconnectStorm { .. } | Fault::FailingReceiver { .. } => None,
        }
    }

    pub fn fleet(&self) -> Option<&str> {
        match self {
            Fault::Silence { fleet, .. } | Fault::ReconnectStorm { fleet } => Some(fleet),
            _ => None,
        }
    }

    /// The word for it in a scenario.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::PowerLoss { .. } => "power_loss",
            Fault::Kill { .. } => "kill",
            Fault::Restart { .. } => "restart",
            Fault::Wipe { .. } => "wipe",
            Fault::Partition { .. } => "partition",
            Fault::Link { .. } => "link",
            Fault::ClockStep { .. } => "clock_step",
            Fault::ClockSetRight { .. } => "clock_set_right",
            Fault::ClockDrift { .. } => "clock_drift",
            Fault::SlowDisk { .. } => "slow_disk",
            Fault::FullDisk { .. } => "full_disk",
            Fault::LyingDisk { .. } => "lying_disk",
            Fault::FlipBits { .. } => "flip_bits",
            Fault::FailingSyncs { .. } => "failing_syncs",
            Fault::PoorStore { .. } => "poor_store",
            Fault::Repair { .. } => "repair",
            Fault::Panic { .. } => "panic",
            Fault::Poison { .. } => "poison",
            Fault::Silence { .. } => "silence",
            Fault::ReconnectStorm { .. } => "reconnect_storm",
            Fault::FailingReceiver { .. } => "failing_receiver",
        }
    }

    /// Whether it changes the world for a while, other than something that happens at once and is repaired after a while.
    pub fn is_state(&self) -> bool {
        !matches!(self, Fault::PowerLoss { .. } | Fault::Kill { .. } | Fault::Restart { .. } | Fault::Wipe { .. })
    }

    /// How long it lasts, for one that does; drawn once, a range has one end.
    pub fn lasts_mut(&mut self) -> Option<&mut Range> {
        match self {
            Fault::PowerLoss { down, .. }
            | Fault::Kill { down, .. }
            | Fault::Restart { down, .. }
            | Fault::Wipe { down, .. } => Some(down),
            Fault::Partition { lasts, .. }
            | Fault::Link { lasts, .. }
            | Fault::ClockDrift { lasts, .. }
            | Fault::SlowDisk { lasts, .. }
            | Fault::FullDisk { lasts, .. }
            | Fault::LyingDisk { lasts, .. }
            | Fault::PoorStore { lasts, .. }
            | Fault::Silence { lasts, .. }
            | Fault::FailingReceiver { lasts, .. } => Some(lasts),
            _ => None,
        }
    }
}

fn some_seconds() -> Range {
    Range(Span::from_secs(1), Span::from_secs(10))
}

fn poor_latency() -> Range {
    Range(Span::from_millis(20), Span::from_millis(300))
}

fn all() -> f64 {
    1.0
}

const WHEN: [&str; 4] = ["at", "every", "from", "until"];

impl<'de> Deserialize<'de> for Scheduled {
    /// One table: the keys of [`When`], and those of the fault.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scheduled, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let when: toml::Table = WHEN.iter().filter_map(|key| table.remove_entry(*key)).collect();
        let when: When = when.try_into().map_err(D::Error::custom)?;
        if when.at.is_some() == when.every.is_some() {
            return Err(D::Error::custom("a fault needs either `at` or `every`"));
        }
        if when.every.is_some_and(|every| every.0.0 <= 0) {
            return Err(D::Error::custom("`every` must be more than nothing"));
        }
        Ok(Scheduled { when, fault: table.try_into().map_err(D::Error::custom)? })
    }
}

impl Serialize for Scheduled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let mut table = toml::Table::try_from(&self.when).map_err(S::Error::custom)?;
        table.extend(toml::Table::try_from(&self.fault).map_err(S::Error::custom)?);
        table.serialize(serializer)
    }
}
