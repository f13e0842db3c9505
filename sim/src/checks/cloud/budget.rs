//! The bounds of a line are kept, whatever goes over it: deliveries, receipts, questions, repetitions. And as long as a box says that it
//! can go on without its cloud, it gives up nothing that the cloud does not have.
//!
//! Bytes are counted as datagrams in the network. What keeps a connection alive goes on when the bytes of a day are used up.

use std::ops::ControlFlow;

use millpond_core::{
    budget::BudgetSpec,
    ids::Seq,
    record::{Class, DropRange, RecordKind},
};

use super::{Delivered, live::ns, uplink_of};
use crate::{
    checks::tally::{Findings, Tally, at},
    evidence::{Evidence, NodeEvidence, Sample},
    promise::{Broken, Promise},
    scenario::Fault,
    world::{clock::EPOCH, core::Instant},
};

/// Besides what the rate gives: one message of each lane, handshakes, what was counted after it went.
const BESIDES_BYTES: f64 = 64.0 * 1024.0;
const BESIDES_SECONDS: f64 = 10.0;
/// A connection that is kept alive, by what was measured.
const ALIVE_BYTES_PER_SECOND: f64 = 15.0;
const DAY_SECONDS: f64 = 86_400.0;
/// The rate is known when a box has looked at it for so long.
const WARM_NS: u64 = 900_000_000_000;
/// What is said of the time left may be too much by this share.
const SHARE: f64 = 0.25;

/// What went over the lines to a cloud.
pub fn check(cloud: &str, evidence: &Evidence) -> Vec<Broken> {
    let mut broken = Vec::new();
    for node in &evidence.nodes {
        let Some(trust) = uplink_of(evidence, &node.name, cloud) else { continue };
        let mut said = Findings::new(Promise::BudgetIsTrue, &node.name);
        if let Some(budget) = &trust.budget {
            rate(node, cloud, budget, &mut said);
            day(node, cloud, budget, &mut said);
        }
        broken.extend(said.finish());
    }
    broken
}

/// By sample: seconds and bytes.
fn line(node: &NodeEvidence, cloud: &str) -> Vec<(f64, f64)> {
    let of =
        |sample: &Sample| (sample.at.0 as f64 / 1e9, sample.carried.get(cloud).copied().unwrap_or_default() as f64);
    node.samples.iter().map(of).collect()
}

fn rate(node: &NodeEvidence, cloud: &str, budget: &BudgetSpec, said: &mut Findings) {
    let Some(rate) = budget.rate.map(|rate| rate as f64 / budget.metered.max(1.0)) else { return };
    let (mut over, mut least) = (Tally::default(), 0.0_f64);
    for (seconds, bytes) in line(node, cloud) {
        // How far the line is ahead of the rate, since it was behind it the most.
        let ahead = bytes - rate * seconds;
        if ahead - least > BESIDES_BYTES + BESIDES_SECONDS * rate {
            over.add(|| format!("at {} by {:.0}", at(Instant((seconds * 1e9) as u64)), ahead - least));
        }
        least = least.min(ahead);
    }
    said.tell(&over, &format!("times more bytes had gone over the line to {cloud} than {rate:.0} a second give"));
}

fn day(node: &NodeEvidence, cloud: &str, budget: &BudgetSpec, said: &mut Findings) {
    let Some(per_day) = budget.per_day.map(|bytes| bytes as f64 / budget.metered.max(1.0)) else { return };
    let midnight = (EPOCH.as_millis() as f64 / 1e3 + budget.offset.as_secs_f64()).rem_euclid(DAY_SECONDS);
    let (mut over, mut begun) = (Tally::default(), (0, 0.0));
    for (seconds, bytes) in line(node, cloud) {
        let day = ((seconds + midnight) / DAY_SECONDS) as u64;
        if day != begun.0 {
            begun = (day, bytes);
        }
        if bytes - begun.1 > per_day + BESIDES_BYTES + ALIVE_BYTES_PER_SECOND * DAY_SECONDS {
            over.add(|| format!("day {day}, {:.0} of {per_day:.0}", bytes - begun.1));
        }
    }
    said.tell(&over, &format!("times more bytes had gone over the line to {cloud} than a day has"));
}

/// When a box gave up events that the cloud does not have, and did not get from elsewhere later.
fn given_up(node: &NodeEvidence, delivered: &Delivered<'_>) -> Vec<u64> {
    let (Ok(reader), Some(copy)) = (node.reader(), delivered.copies.get(&node.life)) else { return Vec::new() };
    let has = |drop: &DropRange| {
        let rows = copy.book.records.range(drop.first..=drop.last);
        rows.filter(|(_, row)| row.class == Class::Raw).count() as u64
    };
    let mut given_up = Vec::new();
    let scanned = reader.scan(RecordKind::DropRange.class(), Seq(0), |row| {
        let drop = DropRange::decode(row.payload).ok().filter(|_| row.kind == RecordKind::DropRange);
        if drop.is_some_and(|drop| drop.class == Class::Raw && has(&drop) < drop.records) {
            given_up.push(ns(node.true_ms(row.written_ms)));
        }
        ControlFlow::Continue(())
    });
    if scanned.is_err() { Vec::new() } else { given_up }
}

/// Returns how often something was given up.
pub fn endurance(delivered: &Delivered<'_>, cloud: &str, said: &mut Findings) -> u64 {
    let (class, evidence) = (Class::Raw.name(), delivered.site.evidence);
    let hours = format!("millpond_uplink_offline_budget_hours{{class=\"{class}\",cloud=\"{cloud}\"}}");
    let watch = evidence.scenario.watch.as_secs_f64() / 3600.0;
    let (mut too_long, mut times) = (Tally::default(), 0);
    for member in delivered.site.members.iter() {
        let node = member.node;
        for given_up in given_up(node, delivered) {
            times += 1;
            // The cut in which it happened.
            let lasts = |fault: &Fault| fault.clone().lasts_mut().map_or(0, |lasts| lasts.1.0.max(0) as u64);
            let ends = [&node.name, &delivered.cloud.name];
            let is_cut = |fault: &Fault| match fault {
                Fault::Partition { node: of, whom, .. } => {
                    ends.contains(&of) && whom.as_ref().is_none_or(|whom| ends.contains(&whom))
                }
                _ => false,
            };
            let mut cuts = evidence.injections.iter().filter(|injection| is_cut(&injection.fault));
            let cut = cuts.find(|cut| (cut.at_ns..=cut.at_ns + lasts(&cut.fault)).contains(&given_up));
            let Some(cut) = cut else { continue };
            for sample in node.samples.iter().filter(|sample| sample.up && (cut.at_ns..given_up).contains(&sample.at.0))
            {
                let Some(hours) = sample.metrics.get(&hours) else { continue };
                let began = node.up.iter().rev().map(|(began, _)| began.0).find(|began| *began <= sample.at.0);
                let is_warm = began.is_some_and(|began| sample.at.0 - began >= WARM_NS);
                let really = (given_up - sample.at.0) as f64 / 3.6e12;
                if is_warm && hours * (1.0 - SHARE) > really + watch {
                    too_long.add(|| format!("at {} it said {hours:.2} hours, and it was {really:.2}", at(sample.at)));
                }
            }
        }
    }
    said.tell(&too_long, &format!("times a box said that it could do longer without {cloud} than it could"));
    times
}
