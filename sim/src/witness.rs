//! What the floor saw: which readings were sent and acknowledged, what receivers were told, and how nodes answered questions about
//! their health. It is the other half of the evidence, written down by those who cannot know what a node does inside.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher},
};

use foldhash::fast::{FixedState, FoldHasher};
use millpond_core::{time::Timestamp, value::Value};

use crate::{scenario::What, world::core::Instant};

/// Everything seen, for one run.
#[derive(Debug, Default)]
pub struct Witness {
    pub devices: Vec<Device>,
    /// Devices by name.
    pub by_name: BTreeMap<String, u32>,
    pub notifications: Vec<Notified>,
    pub probes: Vec<Probe>,
    pub counted: Vec<Counted>,
    /// Payloads that were no readings and were acknowledged.
    pub malformed_acked: u64,
    /// Publishes that were refused (507, 503, or a connection closed on them) and had to come again.
    pub refusals: u64,
    pub reconnects: u64,
    /// Readings (device, sequence number) that a device had sent to a node without an acknowledgement when it gave up the connection, and to
    /// which nodes.
    pub stranded: BTreeMap<(u32, u64), BTreeSet<String>>,
    /// What operators asked for; the value of each change is its place in here.
    pub changes: Vec<Change>,
    /// By rollout of the scenario: the number that the cloud gave it, or why it has none.
    pub rollouts: BTreeMap<usize, Result<u64, String>>,
    /// What a node of a cloud says in the end of its rollouts, and nodes of their rules, as they answered.
    pub asked_in_the_end: BTreeMap<String, serde_json::Value>,
}

/// One device and all it has measured. Sequence numbers begin at 1.
#[derive(Debug)]
pub struct Device {
    pub name: String,
    pub node: String,
    pub fleet: String,
    /// By sequence number - 1.
    pub readings: Vec<Sent>,
}

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sent {
    /// As the device stamped it.
    pub stamp: Timestamp,
    /// When it was measured, in true time.
    pub measured: Instant,
    /// When its first acknowledgement arrived; `Instant(u64::MAX)`: none did.
    pub acked: Instant,
    /// Of stamp, metrics' names and values: see [`digest`].
    pub digest: u64,
}

impl Sent {
    pub const NEVER: Instant = Instant(u64::MAX);

    pub fn is_acked(&self) -> bool {
        self.acked != Sent::NEVER
    }
}

/// Somebody asked a node to change something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub what: What,
    /// Of the device or rule.
    pub name: String,
    /// Empty for what has one value only.
    pub key: String,
    pub node: String,
    pub asked: Instant,
    /// When the node said that it is done; [`Sent::NEVER`]: it did not, and the change may hold or not.
    pub acked: Instant,
}

/// A notification that a receiver took (it answered 200).
#[derive(Clone, Debug, PartialEq)]
pub struct Notified {
    pub at: Instant,
    pub receiver: String,
    /// The `Idempotency-Key`.
    pub key: String,
    pub body: serde_json::Value,
}

/// A question about a node's health, and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    pub at: Instant,
    pub node: String,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Status of `GET /readyz`, and the reasons it gave.
    Said { status: u16, body: String },
    /// No connection, or no answer in time.
    Silent,
}

/// A node of a cloud was asked for all readings of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub at: Instant,
    pub node: String,
    /// Its number.
    pub device: u32,
    /// How many it answered with; `Err`: why it did not.
    pub answer: Result<u64, String>,
}

impl Witness {
    /// Adds a device; returns its number.
    pub fn add(&mut self, name: &str, node: &str, fleet: &str) -> u32 {
        let number = self.devices.len() as u32;
        self.devices.push(Device {
            name: name.to_owned(),
            node: node.to_owned(),
            fleet: fleet.to_owned(),
            readings: Vec::new(),
        });
        self.by_name.insert(name.to_owned(), number);
        number
    }

    /// A device has measured.
    ///
    /// # Panics
    /// When it leaves out a sequence number.
    pub fn measured(&mut self, device: u32, seq: u64, sent: Sent) {
        let readings = &mut self.devices[device as usize].readings;
        assert_eq!(readings.len() as u64 + 1, seq, "devices count their readings from 1");
        readings.push(sent);
    }

    pub fn acked(&mut self, device: u32, seq: u64, at: Instant) {
        if let Some(sent) = self.devices[device as usize].readings.get_mut(seq as usize - 1) {
            sent.acked = sent.acked.min(at);
        }
    }

    /// Somebody is about to ask for a change; returns its value.
    pub fn asked(&mut self, change: Change) -> usize {
        self.changes.push(change);
        self.changes.len() - 1
    }

    pub fn acknowledged_changes(&self) -> u64 {
        self.changes.iter().filter(|change| change.acked != Sent::NEVER).count() as u64
    }

    pub fn published(&self) -> u64 {
        self.devices.iter().map(|device| device.readings.len() as u64).sum()
    }

    pub fn acknowledged(&self) -> u64 {
        self.devices.iter().flat_map(|device| &device.readings).filter(|sent| sent.is_acked()).count() as u64
    }
}

/// A fingerprint of a reading's content that neither the order of its metrics nor the way a number was written changes. Stamps count in
/// milliseconds, as JSON carries them.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Digest {
    pub fn of(stamp: Timestamp) -> Digest {
        Digest(hash(|hasher| hasher.write_i64(stamp.as_millis())))
    }

    pub fn add(&mut self, name: &str, value: Value<'_>) {
        self.0 ^= hash(|hasher| {
            hasher.write(name.as_bytes());
            match value {
                Value::F64(number) => hasher.write_u64((number + 0.0).to_bits()),
                Value::I64(number) => hasher.write_u64((number as f64).to_bits()),
                Value::Bool(flag) => hasher.write_u8(u8::from(flag)),
                Value::Text(text) => hasher.write(text.as_bytes()),
                Value::Bytes(bytes) => hasher.write(bytes),
            }
        });
    }

    pub fn finish(self) -> u64 {
        self.0
    }
}

/// The [`Digest`] of a stamp and metrics.
pub fn digest<'a>(stamp: Timestamp, metrics: impl Iterator<Item = (&'a str, Value<'a>)>) -> u64 {
    let mut digest = Digest::of(stamp);
    metrics.for_each(|(name, value)| digest.add(name, value));
    digest.finish()
}

fn hash(write: impl FnOnce(&mut FoldHasher)) -> u64 {
    let mut hasher = FixedState::with_seed(1).build_hasher();
    write(&mut hasher);
    hasher.finish()
}
