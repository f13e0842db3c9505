//! Who is told when: quiet, storms and digests. Invariants 5 to 7 of [`crate::alert`] are kept here.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{AlertEffect, AlertState, Alerts, Notification, NotificationKind, Subject};
use crate::{
    limits::{ALERT_KEYS_MAX, DIGEST_ALERTS_MAX},
    rule::Severity,
    time::{Span, Timestamp},
};

/// What was told, and what waits to be told.
#[derive(Debug)]
pub(super) struct Voice {
    told: BTreeMap<Subject, Told>,
    /// What `told` has, oldest first; an entry that was told again since is stale here.
    told_order: VecDeque<(Timestamp, Subject)>,
    /// Firing alerts that were kept quiet, and until when.
    waiting: BTreeMap<Subject, Timestamp>,
    waiting_order: BTreeSet<(Timestamp, Subject)>,
    storms: BTreeMap<Arc<str>, Storm>,
    quiet_longest: Span,
    forgotten: u64,
}

#[derive(Debug)]
struct Told {
    at: Timestamp,
    /// Firings since then.
    repeats: u32,
}

/// Notifications of one rule.
#[derive(Debug, Default)]
struct Storm {
    /// When the last of them were made or went into a digest; at most `storm_count`, and none older than `storm_window`.
    recent: VecDeque<Timestamp>,
    digest: Option<Digest>,
}

/// Alerts that are told of together.
#[derive(Debug)]
pub(super) struct Digest {
    due: Timestamp,
    total: u64,
    /// The first alerts, by id.
    examples: Vec<String>,
    subjects: BTreeSet<Subject>,
}

impl Voice {
    pub fn new(quiet_longest: Span) -> Voice {
        Voice {
            told: BTreeMap::new(),
            told_order: VecDeque::new(),
            waiting: BTreeMap::new(),
            waiting_order: BTreeSet::new(),
            storms: BTreeMap::new(),
            quiet_longest,
            forgotten: 0,
        }
    }

    /// Notes that a firing was told of.
    pub fn remember(&mut self, subject: &Subject, at: Timestamp) {
        self.told.insert(subject.clone(), Told { at, repeats: 0 });
        self.told_order.push_back((at, subject.clone()));
        while self.told.len() > ALERT_KEYS_MAX || self.told_order.len() > 2 * ALERT_KEYS_MAX {
            if self.forget_oldest() {
                self.forgotten += 1;
            }
        }
    }

    /// Notes that a firing after the one that was told of was kept quiet.
    pub fn repeated(&mut self, subject: &Subject, repeats: u32) {
        if let Some(told) = self.told.get_mut(subject) {
            told.repeats = told.repeats.max(repeats);
        }
    }

    /// Has the subject told of at `due`.
    pub fn wait(&mut self, subject: &Subject, due: Timestamp) {
        self.leave(subject);
        self.waiting.insert(subject.clone(), due);
        self.waiting_order.insert((due, subject.clone()));
    }

    /// The subject's alert is not open any more.
    pub fn leave(&mut self, subject: &Subject) {
        if let Some(due) = self.waiting.remove(subject) {
            self.waiting_order.remove(&(due, subject.clone()));
        }
    }

    /// Takes out those whose time has come, or whose time is so far off that the clock must have been set back.
    pub fn due(&mut self, now: Timestamp) -> Vec<Subject> {
        while self.told_order.front().is_some_and(|(at, _)| at.saturating_add(self.quiet_longest) <= now) {
            self.forget_oldest();
        }
        let latest = now.saturating_add(self.quiet_longest);
        let mut due = Vec::new();
        while let Some((at, subject)) = self.waiting_order.first().filter(|(at, _)| *at <= now).cloned() {
            self.waiting_order.remove(&(at, subject.clone()));
            due.push(subject);
        }
        while let Some((at, subject)) = self.waiting_order.last().filter(|(at, _)| *at > latest).cloned() {
            self.waiting_order.remove(&(at, subject.clone()));
            due.push(subject);
        }
        for subject in &due {
            self.waiting.remove(subject);
        }
        due
    }

    /// Takes out the digests whose time has come.
    pub fn digests(&mut self, now: Timestamp, every: Span) -> Vec<(Arc<str>, Digest)> {
        let latest = now.saturating_add(every);
        let due = self.storms.iter_mut().filter_map(|(rule, storm)| {
            let digest = storm.digest.take_if(|digest| digest.due <= now || digest.due > latest)?;
            Some((rule.clone(), digest))
        });
        due.collect()
    }

    pub fn next_due(&self) -> Timestamp {
        let waiting = self.waiting_order.first().map(|(due, _)| *due);
        let digests = self.storms.values().filter_map(|storm| storm.digest.as_ref().map(|digest| digest.due));
        digests.chain(waiting).min().unwrap_or(Timestamp::MAX)
    }

    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Drops the oldest of `told_order`, and what it stands for unless that was told again.
    fn forget_oldest(&mut self) -> bool {
        let Some((at, subject)) = self.told_order.pop_front() else { return false };
        let current = self.told.get(&subject).is_some_and(|told| told.at == at);
        if current {
            self.told.remove(&subject);
        }
        current
    }
}

impl Alerts {
    /// Tells of a firing alert that has just begun, or lets it wait for the end of the quiet.
    pub(super) fn tell_or_wait(&mut self, now: Timestamp, subject: &Subject) -> Option<Notification> {
        let Some(until) = self.quiet_until(now, subject) else {
            return self.tell(now, subject);
        };
        if let (Some(told), Some(alert)) = (self.voice.told.get_mut(subject), self.open.get_mut(subject)) {
            told.repeats = told.repeats.saturating_add(1);
            alert.repeats = told.repeats;
        }
        self.counters.quieted += 1;
        self.voice.wait(subject, until);
        None
    }

    /// The end of the subject's quiet; `None` when it is not quiet now.
    pub(super) fn quiet_until(&self, now: Timestamp, subject: &Subject) -> Option<Timestamp> {
        let quiet = self.rules.get(&subject.0)?.quiet;
        let told = self.voice.told.get(subject).filter(|told| now.since(told.at).0.saturating_abs() < quiet.0)?;
        Some(told.at.saturating_add(quiet))
    }

    /// Tells of a firing alert, or puts it into a digest when its rule has told too much of late.
    pub(super) fn tell(&mut self, now: Timestamp, subject: &Subject) -> Option<Notification> {
        let alert =
            self.open.get_mut(subject).filter(|alert| alert.state == AlertState::Firing && alert.notified.is_none())?;
        let storm = self.voice.storms.entry(subject.0.clone()).or_default();
        let (count, window) = (self.settings.storm_count.max(1) as usize, self.settings.storm_window);
        storm.recent.retain(|at| now.since(*at).0.saturating_abs() < window.0);
        let calm = storm.recent.len() < count && storm.digest.is_none();
        storm.recent.push_back(now);
        while storm.recent.len() > count {
            storm.recent.pop_front();
        }
        if calm {
            alert.notified = Some(now);
            alert.changed = now;
            let notification = Notification::of(NotificationKind::Firing, now, alert);
            self.voice.remember(subject, now);
            return Some(notification);
        }
        let due = now.saturating_add(self.settings.digest_every);
        let digest = storm.digest.get_or_insert_with(|| Digest {
            due,
            total: 0,
            examples: Vec::new(),
            subjects: BTreeSet::new(),
        });
        digest.total += 1;
        if digest.examples.len() < DIGEST_ALERTS_MAX {
            digest.examples.push(alert.id.clone());
        }
        digest.subjects.insert(subject.clone());
        self.counters.digested += 1;
        None
    }

    pub(super) fn send_digest(&mut self, now: Timestamp, rule: &Arc<str>, digest: Digest, out: &mut Vec<AlertEffect>) {
        for subject in &digest.subjects {
            let open = self.open.get_mut(subject);
            let Some(alert) = open.filter(|alert| alert.state == AlertState::Firing && alert.notified.is_none()) else {
                continue;
            };
            (alert.notified, alert.digested, alert.changed) = (Some(now), true, now);
            out.push(AlertEffect::Changed(alert.clone()));
            self.voice.remember(subject, now);
        }
        let alerts: Vec<_> = digest.examples.iter().filter_map(|id| self.get(id).cloned()).collect();
        let severity = self.rules.get(rule).map_or(Severity::default(), |rule| rule.severity);
        let still = digest.subjects.iter().filter(|subject| self.open.contains_key(*subject)).count();
        let message = format!("{rule}: {} more alerts, {still} of them still firing", digest.total);
        let first = digest.examples.first().cloned().unwrap_or_default();
        out.push(AlertEffect::Notify(Notification {
            id: format!("{first}-digest"),
            kind: NotificationKind::Digest,
            at: now,
            rule: rule.clone(),
            severity,
            alerts,
            total: digest.total,
            message,
        }));
    }
}
