//! Kinds of machines and what they report.

use std::sync::Arc;

use millpond_core::{
    time::Timestamp,
    value::{Value, ValueType},
};

/// What stands on the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineKind {
    Press,
    Oven,
    Conveyor,
    Compressor,
}

/// One metric of a kind of machine, and the range that its values never leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricInfo {
    pub name: &'static str,
    pub value_type: ValueType,
    /// As in UCUM; empty for text, booleans and counts.
    pub unit: &'static str,
    pub min: f64,
    pub max: f64,
}

/// Metrics of each kind.
pub const METRICS_MAX: usize = 8;

const fn number(name: &'static str, unit: &'static str, min: f64, max: f64) -> MetricInfo {
    MetricInfo { name, value_type: ValueType::F64, unit, min, max }
}

const fn text(name: &'static str) -> MetricInfo {
    MetricInfo { name, value_type: ValueType::Text, unit: "", min: 0.0, max: 0.0 }
}

const fn flag(name: &'static str) -> MetricInfo {
    MetricInfo { name, value_type: ValueType::Bool, unit: "", min: 0.0, max: 1.0 }
}

const PRESS: [MetricInfo; METRICS_MAX] = [
    number("force", "kN", 0.0, 2000.0),
    number("oil_temperature", "Cel", 0.0, 120.0),
    number("bearing_temperature", "Cel", 0.0, 160.0),
    number("vibration", "mm/s", 0.0, 50.0),
    number("motor_current", "A", 0.0, 200.0),
    number("strokes", "1", 0.0, 1e12),
    text("state"),
    flag("guard_closed"),
];

const OVEN: [MetricInfo; METRICS_MAX] = [
    number("zone1_temperature", "Cel", 0.0, 400.0),
    number("zone2_temperature", "Cel", 0.0, 400.0),
    number("zone3_temperature", "Cel", 0.0, 400.0),
    number("set_point", "Cel", 0.0, 400.0),
    number("power", "kW", 0.0, 100.0),
    number("exhaust_temperature", "Cel", 0.0, 400.0),
    text("state"),
    flag("door_open"),
];

const CONVEYOR: [MetricInfo; METRICS_MAX] = [
    number("speed", "m/s", 0.0, 3.0),
    number("load", "kg", 0.0, 500.0),
    number("motor_current", "A", 0.0, 60.0),
    number("bearing_temperature", "Cel", 0.0, 160.0),
    number("vibration", "mm/s", 0.0, 50.0),
    number("items", "1", 0.0, 1e12),
    text("state"),
    flag("running"),
];

const COMPRESSOR: [MetricInfo; METRICS_MAX] = [
    number("pressure", "bar", 0.0, 12.0),
    number("flow", "m3/min", 0.0, 20.0),
    number("oil_temperature", "Cel", 0.0, 130.0),
    number("motor_current", "A", 0.0, 150.0),
    number("vibration", "mm/s", 0.0, 50.0),
    number("loaded_seconds", "s", 0.0, 1e12),
    text("state"),
    flag("loaded"),
];

impl MachineKind {
    pub const ALL: [MachineKind; 4] =
        [MachineKind::Press, MachineKind::Oven, MachineKind::Conveyor, MachineKind::Compressor];

    /// The first part of its machines' names.
    pub fn name(self) -> &'static str {
        match self {
            MachineKind::Press => "press",
            MachineKind::Oven => "oven",
            MachineKind::Conveyor => "conveyor",
            MachineKind::Compressor => "compressor",
        }
    }

    /// What each reading of such a machine carries, in this order: six numbers, its state, a boolean.
    pub fn metrics(self) -> &'static [MetricInfo; METRICS_MAX] {
        match self {
            MachineKind::Press => &PRESS,
            MachineKind::Oven => &OVEN,
            MachineKind::Conveyor => &CONVEYOR,
            MachineKind::Compressor => &COMPRESSOR,
        }
    }
}

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    F64(f64),
    Bool(bool),
    Text(&'static str),
}

impl Sample {
    pub fn value(self) -> Value<'static> {
        match self {
            Sample::F64(v) => Value::F64(v),
            Sample::Bool(v) => Value::Bool(v),
            Sample::Text(v) => Value::Text(v),
        }
    }
}

/// What one machine said at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub device: Arc<str>,
    /// Position of the machine in the fleet.
    pub machine: u32,
    pub kind: MachineKind,
    /// When it was taken.
    pub at: Timestamp,
    /// When the device believes it was taken.
    pub ts: Timestamp,
    /// The device's own count of its readings, from 1.
    pub seq: u64,
    pub samples: [Sample; METRICS_MAX],
}

impl Reading {
    /// Names and values, in the order of [`MachineKind::metrics`].
    pub fn metrics(&self) -> impl Iterator<Item = (&'static str, Value<'static>)> {
        self.kind.metrics().iter().zip(&self.samples).map(|(info, sample)| (info.name, sample.value()))
    }

    /// The value of one metric, when this kind of machine has it.
    pub fn value(&self, metric: &str) -> Option<Value<'static>> {
        self.metrics().find(|(name, _)| *name == metric).map(|(_, value)| value)
    }
}
