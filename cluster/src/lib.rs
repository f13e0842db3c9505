//! Who a Millpond node is, and how two of them talk.

pub mod cloud;
pub mod habits;
pub mod identity;
pub mod mesh;
pub mod node;
pub mod quic;
pub(crate) mod sites;
pub mod transport;

pub use sites::FOLDER as OTHER_SITES_FOLDER;
