//! When nothing was done to a node, so that it has no excuse.

use super::stays_bounded::metric;
use crate::{
    evidence::{Evidence, NodeEvidence},
    scenario::Fault,
    world::core::Instant,
};

/// How long a node has, after a fault or a start, to be itself again.
pub const RECOVERY_NS: u64 = 60_000_000_000;

/// Stretches of time with an excuse: sorted, apart from each other.
#[derive(Debug)]
pub struct Troubled(Vec<(u64, u64)>);

impl Troubled {
    /// By faults, starts and, when asked, refusals.
    pub fn of(node: &NodeEvidence, evidence: &Evidence, refusals: bool) -> Troubled {
        let restart = evidence.scenario.nodes.iter().find(|spec| spec.name == node.name);
        let restart = restart.map_or(0, |spec| spec.restart.0.max(0) as u64);
        // What befalls one node of a site concerns all of them: they wait for its copies, and take its devices.
        let mates = evidence.mates(node);
        let is_mate = |name: &str| mates.iter().any(|mate| mate.name == name);
        let fleets =
            |name: &str| evidence.scenario.fleets.iter().any(|fleet| fleet.name == name && is_mate(&fleet.node));
        let concerns = |fault: &Fault| fault.node().is_some_and(is_mate) || fault.fleet().is_some_and(fleets);
        let of_fault = |(at, fault): (u64, &Fault)| {
            let lasts = fault.clone().lasts_mut().map_or(0, |lasts| lasts.1.0.max(0) as u64);
            (at, at + lasts + restart + RECOVERY_NS)
        };
        let faults = evidence.injections.iter().map(|injection| (injection.at_ns, &injection.fault));
        let mut all: Vec<(u64, u64)> = faults.filter(|(_, fault)| concerns(fault)).map(of_fault).collect();
        let starts = mates.iter().flat_map(|mate| &mate.up);
        all.extend(starts.map(|(begin, _)| (begin.0.saturating_sub(restart), begin.0 + RECOVERY_NS)));
        if refusals {
            let watch = evidence.scenario.watch.0.max(0) as u64;
            let refusing = node.samples.iter().filter(|sample| metric(sample, "millpond_journal_refusing") > 0.0);
            all.extend(refusing.map(|sample| (sample.at.0.saturating_sub(watch), sample.at.0 + watch + RECOVERY_NS)));
        }
        all.sort_unstable();
        let mut apart: Vec<(u64, u64)> = Vec::new();
        for (from, to) in all {
            match apart.last_mut().filter(|last| last.1 >= from) {
                Some(last) => last.1 = last.1.max(to),
                None => apart.push((from, to)),
            }
        }
        Troubled(apart)
    }

    /// The stretch that `at` lies in.
    pub fn at(&self, at: Instant) -> Option<usize> {
        let after = self.0.partition_point(|(from, _)| *from <= at.0);
        after.checked_sub(1).filter(|last| at.0 <= self.0[*last].1)
    }

    /// The last stretch that began before `at`.
    pub fn before(&self, at: Instant) -> Option<usize> {
        self.0.partition_point(|(from, _)| *from <= at.0).checked_sub(1)
    }

    /// Whether there is no excuse in all of `from..=to`.
    pub fn is_calm(&self, from: Instant, to: Instant) -> bool {
        self.at(from).is_none() && self.before(from) == self.before(to)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
