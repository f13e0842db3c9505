//! A tunnel oven: three zones in a row, each with a PI controller and a heater of limited power.

use super::{AMBIENT, Forces, lag, sensor, state};
use crate::fleet::{
    kind::{METRICS_MAX, Sample},
    machine::Condition,
    noise::Noise,
};

const HEATER_KW: f64 = 30.0;
/// kJ to warm a zone by one degree.
const CAPACITY: f64 = 45.0;
/// kW lost to the hall per degree, and between neighbouring zones.
const LOSS: f64 = 0.055;
const EXCHANGE: f64 = 0.08;

#[derive(Debug)]
pub struct Oven {
    recipe: f64,
    set_point: f64,
    zones: [f64; 3],
    /// Integral parts of the three controllers, in kW.
    integral: [f64; 3],
    power: f64,
    exhaust: f64,
    door_open: bool,
}

impl Oven {
    pub fn new(noise: &mut Noise) -> Oven {
        let recipe = (noise.between(170.0, 240.0) / 5.0).round() * 5.0;
        Oven {
            recipe,
            set_point: recipe,
            zones: [recipe - 2.0, recipe, recipe - 1.0],
            integral: [LOSS * (recipe - AMBIENT); 3],
            power: 27.0,
            exhaust: recipe * 0.6,
            door_open: false,
        }
    }

    pub fn advance(&mut self, dt: f64, forces: Forces) {
        self.set_point = if forces.working || forces.jammed { self.recipe } else { 80.0 };
        self.door_open = forces.jammed;
        let loss = LOSS * (1.0 + 2.5 * forces.leak + if forces.jammed { 6.0 } else { 0.0 });
        let before = self.zones;
        self.power = 0.0;
        for at in 0..3 {
            let error = self.set_point - before[at];
            let wanted = 1.5 * error + self.integral[at];
            let heat = wanted.clamp(0.0, HEATER_KW);
            // The integral stands still while the heater is at a stop, or it would wind up.
            if wanted == heat {
                self.integral[at] = (self.integral[at] + 0.01 * error * dt).clamp(0.0, HEATER_KW);
            }
            let left = before[at.saturating_sub(1)] - before[at];
            let right = before[(at + 1).min(2)] - before[at];
            let flow = heat - loss * (before[at] - AMBIENT) + EXCHANGE * (left + right);
            self.zones[at] = (before[at] + flow * dt / CAPACITY).clamp(AMBIENT, 390.0);
            self.power += heat;
        }
        let fan = 0.5 + 0.15 * forces.bearing;
        let mean = (self.zones[0] + self.zones[1] + self.zones[2]) / 3.0;
        self.exhaust = lag(self.exhaust, AMBIENT + (mean - AMBIENT) * fan, dt, 60.0);
    }

    pub fn sense(&self, condition: Condition, noise: &mut Noise) -> [Sample; METRICS_MAX] {
        let working = if self.zones[1] < self.set_point - 5.0 { "heating" } else { "holding" };
        [
            sensor(self.zones[0], 0.06, 10.0, 0.0, 400.0, noise),
            sensor(self.zones[1], 0.06, 10.0, 0.0, 400.0, noise),
            sensor(self.zones[2], 0.06, 10.0, 0.0, 400.0, noise),
            Sample::F64(self.set_point),
            sensor(self.power, 0.1, 10.0, 0.0, 100.0, noise),
            sensor(self.exhaust, 0.05, 10.0, 0.0, 400.0, noise),
            state(condition, working),
            Sample::Bool(self.door_open),
        ]
    }
}
