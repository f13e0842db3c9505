//! Blocks: checked, decoded, and kept as the bytes they came in.

use bytes::Bytes;
use millpond_core::{
    batch::Batch,
    block::{BlockError, Decoder},
    dead_letter::Reason,
    limits::{EVENTS_PER_BATCH_MAX, METRICS_PER_EVENT_MAX, VALUE_BYTES_MAX},
};

use super::{
    PayloadError,
    row::{check_device, check_metric, shown},
};
use crate::port::Inbound;

pub(super) use millpond_core::block::is_block;

#[derive(Debug, Default)]
pub(super) struct Blocks {
    decoder: Decoder,
    decoded: Vec<Inbound>,
}

impl Blocks {
    pub fn decode(&mut self, device: Option<&str>, payload: &Bytes) -> Result<usize, PayloadError> {
        if let Some(device) = device {
            check_device(device)?;
        }
        let batch = self.decoder.decode(payload).map_err(|error| {
            let reason = match error {
                BlockError::TooLarge { .. } => Reason::TooLarge,
                _ => Reason::Malformed,
            };
            PayloadError::new(reason, error.to_string())
        })?;
        check(&batch, device)?;
        let rows = batch.rows();
        self.decoded.push(Inbound { batch, block: Some(payload.clone()) });
        Ok(rows)
    }

    pub fn finish(&mut self) -> Vec<Inbound> {
        std::mem::take(&mut self.decoded)
    }
}

/// A block obeys the rules that rows obey: whoever encoded it may not have known them.
fn check(batch: &Batch, topic: Option<&str>) -> Result<(), PayloadError> {
    let too_large = |what: &str, have: usize, limit: usize| {
        Err(PayloadError::new(Reason::TooLarge, format!("the block has {have} {what}, more than {limit}")))
    };
    let metrics = batch.shape.metrics();
    if batch.rows() > EVENTS_PER_BATCH_MAX {
        return too_large("events", batch.rows(), EVENTS_PER_BATCH_MAX);
    }
    if metrics.len() > METRICS_PER_EVENT_MAX {
        return too_large("metrics", metrics.len(), METRICS_PER_EVENT_MAX);
    }
    if metrics.is_empty() {
        return Err(PayloadError::malformed("the block has no metric"));
    }
    for (at, metric) in metrics.iter().enumerate() {
        check_metric(&metric.name)?;
        if metrics[..at].iter().any(|before| before.name == metric.name) {
            return Err(PayloadError::malformed(format!("the block has the metric {:?} twice", shown(&metric.name))));
        }
    }
    for run in batch.runs() {
        let device = batch.device(run);
        check_device(device)?;
        if let Some(topic) = topic.filter(|topic| *topic != device) {
            let detail = format!("the block has events of {:?}, but was sent for {topic:?}", shown(device));
            return Err(PayloadError::new(Reason::BadDevice, detail));
        }
    }
    check_values(batch)
}

fn check_values(batch: &Batch) -> Result<(), PayloadError> {
    use millpond_core::batch::ColumnValues::{Bytes, Text};
    for (metric, column) in batch.shape.metrics().iter().zip(&batch.columns) {
        let (Text(arena) | Bytes(arena)) = &column.values else { continue };
        let mut start = 0;
        for (row, end) in arena.ends.iter().enumerate() {
            if (end - start) as usize > VALUE_BYTES_MAX {
                let detail =
                    format!("event {}: metric {:?} has more than {VALUE_BYTES_MAX} bytes", row + 1, metric.name);
                return Err(PayloadError::new(Reason::TooLarge, detail));
            }
            start = *end;
        }
    }
    Ok(())
}
