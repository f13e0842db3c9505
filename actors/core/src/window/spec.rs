//! What a user says of a window.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Span;

/// A window over the events of a node: what belongs together, what is computed, and when it is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// Name of the window: letters, digits, `-` and `_`. Results are at `windows/{name}/{key}` (MQTT) and `/v1/windows/{name}` (HTTP).
    pub name: String,
    /// `tumbling`, `sliding` or `session`. Default: `tumbling`.
    #[serde(default)]
    pub kind: WindowKind,
    /// Length of a tumbling or sliding window, from 1ms to 366d. Not for session windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Span>,
    /// Distance between the starts of two sliding windows, at most `size`. Only for sliding windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slide: Option<Span>,
    /// Silence in event time that ends a session. Only for session windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Span>,
    /// `device`, `type` or `node`: whose events are computed together. Default: `device`.
    #[serde(default)]
    pub by: GroupBy,
    /// How far out of order events may come before the watermark passes them. Default: 2s.
    #[serde(default = "default_bound")]
    pub bound: Span,
    /// How long after its end a window still takes late events and fires again with a higher revision. Default: 0s.
    #[serde(default)]
    pub lateness: Span,
    /// A device that sent nothing for so long does not hold the watermark back. Default: 30s.
    #[serde(default = "default_idle_after")]
    pub idle_after: Span,
    /// Metrics to aggregate; empty means every metric that is a number. Default: empty.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Only devices of these types; empty means all. Default: empty.
    #[serde(default)]
    pub device_types: Vec<String>,
    /// What is computed. Default: count, sum, min, max, mean.
    #[serde(default = "default_aggregates")]
    pub aggregates: Vec<Aggregate>,
    /// Quantiles between 0 and 1, within 1 % of the value. Default: none.
    #[serde(default)]
    pub quantiles: Vec<f64>,
    /// `close`: when the watermark passes the end (and again for late events). `update`: also while the window is open. Default: `close`.
    #[serde(default)]
    pub emit: Emit,
    /// A condition in CEL on the event, for example `pressure > 1.0 && state == "running"`; events for which it is false stay out. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    #[default]
    Tumbling,
    Sliding,
    Session,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// One result per device; the device's own watermark.
    #[default]
    Device,
    /// One result per device type; the watermark is the least of its devices that are not idle.
    Type,
    /// One result for the node; the watermark is the least of all devices that are not idle.
    Node,
    /// One result for all nodes of the site: each adds its share. On a node without a site the same as `node`.
    Site,
}

impl GroupBy {
    /// The key of all results, where there is only one.
    pub fn only_key(self) -> Option<&'static str> {
        match self {
            GroupBy::Node => Some(super::NODE_KEY),
            GroupBy::Site => Some(super::SITE_KEY),
            GroupBy::Device | GroupBy::Type => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Emit {
    #[default]
    Close,
    Update,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    Count,
    Sum,
    Min,
    Max,
    Mean,
    /// Of the sample: n − 1 below the sum of squares.
    Stddev,
    /// Value of the earliest event by event time.
    First,
    /// Value of the latest event by event time.
    Last,
}

fn default_bound() -> Span {
    Span::from_secs(2)
}

fn default_idle_after() -> Span {
    Span::from_secs(30)
}

fn default_aggregates() -> Vec<Aggregate> {
    vec![Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Mean]
}
