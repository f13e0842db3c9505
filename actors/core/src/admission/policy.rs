//! What a user says of the door: section `ingest` of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Span;

/// What is let in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What happens to events of a device that is not known and belongs to no device type: `register` or `dead_letter`. Default: `register`.
    pub unknown_devices: UnknownDevices,
    /// How far ahead of the node's clock an event's time may be, from 0s. Default: 5m.
    pub future_limit: Span,
    /// What happens to events further ahead: `dead_letter`, or `clamp` (they get the time of receipt). Default: `dead_letter`.
    pub on_future: OnFuture,
    /// Events older than this become dead letters. Default: none, events of any age are accepted.
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
