//! A screw compressor on a tank: it loads below one pressure and unloads above another, while the floor draws air.

use super::{AMBIENT, Forces, lag, sensor, state};
use crate::fleet::{
    kind::{METRICS_MAX, Sample},
    machine::Condition,
    noise::Noise,
};

const LOAD_BELOW: f64 = 6.8;
const UNLOAD_ABOVE: f64 = 7.6;

#[derive(Debug)]
pub struct Compressor {
    /// m³/min when loaded.
    capacity: f64,
    /// What the floor draws, in m³/min.
    demand: f64,
    demand_target: f64,
    pressure: f64,
    loaded: bool,
    flow: f64,
    oil: f64,
    current: f64,
    vibration: f64,
    loaded_seconds: f64,
}

impl Compressor {
    pub fn new(noise: &mut Noise) -> Compressor {
        let capacity = noise.between(9.0, 14.0);
        Compressor {
            capacity,
            demand: capacity * 0.6,
            demand_target: capacity * 0.6,
            pressure: noise.between(LOAD_BELOW, UNLOAD_ABOVE),
            loaded: true,
            flow: capacity,
            oil: noise.between(68.0, 76.0),
            current: 80.0,
            vibration: 2.0,
            loaded_seconds: (noise.next() % 40_000_000) as f64,
        }
    }

    pub fn advance(&mut self, dt: f64, forces: Forces, noise: &mut Noise) {
        if noise.happens(dt / 30.0) {
            self.demand_target = self.capacity * noise.between(0.35, 0.8);
        }
        let turning = forces.working;
        self.demand = lag(self.demand, if turning { self.demand_target } else { 0.5 }, dt, 10.0);
        self.loaded = match self.pressure {
            _ if !turning => false,
            p if p < LOAD_BELOW => true,
            p if p > UNLOAD_ABOVE => false,
            _ => self.loaded,
        };
        let supply = if self.loaded { self.capacity } else { 0.0 };
        self.flow = lag(self.flow, supply, dt, 0.8);
        // A leak lets out more than the compressor can give; what escapes falls with the pressure.
        let lost =
            self.demand * (self.pressure / 7.0).min(1.0) + 1.1 * self.capacity * forces.leak * self.pressure / 7.0;
        // A tank of 3 m³: one m³/min for a minute is a third of a bar.
        self.pressure = (self.pressure + (self.flow - lost) / 60.0 / 3.0 * dt).clamp(0.0, 11.5);
        if self.loaded {
            self.loaded_seconds += dt;
        }
        let oil = if turning {
            AMBIENT + 48.0 + if self.loaded { 8.0 } else { 0.0 } + 45.0 * forces.bearing
        } else {
            AMBIENT
        };
        self.oil = lag(self.oil, oil, dt, if forces.bearing > 0.0 { 15.0 } else { 90.0 });
        let current = match (forces.jammed, turning, self.loaded) {
            (true, ..) => 5.0,
            (_, true, true) => 82.0 + 12.0 * forces.bearing,
            (_, true, false) => 31.0,
            _ => 0.6,
        };
        self.current = lag(self.current, current, dt, 0.5);
        let vibration = if turning { forces.vibration(2.0) } else { 0.1 };
        self.vibration = lag(self.vibration, vibration, dt, 0.8);
    }

    pub fn sense(&self, condition: Condition, noise: &mut Noise) -> [Sample; METRICS_MAX] {
        [
            sensor(self.pressure, 0.004, 100.0, 0.0, 12.0, noise),
            sensor(self.flow, 0.03, 10.0, 0.0, 20.0, noise),
            sensor(self.oil, 0.05, 10.0, 0.0, 130.0, noise),
            sensor(self.current, 0.15, 10.0, 0.0, 150.0, noise),
            sensor(self.vibration, 0.015 + self.vibration * 0.01, 100.0, 0.0, 50.0, noise),
            Sample::F64(self.loaded_seconds.floor()),
            state(condition, if self.loaded { "loaded" } else { "unloaded" }),
            Sample::Bool(self.loaded),
        ]
    }
}
