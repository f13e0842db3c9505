//! Windows over event time: partial aggregates in the shards, panes in one window actor per definition.
//!
//! ```text
//!  committed batches ─ Slicer (shard 0) ─┐ deltas                ┌─ panes, revisions
//!  committed batches ─ Slicer (shard 1) ─┴──────── Panes ────────┼─ late events
//!                          ▲                                     └─ watermarks of groups ─┐
//!                          └──────────────────────── learn ───────────────────────────────┘
//! ```
//!
//! The meaning is that of Apache Flink: an event belongs to every window with `start ≤ t < end`; windows are aligned to the epoch; one
//! fires when the watermark reaches `end − 1`, takes late events and fires again until the watermark reaches `end − 1 + lateness`, and an
//! event is late when all of its windows are past that. The unit is the nanosecond; as both the watermark (`greatest − bound − 1`) and the ends
//! (`end − 1`) step back by one unit, times in whole milliseconds give what Flink gives with its millisecond.
//!
//! Windows are cut into *slices* whose length divides both size and slide (Li et al., "No pane, no gain", 2005): each value is added
//! once, however many sliding windows it falls into. A session has mini-sessions for slices, which merge when they touch.
//!
//! Sums are exact (see `exact.rs`), so that no order of arrival, no split into batches and no number of shards shows in a result.

mod check;
mod checkpoint;
mod coarse;
mod delta;
mod digest;
mod exact;
mod grid;
mod pane;
mod panes;
mod plan;
#[cfg(test)]
mod reference;
mod site;
mod sketch;
mod slicer;
mod slots;
pub mod spec;
mod stats;
#[cfg(test)]
mod testing;
mod wide;

pub use checkpoint::CheckpointError;
pub use delta::{Delta, Part, PartMetric, Progress};
pub use exact::ExactSum;
pub(crate) use grid::slice_length;
pub use pane::{LateEvent, Pane, PaneMetric, Whose, WindowEffect};
pub use panes::Panes;
pub use site::{merge_shares, of_site};
pub use slicer::Slicer;
pub use spec::{Aggregate, Emit, GroupBy, WindowKind, WindowSpec};
pub use stats::Stats;

/// The key of windows over the whole node, and of those over the whole site.
pub const NODE_KEY: &str = "node";
pub const SITE_KEY: &str = "site";
