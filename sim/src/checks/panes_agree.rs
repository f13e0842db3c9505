//! Panes are what the model ([`super::model`]) makes of the stored records, and no event is late without a reason.
//!
//! Windows by device are a function of the journal: the model knows exactly which events are late, which windows have fired, and what
//! they say. Windows by type and node also depend on when the shards heard of each other; of them the model takes the
//! node's word which events were late, as long as some device's stamps allow it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use millpond_core::{
    batch::{Batch, DeviceRef},
    block,
    ids::Seq,
    record::{Class, RecordKind},
    time::{Span, Timestamp},
    window::GroupBy,
};

use super::{
    journal::Journal,
    model::{self, Key, Rules},
    panes::{Late, Names, PaneId, Panes, Told, describe_id},
    plan::{Plan, Seen, Types},
    tally::{Findings, Tally, stamp},
};
use crate::{
    evidence::{Evidence, NodeEvidence},
    scenario::Fault,
};

/// The rows that count here.
fn without(batch: &Batch, left_out: &BTreeSet<(String, u64)>) -> Batch {
    let mut rest = Batch::empty(batch.shape.clone());
    for run in batch.runs() {
        let name = batch.device(run);
        let is_out = |row: usize| batch.seq(row).is_some_and(|seq| left_out.contains(&(name.to_owned(), seq)));
        run.rows().filter(|row| !is_out(*row)).for_each(|row| rest.push_row_of(batch, name, row));
    }
    rest
}

/// A window must have fired when the stamps have come so far beyond its close.
const MARGIN: Span = Span::from_secs(60);
/// Shards may know of records that stand a little further in the journal.
const HEARD_EARLY: Span = Span::from_secs(10);

struct Checker<'a> {
    node: &'a NodeEvidence,
    evidence: &'a Evidence,
    panes: &'a Panes,
    /// Those of the panes, and more.
    names: Names,
    explained: BTreeSet<PaneId>,
    /// Devices some of whose events may be in panes and may not.
    poisoned: BTreeSet<u32>,
    /// Devices of which the node leaves events out.
    left_out: BTreeSet<String>,
    /// Windows that begin by then are not compared.
    horizon: Option<Timestamp>,
    windows: Vec<Window>,
    types: Types,
    trouble: Trouble,
    /// `(window, device, time)`: journaled late less late by the model, for windows by device; by type and node: journaled and not yet met.
    late: BTreeMap<(u32, u32, i64), i64>,
    /// Windows that have ended and have no pane: `(pane, device's number in the model)`.
    without: Vec<(PaneId, u32)>,
    compared: u64,
    /// The node has judged some events more than once.
    restarted: bool,
}

/// A window definition, and what it came to.
struct Window {
    plan: Plan,
    keys: BTreeMap<u32, Key>,
    /// Least stamp of each group's devices is worked out from these: greatest stamps by (group, device).
    highs: BTreeMap<(u32, u32), i64>,
}

#[derive(Default)]
struct Trouble {
    different: Tally,
    missing: Tally,
    unexplained: Tally,
    unclosed: Tally,
    early: Tally,
    late_without_reason: Tally,
    late_not_said: Tally,
}

/// Returns how many panes were compared.
pub fn check(node: &NodeEvidence, journal: &Journal, panes: &Panes, evidence: &Evidence, said: &mut Findings) -> u64 {
    said.tell(&journal.from_future, "stored events come from the future");
    said.tell(&panes.unreadable, "records of panes cannot be read");
    said.tell(&panes.unknown, "panes belong to no window of the configuration");
    let mut checker = Checker::new(node, journal, panes, evidence);
    if let Err(error) = checker.replay(journal) {
        said.say(format!("the journal cannot be read: {error}"));
        return 0;
    }
    checker.finish(journal);
    let trouble = &checker.trouble;
    said.tell(&trouble.different, "panes differ from the stored events");
    said.tell(&trouble.missing, "windows have no pane though their time is past");
    said.tell(&trouble.unexplained, "panes have no stored events");
    said.tell(&trouble.unclosed, "panes are still said to be open though their time is past");
    said.tell(&trouble.early, "panes were closed before their time");
    said.tell(&trouble.late_without_reason, "events were called late without a reason");
    said.tell(&trouble.late_not_said, "events are in no window and were not called late");
    let comparable = panes.rows.values().any(|row| !row.metrics.is_empty());
    if checker.compared == 0 && comparable && checker.windows.iter().any(|window| window.plan.is_modelled()) {
        said.say(format!(
            "none of {} panes could be compared: events were given up until {}",
            panes.rows.len(),
            checker.horizon.map_or_else(|| "never".to_owned(), stamp)
        ));
    }
    checker.compared
}

impl<'a> Checker<'a> {
    fn new(node: &'a NodeEvidence, journal: &Journal, panes: &'a Panes, evidence: &'a Evidence) -> Checker<'a> {
        let config = &node.config;
        let types = Types::of(config);
        let window = |spec| Window { plan: Plan::of(spec, &types), keys: BTreeMap::new(), highs: BTreeMap::new() };
        let windows: Vec<Window> = config.windows.iter().map(window).collect();
        let mut late = BTreeMap::new();
        for event in &panes.late {
            *late.entry((event.window, event.device, event.time)).or_default() += 1;
        }
        let of_node = evidence.injections.iter().filter(|injection| injection.fault.node() == Some(&*node.name));
        let panicked =
            of_node.into_iter().any(|injection| matches!(injection.fault, Fault::Panic { .. } | Fault::Poison { .. }));
        Checker {
            node,
            evidence,
            horizon: journal.horizon(node, &evidence.witness),
            types,
            windows,
            panes,
            names: panes.names.clone(),
            explained: BTreeSet::new(),
            poisoned: journal.poisoned_devices.clone(),
            left_out: journal.left_out.values().flatten().map(|(device, _)| device.clone()).collect(),
            trouble: Trouble::default(),
            late,
            without: Vec::new(),
            compared: 0,
            restarted: node.up.len() > 1 || panicked,
        }
    }

    fn replay(&mut self, journal: &Journal) -> Result<(), String> {
        let reader = self.node.reader().map_err(str::to_owned)?;
        let (mut decoder, mut next_late) = (block::Decoder::new(), 0);
        let scan = reader.scan(Class::Raw, Seq(0), |row| {
            while let Some(late) = self.panes.late.get(next_late).filter(|late| late.record < row.seq.0) {
                self.judge_late_of_group(*late);
                next_late += 1;
            }
            if row.kind == RecordKind::Events {
                // What cannot be decoded was said elsewhere, and is in no window.
                if let Ok(batch) = decoder.decode(row.payload) {
                    let is_poisoned = journal.poisoned.contains(&row.seq.0);
                    match journal.left_out.get(&row.seq.0) {
                        Some(left_out) => self.take(&without(&batch, left_out), is_poisoned),
                        None => self.take(&batch, is_poisoned),
                    }
                }
            }
            ControlFlow::Continue(())
        });
        scan.map_err(|error| error.to_string())?;
        self.panes.late[next_late..].iter().for_each(|late| self.judge_late_of_group(*late));
        Ok(())
    }

    fn take(&mut self, batch: &Batch, poisoned: bool) {
        let devices = self.types.devices(batch, &self.evidence.witness);
        for window in 0..self.windows.len() {
            if self.windows[window].plan.is_modelled() {
                self.take_in(window as u32, batch, &devices, poisoned);
            }
        }
    }

    fn take_in(&mut self, window: u32, batch: &Batch, devices: &[DeviceRef], poisoned: bool) {
        let Window { plan, keys, highs } = &mut self.windows[window as usize];
        let rules = plan.rules;
        let mut touched = Vec::new();
        plan.read(
            (batch, devices),
            &self.types,
            &mut self.names,
            |Seen { key: number, device, time, values, .. }| {
                if touched.last() != Some(&number) {
                    touched.push(number);
                }
                let key = keys.entry(number).or_default();
                key.high = key.high.max(time);
                if rules.by != GroupBy::Device {
                    let high = highs.entry((number, device)).or_insert(i64::MIN);
                    *high = (*high).max(time);
                }
                let Some(values) = values else { return };
                let late = self.late.entry((window, device, time)).or_default();
                if rules.by == GroupBy::Device {
                    *late -= i64::from(!key.add(&rules, time, values));
                } else {
                    add_to_group(key, &rules, time, values, late, (self.restarted, poisoned));
                }
                if *late == 0 {
                    self.late.remove(&(window, device, time));
                }
            },
        );
        if rules.by != GroupBy::Device {
            return;
        }
        touched.sort_unstable();
        touched.dedup();
        for number in touched {
            let mut left = Vec::new();
            if let Some(key) = self.windows[window as usize].keys.get_mut(&number) {
                key.settle(&rules, |start, window| left.push((start, window)));
            }
            for (start, ended) in left {
                self.compare((window, number, start, ended.end), &ended, None);
            }
        }
    }

    /// An event of a group may be late only if some device has come so far.
    fn judge_late_of_group(&mut self, late: Late) {
        let Window { plan, keys, .. } = &self.windows[late.window as usize];
        if plan.rules.by == GroupBy::Device || self.horizon.is_some() || !plan.is_modelled() {
            return;
        }
        let high = keys.get(&late.key).map_or(i64::MIN, |key| key.high);
        let last = plan.rules.windows(late.time).next().map_or(late.time, |(_, end)| end);
        if !plan.rules.is_dropped(last, high) {
            let names = &self.panes.names;
            self.trouble.late_without_reason.add(|| {
                format!(
                    "record {}: {} at {} for window {} of {}, when the greatest stamp was {}",
                    late.record,
                    self.evidence
                        .witness
                        .devices
                        .get(late.device as usize)
                        .map_or("a stranger", |device| &*device.name),
                    stamp(Timestamp(late.time)),
                    self.node.config.windows[late.window as usize].name,
                    names.name(late.key),
                    stamp(Timestamp(high))
                )
            });
        }
    }

    /// Holds a window against its pane. `highs`: how far the key has come at the end, at least and at most; `None`: far enough.
    fn compare(&mut self, id: PaneId, model: &model::Window, highs: Option<(i64, i64)>) {
        let rules = self.windows[id.0 as usize].plan.rules;
        if rules.by == GroupBy::Device && self.is_poisoned(id.1) {
            return;
        }
        let row = self.panes.rows.get(&id).filter(|row| !row.metrics.is_empty());
        self.explained.insert(id);
        if self.horizon.is_some_and(|horizon| id.2.saturating_sub(rules.gap) <= horizon.0) {
            return;
        }
        let Some(row) = row else {
            if model.metrics.iter().any(|(_, acc)| acc.count + acc.skipped > 0) {
                self.without.push((id, id.1));
            }
            return;
        };
        self.compared += 1;
        let closed = highs.is_none_or(|(_, most)| rules.is_closed(id.3, most));
        let long_closed = highs.is_none_or(|(least, _)| rules.is_closed(id.3, least.saturating_sub(MARGIN.0)));
        if row.open && long_closed {
            self.trouble.unclosed.add(|| describe_id(&self.names, &self.node.config, id));
        } else if !row.open && !closed && !self.was_closed_by_others(&rules, id.1) {
            self.trouble.early.add(|| describe_id(&self.names, &self.node.config, id));
        } else if let Some(what) = differs(model, &row.metrics, row.open) {
            self.trouble.different.add(|| {
                let pane = describe_id(&self.names, &self.node.config, id);
                format!("{pane}, revision {}: of {}, {}", row.revision, self.names.name(what.0), what.1)
            });
        }
    }

    /// Whether a key is a device of which nobody can say what its windows hold.
    /// What closed a window may have been left out since; the pane was said by then.
    fn was_closed_by_others(&self, rules: &Rules, key: u32) -> bool {
        match rules.by {
            GroupBy::Device => self.left_out.contains(self.names.name(key)),
            _ => !self.left_out.is_empty(),
        }
    }

    fn is_poisoned(&self, key: u32) -> bool {
        let number = self.evidence.witness.by_name.get(self.names.name(key));
        number.is_some_and(|number| self.poisoned.contains(number))
    }

    fn finish(&mut self, journal: &Journal) {
        for window in 0..self.windows.len() {
            let keys = std::mem::take(&mut self.windows[window].keys);
            for (number, key) in &keys {
                let highs = self.final_high(window, *number, key);
                for (start, model) in &key.open {
                    self.compare((window as u32, *number, *start, model.end), model, Some(highs));
                }
            }
            self.windows[window].keys = keys;
        }
        self.report_late(journal);
        if journal.gave_up(Class::Pane) || journal.was_damaged() {
            return;
        }
        for (id, number) in std::mem::take(&mut self.without) {
            let Window { plan, keys, .. } = &self.windows[id.0 as usize];
            let Some(key) = keys.get(&number) else { continue };
            let (least, _) = self.final_high(id.0 as usize, number, key);
            if plan.rules.is_closed(id.3, least.saturating_sub(MARGIN.0)) {
                self.trouble.missing.add(|| describe_id(&self.names, &self.node.config, id));
            }
        }
        for (id, row) in &self.panes.rows {
            let plan = &self.windows[id.0 as usize].plan;
            let gone = self.horizon.is_some_and(|horizon| id.2.saturating_sub(plan.rules.gap) <= horizon.0);
            let poisoned = plan.rules.by == GroupBy::Device && self.is_poisoned(id.1);
            if plan.is_modelled() && !row.metrics.is_empty() && !gone && !poisoned && !self.explained.contains(id) {
                self.trouble.unexplained.add(|| describe_id(&self.names, &self.node.config, *id));
            }
        }
    }

    /// The stamps that a key has come to at least, and at most.
    fn final_high(&self, window: usize, number: u32, key: &Key) -> (i64, i64) {
        let Window { plan, highs, .. } = &self.windows[window];
        if plan.rules.by == GroupBy::Device {
            return (key.high, key.high);
        }
        // A device that is silent does not hold the others back for ever, but it may.
        let least = highs.range((number, 0)..=(number, u32::MAX)).map(|(_, high)| *high).min();
        (least.unwrap_or(i64::MIN), key.high)
    }

    fn report_late(&mut self, journal: &Journal) {
        let all_there = !journal.gave_up(Class::Pane) && !journal.was_damaged();
        for ((window, device, time), open) in std::mem::take(&mut self.late) {
            let rules = self.windows[window as usize].plan.rules;
            let (last, _) = rules.windows(time).next().unwrap_or((time, time));
            let known = self.horizon.is_none_or(|horizon| last.saturating_sub(rules.gap) > horizon.0);
            if !known || !self.windows[window as usize].plan.is_modelled() || self.poisoned.contains(&device) {
                continue;
            }
            let describe = || {
                let name =
                    self.evidence.witness.devices.get(device as usize).map_or("a stranger", |device| &*device.name);
                let window = &self.node.config.windows[window as usize].name;
                format!("{name} at {} for window {window}, {} times", stamp(Timestamp(time)), open.abs())
            };
            if open > 0 {
                self.trouble.late_without_reason.add(describe);
            } else if all_there {
                self.trouble.late_not_said.add(describe);
            }
        }
    }
}

/// Takes the node's word for what was late; of sliding windows it does not say which of them an event missed.
fn add_to_group(
    key: &mut Key,
    rules: &Rules,
    time: i64,
    values: &[(u32, f64)],
    late: &mut i64,
    (restarted, poisoned): (bool, bool),
) {
    let said_late = *late > 0;
    *late -= i64::from(said_late);
    let heard = key.high.saturating_add(HEARD_EARLY.0);
    for (start, end) in rules.windows(time).collect::<Vec<_>>() {
        let sliding = rules.aligned.is_some_and(|(size, slide)| size != slide);
        let window = key.window(start, end);
        if poisoned {
            window.more += 1;
        } else if said_late {
            // After a start the node may judge an event anew, before it has heard again of all that it knew then.
            window.more += u64::from(restarted);
        } else {
            window.less += u64::from(sliding && rules.is_dropped(end, heard));
            window.add(time, values);
        }
    }
}

/// What a pane says otherwise than the model, with the metric's number. An open pane may know less.
pub(super) fn differs(model: &model::Window, said: &[Told], open: bool) -> Option<(u32, String)> {
    let own = |name: u32| model.metrics.iter().find(|(known, _)| *known == name).map(|(_, acc)| acc);
    for told in said {
        let Some(acc) = own(told.name) else { return Some((told.name, "no event has it".to_owned())) };
        let range = acc.count.saturating_sub(model.less)..=acc.count + model.more;
        let wrong = match open {
            _ if model.less + model.more > 0 && range.contains(&told.count) => None,
            true => (told.count > acc.count).then(|| format!("it counts {}, more than {}", told.count, acc.count)),
            false => acc.differs(told),
        };
        if let Some(wrong) = wrong {
            return Some((told.name, wrong));
        }
    }
    let unsaid = model
        .metrics
        .iter()
        .find(|(name, acc)| acc.count + acc.skipped > model.less && !said.iter().any(|told| told.name == *name));
    unsaid
        .filter(|_| !open)
        .map(|(name, acc)| (*name, format!("the pane does not say it, and {} events have it", acc.count)))
}
