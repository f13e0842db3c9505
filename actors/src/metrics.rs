//! Metrics of the actors, on the node's own registry. Names and meanings are listed in `docs/reference/metrics.md`.

use std::sync::Arc;

use millpond_core::{
    admission::Admitted,
    alert::{Alert, AlertState},
    dead_letter::DeadLetter,
};
use millpond_store::Committed;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

use crate::tree::Branch;

#[derive(Debug)]
pub struct Metrics {
    pub journal: JournalMetrics,
    pub shards: ShardMetrics,
    pub alerts: AlertMetrics,
    pub notifier: NotifierMetrics,
    pub devices: DeviceMetrics,
    fired: IntCounterVec,
    late: IntCounterVec,
    restarts: IntCounterVec,
    pub store_bytes: IntGauge,
    pub in_flight_bytes: IntGauge,
}

#[derive(Clone, Debug)]
pub struct JournalMetrics {
    pub commit_seconds: Histogram,
    pub commit_units: Histogram,
    pub records: IntCounter,
    pub bytes: IntCounter,
    pub dropped_records: IntCounterVec,
    pub dropped_events: IntCounterVec,
    pub refused: IntCounter,
    pub failed: IntCounter,
    pub full: IntCounter,
    pub refusing: IntGauge,
    pub disk_free: IntGauge,
}

#[derive(Clone, Debug)]
pub struct ShardMetrics {
    pub accepted: IntCounter,
    pub duplicates: IntCounter,
    pub rejected: IntCounterVec,
}

#[derive(Clone, Debug)]
pub struct WindowMetrics {
    pub fired: IntCounter,
    pub late: IntCounter,
}

#[derive(Clone, Debug)]
pub struct AlertMetrics {
    changes: IntCounterVec,
}

#[derive(Clone, Debug)]
pub struct NotifierMetrics {
    pub delivered: IntCounter,
    pub failed: IntCounter,
    pub expired: IntCounter,
}

#[derive(Clone, Debug)]
pub struct DeviceMetrics {
    pub active: IntGauge,
}

impl Metrics {
    /// # Errors
    /// When the registry has one of the names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Arc<Metrics>> {
        let counter = |name: &str, help: &str| add(registry, IntCounter::new(name, help)?);
        let counters =
            |name: &str, help: &str, label: &str| add(registry, IntCounterVec::new(Opts::new(name, help), &[label])?);
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help)?);
        let seconds = vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let commit_seconds =
            HistogramOpts::new("millpond_journal_commit_seconds", "Time of a commit on the journal's thread.")
                .buckets(seconds);
        let units = vec![1.0, 2.0, 5.0, 10.0, 50.0, 200.0, 1000.0];
        let commit_units =
            HistogramOpts::new("millpond_journal_commit_units", "Units that went into one commit.").buckets(units);
        Ok(Arc::new(Metrics {
            journal: JournalMetrics {
                commit_seconds: add(registry, Histogram::with_opts(commit_seconds)?)?,
                commit_units: add(registry, Histogram::with_opts(commit_units)?)?,
                records: counter("millpond_journal_records_total", "Records committed.")?,
                bytes: counter("millpond_journal_bytes_total", "Bytes of journal values written.")?,
                dropped_records: counters(
                    "millpond_journal_dropped_records_total",
                    "Records given up, each with a receipt.",
                    "class",
                )?,
                dropped_events: counters(
                    "millpond_journal_dropped_events_total",
                    "Events in records given up.",
                    "class",
                )?,
                refused: counter(
                    "millpond_journal_refused_units_total",
                    "Units refused for want of space; their senders keep them.",
                )?,
                failed: counter(
                    "millpond_journal_failed_commits_total",
                    "Commits that failed for another reason than a full disk.",
                )?,
                full: counter("millpond_journal_full_total", "Commits that failed because the disk was full.")?,
                refusing: gauge("millpond_journal_refusing", "1 while new events are refused for want of space.")?,
                disk_free: gauge("millpond_disk_free_bytes", "Free bytes on the file system of the data directory.")?,
            },
            shards: ShardMetrics {
                accepted: counter("millpond_events_accepted_total", "Events accepted.")?,
                duplicates: counter("millpond_events_duplicate_total", "Events that were there already.")?,
                rejected: counters(
                    "millpond_events_rejected_total",
                    "Groups of events kept as dead letters.",
                    "reason",
                )?,
            },
            alerts: AlertMetrics {
                changes: counters("millpond_alert_changes_total", "Changes of alerts, by new state.", "state")?,
            },
            notifier: NotifierMetrics {
                delivered: counter("millpond_notifications_delivered_total", "Notifications that a webhook took.")?,
                failed: counter("millpond_notifications_failed_total", "Tries of a webhook that failed.")?,
                expired: counter(
                    "millpond_notifications_expired_total",
                    "Notifications given up because of their age.",
                )?,
            },
            devices: DeviceMetrics { active: gauge("millpond_device_actors", "Device actors running.")? },
            fired: counters("millpond_window_panes_total", "Panes fired, revisions included.", "window")?,
            late: counters("millpond_window_late_events_total", "Events that came too late for a window.", "window")?,
            restarts: counters(
                "millpond_actor_failures_total",
                "Actors that failed, by branch of the supervision tree.",
                "branch",
            )?,
            store_bytes: gauge("millpond_store_bytes", "Size of the store's file.")?,
            in_flight_bytes: gauge("millpond_in_flight_bytes", "Bytes between the sockets and the journal.")?,
        }))
    }

    pub fn window(&self, name: &str) -> WindowMetrics {
        WindowMetrics { fired: self.fired.with_label_values(&[name]), late: self.late.with_label_values(&[name]) }
    }

    pub fn restarts(&self, branch: Branch) -> IntCounter {
        self.restarts.with_label_values(&[format!("{branch:?}").to_lowercase().as_str()])
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl JournalMetrics {
    pub fn committed(&self, committed: &Committed) {
        self.records.inc_by(committed.records);
        self.bytes.inc_by(committed.bytes);
        for drop in &committed.dropped {
            self.dropped_records.with_label_values(&[drop.class.name()]).inc_by(drop.records);
            self.dropped_events.with_label_values(&[drop.class.name()]).inc_by(drop.events);
        }
    }
}

impl ShardMetrics {
    pub fn admitted(&self, admitted: &Admitted) {
        self.accepted.inc_by(u64::from(admitted.accepted));
        self.duplicates.inc_by(u64::from(admitted.duplicates));
    }

    pub fn rejected(&self, letters: &[DeadLetter]) {
        for letter in letters {
            self.rejected.with_label_values(&[letter.reason.name()]).inc();
        }
    }
}

impl AlertMetrics {
    pub fn changed(&self, alert: &Alert) {
        let state = match alert.state {
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
            AlertState::Resolved => "resolved",
        };
        self.changes.with_label_values(&[state]).inc();
    }
}
