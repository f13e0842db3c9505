//! What a shard tells the window actor.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{LateEvent, stats::Stats};
use crate::time::Timestamp;

/// News of one key. Deltas of one shard must reach [`Panes`](super::Panes) in the order in which its [`Slicer`](super::Slicer) made them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    pub key: Arc<str>,
    /// The watermark that the rows in `parts` and `late` were judged against. Windows that were closed for good at that time
    /// take nothing of `parts`.
    pub judged: Timestamp,
    pub progress: Progress,
    pub parts: Vec<Part>,
    pub late: Vec<LateEvent>,
}

/// How far the shard's devices of a key have come, after the rows of the delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// As said before.
    Unchanged,
    /// The least watermark of the devices that are not idle.
    Reached(Timestamp),
    /// All devices are idle, or there are none: the shard does not hold the watermark back.
    Idle,
}

/// What was added to one slice (or to one session) since the last delta. Parts of the same slice add up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub start: Timestamp,
    /// Exclusive.
    pub end: Timestamp,
    /// By name.
    pub metrics: Vec<PartMetric>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartMetric {
    pub name: Arc<str>,
    pub stats: Stats,
}

/// Merges `more` into `metrics`; both are in the order of names.
pub(super) fn merge(metrics: &mut Vec<PartMetric>, more: &[PartMetric]) {
    let same = metrics.len() == more.len() && metrics.iter().zip(more).all(|(a, b)| a.name == b.name);
    if same {
        metrics.iter_mut().zip(more).for_each(|(metric, more)| metric.stats.merge(&more.stats));
        return;
    }
    for metric in more {
        match metrics.binary_search_by(|known| known.name.cmp(&metric.name)) {
            Ok(at) => metrics[at].stats.merge(&metric.stats),
            Err(at) => metrics.insert(at, metric.clone()),
        }
    }
}
