//! Each promise on a journal where it holds, and once for each way in which it can be broken.

mod alerts;
mod bounds;
mod journal;
mod panes;
mod site;
mod stage;

use stage::{Stage, T0, said};
