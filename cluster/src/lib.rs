//! Who a Millpond node is, and how two of them talk.

pub mod habits;
pub mod identity;
pub mod mesh;
pub mod node;
pub mod quic;
pub mod transport;
