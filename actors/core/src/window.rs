//! Windows over event time.

mod check;
mod checkpoint;
mod delta;
mod digest;
mod exact;
mod grid;
mod pane;
mod panes;
mod plan;
#[cfg(test)]
mod reference;
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
pub(crate) use grid::slice_length;
pub use pane::{LateEvent, Pane, PaneMetric, WindowEffect};
pub use panes::Panes;
pub use slicer::Slicer;
pub use spec::{Aggregate, Emit, GroupBy, WindowKind, WindowSpec};
pub use stats::Stats;

/// The key of windows over the whole node.
pub const NODE_KEY: &str = "node";
