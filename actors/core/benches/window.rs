//! What the shard's half of a window costs per value.
//!
//! Batches of 64 runs × 16 rows × 6 columns go round a fleet in a fixed, scattered order, as blocks from many devices do. Printed is the
//! least of several rounds, per value.
//!
//! `cargo bench -p millpond-core --bench window`

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "it measures and prints"
)]

use std::{hint::black_box, sync::Arc, time::Instant};

use millpond_core::{
    batch::{Batch, ColumnValues, DeviceRef, Metric, Shape},
    time::{Span, Timestamp},
    value::ValueType,
    window::{Aggregate, Delta, GroupBy, Panes, Slicer, WindowEffect, WindowSpec},
};

const METRICS: usize = 6;
const ROWS: usize = 16;
const RUNS: usize = 64;
const STEP_MS: i64 = 100;
const ROUNDS: usize = 9;

fn main() {
    println!("{:44} {:>8} {:>14}", "ns per value", "devices", "ns/value");
    for devices in [100, 1_000, 10_000, 100_000] {
        measure("one slice, count sum min max mean", devices, &spec(|_| {}), 3_600_000);
    }
    for devices in [10_000, 100_000] {
        measure("a slice closes every 6 batches", devices, &spec(|spec| spec.size = Some(Span::from_secs(10))), 10_000);
    }
    let with = |aggregates: &[Aggregate]| {
        let aggregates = aggregates.to_vec();
        spec(move |spec| spec.aggregates = aggregates)
    };
    measure("first and last", 10_000, &with(&[Aggregate::First, Aggregate::Last]), 3_600_000);
    measure("stddev", 10_000, &with(&[Aggregate::Stddev]), 3_600_000);
    measure("quantiles", 10_000, &spec(|spec| spec.quantiles = vec![0.5, 0.99]), 3_600_000);
    measure("by node", 10_000, &spec(|spec| spec.by = GroupBy::Node), 3_600_000);
}

fn measure(name: &str, devices: usize, spec: &Arc<WindowSpec>, size_ms: i64) {
    let mut fleet = Fleet::new(devices);
    let mut slicer = Slicer::new(spec.clone(), &[]).expect("a good definition");
    let mut panes = Panes::new(spec.clone(), 1);
    let mut effects: Vec<WindowEffect> = Vec::new();
    let mut deltas: Vec<Delta> = Vec::new();
    let sparse = size_ms > 60_000;
    let mut best = f64::INFINITY;
    for round in 0..=ROUNDS {
        let batches = fleet.round();
        let begun = Instant::now();
        for (batch, devices) in &batches {
            slicer.apply(batch, devices, None, Timestamp::default(), &mut deltas);
        }
        let spent = begun.elapsed();
        let values = batches.len() * RUNS * ROWS * METRICS;
        // The first round meets the devices.
        if round > 0 && sparse {
            best = best.min(spent.as_nanos() as f64 / values as f64);
        } else if round > 0 {
            best = if round == 1 { 0.0 } else { best };
            best += spent.as_nanos() as f64 / values as f64 / ROUNDS as f64;
        }
        panes.apply(0, std::mem::take(&mut deltas), &mut effects);
        black_box(&effects);
        effects.clear();
    }
    println!("{name:44} {devices:>8} {best:>14.2}");
}

struct Fleet {
    shape: Arc<Shape>,
    devices: usize,
    names: Vec<String>,
    ticks: i64,
    seed: u64,
}

impl Fleet {
    fn new(devices: usize) -> Fleet {
        let metric =
            |name: usize| Metric { name: format!("metric-{name}").into(), value_type: ValueType::F64, unit: "".into() };
        Fleet {
            shape: Arc::new(Shape::new((0..METRICS).map(metric).collect())),
            devices,
            names: (0..devices).map(|device| format!("machine-{device:06}")).collect(),
            ticks: 0,
            seed: 1,
        }
    }

    /// Sixteen rows of each device, as far as whole batches go, devices scattered; at least 64 batches.
    fn round(&mut self) -> Vec<(Batch, Vec<DeviceRef>)> {
        let mut batches = Vec::new();
        while batches.len() < 64 {
            let order: Vec<usize> = (0..self.devices).map(|n| n.wrapping_mul(7_919_001) % self.devices).collect();
            for devices in order.chunks_exact(RUNS.min(self.devices)) {
                batches.push(self.batch(devices));
            }
            self.ticks += ROWS as i64;
        }
        batches
    }

    fn batch(&mut self, devices: &[usize]) -> (Batch, Vec<DeviceRef>) {
        let mut batch = Batch::empty(self.shape.clone());
        let mut refs = Vec::new();
        for at in (0..RUNS).map(|run| devices[run % devices.len()]) {
            batch.push_run(&self.names[at], ROWS as u32);
            for row in 0..ROWS as i64 {
                batch.times.push(Timestamp::from_millis((self.ticks + row) * STEP_MS));
            }
            for (metric, column) in batch.columns.iter_mut().enumerate() {
                let ColumnValues::F64(values) = &mut column.values else { continue };
                for _ in 0..ROWS {
                    self.seed =
                        self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    values.push(20.0 + metric as f64 * 100.0 + (self.seed >> 54) as f64 / 10.0);
                }
            }
            refs.push(DeviceRef { index: at as u32, device_type: DeviceRef::UNTYPED });
        }
        (batch, refs)
    }
}

fn spec(change: impl FnOnce(&mut WindowSpec)) -> Arc<WindowSpec> {
    let mut spec = WindowSpec {
        name: "bench".to_owned(),
        kind: Default::default(),
        size: Some(Span::from_secs(366 * 86_400)),
        slide: None,
        gap: None,
        by: GroupBy::Device,
        bound: Span::from_secs(2),
        lateness: Span::ZERO,
        idle_after: Span::from_secs(30),
        metrics: Vec::new(),
        device_types: Vec::new(),
        aggregates: vec![Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Mean],
        quantiles: Vec::new(),
        emit: Default::default(),
        filter: None,
    };
    change(&mut spec);
    Arc::new(spec)
}
