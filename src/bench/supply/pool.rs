//! Readings of a fleet, kept small.

use std::sync::Arc;

use millpond_core::{
    time::{Span, Timestamp},
    value::Value,
};
use millpond_sim::fleet::{Fleet, FleetSpec, METRICS_MAX, MachineKind, MetricInfo, Sample};

use crate::bench::plan::Plan;

/// Readings that are simulated; a longer run goes through them again.
const READINGS_MAX: u64 = 1_000_000;
/// Rounds of the pool, at most.
const ROUNDS_MAX: u64 = 16;

pub struct Pool {
    pub devices: Vec<Device>,
    /// Readings of a device in one round.
    pub batch: usize,
    /// Rounds until the values come again.
    pub rounds: usize,
    metrics: usize,
}

pub struct Device {
    pub name: Arc<str>,
    pub kind: MachineKind,
    /// The samples of all rounds, `metrics` to each reading.
    samples: Vec<Sample>,
}

impl Pool {
    pub fn new(plan: &Plan, start: Timestamp) -> Pool {
        let batch = plan.batch.max(1) as usize;
        let round = u64::from(plan.devices) * batch as u64;
        let rounds = (READINGS_MAX / round.max(1)).clamp(1, ROUNDS_MAX) as usize;
        let spec = FleetSpec { start, stops: None, ..FleetSpec::mixed(plan.devices) };
        let mut fleet = Fleet::new(plan.seed, spec);
        let metrics = (plan.metrics as usize).clamp(1, METRICS_MAX);
        let mut devices: Vec<Device> = fleet
            .machines()
            .map(|(name, kind, _)| Device {
                name: name.into(),
                kind,
                samples: Vec::with_capacity(metrics * batch * rounds),
            })
            .collect();
        let mut readings = Vec::new();
        for second in 1..=(batch * rounds) as i64 {
            // A reading may fall due exactly at the end of its second: one nanosecond keeps it out of the second before.
            fleet.step(start.saturating_add(Span(second * 1_000_000_000 - 1)), &mut readings);
            for reading in readings.drain(..) {
                devices[reading.machine as usize].samples.extend_from_slice(&reading.samples[..metrics]);
            }
        }
        Pool { devices, batch, rounds, metrics }
    }

    /// Names and values of reading `at` of `round`, which is taken modulo the pool's.
    pub fn reading(
        &self,
        device: usize,
        round: usize,
        at: usize,
    ) -> impl Iterator<Item = (&'static str, Value<'static>)> {
        let device = &self.devices[device];
        let start = ((round % self.rounds) * self.batch + at) * self.metrics;
        let names = device.kind.metrics().iter().map(|info| info.name);
        names.zip(device.samples[start..start + self.metrics].iter().map(|sample| sample.value()))
    }

    pub fn metrics(&self, kind: MachineKind) -> &'static [MetricInfo] {
        &kind.metrics()[..self.metrics]
    }

    /// The devices of connection `lane` of `lanes`, those of one kind together, cut into groups of at most `limit`.
    pub fn groups(&self, lane: usize, lanes: usize, limit: usize) -> Vec<Vec<usize>> {
        let mine = |kind: MachineKind| -> Vec<usize> {
            (lane..self.devices.len()).step_by(lanes).filter(|at| self.devices[*at].kind == kind).collect()
        };
        MachineKind::ALL
            .into_iter()
            .flat_map(|kind| mine(kind).chunks(limit.max(1)).map(<[_]>::to_vec).collect::<Vec<_>>())
            .collect()
    }
}
