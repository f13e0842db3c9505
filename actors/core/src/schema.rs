//! Schemas: what devices of a type may send.

pub mod compatibility;
pub mod pattern;
pub mod spec;

pub use compatibility::compatible;
pub use pattern::Pattern;
pub use spec::{DeviceTypeSpec, MetricSpec, SchemaSpec};
