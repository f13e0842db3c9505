//! Simulated worlds: fleets of machines that behave like machines.

pub mod fleet;
