//! What the nodes of a site agree on, without a network or a clock: plain machines that take time and input and return effects.

pub mod documents;
pub mod membership;
pub mod placement;
pub mod ranges;
pub mod replication;
pub mod sites;
pub mod twin;
pub mod uplink;
pub mod wire;

mod now;

pub use now::Now;
pub use ranges::RangeSet;
