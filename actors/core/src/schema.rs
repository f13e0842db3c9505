//! Schemas: what devices of a type may send.

pub mod spec;

pub use spec::{DeviceTypeSpec, MetricSpec, SchemaSpec};
