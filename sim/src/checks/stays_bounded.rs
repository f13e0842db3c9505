//! Disk, queues and buffers stay within what the configuration and the scenario allow.

use millpond_core::record::Class;

use super::{
    journal::Journal,
    tally::{Findings, Tally, at},
};
use crate::evidence::{Evidence, NodeEvidence, Sample};

/// What a file may have beyond the records that are kept: trees, indexes, state tables, free pages.
const FILE_SHARE: f64 = 1.5;
const FILE_BYTES: u64 = 64 << 20;
/// What a connection may have on its way to a program that does not read.
const CONNECTION_BYTES: u64 = 512 << 10;
/// Probes, questions for metrics and the like.
const OTHER_CONNECTIONS: u64 = 8;
/// One commit may bring a class over its limit before retention cuts it.
const COMMIT_BYTES: u64 = 1 << 20;

pub fn check(node: &NodeEvidence, journal: Option<&Journal>, evidence: &Evidence, said: &mut Findings) {
    let spec = evidence.scenario.nodes.iter().find(|spec| spec.name == node.name);
    let disk_bytes = spec.map_or(u64::MAX, |spec| spec.disk.bytes);
    let kept: u64 = Class::ALL.iter().fold(0u64, |sum, class| sum.saturating_add(limit(node, *class)));
    let file_bytes = (kept as f64 * FILE_SHARE) as u64 + FILE_BYTES;
    let in_flight = node.config.node.in_flight_bytes;
    let connections = connections(node, evidence);
    let limits: [(&str, u64, fn(&Sample) -> f64); 5] = [
        ("bytes of disk are in use, of a disk of", disk_bytes, |sample| sample.disk_used as f64),
        ("bytes of disk are in use, and by the limits of retention no more than", file_bytes, |s| s.disk_used as f64),
        ("bytes are between sockets and journal, of", in_flight, |sample| metric(sample, "millpond_in_flight_bytes")),
        (
            "bytes wait in the network, and no more should than",
            (connections + OTHER_CONNECTIONS) * CONNECTION_BYTES,
            |s| s.buffered as f64,
        ),
        // Each may leave one behind that has not timed out yet.
        ("MQTT connections are open, and there should be at most", 2 * connections + OTHER_CONNECTIONS, |sample| {
            metric(sample, "millpond_mqtt_connections")
        }),
    ];
    for (what, limit, value) in limits {
        let mut over = Tally::default();
        for sample in node.samples.iter().filter(|sample| value(sample) > limit as f64) {
            over.add(|| format!("at {} {} {what} {limit}", at(sample.at), value(sample)));
        }
        said.tell(&over, "samples are beyond a limit");
    }
    for class in Class::ALL {
        let bytes = journal.map_or(0, |journal| journal.usage.class(class).bytes);
        if bytes > limit(node, class).saturating_add(COMMIT_BYTES) {
            said.say(format!("class {} has {bytes} bytes at the end, of {}", class.name(), limit(node, class)));
        }
    }
}

fn limit(node: &NodeEvidence, class: Class) -> u64 {
    let retention = &node.config.retention;
    match class {
        Class::Alert => retention.alert.max_bytes,
        Class::State => retention.state.max_bytes,
        Class::Pane => retention.pane.max_bytes,
        Class::Raw => retention.raw.max_bytes,
    }
}

/// Connections that the fleets of the node need, and those that turn to it.
fn connections(node: &NodeEvidence, evidence: &Evidence) -> u64 {
    let fleets =
        evidence.scenario.fleets.iter().filter(|fleet| fleet.node == node.name || fleet.others.contains(&node.name));
    fleets.map(|fleet| u64::from(if fleet.connections > 0 { fleet.connections } else { fleet.devices })).sum()
}

pub fn metric(sample: &Sample, name: &str) -> f64 {
    sample.metrics.get(name).copied().unwrap_or_default()
}
