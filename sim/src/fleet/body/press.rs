//! A hydraulic press: strokes, oil that warms with each of them, a bearing that wears.

use super::{AMBIENT, Forces, lag, sensor, state};
use crate::fleet::{
    kind::{METRICS_MAX, Sample},
    machine::Condition,
    noise::Noise,
};

#[derive(Debug)]
pub struct Press {
    strokes_per_s: f64,
    nominal_force: f64,
    /// Whole strokes and the part of the one under way.
    strokes: f64,
    force: f64,
    oil: f64,
    bearing: f64,
    vibration: f64,
    current: f64,
}

impl Press {
    pub fn new(noise: &mut Noise) -> Press {
        Press {
            strokes_per_s: noise.between(0.3, 0.8),
            nominal_force: noise.between(600.0, 1200.0),
            strokes: (noise.next() % 2_000_000) as f64,
            force: 0.0,
            oil: noise.between(42.0, 50.0),
            bearing: noise.between(38.0, 44.0),
            vibration: 1.5,
            current: 40.0,
        }
    }

    pub fn advance(&mut self, dt: f64, forces: Forces) {
        let pace = if forces.working { self.strokes_per_s } else { 0.0 };
        self.strokes += pace * dt;
        let force = if forces.working { self.nominal_force * (1.0 - 0.5 * forces.leak) } else { 0.0 };
        self.force = lag(self.force, force, dt, 0.5);
        let oil = if forces.working { AMBIENT + 28.0 + 12.0 * forces.leak } else { AMBIENT + 6.0 };
        self.oil = lag(self.oil, oil, dt, 240.0);
        let bearing = if forces.working { AMBIENT + 20.0 + 6.0 * forces.wear + 55.0 * forces.bearing } else { AMBIENT };
        self.bearing = lag(self.bearing, bearing, dt, if forces.bearing > 0.0 { 12.0 } else { 20.0 });
        let vibration = if forces.working { forces.vibration(1.4) } else { 0.1 };
        self.vibration = lag(self.vibration, vibration, dt, 0.8);
        let current = match (forces.jammed, forces.working) {
            (true, _) => 135.0,
            (_, true) => 38.0 + 6.0 * forces.wear + 14.0 * forces.bearing,
            _ => 4.0,
        };
        self.current = lag(self.current, current, dt, 0.7);
    }

    pub fn sense(&self, condition: Condition, noise: &mut Noise) -> [Sample; METRICS_MAX] {
        [
            sensor(self.force, self.force * 0.002, 1.0, 0.0, 2000.0, noise),
            sensor(self.oil, 0.04, 10.0, 0.0, 120.0, noise),
            sensor(self.bearing, 0.05, 10.0, 0.0, 160.0, noise),
            sensor(self.vibration, 0.015 + self.vibration * 0.01, 100.0, 0.0, 50.0, noise),
            sensor(self.current, 0.12, 10.0, 0.0, 200.0, noise),
            Sample::F64(self.strokes.floor()),
            state(condition, "running"),
            Sample::Bool(!matches!(condition, Condition::Stopped)),
        ]
    }
}
