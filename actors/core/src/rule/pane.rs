//! The rules on one window, judged on its panes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Condition, LoadError, RuleSpec, Signal,
    phase::{Levels, Slot},
};
use crate::{
    limits::RULE_KEYS_MAX,
    map::FixedMap,
    problem::SpecProblem,
    time::{Span, Timestamp},
    window::Pane,
};

/// Judges the panes of one window in the order in which they are journaled. The state of a key is that of its newest pane:
/// that pane may fire again, with a higher revision, and raise or clear; older ones are too late to change anything, and so is a
/// revision that was judged before.
#[derive(Debug)]
pub struct PaneRules {
    rules: Vec<PaneRule>,
}

#[derive(Debug)]
struct PaneRule {
    name: Arc<str>,
    metric: Arc<str>,
    aggregate: String,
    levels: Levels,
    hold: Span,
    keys: FixedMap<Box<str>, Key>,
    /// Keys that were not judged because there are too many.
    refused: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Key {
    newest: Timestamp,
    slot: Slot,
    /// Start and revision of the newest pane as it was judged last.
    #[serde(default)]
    judged: Option<(Timestamp, u32)>,
}

impl PaneRules {
    /// The rules among `specs` that are on `window`.
    ///
    /// # Errors
    /// What is wrong with those rules, types and windows aside; [`super::problems`] knows more.
    pub fn new(window: &str, specs: &[RuleSpec]) -> Result<PaneRules, Vec<SpecProblem>> {
        let types: Vec<String> = specs.iter().flat_map(|spec| spec.device_types.iter().cloned()).collect();
        let problems = super::check::own_problems(specs, &types);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(PaneRules { rules: specs.iter().filter_map(|spec| PaneRule::new(window, spec)).collect() })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Takes in a pane of the window. Panes that are still open are judged like any other.
    pub fn apply(&mut self, pane: &Pane, out: &mut Vec<Signal>) {
        for rule in &mut self.rules {
            rule.judge(pane, out);
        }
    }

    /// Per rule, keys that were not judged because [`RULE_KEYS_MAX`] were known; counted once per pane.
    pub fn refused(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rules.iter().map(|rule| (&*rule.name, rule.refused))
    }

    /// The state as MessagePack.
    pub fn save(&self) -> Vec<u8> {
        let mut saved: Vec<(&str, Vec<(&str, &Key)>)> = Vec::new();
        for rule in &self.rules {
            let mut keys: Vec<_> = rule.keys.iter().map(|(name, key)| (&**name, key)).collect();
            keys.sort_by_key(|(name, _)| *name);
            saved.push((&rule.name, keys));
        }
        rmp_serde::to_vec_named(&saved).unwrap_or_default()
    }

    /// Takes over what [`save`](Self::save) gave; rules are known by their names.
    ///
    /// # Errors
    /// When the bytes are not what `save` gave.
    pub fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        let saved: Vec<(String, Vec<(Box<str>, Key)>)> = rmp_serde::from_slice(saved)?;
        for (name, keys) in saved {
            if let Some(rule) = self.rules.iter_mut().find(|rule| *rule.name == *name) {
                rule.keys = keys.into_iter().take(RULE_KEYS_MAX).collect();
            }
        }
        Ok(())
    }
}

impl PaneRule {
    fn new(on: &str, spec: &RuleSpec) -> Option<PaneRule> {
        let Condition::Window { window, metric, aggregate, op, value, clear } = &spec.when else { return None };
        (window == on).then(|| PaneRule {
            name: spec.name.as_str().into(),
            metric: metric.as_str().into(),
            aggregate: aggregate.clone(),
            levels: Levels { op: *op, limit: *value, clear: *clear },
            hold: spec.hold,
            keys: FixedMap::default(),
            refused: 0,
        })
    }

    fn judge(&mut self, pane: &Pane, out: &mut Vec<Signal>) {
        let value = pane.aggregate(&self.metric, &self.aggregate).filter(|value| !value.is_nan());
        if !self.keys.contains_key(&*pane.key) {
            if value.is_none() {
                return;
            }
            if self.keys.len() >= RULE_KEYS_MAX {
                self.refused += 1;
                return;
            }
            self.keys
                .insert(pane.key.as_str().into(), Key { newest: Timestamp::MIN, slot: Slot::default(), judged: None });
        }
        let Some(key) = self.keys.get_mut(&*pane.key) else { return };
        let known = key.judged.is_some_and(|(start, revision)| start == pane.start && pane.revision <= revision);
        if pane.end < key.newest || pane.end == key.newest && known {
            return;
        }
        if value.is_some() || pane.end == key.newest {
            key.judged = Some((pane.start, pane.revision));
        }
        let step = match value {
            Some(value) => {
                key.newest = pane.end;
                let holds = self.levels.hold(value, key.slot.is_active());
                key.slot.judge(pane.end, holds, value, self.hold, self.levels.worse())
            }
            // A retraction takes back what the pane said; a pane without the metric says nothing about it.
            None if pane.is_retraction() && pane.end == key.newest => key.slot.end(f64::NAN, self.levels.worse()),
            None => None,
        };
        let Some(step) = step else { return };
        out.push(Signal {
            rule: self.name.clone(),
            key: pane.key.as_str().into(),
            phase: step.phase,
            at: pane.end,
            since: step.since,
            metric: self.metric.clone(),
            value: value.unwrap_or(step.peak),
            peak: step.peak,
            facts: Vec::new(),
        });
    }
}
