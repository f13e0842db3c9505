//! The seams between a node and the world. All that a node may know of the outside comes through one [`Env`]: time, network,
//! disk, randomness, tasks, blocking work and the trace. The program implements it on the real world; a simulation implements it
//! again. Only traits and small helpers over them stand here.

mod clock;
mod disk;
mod entropy;
mod net;
mod task;

use std::sync::Arc;

pub use clock::{Clock, Elapsed, Mono};
pub use disk::{BlockDevice, Disk, DiskSpace};
pub use entropy::Entropy;
pub use net::{Datagrams, Listener, Neighbours, Net, Stream};
pub use rand::rngs::StdRng;
pub use task::{Blocking, Spawner, Trace, Worker, yield_now};

/// The outside of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub net: Arc<dyn Net>,
    pub disk: Arc<dyn Disk>,
    pub entropy: Arc<dyn Entropy>,
    pub spawner: Arc<dyn Spawner>,
    pub blocking: Arc<dyn Blocking>,
    pub trace: Arc<dyn Trace>,
}
