//! Alerts: what becomes of the signals of the rules, and who is told when.
//!
//! ```text
//!          Pending            Firing                 Cleared, or resolved by hand
//! (none) ─────────► pending ─────────► firing ───────────────────────────────────► resolved ──► (forgotten)
//!                      │ Withdrawn        │ ▲
//!                      ▼                  └─┘ acknowledged: a mark, not a state
//!                   resolved, never fired
//! ```
//!
//! An alert is one raising of one rule for one key (a device, or the key of a pane). Its id is made from rule, key and
//! `since`, so that signals that are said again after a recovery find the alert that they made the first time.
//!
//! Invariants
//! 1. Of one (rule, key) at most one alert is open, that is pending or firing.
//! 2. A signal that was handled before changes nothing and notifies nobody: handling a stretch of signals twice is handling
//!    it once.
//! 3. Every alert that fired and whose condition cleared is resolved once.
//! 4. After an alert was resolved by hand, its (rule, key) opens no other before the condition has cleared.
//! 5. Of one (rule, key) at most one notification that it fires is made within the rule's `quiet`. An alert that fires
//!    within it is stored and counted; it is told of when it still fires at the end of the quiet, and never otherwise.
//! 6. A resolution is told of only when the firing was told of by itself.
//! 7. Of one rule at most `storm_count` notifications of firing alerts are made within `storm_window`; what goes beyond
//!    waits for a digest, at most one per `digest_every`. What resolves while it waits is counted there.
//!
//! Clocks: `since`, `fired` and `resolved` are times of events, as the signals have them. Quiet, storms and what is kept
//! believe the node's wall clock `now`; when it steps back, nobody is kept quiet for longer than one more quiet.
//!
//! Limits: [`ALERTS_OPEN_MAX`] open alerts (more are refused), `keep_resolved_max` resolved ones, the notification times of
//! [`ALERT_KEYS_MAX`](crate::limits::ALERT_KEYS_MAX) pairs of rule and key. Each use of a limit is counted in [`AlertCounters`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    limits::ALERTS_OPEN_MAX,
    rule::{Phase, RuleSpec, Severity, Signal},
    time::{Span, Timestamp},
};

mod id;
mod message;
mod model;
mod notify;

pub(crate) use message::placeholders;
pub use model::{Acknowledged, Alert, AlertEffect, AlertFilter, AlertState, Notification, NotificationKind};
use notify::Voice;

/// How alerts are told of and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AlertSettings {
    /// More notifications of one rule than this within `storm_window` become a digest; from 1 to 10000. Default: 20.
    pub storm_count: u32,
    /// Default: 60s.
    pub storm_window: Span,
    /// How often a digest is sent while a storm lasts. Default: 60s.
    pub digest_every: Span,
    /// How long resolved alerts are kept. Default: 7d.
    pub keep_resolved: Span,
    /// How many resolved alerts are kept at most, from 100 to 1000000. Default: 10000.
    pub keep_resolved_max: u32,
}

impl Default for AlertSettings {
    fn default() -> AlertSettings {
        AlertSettings {
            storm_count: 20,
            storm_window: Span::from_secs(60),
            digest_every: Span::from_secs(60),
            keep_resolved: Span::from_secs(7 * 86_400),
            keep_resolved_max: 10_000,
        }
    }
}

impl AlertSettings {
    /// What is wrong with the settings, by keys of `alerts`.
    pub fn problems(&self) -> Vec<crate::problem::SpecProblem> {
        let count = |key: &str, value: u32, range: std::ops::RangeInclusive<u32>| {
            let message = format!("must be from {} to {}", range.start(), range.end());
            (!range.contains(&value)).then(|| crate::problem::SpecProblem::new(format!("alerts.{key}"), message))
        };
        let span = |key: &str, value: Span| {
            let short = value < Span::from_secs(1);
            short.then(|| crate::problem::SpecProblem::new(format!("alerts.{key}"), "must be at least 1s"))
        };
        [
            count("storm_count", self.storm_count, 1..=10_000),
            count("keep_resolved_max", self.keep_resolved_max, 100..=1_000_000),
            span("storm_window", self.storm_window),
            span("digest_every", self.digest_every),
            span("keep_resolved", self.keep_resolved),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The life cycles of all alerts of a node.
#[derive(Debug)]
pub struct Alerts {
    settings: AlertSettings,
    rules: BTreeMap<Arc<str>, Rule>,
    open: BTreeMap<Subject, Alert>,
    /// Where the open alert of an id is.
    open_ids: BTreeMap<String, Subject>,
    resolved: BTreeMap<String, Alert>,
    /// Ids of `resolved`, those resolved first in front.
    resolved_order: VecDeque<String>,
    /// Alerts that were resolved by hand, while their conditions still hold.
    by_hand: BTreeMap<Subject, String>,
    voice: Voice,
    /// Open alerts of rules that are not there any more.
    orphans: Vec<Subject>,
    counters: AlertCounters,
}

/// Rule and key.
type Subject = (Arc<str>, Arc<str>);

/// What the life cycles need of a rule.
#[derive(Clone, Debug)]
struct Rule {
    severity: Severity,
    quiet: Span,
    template: String,
}

/// What happened that alerts themselves do not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertCounters {
    /// Alerts that were not opened because too many are open.
    pub refused: u64,
    /// Resolved alerts that were forgotten before their time.
    pub forgotten_early: u64,
    /// Pairs of rule and key whose last notification was forgotten before its quiet had ended.
    pub quiet_forgotten: u64,
    /// Signals that said what was known.
    pub repeated: u64,
    /// Firing alerts that began within the quiet of a notification.
    pub quieted: u64,
    /// Firing alerts that went into a digest.
    pub digested: u64,
}

/// Why an alert cannot be acknowledged or resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    #[error("there is no alert `{0}`")]
    Unknown(String),
    #[error("the alert is not firing")]
    NotFiring,
}

impl Alerts {
    /// The rules should be without problems; what is wrong with them shows in the messages only.
    pub fn new(rules: &[RuleSpec], settings: AlertSettings) -> Alerts {
        let rule = |spec: &RuleSpec| {
            let template = spec.message.clone().unwrap_or_else(|| message::default_text(spec));
            (spec.name.as_str().into(), Rule { severity: spec.severity, quiet: spec.quiet, template })
        };
        Alerts {
            settings,
            // What is judged in the shadow raises nothing.
            rules: rules.iter().filter(|spec| !spec.shadow).map(rule).collect(),
            open: BTreeMap::new(),
            open_ids: BTreeMap::new(),
            resolved: BTreeMap::new(),
            resolved_order: VecDeque::new(),
            by_hand: BTreeMap::new(),
            voice: Voice::new(rules.iter().map(|rule| rule.quiet).max().unwrap_or(Span::ZERO)),
            orphans: Vec::new(),
            counters: AlertCounters::default(),
        }
    }

    /// Takes over the alerts of the store, in any order, before the first signal.
    pub fn load(&mut self, mut alerts: Vec<Alert>) {
        alerts.sort_by(|a, b| (a.changed, &a.id).cmp(&(b.changed, &b.id)));
        for alert in alerts {
            let subject = subject(&alert);
            match alert.notified {
                Some(told) => self.voice.remember(&subject, told),
                None => self.voice.repeated(&subject, alert.repeats),
            }
            if alert.state != AlertState::Resolved {
                if !self.rules.contains_key(&subject.0) {
                    self.orphans.push(subject.clone());
                } else if alert.state == AlertState::Firing && alert.notified.is_none() {
                    self.voice.wait(&subject, Timestamp::MIN);
                }
                self.put_open(subject, alert);
                continue;
            }
            if alert.resolved_by.is_some() && alert.cleared.is_none() && self.rules.contains_key(&subject.0) {
                self.by_hand.insert(subject, alert.id.clone());
            }
            self.resolved_order.push_back(alert.id.clone());
            self.resolved.insert(alert.id.clone(), alert);
        }
    }

    /// Takes in a signal. `now` is the node's wall clock.
    pub fn handle(&mut self, now: Timestamp, signal: Signal, out: &mut Vec<AlertEffect>) {
        let subject: Subject = (signal.rule.clone(), signal.key.clone());
        if !self.rules.contains_key(&subject.0) {
            self.counters.repeated += 1;
            return;
        }
        match signal.phase {
            Phase::Pending => self.raise(now, subject, &signal, AlertState::Pending, out),
            Phase::Firing => self.raise(now, subject, &signal, AlertState::Firing, out),
            Phase::Cleared => self.clear(now, &subject, &signal, out),
            Phase::Withdrawn => {
                let id = id::of(&signal.rule, &signal.key, signal.since);
                if self.open.get(&subject).is_some_and(|alert| alert.id == id || alert.since >= signal.since) {
                    self.withdraw(now, &subject, signal.at, out);
                } else {
                    self.counters.repeated += 1;
                }
            }
        }
    }

    /// Does what is due by now: notifications whose quiet has ended, digests, and forgetting. Returns when it is to be
    /// called again at the latest; [`Timestamp::MAX`] when nothing is due by itself.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<AlertEffect>) -> Timestamp {
        for subject in std::mem::take(&mut self.orphans) {
            self.close(now, &subject, now, Some("removed rule".into()), out);
        }
        for subject in self.voice.due(now) {
            if let Some(until) = self.quiet_until(now, &subject) {
                self.voice.wait(&subject, until);
            } else if let Some(notification) = self.tell(now, &subject) {
                out.extend(self.open.get(&subject).cloned().map(AlertEffect::Changed));
                out.push(AlertEffect::Notify(notification));
            }
        }
        for (rule, digest) in self.voice.digests(now, self.settings.digest_every) {
            self.send_digest(now, &rule, digest, out);
        }
        let forget_before = now.saturating_sub(self.settings.keep_resolved);
        let mut next = self.voice.next_due();
        while let Some(oldest) = self.resolved_order.front().and_then(|id| self.resolved.get(id)) {
            if oldest.changed >= forget_before {
                next = next.min(oldest.changed.saturating_add(self.settings.keep_resolved).saturating_add(Span(1)));
                break;
            }
            self.forget_oldest(out);
        }
        next
    }

    /// Marks a firing alert as seen by `by`. Doing so again changes nothing.
    ///
    /// # Errors
    /// When there is no such alert, or it does not fire.
    pub fn acknowledge(
        &mut self,
        now: Timestamp,
        id: &str,
        by: &str,
        out: &mut Vec<AlertEffect>,
    ) -> Result<(), ActionError> {
        let alert = self.firing(id)?;
        if alert.acknowledged.is_none() {
            alert.acknowledged = Some(Acknowledged { by: by.to_owned(), at: now });
            alert.changed = now;
            out.push(AlertEffect::Changed(alert.clone()));
        }
        Ok(())
    }

    /// Closes a firing alert by hand, for `by`.
    ///
    /// # Errors
    /// When there is no such alert, or it does not fire.
    pub fn resolve(
        &mut self,
        now: Timestamp,
        id: &str,
        by: &str,
        out: &mut Vec<AlertEffect>,
    ) -> Result<(), ActionError> {
        let subject = subject(self.firing(id)?);
        self.by_hand.insert(subject.clone(), id.to_owned());
        self.close(now, &subject, now, Some(by.to_owned()), out);
        Ok(())
    }

    pub fn get(&self, id: &str) -> Option<&Alert> {
        self.open_ids.get(id).and_then(|subject| self.open.get(subject)).or_else(|| self.resolved.get(id))
    }

    /// Alerts that pass the filter, those that began last first.
    pub fn list(&self, filter: &AlertFilter) -> Vec<&Alert> {
        let mut found: Vec<&Alert> =
            self.open.values().chain(self.resolved.values()).filter(|alert| filter.passes(alert)).collect();
        found.sort_by(|a, b| (b.since, &b.id).cmp(&(a.since, &a.id)));
        found.truncate(filter.limit);
        found
    }

    /// Open alerts: pending and firing.
    pub fn open(&self) -> impl Iterator<Item = &Alert> {
        self.open.values()
    }

    pub fn counters(&self) -> AlertCounters {
        AlertCounters { quiet_forgotten: self.voice.forgotten(), ..self.counters.clone() }
    }

    /// A signal that the condition holds.
    fn raise(
        &mut self,
        now: Timestamp,
        subject: Subject,
        signal: &Signal,
        state: AlertState,
        out: &mut Vec<AlertEffect>,
    ) {
        let id = id::of(&signal.rule, &signal.key, signal.since);
        if self.resolved.contains_key(&id) || self.by_hand.contains_key(&subject) {
            self.counters.repeated += 1;
            return;
        }
        if let Some(open) = self.open.get(&subject) {
            let known = open.state == AlertState::Firing || open.id == id && open.state == state;
            if known {
                self.counters.repeated += 1;
                return;
            }
            if open.id != id {
                self.withdraw(now, &subject, signal.at, out);
            }
        } else if self.open.len() >= ALERTS_OPEN_MAX {
            self.counters.refused += 1;
            return;
        }
        let rule = &self.rules[&subject.0];
        let alert = Alert {
            id,
            rule: subject.0.clone(),
            key: subject.1.clone(),
            severity: rule.severity,
            state,
            since: signal.since,
            fired: (state == AlertState::Firing).then_some(signal.at),
            resolved: None,
            resolved_by: None,
            cleared: None,
            acknowledged: None,
            metric: signal.metric.clone(),
            value: signal.value,
            peak: signal.peak,
            message: message::fill(&rule.template, signal),
            facts: signal.facts.iter().cloned().collect(),
            repeats: 0,
            notified: None,
            digested: false,
            changed: now,
        };
        self.put_open(subject.clone(), alert);
        let notification = if state == AlertState::Firing { self.tell_or_wait(now, &subject) } else { None };
        out.extend(self.open.get(&subject).cloned().map(AlertEffect::Changed));
        out.extend(notification.map(AlertEffect::Notify));
    }

    /// A signal that the condition does not hold any more, after it fired.
    fn clear(&mut self, now: Timestamp, subject: &Subject, signal: &Signal, out: &mut Vec<AlertEffect>) {
        let id = id::of(&signal.rule, &signal.key, signal.since);
        if let Some(closed) = self.by_hand.get(subject)
            && (*closed == id || !self.resolved.contains_key(&id) && self.follows(closed, signal))
            && let Some(closed) = self.by_hand.remove(subject)
        {
            if let Some(alert) = self.resolved.get_mut(&closed) {
                alert.cleared = Some(signal.at);
                alert.changed = now;
                alert.peak = signal.peak;
                out.push(AlertEffect::Changed(alert.clone()));
            }
            return;
        }
        let Some(open) = self.open.get_mut(subject) else {
            self.counters.repeated += 1;
            return;
        };
        // The end of an earlier alert, said again; or of a raising that was lost with the rules' state, which ends this one.
        if open.id != id && (self.resolved.contains_key(&id) || signal.at < open.since) {
            self.counters.repeated += 1;
            return;
        }
        open.value = signal.value;
        if open.id == id {
            open.peak = signal.peak;
        }
        open.cleared = Some(signal.at);
        self.close(now, subject, signal.at, None, out);
    }

    fn follows(&self, closed: &str, signal: &Signal) -> bool {
        self.resolved.get(closed).is_none_or(|alert| signal.at >= alert.since)
    }

    /// Resolves the open alert.
    fn close(
        &mut self,
        now: Timestamp,
        subject: &Subject,
        at: Timestamp,
        by: Option<String>,
        out: &mut Vec<AlertEffect>,
    ) {
        let Some(mut alert) = self.take_open(subject) else { return };
        self.voice.leave(subject);
        alert.state = AlertState::Resolved;
        alert.resolved = Some(at);
        alert.resolved_by = by;
        alert.changed = now;
        out.push(AlertEffect::Changed(alert.clone()));
        if alert.fired.is_none() {
            out.push(AlertEffect::Forget(alert.id));
            return;
        }
        if alert.notified.is_some() && !alert.digested {
            out.push(AlertEffect::Notify(Notification::of(NotificationKind::Resolved, now, &alert)));
        }
        self.resolved_order.push_back(alert.id.clone());
        self.resolved.insert(alert.id.clone(), alert);
        while self.resolved_order.len() > self.settings.keep_resolved_max as usize {
            self.counters.forgotten_early += 1;
            self.forget_oldest(out);
        }
    }

    /// Ends an open alert that did not fire.
    fn withdraw(&mut self, now: Timestamp, subject: &Subject, at: Timestamp, out: &mut Vec<AlertEffect>) {
        if self.open.get(subject).is_some_and(|alert| alert.state == AlertState::Pending) {
            self.close(now, subject, at, None, out);
        }
    }

    fn forget_oldest(&mut self, out: &mut Vec<AlertEffect>) {
        let Some(id) = self.resolved_order.pop_front() else { return };
        if let Some(alert) = self.resolved.remove(&id) {
            let subject = subject(&alert);
            if self.by_hand.get(&subject) == Some(&id) {
                self.by_hand.remove(&subject);
            }
        }
        out.push(AlertEffect::Forget(id));
    }

    fn firing(&mut self, id: &str) -> Result<&mut Alert, ActionError> {
        if self.resolved.contains_key(id) {
            return Err(ActionError::NotFiring);
        }
        let open = self.open_ids.get(id).and_then(|subject| self.open.get_mut(subject));
        let alert = open.ok_or_else(|| ActionError::Unknown(id.to_owned()))?;
        if alert.state == AlertState::Firing { Ok(alert) } else { Err(ActionError::NotFiring) }
    }

    fn put_open(&mut self, subject: Subject, alert: Alert) {
        self.open_ids.insert(alert.id.clone(), subject.clone());
        self.open.insert(subject, alert);
    }

    fn take_open(&mut self, subject: &Subject) -> Option<Alert> {
        let alert = self.open.remove(subject)?;
        self.open_ids.remove(&alert.id);
        Some(alert)
    }
}

fn subject(alert: &Alert) -> Subject {
    (alert.rule.clone(), alert.key.clone())
}

#[cfg(test)]
mod tests;
