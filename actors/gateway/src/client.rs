//! Clients of a node, for commands and for devices that are simulated.

pub mod http;
pub mod mqtt;
