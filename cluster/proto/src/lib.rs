pub mod documents;
pub mod membership;
pub mod placement;
pub mod ranges;
pub mod replication;
pub mod wire;

mod now;

pub use now::Now;
pub use ranges::RangeSet;
