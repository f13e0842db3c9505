//! Small batches of many connections become large blocks.

use std::sync::Arc;

use millpond_core::{
    admission::Admitted,
    batch::{Batch, DeviceRef},
};

use crate::front::Ticket;

/// What a shard wants to have in one unit of the journal.
#[derive(Default)]
pub struct Gather {
    /// Batches that came as blocks, ready for the journal.
    pub pieces: Vec<Piece>,
    /// Accepted rows that wait to be encoded.
    pub loose: Vec<Arc<Batch>>,
    /// What the gate has admitted, in its order: to be undone when the unit is refused.
    pub admissions: Vec<(Arc<Batch>, Admitted)>,
    pub dead_letters: Vec<millpond_core::dead_letter::DeadLetter>,
    pub tickets: Vec<(Arc<Ticket>, Counts)>,
    pub bytes: usize,
    pub duplicates: u64,
}

/// One record to be: its bytes, and the rows that are applied to windows and rules once it is on disk.
pub struct Piece {
    pub batch: Arc<Batch>,
    pub devices: Vec<DeviceRef>,
    pub block: bytes::Bytes,
}

/// What became of the events of one submission in this shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

impl Gather {
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty() && self.dead_letters.is_empty() && self.pieces.is_empty() && self.loose.is_empty()
    }

    /// Joins the loose batches: one for each shape, with one run per device, in the order in which the shapes came.
    pub fn join(&mut self) -> Vec<Batch> {
        let mut shapes: Vec<Batch> = Vec::new();
        for batch in self.loose.drain(..) {
            match shapes.iter_mut().find(|other| other.shape.fingerprint() == batch.shape.fingerprint()) {
                Some(joined) => joined.append(&batch),
                None => shapes.push(Arc::unwrap_or_clone(batch)),
            }
        }
        shapes.into_iter().map(Batch::grouped).collect()
    }
}
