//! How a node listens. A door takes connections, reads what devices and people say, and hands it to the [`port::Node`] behind it.

pub mod auth;
pub mod broker;
pub mod client;
pub mod http;
pub mod mqtt;
pub mod payload;
pub mod port;
pub mod tap;
#[cfg(test)]
mod testing;
pub mod webhook;
