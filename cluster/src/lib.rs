//! What Millpond nodes say to each other over QUIC.

pub mod quic;
