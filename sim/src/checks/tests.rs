//! Each promise on a journal where it holds, and once for each way in which it can be broken.

mod alerts;
mod bounds;
mod cloud;
mod journal;
mod panes;
mod site;
mod stage;
mod twins;

use stage::{Stage, T0, said};
