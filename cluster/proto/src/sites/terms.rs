//! What another site may have, and how the rest is left out of a record. What it may have only in part is [masked](super::mask) after that.
//!
//! Terms name classes of records and devices. Of a record with the parts of several devices only the allowed ones leave: events are
//! packed again, panes and alerts are taken out of their lists. What cannot be told to be of an allowed device stays: a pane of a
//! device type, of a node or of the site is computed from all of its devices, so it leaves only when all devices may; so does a
//! pane of a window that is not defined any more, an alert of such a rule, and bytes that cannot be read. Whether keys are devices is judged by
//! today's definitions: a window that was by type under the same name before is taken for what it is now.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millpond_core::{
    alert::Alert,
    batch::Batch,
    block,
    planted::{self, Bug},
    record::{self, Class, Home, LeftOut, RecordKind, Track},
    rule::{Condition, RuleSpec},
    schema::Pattern,
    window::{GroupBy, LateEvent, Pane, WindowSpec},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::mask::{Masking, Masks};
use crate::{
    twin::Reported,
    wire::{Record, Run},
};

/// The pattern that stands for every device.
pub const ALL_DEVICES: &str = "*";

/// What another site may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    pub classes: Vec<Class>,
    /// Patterns of device names, with `*` for any run of characters. None at all: no device.
    #[serde(default = "all_devices")]
    pub devices: Vec<String>,
    /// What of it is dropped, replaced or rounded.
    #[serde(default, skip_serializing_if = "Masks::is_empty")]
    pub masks: Masks,
}

impl Default for Terms {
    /// Nothing of all devices.
    fn default() -> Terms {
        Terms { classes: Vec::new(), devices: all_devices(), masks: Masks::default() }
    }
}

pub(super) fn all_devices() -> Vec<String> {
    vec![ALL_DEVICES.to_owned()]
}

impl Terms {
    pub fn has(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }

    /// Whether anything of a track may leave.
    pub fn has_any_of(&self, track: Track) -> bool {
        self.classes.iter().any(|class| class.track() == track)
    }

    pub fn has_all_devices(&self) -> bool {
        self.devices.iter().any(|pattern| pattern == ALL_DEVICES)
    }

    /// Whether the panes of a window may leave, so far as they are of allowed devices.
    pub fn has_window(&self, spec: &WindowSpec) -> bool {
        self.has(Class::Pane) && (self.has_all_devices() || spec.by == GroupBy::Device)
    }
}

/// Names of the windows and rules whose keys are devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByDevice {
    windows: BTreeSet<String>,
    rules: BTreeSet<String>,
    /// Windows and rules whose keys are not, and the only key that there is, if there is only one.
    groups: BTreeMap<String, Option<&'static str>>,
    group_rules: BTreeMap<String, Option<&'static str>>,
}

/// What the key of a pane or of an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyOf {
    Device,
    Group,
    /// The definition is gone, or is another one by now.
    Unknown,
}

impl ByDevice {
    pub fn of(windows: &[WindowSpec], rules: &[RuleSpec]) -> ByDevice {
        let by_device = windows.iter().filter(|spec| spec.by == GroupBy::Device);
        let windows_of_groups = windows.iter().filter(|spec| spec.by != GroupBy::Device);
        let windows: BTreeSet<String> = by_device.map(|spec| spec.name.clone()).collect();
        let groups = windows_of_groups.map(|spec| (spec.name.clone(), spec.by.only_key()));
        let groups: BTreeMap<String, Option<&'static str>> = groups.collect();
        let is_by_device = |rule: &&RuleSpec| match &rule.when {
            Condition::Window { window, .. } => windows.contains(window),
            _ => true,
        };
        let of_groups = |rule: &RuleSpec| match &rule.when {
            Condition::Window { window, .. } => Some((rule.name.clone(), *groups.get(window)?)),
            _ => None,
        };
        let group_rules = rules.iter().filter_map(of_groups).collect();
        let rules = rules.iter().filter(is_by_device).map(|rule| rule.name.clone()).collect();
        ByDevice { windows, rules, group_rules, groups }
    }

    pub(super) fn key_of_pane(&self, window: &str, key: &str) -> KeyOf {
        key_of(&self.windows, &self.groups, window, key)
    }

    pub(super) fn key_of_alert(&self, rule: &str, key: &str) -> KeyOf {
        key_of(&self.rules, &self.group_rules, rule, key)
    }
}

fn key_of(
    by_device: &BTreeSet<String>,
    groups: &BTreeMap<String, Option<&'static str>>,
    name: &str,
    key: &str,
) -> KeyOf {
    match groups.get(name) {
        _ if by_device.contains(name) => KeyOf::Device,
        Some(only) if only.is_none_or(|only| only == key) => KeyOf::Group,
        _ => KeyOf::Unknown,
    }
}

/// The class by which a record leaves or stays. What leaves events out goes with the panes: they cannot be read without it.
pub fn class_of(kind: RecordKind) -> Class {
    if kind == RecordKind::LeftOut { Class::Pane } else { kind.class() }
}

/// Leaves out what another site may not have.
pub struct Filter {
    classes: Vec<Class>,
    /// `None`: all.
    devices: Option<Vec<Pattern>>,
    by_device: ByDevice,
    masking: Option<Masking>,
    decoder: block::Decoder,
}

impl Filter {
    /// By terms, and by the classes that are asked for.
    pub fn new(terms: &Terms, asked: &[Class], by_device: ByDevice) -> Filter {
        let patterns = || terms.devices.iter().map(|pattern| Pattern::new(pattern)).collect();
        let mut filter = Filter {
            classes: asked.iter().copied().filter(|class| terms.has(*class)).collect(),
            devices: (!terms.has_all_devices()).then(patterns),
            by_device,
            masking: Masking::new(&terms.masks),
            decoder: block::Decoder::new(),
        };
        if planted::is(Bug::ForgetTerms) {
            (filter.classes, filter.devices, filter.masking) = (Class::ALL.to_vec(), None, None);
        }
        filter
    }

    /// What may leave of a run.
    pub fn run(&mut self, run: Run) -> Run {
        Run { records: run.records.into_iter().filter_map(|record| self.record(record)).collect(), ..run }
    }

    /// What may leave of a record, when anything may.
    pub fn record(&mut self, record: Record) -> Option<Record> {
        if !self.classes.contains(&class_of(record.kind)) {
            return None;
        }
        let record = self.of_devices(record)?;
        match &self.masking {
            Some(masking) => masking.record(record, &self.by_device, &mut self.decoder),
            None => Some(record),
        }
    }

    fn of_devices(&mut self, record: Record) -> Option<Record> {
        let Some(devices) = &self.devices else { return Some(record) };
        let device = |name: &str| devices.iter().any(|pattern| pattern.matches(name));
        let by_device = &self.by_device;
        match record.kind {
            RecordKind::Events => part_of_block(&mut self.decoder, record, device),
            RecordKind::Panes => {
                part_of_list(record, |pane: &Pane| by_device.windows.contains(&pane.window) && device(&pane.key))
            }
            RecordKind::Alerts => {
                part_of_list(record, |alert: &Alert| by_device.rules.contains(&*alert.rule) && device(&alert.key))
            }
            RecordKind::Late => part_of_list(record, |event: &LateEvent| device(&event.device)),
            RecordKind::Homes => part_of_list(record, |home: &Home| device(&home.device)),
            RecordKind::Twin => part_of_list(record, |(name, _): &(String, Reported)| device(name)),
            RecordKind::LeftOut => part_of_list(record, |left: &LeftOut| device(&left.device)),
            RecordKind::DropRange => Some(record),
        }
    }
}

/// The rows of wanted devices, packed again with what the record says of itself.
fn part_of_block(decoder: &mut block::Decoder, record: Record, wanted: impl Fn(&str) -> bool) -> Option<Record> {
    let batch = decoder.decode(&record.payload).ok()?;
    let rows = |run: &millpond_core::batch::Run| run.rows().len();
    let kept: usize = batch.runs().iter().filter(|run| wanted(batch.device(run))).map(rows).sum();
    if kept == 0 {
        return None;
    }
    if kept == batch.rows() {
        return Some(record);
    }
    let mut part = Batch::empty(batch.shape.clone());
    for run in batch.runs().iter().filter(|run| wanted(batch.device(run))) {
        run.rows().for_each(|row| part.push_row_of(&batch, batch.device(run), row));
    }
    let mut payload = Vec::new();
    block::encode(&part, &mut payload);
    let (min, max) = (part.times.iter().min().copied()?, part.times.iter().max().copied()?);
    Some(Record { rows: kept as u32, min_time: min, max_time: max, payload: payload.into(), ..record })
}

fn part_of_list<T: Serialize + DeserializeOwned>(record: Record, wanted: impl Fn(&T) -> bool) -> Option<Record> {
    let mut list: Vec<T> = record::decode(&record.payload).ok()?;
    let before = list.len();
    list.retain(wanted);
    match list.len() {
        0 => None,
        kept if kept == before => Some(record),
        _ => Some(Record { payload: Bytes::from(record::encode(&list)), ..record }),
    }
}
