//! Another world for the same nodes: simulated time, network and disks, devices that measure, faults, and the promises that must
//! hold all the same.
//!
//! ```text
//! scenario ──► rehearsal ──► world (heap, hosts, clocks, network, disks) ──► evidence ──► checks ──► report
//!                 │  site: nodes as an operating system runs them
//!                 └─ floor: devices, receivers, and what they saw (witness)
//! ```

pub mod checks;
pub mod evidence;
pub mod fleet;
pub mod floor;
pub mod promise;
pub mod rehearsal;
pub mod report;
pub mod scenario;
pub mod shrink;
pub mod site;
pub mod spread;
pub mod tls;
pub mod trace_file;
pub mod witness;
pub mod world;

#[cfg(test)]
mod ambient;
#[cfg(test)]
mod tests;
