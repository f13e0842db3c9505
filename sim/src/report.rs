//! What a run has shown: which faults there were, what became of the promises, and how memory and disk went.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    checks,
    evidence::Evidence,
    promise::{Broken, Promise},
    world::{disk::DiskStats, mishap::Panic},
};

/// Points of a curve at most.
const POINTS_MAX: usize = 240;

/// The result of one run. Written as JSON for `sim report`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub scenario: String,
    pub about: String,
    pub seed: u64,
    /// Of everything that happened, in hexadecimal. The same for the same program, scenario and seed.
    pub hash: String,
    pub promises: Vec<Promise>,
    pub broken: Vec<Broken>,
    /// Length of the run in simulated nanoseconds.
    pub simulated_ns: u64,
    /// Things that happened in the world, and events of the trace.
    pub happened: u64,
    pub noted: u64,
    pub counts: Counts,
    /// How often each fault happened.
    pub faults: BTreeMap<String, u64>,
    pub nodes: Vec<NodeReport>,
}

/// What the floor, the network and the journals counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub measured: u64,
    pub acknowledged: u64,
    pub stored: u64,
    pub dead_letters: u64,
    pub dropped: u64,
    pub panes: u64,
    pub panes_compared: u64,
    pub late: u64,
    pub alerts: u64,
    /// Readings that two nodes of a site stored.
    #[serde(default)]
    pub stored_again: u64,
    /// Changes of what a site says that were acknowledged.
    #[serde(default)]
    pub changes_acknowledged: u64,
    /// Parts of other sites' records that boxes have: rows, panes, alerts.
    #[serde(default)]
    pub of_other_sites: u64,
    /// Records of sites that the cloud has, results that it told of, and panes that it was asked for.
    #[serde(default)]
    pub in_cloud: u64,
    #[serde(default)]
    pub given: u64,
    #[serde(default)]
    pub agreed: u64,
    /// Readings that came to the cloud while older ones were still to come.
    #[serde(default)]
    pub live_beside_backlog: u64,
    /// Times that a box gave up events that its cloud does not have.
    #[serde(default)]
    pub undelivered: u64,
    /// Readings in the cloud's archive, and operations of its store that failed or said so.
    #[serde(default)]
    pub archived: u64,
    #[serde(default)]
    pub store_failures: u64,
    pub notifications: u64,
    pub refusals: u64,
    pub reconnects: u64,
    pub segments: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    pub name: String,
    pub boots: u32,
    pub disk_bytes: u64,
    pub disk: DiskStats,
    /// Mean time of a commit, in seconds.
    pub commit_seconds_mean: f64,
    pub failed_starts: BTreeMap<String, u64>,
    pub curve: Vec<Point>,
    /// Hours until the disk would be full at the rate of this run; `None` when it does not grow.
    pub full_after_hours: Option<f64>,
}

/// Sizes at a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub at_s: f64,
    pub up: bool,
    pub disk_used: u64,
    pub in_flight: u64,
    pub buffered: u64,
}

/// What only the world knows.
pub struct Run {
    pub hash: u64,
    pub noted: u64,
    pub happened: u64,
    pub panics: Vec<Panic>,
}

impl Report {
    pub fn kept(&self) -> bool {
        self.broken.is_empty()
    }

    /// The last line of `sim run`.
    pub fn line(&self) -> String {
        let promises = if self.kept() { "kept" } else { "broken" };
        format!("scenario={} seed={} hash={} promises={promises}", self.scenario, self.seed, self.hash)
    }

    /// Whether a promise held; `None`: it was not checked.
    pub fn holds(&self, promise: Promise) -> Option<bool> {
        self.promises.contains(&promise).then(|| !self.broken.iter().any(|broken| broken.promise == Some(promise)))
    }
}

/// Checks the promises and counts.
pub fn of(evidence: &Evidence, run: Run) -> Report {
    let (mut broken, found) = checks::check(evidence);
    for panic in run.panics.iter().take(3) {
        let place = ours(&panic.backtrace);
        broken.push(Broken { promise: None, node: String::new(), detail: format!("{}\n{place}", panic.message) });
    }
    if let Some(parts) = &evidence.divergence {
        let detail = format!(
            "the run is not the same as before: at event {} (at {} ns, {} of host {})\n{}",
            parts.index,
            parts.at.0,
            parts.kind,
            parts.host.0,
            ours(&parts.backtrace)
        );
        broken.push(Broken { promise: None, node: String::new(), detail });
    }
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for injection in &evidence.injections {
        *faults.entry(injection.fault.name().to_owned()).or_default() += 1;
    }
    let witness = &evidence.witness;
    Report {
        scenario: evidence.scenario.name.clone(),
        about: evidence.scenario.about.clone(),
        seed: evidence.seed,
        hash: format!("{:016x}", run.hash),
        promises: evidence.scenario.promises.clone(),
        broken,
        simulated_ns: evidence.ended.1.0,
        happened: run.happened,
        noted: run.noted,
        counts: Counts {
            measured: witness.published(),
            acknowledged: witness.acknowledged(),
            stored: found.stored,
            dead_letters: found.dead_letters,
            dropped: found.dropped,
            panes: found.panes,
            panes_compared: found.panes_compared,
            late: found.late,
            alerts: found.alerts,
            stored_again: found.stored_again,
            changes_acknowledged: witness.acknowledged_changes(),
            of_other_sites: found.of_other_sites,
            in_cloud: found.in_cloud,
            given: found.given,
            agreed: found.agreed,
            live_beside_backlog: found.live_beside_backlog,
            undelivered: found.undelivered,
            archived: found.archived,
            store_failures: checks::store_failures(evidence),
            notifications: witness.notifications.len() as u64,
            refusals: witness.refusals,
            reconnects: witness.reconnects,
            segments: evidence.net.segments,
            bytes: evidence.net.bytes,
        },
        faults,
        nodes: evidence
            .nodes
            .iter()
            .zip(&evidence.scenario.nodes)
            .map(|(node, spec)| node_report(node, spec.disk.bytes))
            .collect(),
    }
}

/// The first lines of a backtrace that are about code of ours.
fn ours(backtrace: &str) -> String {
    backtrace.lines().filter(|line| line.contains("millpond")).take(12).collect::<Vec<_>>().join("\n")
}

fn node_report(node: &crate::evidence::NodeEvidence, disk_bytes: u64) -> NodeReport {
    let step = node.samples.len().div_ceil(POINTS_MAX).max(1);
    let curve: Vec<Point> = node
        .samples
        .iter()
        .step_by(step)
        .map(|sample| Point {
            at_s: sample.at.0 as f64 / 1e9,
            up: sample.up,
            disk_used: sample.disk_used,
            in_flight: sample.metrics.get("millpond_in_flight_bytes").map_or(0, |bytes| *bytes as u64),
            buffered: sample.buffered,
        })
        .collect();
    let commits: (f64, f64) = node.samples.iter().rev().find(|sample| sample.up).map_or((0.0, 0.0), |sample| {
        let value = |name: &str| sample.metrics.get(name).copied().unwrap_or_default();
        (value("millpond_journal_commit_seconds_sum"), value("millpond_journal_commit_seconds_count"))
    });
    NodeReport {
        name: node.name.clone(),
        boots: node.boots,
        disk_bytes,
        disk: node.disk,
        commit_seconds_mean: if commits.1 > 0.0 { commits.0 / commits.1 } else { 0.0 },
        failed_starts: node.failed_starts.clone(),
        full_after_hours: full_after(&curve, disk_bytes),
        curve,
    }
}

/// From the growth over the second half of the run, in which the first allocations are past.
fn full_after(curve: &[Point], disk_bytes: u64) -> Option<f64> {
    let (first, last) = (curve.get(curve.len() / 2)?, curve.last()?);
    let rate = (last.disk_used as f64 - first.disk_used as f64) / (last.at_s - first.at_s);
    (rate.is_finite() && rate > 1.0)
        .then(|| last.at_s / 3600.0 + (disk_bytes as f64 - last.disk_used as f64).max(0.0) / rate / 3600.0)
}
