//! The window actor's half of a window.

use std::sync::Arc;

use super::{CheckpointError, Delta, LateEvent, Pane, WindowEffect, WindowSpec};
use crate::time::Timestamp;

/// Combines the deltas of all shards into panes.
#[derive(Debug)]
pub struct Panes {
    spec: Arc<WindowSpec>,
}

impl Panes {
    /// `spec` has no [`problems`](WindowSpec::problems); `shards` is how many shards send deltas.
    pub fn new(spec: Arc<WindowSpec>, shards: usize) -> Panes {
        let _ = shards;
        Panes { spec }
    }

    pub fn spec(&self) -> &Arc<WindowSpec> {
        &self.spec
    }

    /// Takes deltas of shard `shard` (from 0), in its order.
    pub fn apply(&mut self, shard: usize, deltas: Vec<Delta>, out: &mut Vec<WindowEffect>) {
        let _ = (shard, deltas, out);
        todo!()
    }

    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<WindowEffect>) {
        let _ = (now, out);
        todo!()
    }

    pub fn emitted(&mut self, pane: &Pane) {
        let _ = pane;
        todo!()
    }

    pub fn emitted_late(&mut self, event: &LateEvent) {
        let _ = event;
        todo!()
    }

    pub fn open(&self) -> Vec<Pane> {
        todo!()
    }

    pub fn save(&self) -> Vec<u8> {
        todo!()
    }

    /// # Errors
    /// When the bytes are no checkpoint of this definition; the panes are as before.
    pub fn load(&mut self, checkpoint: &[u8]) -> Result<(), CheckpointError> {
        let _ = checkpoint;
        todo!()
    }
}
