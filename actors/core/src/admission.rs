//! The data-plane door: every event passes a [`Gate`] before anything else sees it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    batch::{Batch, DeviceRef},
    dead_letter::Reason,
    problem::SpecProblem,
    schema::{DeviceTypeSpec, SchemaSpec},
    time::{Span, Timestamp},
};

/// What is let in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What happens to events of a device that the node has not seen and that belongs to no device type: `register` or `dead_letter`. Default: `register`.
    pub unknown_devices: UnknownDevices,
    /// How far ahead of the node's clock an event's time may be, from 0s. Default: 5m.
    pub future_limit: Span,
    /// What happens to events further ahead: `dead_letter`, or `clamp` (they get the time of receipt). Default: `dead_letter`.
    pub on_future: OnFuture,
    /// Events older than this become dead letters. Default: none, all are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// Devices that a shard may know, from 1 to 10000000; events of any further device become dead letters. Default: 1000000.
    pub devices_max: u32,
    /// Whether events that were sent again are recognised and left out. Default: true.
    pub dedup: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownDevices {
    #[default]
    Register,
    DeadLetter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFuture {
    Clamp,
    #[default]
    DeadLetter,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            unknown_devices: UnknownDevices::Register,
            future_limit: Span::from_secs(300),
            on_future: OnFuture::DeadLetter,
            max_age: None,
            devices_max: 1_000_000,
            dedup: true,
        }
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowVerdict {
    Accept,
    /// The row is in the journal already.
    Duplicate,
    /// The row becomes a dead letter; the text says what was wrong and where.
    Reject(Reason, Arc<str>),
}

/// What [`Gate::admit`] decided. Callers keep one and pass it again, so that its memory is used again.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// One per run of the batch. A device that was not let in is [`DeviceRef::UNKNOWN`], and all its rows are rejected.
    pub devices: Vec<DeviceRef>,
    /// One per row; `None` when every row was accepted.
    pub rows: Option<Vec<RowVerdict>>,
    /// A time was filled in or clamped: the block that the batch came from does not say the same any more.
    pub altered: bool,
    pub accepted: u32,
    pub duplicates: u32,
    pub rejected: u32,
}

/// A device as the gate knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device<'a> {
    pub index: u32,
    pub name: &'a str,
    /// Position in the list of device types.
    pub device_type: Option<u32>,
    pub quarantined: bool,
    /// When the node first and last received an event of it.
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// The newest event time of an accepted event; `None` before the first.
    pub last_time: Option<Timestamp>,
    /// How far the device's clock is behind the node's, smoothed, transport included; `None` when it never said a time.
    pub skew: Option<Span>,
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

#[derive(Debug)]
pub struct Gate {}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("the saved state of the gate has version {0}, which this program does not know")]
    Version(u32),
    #[error("the saved state of the gate cannot be read: {0}")]
    Malformed(String),
}

impl Gate {
    /// # Errors
    /// All problems of the specs, with their places.
    pub fn new(
        _policy: Policy,
        _types: Vec<DeviceTypeSpec>,
        _schemas: Vec<SchemaSpec>,
    ) -> Result<Gate, Vec<SpecProblem>> {
        todo!()
    }

    /// Judges every row of `batch`, fills in times, and remembers what it accepted.
    pub fn admit(&mut self, _received: Timestamp, _batch: &mut Batch, _out: &mut Admitted) {
        todo!()
    }

    /// The commit failed: what `admit` remembered of the batch's events is forgotten, so that the sender's retry is not taken for a duplicate.
    pub fn undo(&mut self, _batch: &Batch, _admitted: &Admitted) {
        todo!()
    }

    /// Remembers a committed batch again, after a restart. Never rejects.
    pub fn observe(&mut self, _received: Timestamp, _batch: &Batch, _devices: &mut Vec<DeviceRef>) {
        todo!()
    }

    /// Devices known; their indices are `0..len`.
    pub fn len(&self) -> u32 {
        todo!()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// # Panics
    /// When no device has the index.
    pub fn device(&self, _index: u32) -> Device<'_> {
        todo!()
    }

    pub fn find(&self, _name: &str) -> Option<u32> {
        todo!()
    }

    /// All devices in the order of their indices.
    pub fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        (0..self.len()).map(|index| self.device(index))
    }

    /// Sets a device apart, or takes it back; `false` when it is not known.
    pub fn quarantine(&mut self, _name: &str, _on: bool) -> bool {
        todo!()
    }

    /// The devices and what is remembered of them, as MessagePack.
    pub fn save(&self) -> Vec<u8> {
        todo!()
    }

    /// Replaces the devices by saved ones.
    pub fn load(&mut self, _saved: &[u8]) -> Result<(), LoadError> {
        todo!()
    }
}
