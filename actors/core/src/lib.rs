//! What a Millpond node thinks. Everything here is a plain value or a plain state machine: time, input and stored state
//! come in as arguments, effects go out as values. No runtime, no clock, no disk, no network, no randomness.

pub mod admission;
pub mod alert;
pub mod batch;
pub mod block;
pub mod budget;
pub mod dead_letter;
pub mod disk;
pub mod downsample;
pub mod expr;
pub mod ids;
pub mod limits;
pub mod map;
pub mod planted;
pub mod problem;
pub mod ranges;
pub mod record;
pub mod replay;
pub mod rule;
pub mod schema;
pub mod time;
pub mod value;
pub mod window;
