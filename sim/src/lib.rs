//! Another world for the same nodes: simulated devices, time, network and disks.

pub mod fleet;
pub mod world;
