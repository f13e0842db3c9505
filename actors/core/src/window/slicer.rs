//! The shard's half of a window.

use std::sync::Arc;

use super::{CheckpointError, Delta, WindowSpec};
use crate::{
    batch::{Batch, DeviceRef},
    problem::SpecProblem,
    time::Timestamp,
};

/// Partial aggregates of one window definition over the devices of one shard.
#[derive(Debug)]
pub struct Slicer {
    spec: Arc<WindowSpec>,
}

impl Slicer {
    /// `types` are the names of the device types, in the order that [`DeviceRef::device_type`] counts.
    ///
    /// # Errors
    /// All that is wrong with the definition.
    pub fn new(spec: Arc<WindowSpec>, types: &[String]) -> Result<Slicer, Vec<SpecProblem>> {
        let problems = spec.problems_with(types);
        if problems.is_empty() { Ok(Slicer { spec }) } else { Err(problems) }
    }

    pub fn spec(&self) -> &Arc<WindowSpec> {
        &self.spec
    }

    /// Takes a committed batch; batches come in the order of the journal. `devices` has one entry per run. Rows for which `rows`
    /// is false are in no aggregate (they move the watermark all the same).
    pub fn apply(
        &mut self,
        batch: &Batch,
        devices: &[DeviceRef],
        rows: Option<&[bool]>,
        received: Timestamp,
        out: &mut Vec<Delta>,
    ) {
        let _ = (batch, devices, rows, received, out);
        todo!()
    }

    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Delta>) {
        let _ = (now, out);
        todo!()
    }

    pub fn flush(&mut self, out: &mut Vec<Delta>) {
        let _ = out;
        todo!()
    }

    pub fn learn(&mut self, key: &str, watermark: Timestamp) {
        let _ = (key, watermark);
        todo!()
    }

    pub fn save(&self) -> Vec<u8> {
        todo!()
    }

    /// # Errors
    /// When the bytes are no checkpoint of this definition; the slicer is as before.
    pub fn load(&mut self, checkpoint: &[u8]) -> Result<(), CheckpointError> {
        let _ = checkpoint;
        todo!()
    }
}
