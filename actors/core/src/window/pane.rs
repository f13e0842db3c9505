//! What windows say: panes, late events and watermarks.

use serde::{Deserialize, Serialize};

use super::{PartMetric, digest::digest_of_pane};
use crate::{
    ids::{Incarnation, Origin, Seq},
    time::Timestamp,
};

/// The result of a window for one key and one stretch of event time: `start ≤ t < end`.
///
/// A pane is named by `(window, key, start, end)`; of two with the same name the one with the higher `revision` holds. A pane
/// without metrics is a *retraction*: a session that was announced has become part of a longer one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pane {
    pub window: String,
    /// The device, the device type, or [`NODE_KEY`](super::NODE_KEY).
    pub key: String,
    pub start: Timestamp,
    pub end: Timestamp,
    /// From 0.
    pub revision: u32,
    /// The watermark has not passed the end yet: the pane says how things stand, on `emit = "update"` or when its devices are idle.
    #[serde(default)]
    pub open: bool,
    /// By name.
    pub metrics: Vec<PaneMetric>,
    /// The partial aggregates behind `metrics`, by name, on a node of a site: with them the shares of several nodes in one pane are merged
    /// exactly ([`merge_shares`](super::merge_shares)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Vec<PartMetric>>,
    /// Whose share it is, when another node says it: one that holds the records of a node that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Whose>,
    /// Said by who merges the panes of several sites: it is whole, and no share of anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
}

/// A node that is gone, and how far its journal was known to who speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whose {
    pub origin: Origin,
    pub incarnation: Incarnation,
    /// What that node left out of its windows up to this record is not in the share.
    pub through: Seq,
}

/// The aggregates of one metric. Those that the window's definition does not ask for are `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PaneMetric {
    pub name: String,
    /// Finite values.
    pub count: u64,
    /// Values that were NaN or infinite: they are in no aggregate.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Of the sample; `None` below two values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stddev: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<f64>,
    /// `(q, value)`, within 1 % of the value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<(f64, f64)>,
}

/// An event that came when all of its windows were closed for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LateEvent {
    pub window: String,
    pub key: String,
    pub device: String,
    pub time: Timestamp,
    /// The metrics that the window aggregates, as numbers.
    pub metrics: Vec<(String, f64)>,
}

/// What the window actor is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum WindowEffect {
    /// Journal, publish and judge this pane.
    Fire(Pane),
    /// Journal and publish this event in the window's late stream.
    Late(LateEvent),
    /// The watermark of a device type or of the node moved on: tell it to the slicers of all shards
    /// ([`Slicer::learn`](super::Slicer::learn)). Windows by device do not say this.
    Watermark { key: String, at: Timestamp },
}

impl Pane {
    /// Whether the pane takes back what was said under its name.
    pub fn is_retraction(&self) -> bool {
        self.metrics.is_empty()
    }

    /// Fingerprint of what it says, revision and partial aggregates aside: of two panes of the same name that say the same it is the same.
    pub fn digest(&self) -> u64 {
        digest_of_pane(&self.metrics, self.open)
    }

    /// An aggregate by its name: `count`, `sum`, `min`, `max`, `mean`, `stddev`, `first`, `last`, or a quantile as `p50`, `p99`, `p99.9`.
    /// `None` when the pane does not have it.
    pub fn aggregate(&self, metric: &str, name: &str) -> Option<f64> {
        let metric = self.metrics.iter().find(|m| m.name == metric)?;
        match name {
            "count" => Some(metric.count as f64),
            "sum" => metric.sum,
            "min" => metric.min,
            "max" => metric.max,
            "mean" => metric.mean,
            "stddev" => metric.stddev,
            "first" => metric.first,
            "last" => metric.last,
            _ => {
                let percent: f64 = name.strip_prefix('p')?.parse().ok()?;
                metric.quantiles.iter().find(|(q, _)| (q * 100.0 - percent).abs() < 1e-6).map(|(_, value)| *value)
            }
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
