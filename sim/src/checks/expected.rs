//! Whether enough happened for the run to mean anything.

use super::Found;
use crate::{
    evidence::{Evidence, NodeEvidence},
    promise::Broken,
};

pub fn check(evidence: &Evidence, found: &Found) -> Vec<Broken> {
    let expect = &evidence.scenario.expect;
    let disks = || evidence.nodes.iter().map(|node| &node.disk);
    let least = [
        ("events stored", expect.events_stored, found.stored),
        ("losses of power", expect.power_losses, disks().map(|disk| disk.power_losses).sum()),
        (
            "losses of power in the middle of a commit",
            expect.power_losses_mid_commit,
            disks().map(|disk| disk.power_losses_mid_commit).sum(),
        ),
        ("alerts that fired", expect.alerts_fired, found.alerts),
        ("refused publishes", expect.refusals, evidence.witness.refusals),
        ("dead letters", expect.dead_letters, found.dead_letters),
        ("receipts for what was given up", expect.drops, found.receipts),
        ("acknowledged changes", expect.changes, evidence.witness.acknowledged_changes()),
        ("certificates that ran out", expect.certificates_expired, evidence.nodes.iter().map(expired).sum()),
        ("records in the cloud", expect.in_cloud, found.in_cloud),
        ("readings in the archive", expect.archived, found.archived),
        ("failures of object stores", expect.store_failures, store_failures(evidence)),
        ("readings that came beside a backlog", expect.live_beside_backlog, found.live_beside_backlog),
        ("times that a cloud lost events to want of space", expect.undelivered, found.undelivered),
        ("epochs of a document", u64::from(expect.epoch), u64::from(found.epoch)),
    ];
    let short = least.into_iter().filter(|(_, wanted, got)| got < wanted);
    let broken = |node: &str, detail: String| Broken { promise: None, node: node.to_owned(), detail };
    let short = short.map(|(what, wanted, got)| {
        broken("", format!("the run shows less than it claims: {got} {what}, at least {wanted} were expected"))
    });
    let restless = evidence.nodes.iter().filter(|node| expect.starts_max.is_some_and(|most| node.boots > most));
    short
        .chain(restless.map(|node| {
            broken(&node.name, format!("the program was started {} times: {:?}", node.boots, node.failed_starts))
        }))
        .collect()
}

pub fn store_failures(evidence: &Evidence) -> u64 {
    evidence.nodes.iter().filter_map(|node| node.lake.as_ref()).map(|lake| lake.store.failures()).sum()
}

/// How often a node's certificate ran out, as far as that was noted.
fn expired(node: &NodeEvidence) -> u64 {
    let left = node.samples.iter().filter_map(|sample| sample.metrics.get("millpond_site_certificate_seconds"));
    let over: Vec<bool> = left.map(|seconds| *seconds < 0.0).collect();
    over.windows(2).filter(|pair| pair == &[false, true]).count() as u64
}
