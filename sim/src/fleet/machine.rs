//! One machine: when it reads, how its clock errs, whether it works, how it wears and breaks.

use std::sync::Arc;

use millpond_core::time::{Span, Timestamp};

use super::{
    body::{Body, Forces},
    kind::{MachineKind, Reading},
    noise::Noise,
    spec::{FaultKind, FaultRates, FleetSpec, PlannedFault, Shifts},
};

/// What keeps a machine from working, worst first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// A fault has developed to this extent, from 0 to 1.
    Faulty(FaultKind, f64),
    /// The shift is over.
    Resting,
    /// A short stop: setup, no material.
    Stopped,
    Working,
}

/// The longest step of the physics, in seconds; a longer time between two readings is cut into such steps.
const STEP_S: f64 = 1.0;
/// No machine is stepped more often than this for one reading: after it, the model's time jumps.
const STEPS_MAX: u32 = 120;

#[derive(Debug)]
pub struct Machine {
    device: Arc<str>,
    index: u32,
    kind: MachineKind,
    start: Timestamp,
    /// The grid of due times, without jitter.
    slot: Timestamp,
    due: Timestamp,
    last: Timestamp,
    period: Span,
    jitter: f64,
    clock: DeviceClock,
    seq: u64,
    shifts: Option<Shifts>,
    stops: Option<(Span, Span)>,
    /// Until when a short stop lasts, or when the next one begins.
    stop_turn: Timestamp,
    stopped: bool,
    rates: Option<FaultRates>,
    planned: Vec<PlannedFault>,
    fault: Option<Fault>,
    /// From 0 (new) to 1 (worn out).
    wear: f64,
    condition: Condition,
    body: Body,
    noise: Noise,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: FaultKind,
    since: Timestamp,
    until: Timestamp,
    ramp: Span,
}

#[derive(Clone, Copy, Debug)]
struct DeviceClock {
    offset: Span,
    drift_ppm: f64,
    resolution: Span,
}

impl DeviceClock {
    fn stamp(&self, at: Timestamp, start: Timestamp) -> Timestamp {
        let drift = (at.since(start).0 as f64 * self.drift_ppm / 1e6) as i64;
        let stamp = at.saturating_add(self.offset).saturating_add(Span(drift));
        let step = self.resolution.0.max(1);
        Timestamp(stamp.0.div_euclid(step) * step)
    }
}

impl Machine {
    pub fn new(seed: u64, kind: MachineKind, number: u32, index: u32, spec: &FleetSpec) -> Machine {
        let mut noise = Noise::new(seed, 1, u64::from(index));
        let device: Arc<str> = format!("{}{}-{number:04}", spec.prefix, kind.name()).into();
        let period = Span(spec.period.0.max(1));
        let slot = spec.start.saturating_add(Span((period.0 as f64 * noise.unit()) as i64));
        let clock = DeviceClock {
            offset: Span((spec.clocks.offset_max.0 as f64 * noise.between(-1.0, 1.0)) as i64),
            drift_ppm: spec.clocks.drift_ppm_max * noise.between(-1.0, 1.0),
            resolution: spec.clocks.resolution,
        };
        let mut planned: Vec<PlannedFault> = spec.planned.iter().filter(|p| *p.device == *device).cloned().collect();
        planned.sort_by_key(|fault| std::cmp::Reverse(fault.at.0));
        let mut machine = Machine {
            index,
            kind,
            start: spec.start,
            slot,
            due: slot,
            last: spec.start,
            period,
            jitter: spec.jitter.clamp(0.0, 0.5),
            clock,
            seq: 0,
            shifts: spec.shifts.filter(|shifts| shifts.work.0 > 0 && shifts.rest.0 >= 0),
            stops: spec.stops,
            stop_turn: spec.start,
            stopped: false,
            rates: spec.faults,
            planned,
            fault: None,
            wear: noise.between(0.05, 0.4),
            condition: Condition::Working,
            body: Body::new(kind, &mut noise),
            device,
            noise,
        };
        machine.stop_turn = machine.next_stop(spec.start);
        machine
    }

    pub fn device(&self) -> &str {
        &self.device
    }

    pub fn kind(&self) -> MachineKind {
        self.kind
    }

    pub fn condition(&self) -> Condition {
        self.condition
    }

    pub fn next_due(&self) -> Timestamp {
        self.due
    }

    /// Moves the machine to its due time and reads its sensors.
    pub fn read(&mut self) -> Reading {
        let at = self.due;
        self.advance(at);
        self.seq += 1;
        self.slot = self.slot.saturating_add(self.period);
        let jitter = self.noise.between(-1.0, 1.0) * self.jitter * self.period.0 as f64;
        self.due = self.slot.saturating_add(Span(jitter as i64)).max(at.saturating_add(Span(1)));
        Reading {
            device: self.device.clone(),
            machine: self.index,
            kind: self.kind,
            at,
            ts: self.clock.stamp(at, self.start),
            seq: self.seq,
            samples: self.body.sense(self.condition, &mut self.noise),
        }
    }

    fn advance(&mut self, to: Timestamp) {
        let total = to.since(self.last).as_secs_f64().max(0.0);
        let steps = ((total / STEP_S).ceil() as u32).clamp(1, STEPS_MAX);
        let dt = (total / f64::from(steps)).min(STEP_S);
        for step in 1..=steps {
            let part = (to.since(self.last).0 as f64 * f64::from(step) / f64::from(steps)) as i64;
            self.condition = self.judge(self.last.saturating_add(Span(part)), dt);
            let forces = Forces::of(self.condition, self.wear);
            self.body.advance(dt, forces, &mut self.noise);
        }
        self.last = to;
    }

    /// What the machine does at `now`; faults begin and end here.
    fn judge(&mut self, now: Timestamp, dt: f64) -> Condition {
        self.begin_and_end_faults(now, dt);
        if let Some(fault) = self.fault {
            let developed = now.since(fault.since).0 as f64 / fault.ramp.0.max(1) as f64;
            return Condition::Faulty(fault.kind, developed.clamp(0.0, 1.0));
        }
        if let Some(Shifts { work, rest }) = self.shifts
            && now.since(self.start).0.rem_euclid(work.0 + rest.0) >= work.0
        {
            return Condition::Resting;
        }
        if self.stops.is_some() && now >= self.stop_turn {
            self.stopped = !self.stopped;
            self.stop_turn = self.next_stop(now);
        }
        if self.stopped { Condition::Stopped } else { Condition::Working }
    }

    fn next_stop(&mut self, now: Timestamp) -> Timestamp {
        let Some((between, length)) = self.stops else { return Timestamp::MAX };
        let mean = if self.stopped { length } else { between };
        let wait = self.noise.around(mean.as_secs_f64()).max(1.0);
        now.saturating_add(Span((wait * 1e9) as i64))
    }

    fn begin_and_end_faults(&mut self, now: Timestamp, dt: f64) {
        if self.fault.is_some_and(|fault| now >= fault.until) {
            self.fault = None;
            self.wear = 0.05;
        }
        if self.fault.is_some() {
            return;
        }
        if let Some(planned) = self.planned.pop_if(|planned| self.start.saturating_add(planned.at) <= now) {
            let since = self.start.saturating_add(planned.at);
            let until = self.start.saturating_add(planned.repaired).max(since);
            self.fault = Some(Fault { kind: planned.kind, since, until, ramp: planned.ramp });
            return;
        }
        if let (Some(rates), Condition::Working) = (self.rates, self.condition) {
            let between = rates.between.as_secs_f64().max(1.0);
            self.wear = (self.wear + dt / (2.0 * between)).min(1.0);
            // Worn machines break more often: 2 × wear has a mean of about one over a machine's life.
            if self.noise.happens(dt / between * 2.0 * self.wear) {
                let repair = self.noise.around(rates.repair.as_secs_f64()).max(1.0);
                let kind = FaultKind::ALL[(self.noise.next() % 3) as usize];
                let until = now.saturating_add(Span((repair * 1e9) as i64));
                self.fault = Some(Fault { kind, since: now, until, ramp: rates.ramp });
            }
        }
    }
}
