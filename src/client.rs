//! Clients of a node, for commands.

pub mod http;
pub mod mqtt;
