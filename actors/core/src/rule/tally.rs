//! How often rules fire, and how those in the shadow compare with those that they may take the place of.
//!
//! A rule with `shadow = true` is judged as any other one, but what it says goes here and nowhere else. It stands beside the rule whose name
//! it has without [`SHADOW`]. Both are judged on the same events in the same order, so that for each key it can be told which of
//! them fired while the other did not.
//!
//! What is compared is counted since the node started, or since the rule in the shadow was changed. Limit: [`RULE_KEYS_MAX`] keys of a rule.

use std::{collections::BTreeMap, sync::Arc};

use super::{Phase, RuleSpec, Signal};
use crate::limits::RULE_KEYS_MAX;

/// What the name of a rule in the shadow has behind that of the other one.
pub const SHADOW: &str = "--shadow";

#[derive(Debug, Default)]
pub struct Tally {
    /// The definitions, by number, and the alerts that began to fire under them.
    fired: (u32, u64),
    /// By the name of the rule that raises alerts.
    beside: BTreeMap<String, Beside>,
}

/// How two rules compare: raisings of each, and those of them during which the other one did not fire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub fired_old: u64,
    pub fired_new: u64,
    pub only_old: u64,
    pub only_new: u64,
}

#[derive(Debug)]
struct Beside {
    spec: RuleSpec,
    ended: Compared,
    keys: BTreeMap<Arc<str>, Pair>,
}

/// The raisings of a key that have not ended: whether the other rule has fired meanwhile. A raising from before does not count.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    old: Option<Raising>,
    new: Option<Raising>,
}

#[derive(Clone, Copy, Debug)]
struct Raising {
    met: bool,
    counts: bool,
}

impl Tally {
    /// These rules are judged from now on; `firing` are those, with their keys, for which an alert fires.
    pub fn begin<'a>(&mut self, rules: &[RuleSpec], firing: impl Iterator<Item = (&'a str, &'a Arc<str>)>) {
        let mut before = std::mem::take(&mut self.beside);
        for spec in rules.iter().filter(|spec| spec.shadow) {
            let old = spec.name.strip_suffix(SHADOW).unwrap_or(&spec.name).to_owned();
            let known = before.remove(&old).filter(|known| known.spec == *spec);
            let new = || Beside { spec: spec.clone(), ended: Compared::default(), keys: BTreeMap::new() };
            self.beside.insert(old, known.unwrap_or_else(new));
        }
        for (rule, key) in firing {
            if let Some(beside) = self.beside.get_mut(rule) {
                let pair = beside.keys.entry(key.clone()).or_default();
                pair.old.get_or_insert(Raising { met: pair.new.is_some(), counts: false });
            }
        }
    }

    /// So many alerts have begun to fire under the definitions of this number.
    pub fn fired(&mut self, definitions: u32, alerts: u64) {
        self.fired = (definitions, alerts);
    }

    /// Takes in what rules say, each thing once. Each rule judges a batch as a whole, so that what was at the same time need not stand together.
    pub fn take(&mut self, signals: &[Signal]) {
        if self.beside.is_empty() {
            return;
        }
        let mut in_time: Vec<&Signal> = signals.iter().collect();
        in_time.sort_by_key(|signal| signal.at);
        in_time.into_iter().for_each(|signal| self.take_one(signal));
    }

    fn take_one(&mut self, signal: &Signal) {
        let in_shadow = signal.rule.strip_suffix(SHADOW).and_then(|old| self.beside.get_mut(old));
        let (beside, is_new) = match in_shadow {
            Some(beside) => (Some(beside), true),
            None => {
                let beside = self.beside.get_mut(&*signal.rule);
                // One that has no other beside it stands for itself.
                let alone = beside.as_ref().is_some_and(|beside| *beside.spec.name == *signal.rule);
                (beside, alone)
            }
        };
        if let Some(beside) = beside {
            beside.take(signal, is_new);
        }
    }

    /// The number of the definitions, and the alerts that began to fire under them.
    pub fn under(&self) -> (u32, u64) {
        self.fired
    }

    /// By the name of the rule that raises alerts.
    pub fn compared(&self) -> impl Iterator<Item = (&str, Compared)> {
        self.beside.iter().map(|(rule, beside)| (rule.as_str(), beside.compared()))
    }
}

impl Beside {
    fn take(&mut self, signal: &Signal, is_new: bool) {
        if !self.keys.contains_key(&signal.key) && self.keys.len() >= RULE_KEYS_MAX {
            return;
        }
        let pair = self.keys.entry(signal.key.clone()).or_default();
        let (own, other) = if is_new { (&mut pair.new, &mut pair.old) } else { (&mut pair.old, &mut pair.new) };
        match signal.phase {
            // Said again after a recovery.
            Phase::Firing if own.is_some() => {}
            Phase::Firing => {
                *own = Some(Raising { met: other.is_some(), counts: true });
                if let Some(other) = other {
                    other.met = true;
                }
                *(if is_new { &mut self.ended.fired_new } else { &mut self.ended.fired_old }) += 1;
            }
            Phase::Cleared => {
                let ended = own.take().filter(|raising| !raising.met && raising.counts);
                *(if is_new { &mut self.ended.only_new } else { &mut self.ended.only_old }) +=
                    u64::from(ended.is_some());
            }
            Phase::Pending | Phase::Withdrawn => {}
        }
        if pair.old.is_none() && pair.new.is_none() {
            self.keys.remove(&signal.key);
        }
    }

    fn compared(&self) -> Compared {
        let alone = |raising: Option<Raising>| u64::from(raising.is_some_and(|raising| !raising.met && raising.counts));
        let mut compared = self.ended;
        for pair in self.keys.values() {
            compared.only_old += alone(pair.old);
            compared.only_new += alone(pair.new);
        }
        compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn rules() -> Vec<RuleSpec> {
        let rule = |name: &str, shadow: bool| {
            let when = serde_json::json!({ "type": "threshold", "metric": "t", "op": ">", "value": 1.0 });
            serde_json::from_value(serde_json::json!({ "name": name, "when": when, "shadow": shadow })).expect("a rule")
        };
        vec![rule("hot", false), rule("hot--shadow", true), rule("cold", false)]
    }

    fn said(tally: &mut Tally, steps: &[(&str, &str, Phase)]) {
        let signal = |(at, (rule, key, phase)): (i64, &(&str, &str, Phase))| {
            let (at, since) = (Timestamp::from_millis(at), Timestamp::from_millis(1));
            let (rule, key, metric) = ((*rule).into(), (*key).into(), "t".into());
            let (value, peak, facts) = (2.0, 2.0, Vec::new());
            Signal { rule, key, phase: *phase, at, since, metric, value, peak, facts }
        };
        let mut signals: Vec<Signal> = (1..).zip(steps).map(signal).collect();
        // By rule, as they come.
        signals.sort_by(|a, b| a.rule.cmp(&b.rule));
        tally.take(&signals);
    }

    fn hot(tally: &Tally) -> (u64, u64, u64, u64) {
        let (_, compared) = tally.compared().find(|(rule, _)| *rule == "hot").expect("it has a shadow");
        (compared.fired_old, compared.fired_new, compared.only_old, compared.only_new)
    }

    #[test]
    fn rules_beside_each_other_are_compared_by_their_raisings() {
        use Phase::{Cleared, Firing};
        let mut tally = Tally::default();
        tally.begin(&rules(), std::iter::empty());
        said(&mut tally, &[("hot", "a", Firing), ("hot--shadow", "a", Firing), ("hot", "a", Cleared)]);
        assert_eq!(hot(&tally), (1, 1, 0, 0));
        said(&mut tally, &[("hot", "b", Firing), ("hot", "b", Cleared), ("hot--shadow", "c", Firing)]);
        assert_eq!(hot(&tally), (2, 2, 1, 1));
        // It meets the other after all.
        said(&mut tally, &[("hot", "c", Firing), ("hot", "c", Firing), ("cold", "c", Firing)]);
        assert_eq!(hot(&tally), (3, 2, 1, 0));
    }

    #[test]
    fn what_fired_before_is_there_and_counts_for_nothing() {
        use Phase::{Cleared, Firing};
        let mut tally = Tally::default();
        let key: Arc<str> = "a".into();
        tally.begin(&rules(), [("hot", &key)].into_iter());
        said(&mut tally, &[("hot--shadow", "a", Firing), ("hot--shadow", "a", Cleared), ("hot", "a", Cleared)]);
        assert_eq!(hot(&tally), (0, 1, 0, 0));
        // The same rules go on, others begin anew.
        tally.begin(&rules(), std::iter::empty());
        assert_eq!(hot(&tally), (0, 1, 0, 0));
        let mut changed = rules();
        changed[1].hold = crate::time::Span::from_secs(1);
        tally.begin(&changed, std::iter::empty());
        assert_eq!(hot(&tally), (0, 0, 0, 0));
    }
}
