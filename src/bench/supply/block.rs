//! Blocks, encoded for the whole run.

use std::sync::Arc;

use millpond_core::{
    batch::{Batch, ColumnValues, Metric, Shape},
    block,
    value::Value,
};

use super::{FIRST_SEQ, Outgoing, PAYLOAD_BYTES, Stamps, pool::Pool};
use crate::bench::plan::Plan;

/// The most that is prepared for all connections together.
const READY_BYTES_MAX: u64 = 6 << 30;
/// Room in the payload for groups that compress less than the one that was tried.
const MARGIN: f64 = 0.85;

/// The blocks of one connection, in order.
#[derive(Debug)]
pub struct Ready {
    blocks: Vec<(Vec<u8>, u64)>,
    published: usize,
}

pub fn lanes(plan: &Plan, pool: &Pool, stamps: Stamps) -> Vec<Ready> {
    let lanes = plan.connections as usize;
    let rounds = (plan.readings_per_device() / u64::from(plan.batch.max(1))) as usize;
    let share = READY_BYTES_MAX / lanes as u64;
    (0..lanes)
        .map(|lane| Ready::new(pool, stamps, &pool.groups(lane, lanes, group_size(pool)), rounds, share))
        .collect()
}

/// Devices whose readings fill a block.
fn group_size(pool: &Pool) -> usize {
    let tried = pool.groups(0, 1, 64).into_iter().next().unwrap_or_default();
    let mut batch = make(pool, &tried, 0);
    stamp(&mut batch, pool.batch, 0, Stamps { base: millpond_core::time::Timestamp(0), ..DUMMY });
    let mut bytes = Vec::new();
    block::encode(&batch, &mut bytes);
    let per_device = (bytes.len() / tried.len().max(1)).max(1);
    let by_bytes = (PAYLOAD_BYTES as f64 * MARGIN) as usize / per_device;
    by_bytes.min(millpond_core::limits::EVENTS_PER_BATCH_MAX / pool.batch.max(1)).max(1)
}

const DUMMY: Stamps =
    Stamps { base: millpond_core::time::Timestamp(0), period: millpond_core::time::Span::from_secs(1) };

impl Ready {
    fn new(pool: &Pool, stamps: Stamps, groups: &[Vec<usize>], rounds: usize, bytes_max: u64) -> Ready {
        let mut batches: Vec<Batch> =
            (0..pool.rounds).flat_map(|round| groups.iter().map(move |group| make(pool, group, round))).collect();
        let (mut blocks, mut total) = (Vec::with_capacity(rounds * groups.len()), 0);
        for round in 0..rounds {
            for group in 0..groups.len() {
                let batch = &mut batches[(round % pool.rounds) * groups.len() + group];
                stamp(batch, pool.batch, round, stamps);
                let mut bytes = Vec::new();
                block::encode(batch, &mut bytes);
                bytes.shrink_to_fit();
                total += bytes.len() as u64;
                blocks.push((bytes, batch.rows() as u64));
            }
            if total > bytes_max {
                break;
            }
        }
        Ready { blocks, published: 0 }
    }

    /// Publishes, events and bytes.
    pub fn totals(&self) -> (u64, u64, u64) {
        let events = self.blocks.iter().map(|(_, events)| *events).sum();
        let bytes = self.blocks.iter().map(|(bytes, _)| bytes.len() as u64).sum();
        (self.blocks.len() as u64, events, bytes)
    }

    pub fn next(&mut self) -> Option<Outgoing<'_>> {
        let (payload, events) = self.blocks.get(self.published)?;
        self.published += 1;
        Some(Outgoing { topic: "telemetry", payload, events: *events })
    }
}

/// The readings of one round of devices of one kind; times and sequence numbers are still to come.
fn make(pool: &Pool, group: &[usize], round: usize) -> Batch {
    let kind = pool.devices[group[0]].kind;
    let metric = |info: &millpond_sim::fleet::MetricInfo| Metric {
        name: info.name.into(),
        value_type: info.value_type,
        unit: "".into(),
    };
    let mut batch = Batch::empty(Arc::new(Shape::new(pool.metrics(kind).iter().map(metric).collect())));
    for device in group {
        batch.push_run(&pool.devices[*device].name, pool.batch as u32);
        for at in 0..pool.batch {
            for (column, (_, value)) in batch.columns.iter_mut().zip(pool.reading(*device, round, at)) {
                push(&mut column.values, value);
            }
        }
    }
    let rows = group.len() * pool.batch;
    batch.times.resize(rows, Default::default());
    batch.seqs.resize(rows, None);
    batch
}

fn push(column: &mut ColumnValues, value: Value<'_>) {
    column.push(Some(value));
}

fn stamp(batch: &mut Batch, per_device: usize, round: usize, stamps: Stamps) {
    for row in 0..batch.rows() {
        let reading = (round * per_device + row % per_device) as u64;
        batch.times[row] = stamps.at(reading);
        batch.seqs[row] = Some(FIRST_SEQ + reading);
    }
}
