//! A belt conveyor: a load that comes and goes, a current that follows it, items that pass.

use super::{AMBIENT, Forces, lag, sensor, state};
use crate::fleet::{
    kind::{METRICS_MAX, Sample},
    machine::Condition,
    noise::Noise,
};

#[derive(Debug)]
pub struct Conveyor {
    pace: f64,
    speed: f64,
    load: f64,
    load_target: f64,
    current: f64,
    bearing: f64,
    vibration: f64,
    items: f64,
}

impl Conveyor {
    pub fn new(noise: &mut Noise) -> Conveyor {
        let pace = noise.between(0.4, 1.6);
        Conveyor {
            pace,
            speed: pace,
            load: 120.0,
            load_target: 120.0,
            current: 12.0,
            bearing: noise.between(30.0, 36.0),
            vibration: 1.0,
            items: (noise.next() % 5_000_000) as f64,
        }
    }

    pub fn advance(&mut self, dt: f64, forces: Forces, noise: &mut Noise) {
        if noise.happens(dt / 20.0) {
            self.load_target = noise.between(40.0, 220.0);
        }
        self.speed = lag(self.speed, if forces.working { self.pace } else { 0.0 }, dt, 1.5);
        let load = if forces.working { self.load_target } else { self.load };
        self.load = lag(self.load, load, dt, 8.0);
        self.items += self.speed * self.load / 90.0 * dt;
        let current = match (forces.jammed, forces.working) {
            (true, _) => 41.0,
            (_, true) => 5.0 + 0.05 * self.load + 2.0 * forces.wear + 6.0 * forces.bearing,
            _ => 0.4,
        };
        self.current = lag(self.current, current, dt, 0.6);
        let bearing = if forces.working { AMBIENT + 10.0 + 5.0 * forces.wear + 50.0 * forces.bearing } else { AMBIENT };
        self.bearing = lag(self.bearing, bearing, dt, if forces.bearing > 0.0 { 12.0 } else { 60.0 });
        let vibration = if forces.working { forces.vibration(0.9) } else { 0.05 };
        self.vibration = lag(self.vibration, vibration, dt, 0.8);
    }

    pub fn sense(&self, condition: Condition, noise: &mut Noise) -> [Sample; METRICS_MAX] {
        [
            sensor(self.speed, 0.002, 100.0, 0.0, 3.0, noise),
            sensor(self.load, 0.4, 1.0, 0.0, 500.0, noise),
            sensor(self.current, 0.06, 10.0, 0.0, 60.0, noise),
            sensor(self.bearing, 0.05, 10.0, 0.0, 160.0, noise),
            sensor(self.vibration, 0.012 + self.vibration * 0.01, 100.0, 0.0, 50.0, noise),
            Sample::F64(self.items.floor()),
            state(condition, "running"),
            Sample::Bool(self.speed > 0.05),
        ]
    }
}
