//! Windows over event time.

mod check;
mod delta;
mod exact;
mod grid;
mod pane;
mod panes;
mod sketch;
mod slicer;
pub mod spec;
mod stats;
mod wide;

pub use delta::{Delta, Part, PartMetric, Progress};
pub use pane::{LateEvent, Pane, PaneMetric, WindowEffect};
pub use panes::Panes;
pub use slicer::Slicer;
pub use spec::{Aggregate, Emit, GroupBy, WindowKind, WindowSpec};
pub use stats::Stats;

/// The key of windows over the whole node.
pub const NODE_KEY: &str = "node";

/// Why a checkpoint could not be loaded. The state is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("the checkpoint cannot be read: {0}")]
    Unreadable(#[from] rmp_serde::decode::Error),
    #[error("the checkpoint is of version {0}, which this program does not know")]
    Version(u32),
    #[error("the checkpoint belongs to another definition of the window")]
    Definition,
}
