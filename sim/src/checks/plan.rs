//! What a window definition makes of a batch: which of its rows count, for which keys, and with which values.

use millpond_core::{
    batch::{Batch, DeviceRef},
    expr::Expr,
    schema::Pattern,
    value::ValueType,
    window::{GroupBy, WindowSpec},
};

use super::{model::Rules, panes::Names};
use crate::witness::Witness;
use millpond_actors::config::Config;

/// Devices' types, as the configuration tells them by name.
pub struct Types {
    patterns: Vec<Vec<Pattern>>,
    pub names: Vec<String>,
}

/// One window definition.
pub struct Plan {
    pub rules: Rules,
    filter: Option<Expr>,
    metrics: Vec<String>,
    admitted: Vec<bool>,
    untyped: bool,
}

/// A row that the window sees.
pub struct Seen<'a> {
    /// By number of its name.
    pub key: u32,
    /// The witness's number of the device; `u32::MAX` when nobody knows it.
    pub device: u32,
    /// Its number, as the device counts.
    pub seq: Option<u64>,
    pub time: i64,
    /// By number of the metric's name; `None` when the row moves the watermark and no more.
    pub values: Option<&'a [(u32, f64)]>,
}

impl Types {
    pub fn of(config: &Config) -> Types {
        let patterns = |devices: &[String]| devices.iter().map(|pattern| Pattern::new(pattern)).collect();
        Types {
            patterns: config.device_types.iter().map(|spec| patterns(&spec.devices)).collect(),
            names: config.device_types.iter().map(|spec| spec.name.clone()).collect(),
        }
    }

    /// The devices of a batch, run by run.
    pub fn devices(&self, batch: &Batch, witness: &Witness) -> Vec<DeviceRef> {
        let known = |name: &str| DeviceRef {
            index: witness.by_name.get(name).copied().unwrap_or(u32::MAX),
            device_type: self.type_of(name),
        };
        batch.runs().iter().map(|run| known(batch.device(run))).collect()
    }

    fn type_of(&self, device: &str) -> u32 {
        let found = self.patterns.iter().position(|patterns| patterns.iter().any(|pattern| pattern.matches(device)));
        found.map_or(DeviceRef::UNTYPED, |at| at as u32)
    }
}

impl Plan {
    pub fn of(spec: &WindowSpec, types: &Types) -> Plan {
        let admits = |name: &String| spec.device_types.is_empty() || spec.device_types.contains(name);
        Plan {
            rules: Rules::of(spec),
            filter: spec.filter.as_ref().and_then(|source| Expr::compile(source).ok()),
            metrics: spec.metrics.clone(),
            admitted: types.names.iter().map(admits).collect(),
            untyped: spec.device_types.is_empty() && spec.by != GroupBy::Type,
        }
    }

    /// Session windows of groups have no simple model: what connects them may have been late for one shard only.
    pub fn is_modelled(&self) -> bool {
        self.rules.by == GroupBy::Device || self.rules.aligned.is_some()
    }

    /// Calls `each` for the rows of devices that the window admits, in their order.
    pub fn read(
        &self,
        (batch, devices): (&Batch, &[DeviceRef]),
        types: &Types,
        names: &mut Names,
        mut each: impl FnMut(Seen<'_>),
    ) {
        let mut mask = Vec::new();
        if let Some(filter) = &self.filter {
            filter.mask(batch, devices, &types.names, &mut mask);
        }
        let wanted = |name: &str| self.metrics.is_empty() || self.metrics.iter().any(|metric| metric == name);
        let columns: Vec<(usize, u32)> = batch
            .shape
            .metrics()
            .iter()
            .enumerate()
            .filter(|(_, metric)| is_number(metric.value_type) && wanted(&metric.name))
            .map(|(at, metric)| (at, names.enter(&metric.name)))
            .collect();
        let mut values = Vec::new();
        for (run, device) in batch.runs().iter().zip(devices).filter(|(_, device)| self.admits(device.device_type)) {
            let name = match self.rules.by {
                GroupBy::Device => batch.device(run),
                GroupBy::Type => &types.names[device.device_type as usize],
                GroupBy::Node | GroupBy::Site => self.rules.by.only_key().unwrap_or_default(),
            };
            let key = names.enter(name);
            for row in run.rows() {
                let counts = !columns.is_empty() && mask.get(row) != Some(&false);
                values.clear();
                if counts {
                    let value = |(at, name): &(usize, u32)| Some((*name, batch.columns[*at].value(row)?.as_f64()?));
                    values.extend(columns.iter().filter_map(value));
                }
                let (device, time) = (device.index, batch.times[row].0);
                each(Seen { key, device, seq: batch.seq(row), time, values: counts.then_some(&values) });
            }
        }
    }

    fn admits(&self, device_type: u32) -> bool {
        self.admitted.get(device_type as usize).copied().unwrap_or(self.untyped)
    }
}

fn is_number(value_type: ValueType) -> bool {
    matches!(value_type, ValueType::F64 | ValueType::I64 | ValueType::Bool)
}
