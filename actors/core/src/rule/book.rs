//! The rules on events and on silence, for the devices of one shard.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Phase, RuleSpec, Signal,
    judge::{Estimate, Previous, Test},
    phase::{Slot, Step},
    watch::{Events, Plan, Rule, RuleCounters},
};
use crate::{
    batch::{Batch, DeviceRef, Shape},
    limits::RULE_SHAPES_MAX,
    map::FixedMap,
    problem::SpecProblem,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Judges events in the order of the journal, for the devices of one shard; see [`crate::rule`].
#[derive(Debug)]
pub struct RuleBook {
    rules: Vec<Rule>,
    types: Arc<[String]>,
    /// By fingerprint of the shape: the rules that its events concern.
    plans: FixedMap<u64, Arc<[Plan]>>,
    /// By index of the device; empty when there is no rule on silence.
    heard: Vec<Heard>,
    /// Time of the first tick. Silence is counted from here at the earliest: while the node was down nobody could be heard.
    started: Option<Timestamp>,
    /// No device can become silent before this.
    quiet_until: Timestamp,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Heard {
    /// Empty for an index that is not in use.
    name: Box<str>,
    device_type: u32,
    received: Timestamp,
    /// Whether it was heard since the first tick, so that an alert from before that has been cleared.
    #[serde(skip)]
    since_start: bool,
}

/// Why saved state cannot be used; the book is as it was.
#[derive(Debug, thiserror::Error)]
#[error("the saved state of the rules cannot be read")]
pub struct LoadError(#[from] rmp_serde::decode::Error);

#[derive(Serialize, Deserialize)]
struct Saved {
    rules: Vec<SavedRule>,
    heard: Vec<Heard>,
}

#[derive(Serialize, Deserialize)]
struct SavedRule {
    name: String,
    condition: String,
    slots: BTreeMap<u32, Slot>,
    previous: Vec<Previous>,
    estimates: Vec<Estimate>,
}

impl RuleBook {
    /// A book of those rules that are not on windows.
    ///
    /// # Errors
    /// All that is wrong with the rules, whatever windows there are; [`super::problems`] knows more.
    pub fn new(specs: Vec<RuleSpec>, types: &[String]) -> Result<RuleBook, Vec<SpecProblem>> {
        let problems = super::check::own_problems(&specs, types);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(RuleBook {
            rules: specs.iter().filter_map(|spec| Rule::new(spec, types)).collect(),
            types: types.into(),
            plans: FixedMap::default(),
            heard: Vec::new(),
            started: None,
            quiet_until: Timestamp::MIN,
        })
    }

    /// Takes in events that are on disk. `devices` stands beside the batch's runs; rows that are false in `rows` are not
    /// looked at; `received` is when the node received them.
    pub fn apply(
        &mut self,
        batch: &Batch,
        devices: &[DeviceRef],
        rows: Option<&[bool]>,
        received: Timestamp,
        out: &mut Vec<Signal>,
    ) {
        if self.rules.iter().any(|rule| matches!(rule.test, Test::Silence { .. })) {
            self.hear(batch, devices, rows, received, out);
        }
        let plans = self.plans(&batch.shape);
        for plan in plans.iter() {
            let rule = &mut self.rules[plan.rule];
            for (run, device) in batch.runs().iter().zip(devices) {
                if rule.concerns(device.device_type) {
                    let events = Events { batch, run: *run, device: *device, rows, types: &self.types };
                    rule.judge(plan, &events, out);
                } else if let Some(step) = rule.abandon(device.index) {
                    let at = batch.times.get(run.start as usize).copied().unwrap_or_default();
                    out.push(rule.signal(batch.device(run), step, at, 0.0));
                }
            }
        }
    }

    /// Judges silence. `now` is the node's wall clock; call it about every second.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Signal>) {
        let started = *self.started.get_or_insert(now);
        if now < self.quiet_until {
            return;
        }
        self.quiet_until = Timestamp::MAX;
        for rule in &mut self.rules {
            let Test::Silence { after } = rule.test else { continue };
            for (index, device) in self.heard.iter().enumerate() {
                if device.name.is_empty() || !rule.concerns(device.device_type) {
                    continue;
                }
                let since = device.received.max(started).saturating_add(after);
                if now < since {
                    self.quiet_until = self.quiet_until.min(since);
                    continue;
                }
                let silence = now.since(device.received).as_secs_f64();
                let mut step = rule.advance(index as u32, since, true, silence);
                let due = since.saturating_add(rule.hold);
                if now >= due {
                    step = rule.advance(index as u32, due, true, silence).or(step);
                } else {
                    self.quiet_until = self.quiet_until.min(due);
                }
                out.extend(step.map(|step| rule.signal(&device.name, step, since.max(step.since), silence)));
            }
        }
    }

    /// Forgets a device whose index will be given to another one. Its alerts are cleared.
    pub fn forget(&mut self, index: u32, device: &str, at: Timestamp, out: &mut Vec<Signal>) {
        for rule in &mut self.rules {
            if let Some(step) = rule.abandon(index) {
                out.push(rule.signal(device, step, at, 0.0));
            }
            let at = index as usize;
            rule.slots.get_mut(at).map(std::mem::take);
            rule.previous.get_mut(at).map(std::mem::take);
            rule.estimates.get_mut(at).map(std::mem::take);
        }
        self.heard.get_mut(index as usize).map(std::mem::take);
    }

    /// Per rule, what it could not judge.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &RuleCounters)> {
        self.rules.iter().map(|rule| (&*rule.name, &rule.counters))
    }

    /// The state as MessagePack, for the checkpoint that also holds the devices' indices.
    pub fn save(&self) -> Vec<u8> {
        let rule = |rule: &Rule| SavedRule {
            name: rule.name.to_string(),
            condition: rule.condition.clone(),
            slots: (0u32..).zip(&rule.slots).filter(|(_, slot)| slot.is_used()).map(|(at, slot)| (at, *slot)).collect(),
            previous: rule.previous.clone(),
            estimates: rule.estimates.clone(),
        };
        let saved = Saved { rules: self.rules.iter().map(rule).collect(), heard: self.heard.clone() };
        rmp_serde::to_vec_named(&saved).unwrap_or_default()
    }

    /// Takes over what [`save`](Self::save) gave, also when the rules were changed since: a rule keeps its stages as long
    /// as it keeps its name, and what it has learnt as long as it keeps its condition.
    ///
    /// # Errors
    /// When the bytes are not what `save` gave.
    pub fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        let saved: Saved = rmp_serde::from_slice(saved)?;
        for before in saved.rules {
            let Some(rule) = self.rules.iter_mut().find(|rule| *rule.name == *before.name) else { continue };
            rule.slots = Vec::new();
            before.slots.into_iter().for_each(|(index, slot)| *rule.slot(index) = slot);
            if rule.condition == before.condition {
                (rule.previous, rule.estimates) = (before.previous, before.estimates);
            }
        }
        self.heard = saved.heard;
        (self.started, self.quiet_until) = (None, Timestamp::MIN);
        Ok(())
    }

    fn plans(&mut self, shape: &Shape) -> Arc<[Plan]> {
        if let Some(plans) = self.plans.get(&shape.fingerprint()) {
            return plans.clone();
        }
        if self.plans.len() >= RULE_SHAPES_MAX {
            self.plans.clear();
        }
        let plans: Arc<[Plan]> = self.rules.iter().enumerate().filter_map(|(at, rule)| rule.plan(at, shape)).collect();
        self.plans.insert(shape.fingerprint(), plans.clone());
        plans
    }

    /// Notes that devices were heard, and clears their silence.
    fn hear(
        &mut self,
        batch: &Batch,
        devices: &[DeviceRef],
        rows: Option<&[bool]>,
        received: Timestamp,
        out: &mut Vec<Signal>,
    ) {
        for (run, device) in batch.runs().iter().zip(devices) {
            if rows.is_some_and(|rows| !rows[run.rows()].contains(&true)) {
                continue;
            }
            let index = device.index as usize;
            if self.heard.len() <= index {
                self.heard.resize_with(index + 1, Heard::default);
            }
            let heard = &mut self.heard[index];
            let new = heard.name.is_empty();
            if new {
                heard.name = batch.device(run).into();
                self.quiet_until = Timestamp::MIN;
            }
            let live = self.started.is_some_and(|started| received >= started);
            // What fired after the last checkpoint is known to the alerts only: the first sign of life clears it too.
            let first = live && !heard.since_start && !new;
            heard.since_start |= live;
            heard.device_type = device.device_type;
            heard.received = heard.received.max(received);
            for rule in self.rules.iter_mut().filter(|rule| matches!(rule.test, Test::Silence { .. })) {
                let step = rule.abandon(device.index);
                let precaution = Step { phase: Phase::Cleared, since: received, peak: 0.0 };
                if let Some(step) = step.or(first.then_some(precaution)) {
                    out.push(rule.signal(batch.device(run), step, received, 0.0));
                }
            }
        }
    }
}
