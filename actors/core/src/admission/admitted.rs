//! What the gate decided of a batch.

use std::sync::Arc;

use super::dedup::RunUndo;
use crate::{
    batch::{Batch, DeviceRef},
    dead_letter::Reason,
    time::Timestamp,
};

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowVerdict {
    Accept,
    /// The row is in the journal already.
    Duplicate,
    /// The row becomes a dead letter; the text says what was wrong and where.
    Reject(Reason, Arc<str>),
}

/// What [`Gate::admit`] decided. Callers keep one and pass it again, so that its memory is used again.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// One per run of the batch. A device that was not let in is [`DeviceRef::UNKNOWN`], and all its rows are rejected.
    pub devices: Vec<DeviceRef>,
    /// One per row; `None` when every row was accepted.
    pub rows: Option<Vec<RowVerdict>>,
    /// A time was filled in or clamped: the block that the batch came from does not say the same any more.
    pub altered: bool,
    pub accepted: u32,
    pub duplicates: u32,
    pub rejected: u32,
    /// The times as the batch said them, when some were altered.
    pub(super) said: Vec<Timestamp>,
    pub(super) undo: Vec<RunUndo>,
    /// What had to give way in the rings, in the order in which it did.
    pub(super) lost: Vec<Option<u64>>,
    /// Number of this admission, and of the one before it that was not undone.
    pub(super) turn: u64,
    pub(super) turn_before: u64,
}

impl Admitted {
    pub fn verdict(&self, row: usize) -> &RowVerdict {
        self.rows.as_ref().map_or(&RowVerdict::Accept, |rows| &rows[row])
    }

    pub fn is_accepted(&self, row: usize) -> bool {
        *self.verdict(row) == RowVerdict::Accept
    }

    pub(super) fn clear(&mut self) {
        self.devices.clear();
        self.rows = None;
        self.altered = false;
        (self.accepted, self.duplicates, self.rejected) = (0, 0, 0);
        self.said.clear();
        self.undo.clear();
        self.lost.clear();
    }

    pub(super) fn set(&mut self, batch: &Batch, row: usize, verdict: RowVerdict) {
        self.rows.get_or_insert_with(|| vec![RowVerdict::Accept; batch.rows()])[row] = verdict;
    }

    /// The time that the device said, when the node gave the row another.
    pub(super) fn said_otherwise(&self, batch: &Batch, row: usize) -> Option<Timestamp> {
        self.said.get(row).copied().filter(|&said| said != batch.times[row])
    }
}
