//! Windows over event time.

pub mod spec;

pub use spec::{Aggregate, Emit, GroupBy, WindowKind, WindowSpec};
