//! A factory floor as a function of a seed: presses, ovens, conveyors and compressors with cycles, wear, faults and repairs.
//!
//! The model is a plain state machine. It owns no clock and no task: [`Fleet::step`] is told the time and gives the readings that
//! fall due until then, in order of time. It uses additions, multiplications and divisions only, and its own generator of random
//! numbers, so that a seed gives the same rows on every machine and in every version of its dependencies.
//!
//! What it promises, each with a test of the same name:
//! 1. `same_seed_same_rows`, however the time is cut into steps.
//! 2. `sequences_have_no_gaps`: each device counts its readings from 1.
//! 3. `values_stay_in_their_ranges`: each value lies within the range that [`MachineKind::metrics`] states.
//! 4. `a_fault_shows_and_is_repaired`: a planned fault moves the metrics that [`FaultKind`] names, and the repair brings them back.

mod body;
mod kind;
mod machine;
mod mischief;
mod noise;
mod spec;
mod write;

#[cfg(test)]
mod tests;

use std::{cmp::Reverse, collections::BinaryHeap};

pub use kind::{METRICS_MAX, MachineKind, MetricInfo, Reading, Sample};
pub use machine::Condition;
use machine::Machine;
use millpond_core::time::Timestamp;
pub use mischief::{Delivery, Mischief, Troublemaker};
pub use spec::{Clocks, FaultKind, FaultRates, FleetSpec, PlannedFault, Shifts};

/// A set of machines at a point in time.
#[derive(Debug)]
pub struct Fleet {
    machines: Vec<Machine>,
    /// When each machine takes its next reading; ties go to the machine with the lower number.
    due: BinaryHeap<Reverse<(Timestamp, u32)>>,
}

impl Fleet {
    /// Machines are named after their kind and number: `press-0001`, `oven-0001`, … Planned faults of unknown machines are ignored.
    pub fn new(seed: u64, spec: FleetSpec) -> Fleet {
        let mut machines = Vec::with_capacity(spec.machines());
        for (kind, count) in spec.counts() {
            for number in 1..=count {
                machines.push(Machine::new(seed, kind, number, machines.len() as u32, &spec));
            }
        }
        let due = machines.iter().enumerate().map(|(at, machine)| Reverse((machine.next_due(), at as u32))).collect();
        Fleet { machines, due }
    }

    /// Number of machines.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// When the next reading falls due; `None` for a fleet without machines.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// When machine `index` takes its next reading.
    pub fn next_due_of(&self, index: usize) -> Option<Timestamp> {
        self.machines.get(index).map(Machine::next_due)
    }

    /// Appends the readings that fall due until `now`, inclusive, in order of time.
    pub fn step(&mut self, now: Timestamp, out: &mut Vec<Reading>) {
        while let Some(Reverse((at, index))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            let machine = &mut self.machines[index as usize];
            out.push(machine.read());
            self.due.push(Reverse((machine.next_due(), index)));
        }
    }

    /// Name, kind and present condition of each machine, in their order.
    pub fn machines(&self) -> impl Iterator<Item = (&str, MachineKind, Condition)> {
        self.machines.iter().map(|machine| (machine.device(), machine.kind(), machine.condition()))
    }
}
