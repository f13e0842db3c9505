//! What a node was told that the cloud has, the cloud has, also when the node has lost its disk since.
//!
//! A node shows how many of its records are not delivered. While that is none, all that it had when it looked last is in the cloud.
//! Asked for is what was acknowledged so long before that it had looked since: readings of devices that send to no other node.

use std::collections::BTreeSet;

use super::{Delivered, Reading};
use crate::{
    checks::tally::{Findings, Tally, at},
    evidence::{NodeEvidence, Sample},
    scenario::Fault,
};

/// A node looks more often than this, and gives up a cloud that says nothing for so long.
const LOOKS_NS: u64 = 25_000_000_000;

pub fn check(delivered: &Delivered<'_>, said: &mut Findings) {
    let (evidence, mut gone) = (delivered.site.evidence, Tally::default());
    let copied = delivered.copies.values().flat_map(|copy| copy.book.readings.keys().copied());
    let there: BTreeSet<Reading> = copied.chain(delivered.counts().into_keys()).collect();
    for (member, _) in delivered.site.members.iter().zip(&delivered.delivers).filter(|(_, delivers)| **delivers) {
        let Some(told) = last_told(delivered, member.node) else { continue };
        let devices = (0..).zip(&evidence.witness.devices);
        for (number, device) in devices.filter(|(_, device)| device.node == member.node.name) {
            if evidence.scenario.fleets.iter().any(|fleet| fleet.name == device.fleet && !fleet.others.is_empty()) {
                continue;
            }
            for (seq, sent) in (1..).zip(&device.readings).filter(|(_, sent)| sent.acked.0 < told) {
                let is_there = there.contains(&(number, seq));
                let is_rejected = delivered.site.books().any(|(_, book)| book.letters.contains(&(number, seq)));
                if !is_there && !is_rejected {
                    gone.add(|| format!("{} seq {seq}, acknowledged at {}", device.name, at(sent.acked)));
                }
            }
        }
    }
    said.tell(&gone, &format!("readings of {} were told to be in the cloud and are not", delivered.name));
}

/// What was acknowledged before this was in the cloud, by what the node showed before it lost its last disk.
fn last_told(delivered: &Delivered<'_>, node: &NodeEvidence) -> Option<u64> {
    let wipes = delivered.site.evidence.injections.iter().filter(|injection| match &injection.fault {
        Fault::Wipe { node: of, .. } => *of == node.name,
        _ => false,
    });
    let lost = wipes.map(|injection| injection.at_ns).max()?;
    let before = node.samples.iter().rev().filter(|sample| sample.at.0 < lost);
    before.into_iter().find(|sample| has_delivered_all(sample)).map(|sample| sample.at.0.saturating_sub(LOOKS_NS))
}

fn has_delivered_all(sample: &Sample) -> bool {
    let shows =
        |(name, left): (&String, &f64)| name.starts_with("millpond_uplink_undelivered_records").then_some(*left);
    let left: Vec<f64> = sample.metrics.iter().filter_map(shows).collect();
    sample.up && !left.is_empty() && left.iter().all(|left| *left == 0.0)
}
