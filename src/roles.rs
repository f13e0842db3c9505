//! What the program can be for as long as it runs.

pub mod edge;
pub mod log;
pub mod signals;
