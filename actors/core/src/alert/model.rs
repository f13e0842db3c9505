//! What alerts look like to others.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{rule::Severity, time::Timestamp};

/// One raising of a rule for one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Made from rule, key and `since`.
    pub id: String,
    pub rule: Arc<str>,
    /// The device, or the key of the pane.
    pub key: Arc<str>,
    pub severity: Severity,
    pub state: AlertState,
    /// When the condition began to hold. This and the next two are times of events.
    pub since: Timestamp,
    /// When it had held for as long as the rule wants. An alert that never fired needs no place on disk.
    pub fired: Option<Timestamp>,
    pub resolved: Option<Timestamp>,
    /// Who resolved it by hand.
    pub resolved_by: Option<String>,
    /// When the condition ceased to hold: for an alert resolved by hand this is later than `resolved`.
    pub cleared: Option<Timestamp>,
    pub acknowledged: Option<Acknowledged>,
    pub metric: Arc<str>,
    /// What was judged when the alert last changed its state by a signal.
    pub value: f64,
    /// The worst value known.
    pub peak: f64,
    pub message: String,
    /// What the rule's enrichment came to.
    pub facts: BTreeMap<String, String>,
    /// Alerts of the same rule and key that began since the last notification, this one included, when it began within its quiet.
    pub repeats: u32,
    /// When a notification told that it fires; `None` when it was kept quiet. Node's clock.
    pub notified: Option<Timestamp>,
    /// Whether that was in a digest.
    pub digested: bool,
    /// Node's clock at the last change.
    pub changed: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    Pending,
    Firing,
    Resolved,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    pub by: String,
    pub at: Timestamp,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum AlertEffect {
    /// Store, journal and publish the alert as it is now.
    Changed(Alert),
    /// Take the alert with this id out of the store.
    Forget(String),
    /// Put it into the outbox. A notification comes after the change that caused it.
    Notify(Notification),
}

/// Something to tell people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// The same when the same thing is told again: receivers can tell it by this.
    pub id: String,
    pub kind: NotificationKind,
    /// Node's clock.
    pub at: Timestamp,
    pub rule: Arc<str>,
    pub severity: Severity,
    /// The alert; in a digest up to [`DIGEST_ALERTS_MAX`](crate::limits::DIGEST_ALERTS_MAX) of them.
    pub alerts: Vec<Alert>,
    /// How many alerts it is about.
    pub total: u64,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotificationKind {
    Firing,
    Resolved,
    /// Many alerts of one rule at once.
    Digest,
}

/// Which alerts to list; `None` lets all pass.
#[derive(Clone, Debug)]
pub struct AlertFilter {
    pub state: Option<AlertState>,
    pub rule: Option<String>,
    pub key: Option<String>,
    pub limit: usize,
}

impl AlertFilter {
    pub(super) fn passes(&self, alert: &Alert) -> bool {
        self.state.is_none_or(|state| alert.state == state)
            && self.rule.as_ref().is_none_or(|rule| **rule == *alert.rule)
            && self.key.as_ref().is_none_or(|key| **key == *alert.key)
    }
}

impl AlertState {
    pub fn name(self) -> &'static str {
        ["pending", "firing", "resolved"][self as usize]
    }

    pub fn from_name(name: &str) -> Option<AlertState> {
        [AlertState::Pending, AlertState::Firing, AlertState::Resolved].into_iter().find(|state| state.name() == name)
    }
}

impl Notification {
    /// About one alert.
    pub(super) fn of(kind: NotificationKind, at: Timestamp, alert: &Alert) -> Notification {
        let (suffix, message) = match kind {
            NotificationKind::Resolved => ("resolved", format!("resolved: {}", alert.message)),
            _ => ("firing", alert.message.clone()),
        };
        Notification {
            id: format!("{}-{suffix}", alert.id),
            kind,
            at,
            rule: alert.rule.clone(),
            severity: alert.severity,
            alerts: vec![alert.clone()],
            total: 1,
            message,
        }
    }
}
