//! Sets of sequence numbers: the same type that the journals keep.

pub use millpond_core::ranges::RangeSet;
