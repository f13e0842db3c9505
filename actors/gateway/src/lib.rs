//! How a node listens. A door takes connections, reads what devices and people say, and hands it to the [`port::Node`] behind it.

pub mod mqtt;
pub mod broker;
pub mod auth;
pub mod payload;
pub mod port;
pub mod tap;
