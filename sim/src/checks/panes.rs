//! The journaled panes, each in its newest revision, and the late events.

use std::{collections::BTreeMap, hash::BuildHasher, ops::ControlFlow};

use foldhash::fast::FixedState;
use millpond_actors::config::Config;
use millpond_core::{
    ids::Seq,
    record::{self, Class, RecordKind},
    time::Timestamp,
    window::{LateEvent, Pane, PaneMetric},
};
use millpond_store::Reader;

use super::tally::{Tally, stamp};
use crate::evidence::Evidence;

/// Numbers for names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    numbers: BTreeMap<String, u32>,
    names: Vec<String>,
}

impl Names {
    pub fn enter(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        number
    }

    pub fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}

/// Names a pane: window, key, start, end.
pub type PaneId = (u32, u32, i64, i64);

/// The newest revision of a pane.
#[derive(Debug)]
pub struct Row {
    pub revision: u32,
    pub open: bool,
    pub metrics: Box<[Told]>,
    digest: u64,
}

/// What a pane says of a metric.
#[derive(Debug)]
pub struct Told {
    pub name: u32,
    pub count: u64,
    pub skipped: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub mean: Option<f64>,
    pub first: Option<f64>,
    pub last: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub struct Late {
    pub record: u64,
    pub window: u32,
    pub key: u32,
    /// The witness's number; `u32::MAX` when nobody knows the device.
    pub device: u32,
    pub time: i64,
}

/// Everything of the class `pane`. Windows are numbered as in the configuration.
#[derive(Debug, Default)]
pub struct Panes {
    pub names: Names,
    pub rows: BTreeMap<PaneId, Row>,
    /// Panes of a cloud over all sites: nothing of them is in the node's own events.
    pub merged: BTreeMap<PaneId, Row>,
    /// In the order of the journal.
    pub late: Vec<Late>,
    pub revisions: Tally,
    pub identical: Tally,
    /// Panes of no window of the configuration.
    pub unknown: Tally,
    pub unreadable: Tally,
}

impl Panes {
    pub fn read(reader: &Reader, config: &Config, evidence: &Evidence) -> Result<Panes, String> {
        let mut panes = Panes::default();
        let scan = reader.scan(Class::Pane, Seq(0), |row| {
            match row.kind {
                RecordKind::Panes => match record::decode::<Vec<Pane>>(row.payload) {
                    Ok(said) => said.iter().for_each(|pane| panes.take(pane, config)),
                    Err(error) => panes.unreadable.add(|| format!("record {}: {error}", row.seq.0)),
                },
                RecordKind::Late => match record::decode::<Vec<LateEvent>>(row.payload) {
                    Ok(said) => said.iter().for_each(|event| panes.take_late(row.seq.0, event, config, evidence)),
                    Err(error) => panes.unreadable.add(|| format!("record {}: {error}", row.seq.0)),
                },
                _ => {}
            }
            ControlFlow::Continue(())
        });
        scan.map_err(|error| error.to_string())?;
        Ok(panes)
    }

    fn take(&mut self, pane: &Pane, config: &Config) {
        // What is said in the place of another node says nothing of this one's journal.
        if pane.of.is_some() {
            return;
        }
        let Some(window) = config.windows.iter().position(|spec| spec.name == pane.window) else {
            self.unknown.add(|| describe(pane));
            return;
        };
        let id = (window as u32, self.names.enter(&pane.key), pane.start.0, pane.end.0);
        let digest = FixedState::with_seed(2).hash_one(record::encode(&(&pane.metrics, pane.open)));
        let metrics = pane.metrics.iter().map(|metric| told(self.names.enter(&metric.name), metric)).collect();
        let row = Row { revision: pane.revision, open: pane.open, metrics, digest };
        let rows = if pane.merged { &mut self.merged } else { &mut self.rows };
        let Some(before) = rows.insert(id, row) else { return };
        if before.revision >= pane.revision {
            self.revisions.add(|| format!("{} after {}", describe(pane), before.revision));
        } else if before.digest == digest {
            self.identical.add(|| format!("{} after {}", describe(pane), before.revision));
        }
    }

    fn take_late(&mut self, record: u64, event: &LateEvent, config: &Config, evidence: &Evidence) {
        let window = config.windows.iter().position(|spec| spec.name == event.window);
        let Some(window) = window else { return };
        let device = evidence.witness.by_name.get(&event.device).copied().unwrap_or(u32::MAX);
        let key = self.names.enter(&event.key);
        self.late.push(Late { record, window: window as u32, key, device, time: event.time.0 });
    }
}

pub(super) fn told(name: u32, metric: &PaneMetric) -> Told {
    let PaneMetric { count, skipped, sum, min, max, mean, first, last, .. } = *metric;
    Told { name, count, skipped, sum, min, max, mean, first, last }
}

fn describe(pane: &Pane) -> String {
    let (start, end) = (stamp(pane.start), stamp(pane.end));
    format!("{} of {} from {start} to {end}, revision {}", pane.window, pane.key, pane.revision)
}

/// A pane for a reader.
pub fn describe_id(names: &Names, config: &Config, (window, key, start, end): PaneId) -> String {
    let window = &config.windows[window as usize].name;
    format!("{window} of {} from {} to {}", names.name(key), stamp(Timestamp(start)), stamp(Timestamp(end)))
}
