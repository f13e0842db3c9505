//! What a shard knows and decides, without its actor: the gate, the slicers of all windows and the rule book. Recovery drives the same
//! code over the journal.

use std::sync::Arc;

use millpond_core::{
    admission::{Admitted, Gate},
    batch::{Batch, DeviceRef},
    expr::Expr,
    problem::SpecProblem,
    rule::{RuleBook, Signal},
    time::Timestamp,
    window::{Delta, Slicer, WindowSpec},
};
use millpond_env::Trace;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

pub struct ShardCore {
    pub gate: Gate,
    slicers: Vec<Window>,
    rules: RuleBook,
    mask: Vec<bool>,
    types: Arc<[String]>,
    trips: Trips,
}

struct Window {
    slicer: Slicer,
    filter: Option<Expr>,
}

/// What a batch, a tick or a flush has to say to the others.
#[derive(Debug, Default)]
pub struct Outputs {
    /// One list per window, in the order of the settings.
    pub deltas: Vec<Vec<Delta>>,
    pub signals: Vec<Signal>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    gate: Vec<u8>,
    /// By the window's name: one that was added or changed since begins anew.
    slicers: Vec<(String, String, Vec<u8>)>,
    rules: Vec<u8>,
}

impl ShardCore {
    pub fn new(settings: &Settings, trips: &Trips) -> Result<ShardCore, Vec<SpecProblem>> {
        let types: Arc<[String]> = settings.device_types.iter().map(|spec| spec.name.clone()).collect();
        let window = |spec: &WindowSpec| -> Result<Window, Vec<SpecProblem>> {
            let filter = match &spec.filter {
                Some(source) => Some(Expr::compile(source).map_err(|error| {
                    vec![SpecProblem {
                        place: format!("windows.{}.filter", spec.name),
                        message: error.to_string(),
                        hint: None,
                    }]
                })?),
                None => None,
            };
            Ok(Window { slicer: Slicer::new(Arc::new(spec.clone()), &types)?, filter })
        };
        let slicers = settings.windows.iter().map(window).collect::<Result<Vec<_>, _>>()?;
        Ok(ShardCore {
            gate: Gate::new(settings.ingest.clone(), settings.device_types.clone(), settings.schemas.clone())?,
            rules: RuleBook::new(settings.rules.clone(), &types)?,
            slicers,
            mask: Vec::new(),
            types,
            trips: trips.clone(),
        })
    }

    pub fn outputs(&self) -> Outputs {
        Outputs { deltas: self.slicers.iter().map(|_| Vec::new()).collect(), signals: Vec::new() }
    }

    /// Judges a batch that came in.
    pub fn admit(&mut self, received: Timestamp, batch: &mut Batch, out: &mut Admitted) {
        let quarantined =
            |device: &str| self.gate.find(device).is_some_and(|index| self.gate.device(index).quarantined);
        if !self.trips.gate.as_deref().is_some_and(quarantined) {
            trip(&self.trips.gate, batch);
        }
        self.gate.admit(received, batch, out);
    }

    /// Takes in a record that is on disk. `devices` has one entry per run.
    pub fn apply(&mut self, batch: &Batch, devices: &[DeviceRef], received: Timestamp, out: &mut Outputs) {
        trip(&self.trips.windows, batch);
        for (window, deltas) in self.slicers.iter_mut().zip(&mut out.deltas) {
            let rows = match &window.filter {
                Some(filter) => {
                    self.mask.clear();
                    filter.mask(batch, devices, &self.types, &mut self.mask);
                    Some(&self.mask[..])
                }
                None => None,
            };
            window.slicer.apply(batch, devices, rows, received, deltas);
        }
        self.rules.apply(batch, devices, None, received, &mut out.signals);
    }

    /// How the shard knows the devices of a batch that has been admitted: one per run.
    pub fn refs(&self, batch: &Batch) -> Vec<DeviceRef> {
        let of = |run| {
            let index = self.gate.find(batch.device(run)).unwrap_or(DeviceRef::UNKNOWN.index);
            let device_type =
                (index != DeviceRef::UNKNOWN.index).then(|| self.gate.device(index).device_type).flatten();
            DeviceRef { index, device_type: device_type.unwrap_or(DeviceRef::UNTYPED) }
        };
        batch.runs().iter().map(of).collect()
    }

    pub fn tick(&mut self, now: Timestamp, out: &mut Outputs) {
        for (window, deltas) in self.slicers.iter_mut().zip(&mut out.deltas) {
            window.slicer.tick(now, deltas);
        }
        self.rules.tick(now, &mut out.signals);
    }

    /// Lets go of everything held back in the slicers.
    pub fn flush(&mut self, out: &mut Outputs) {
        for (window, deltas) in self.slicers.iter_mut().zip(&mut out.deltas) {
            window.slicer.flush(deltas);
        }
    }

    pub fn learn(&mut self, window: usize, key: &str, watermark: Timestamp) {
        self.slicers[window].slicer.learn(key, watermark);
    }

    /// The state after a [`flush`](Self::flush), with `gate` in the place of its own.
    pub fn save(&self, gate: &Gate, specs: &[WindowSpec]) -> Vec<u8> {
        let slicers = specs.iter().zip(&self.slicers);
        millpond_core::record::encode(&Saved {
            gate: gate.save(),
            slicers: slicers.map(|(spec, window)| (spec.name.clone(), identity(spec), window.slicer.save())).collect(),
            rules: self.rules.save(),
        })
    }

    /// # Errors
    /// When the bytes are not what [`save`](Self::save) gave; the core is then to be thrown away.
    pub fn load(&mut self, specs: &[WindowSpec], saved: &[u8]) -> Result<(), String> {
        let saved: Saved = millpond_core::record::decode(saved).map_err(|error| error.to_string())?;
        self.gate.load(&saved.gate).map_err(|error| error.to_string())?;
        for (spec, window) in specs.iter().zip(&mut self.slicers) {
            if let Some((_, _, state)) =
                saved.slicers.iter().find(|(name, id, _)| *name == spec.name && *id == identity(spec))
            {
                window.slicer.load(state).map_err(|error| error.to_string())?;
            }
        }
        self.rules.load(&saved.rules).map_err(|error| error.to_string())
    }
}

/// Saved state of a window is of use only to the same definition.
pub fn identity(spec: &WindowSpec) -> String {
    format!("{spec:?}")
}

/// Devices whose data is made to fail, so that simulations and tests see what becomes of the others.
#[derive(Clone, Debug, Default)]
pub struct Trips {
    gate: Option<String>,
    windows: Option<String>,
}

impl Trips {
    pub fn of(trace: &dyn Trace) -> Trips {
        Trips { gate: trace.trips("gate"), windows: trace.trips("windows") }
    }
}

fn trip(over: &Option<String>, batch: &Batch) {
    if let Some(device) = over {
        let found = batch.runs().iter().any(|run| batch.device(run) == device);
        assert!(!found, "injected panic: the data of {device} makes its shard fail");
    }
}
