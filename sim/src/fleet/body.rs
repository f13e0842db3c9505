//! The physics of each kind of machine: first-order lags, energy in and out, cycles. Temperatures in °C, times in seconds.

mod compressor;
mod conveyor;
mod oven;
mod press;

use super::{
    kind::{METRICS_MAX, MachineKind, Sample},
    machine::Condition,
    noise::Noise,
    spec::FaultKind,
};
use compressor::Compressor;
use conveyor::Conveyor;
use oven::Oven;
use press::Press;

/// The temperature of the hall.
const AMBIENT: f64 = 22.0;

#[derive(Debug)]
pub enum Body {
    Press(Press),
    Oven(Oven),
    Conveyor(Conveyor),
    Compressor(Compressor),
}

/// What acts on a body during one step.
#[derive(Clone, Copy, Debug)]
pub struct Forces {
    pub working: bool,
    /// Wear of the machine, from 0 to 1.
    pub wear: f64,
    /// How far each fault has developed, from 0 to 1.
    pub bearing: f64,
    pub leak: f64,
    pub jammed: bool,
}

impl Forces {
    pub fn of(condition: Condition, wear: f64) -> Forces {
        let mut forces = Forces { working: true, wear, bearing: 0.0, leak: 0.0, jammed: false };
        match condition {
            Condition::Working => {}
            Condition::Stopped | Condition::Resting => forces.working = false,
            Condition::Faulty(FaultKind::BearingWear, extent) => forces.bearing = extent,
            Condition::Faulty(FaultKind::Leak, extent) => forces.leak = extent,
            Condition::Faulty(FaultKind::Jam, _) => {
                forces.working = false;
                forces.jammed = true;
            }
        }
        forces
    }

    /// The vibration of a bearing in mm/s RMS while it turns.
    fn vibration(&self, base: f64) -> f64 {
        base * (1.0 + 0.6 * self.wear) + 11.0 * self.bearing
    }
}

impl Body {
    pub fn new(kind: MachineKind, noise: &mut Noise) -> Body {
        match kind {
            MachineKind::Press => Body::Press(Press::new(noise)),
            MachineKind::Oven => Body::Oven(Oven::new(noise)),
            MachineKind::Conveyor => Body::Conveyor(Conveyor::new(noise)),
            MachineKind::Compressor => Body::Compressor(Compressor::new(noise)),
        }
    }

    pub fn advance(&mut self, dt: f64, forces: Forces, noise: &mut Noise) {
        match self {
            Body::Press(press) => press.advance(dt, forces),
            Body::Oven(oven) => oven.advance(dt, forces),
            Body::Conveyor(conveyor) => conveyor.advance(dt, forces, noise),
            Body::Compressor(compressor) => compressor.advance(dt, forces, noise),
        }
    }

    /// Reads the sensors: noise is added, values are rounded to what the sensor can tell and kept in its range.
    pub fn sense(&self, condition: Condition, noise: &mut Noise) -> [Sample; METRICS_MAX] {
        match self {
            Body::Press(press) => press.sense(condition, noise),
            Body::Oven(oven) => oven.sense(condition, noise),
            Body::Conveyor(conveyor) => conveyor.sense(condition, noise),
            Body::Compressor(compressor) => compressor.sense(condition, noise),
        }
    }
}

/// Moves `value` towards `target` as a first-order lag with time constant `tau` does (implicit Euler: never overshoots).
fn lag(value: f64, target: f64, dt: f64, tau: f64) -> f64 {
    value + (target - value) * dt / (tau + dt)
}

/// A sensor that adds noise of `sigma`, tells `per_unit` steps per unit, and cannot leave `min..=max`.
fn sensor(value: f64, sigma: f64, per_unit: f64, min: f64, max: f64, noise: &mut Noise) -> Sample {
    let noisy = (value + sigma * noise.normal()).clamp(min, max);
    Sample::F64((noisy * per_unit).round() / per_unit)
}

fn state(condition: Condition, working: &'static str) -> Sample {
    Sample::Text(match condition {
        Condition::Working => working,
        Condition::Stopped => "setup",
        Condition::Resting => "idle",
        Condition::Faulty(FaultKind::Jam, _) => "jammed",
        Condition::Faulty(_, extent) if extent >= 1.0 => "degraded",
        Condition::Faulty(..) => working,
    })
}
