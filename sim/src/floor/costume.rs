//! What a fleet's machines call themselves and what they report. Without a device type they are the machines of [`crate::fleet`];
//! with one they wear the clothes of the user's own devices: names that match the type's pattern, and the metrics of its schema.
//!
//! A metric with the name of one of the machine's own has that one's value, as far as the schema's range allows. Any other follows one of
//! the machine's metrics, laid out over the schema's range (0 to 100 where it has none), so that it has cycles, noise and wear.

use std::{fmt::Write, sync::Arc};

use millpond_actors::config::Config;
use millpond_core::{
    schema::MetricSpec,
    value::{Value, ValueType},
};

use crate::{fleet::Reading, scenario::FleetSpec, witness::Digest};

/// How the machines of one fleet appear.
#[derive(Clone, Debug)]
pub(super) struct Costume {
    /// By the machine's position in its fleet.
    pub names: Vec<Arc<str>>,
    /// `None`: as they are.
    metrics: Option<Vec<(String, MetricSpec)>>,
}

impl Costume {
    /// `own` are the machines' own names.
    pub fn new(spec: &FleetSpec, config: &Config, own: Vec<Arc<str>>) -> Costume {
        let device_type = spec.device_type.as_ref();
        let Some(device_type) = device_type.and_then(|name| config.device_types.iter().find(|spec| spec.name == *name))
        else {
            return Costume { names: own, metrics: None };
        };
        let pattern = device_type.devices.first().map_or("device-*", String::as_str);
        let name = |number: usize| -> Arc<str> {
            let number = format!("{:04}", number + 1);
            if pattern.contains('*') {
                pattern.replace('*', &number).into()
            } else {
                format!("{pattern}{number}").into()
            }
        };
        let schema = config.schemas.iter().rev().find(|schema| Some(&schema.name) == device_type.schema.as_ref());
        let metrics = schema.map(|schema| schema.metrics.clone().into_iter().collect());
        Costume { names: (0..own.len()).map(name).collect(), metrics }
    }

    /// Shows `each` the names and values of a reading as this fleet sends it.
    fn each_metric<'a>(&'a self, reading: &'a Reading, mut each: impl FnMut(&'a str, Value<'a>)) {
        match &self.metrics {
            None => reading.metrics().for_each(|(name, value)| each(name, value)),
            Some(metrics) => {
                for (at, (name, spec)) in metrics.iter().enumerate() {
                    if let Some(value) = dress(reading, at, name, spec) {
                        each(name, value);
                    }
                }
            }
        }
    }

    /// The fingerprint of a reading as this fleet sends it.
    pub fn digest(&self, reading: &Reading) -> u64 {
        let mut digest = Digest::of(reading.ts);
        self.each_metric(reading, |name, value| digest.add(name, value));
        digest.finish()
    }

    /// Appends a reading as one JSON object, which names its device where the topic does not.
    pub fn write_json(&self, names_device: bool, reading: &Reading, out: &mut String) {
        out.push('{');
        if names_device {
            let _ = write!(out, "\"device\":{},", serde_json::Value::from(&*self.names[reading.machine as usize]));
        }
        let _ = write!(out, "\"ts\":{},\"seq\":{}", reading.ts.as_millis(), reading.seq);
        self.each_metric(reading, |name, value| {
            // Names of the user's own may need escaping.
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
            let _ =
                if plain { write!(out, ",\"{name}\":") } else { write!(out, ",{}:", serde_json::Value::from(name)) };
            let _ = match value {
                Value::F64(number) => write!(out, "{number}"),
                Value::I64(number) => write!(out, "{number}"),
                Value::Bool(flag) => write!(out, "{flag}"),
                Value::Text(text) => write!(out, "{}", serde_json::Value::from(text)),
                Value::Bytes(_) => write!(out, "null"),
            };
        });
        out.push('}');
    }
}

/// The value of the metric at position `at` of a schema.
fn dress<'a>(reading: &'a Reading, at: usize, name: &str, spec: &MetricSpec) -> Option<Value<'a>> {
    let (min, max) = (spec.min.unwrap_or(f64::MIN), spec.max.unwrap_or(f64::MAX));
    let number = match reading.value(name).and_then(|value| value.as_f64()) {
        Some(own) => own.clamp(min, max),
        None => {
            let numbers: Vec<_> =
                reading.kind.metrics().iter().filter(|info| info.value_type == ValueType::F64).collect();
            let info = numbers[at % numbers.len()];
            let share = reading.value(info.name)?.as_f64()? / info.max.min(200.0);
            let (low, high) = (spec.min.unwrap_or(0.0), spec.max.unwrap_or_else(|| spec.min.unwrap_or(0.0) + 100.0));
            low + (high - low) * share.clamp(0.0, 1.0)
        }
    };
    Some(match spec.value_type {
        // Three decimals, as instruments have them.
        ValueType::F64 => Value::F64(((number * 1000.0).round() / 1000.0).clamp(min, max)),
        ValueType::I64 => Value::I64(number as i64),
        ValueType::Bool => Value::Bool(number > 0.0),
        ValueType::Text => reading.value("state")?,
        ValueType::Bytes => return None,
    })
}
