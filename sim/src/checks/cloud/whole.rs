//! A pane over all sites is what the panes of the sites come to, each as a node of its site tells it.
//!
//! Counts are compared, and sums as far as adding in another order lets them be the same. Of windows around the loss of a disk nothing is
//! said, nor of what may be on its way, nor of sites of several tenants.

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::window::{Pane, WindowSpec, of_site};

use super::{Delivered, agree};
use crate::{
    checks::{
        panes::{Panes, Row},
        site::{Name, describe, told_by, uncertain},
        tally::{Findings, Tally},
    },
    evidence::{Evidence, NodeEvidence},
};

/// By metric: how many values, and their sum.
type Sums = BTreeMap<String, (u64, f64)>;

/// Sums of adding in another order differ by less than this share.
const TOLERANCE: f64 = 1e-9;

/// What the sites say of one window.
#[derive(Default)]
struct Expected {
    panes: BTreeMap<Name, Sums>,
    /// Panes of which nothing is said.
    open: BTreeSet<Name>,
}

/// Returns how many panes were compared.
pub fn check(cloud: &NodeEvidence, sites: &[Delivered<'_>], evidence: &Evidence, said: &mut Findings) -> u64 {
    let Ok(reader) = cloud.reader() else { return 0 };
    let windows = cloud.config.windows.iter().zip(0u32..).filter(|(spec, _)| of_site(spec));
    if sites.is_empty() || !cloud.config.cloud.sites.is_empty() {
        return 0;
    }
    let panes = match Panes::read(&reader, &cloud.config, evidence) {
        Ok(panes) => panes,
        Err(why) => {
            said.say(format!("the panes over all sites cannot be read: {why}"));
            return 0;
        }
    };
    let (mut different, mut missing, mut compared) = (Tally::default(), Tally::default(), 0);
    for (spec, number) in windows {
        let Some(expected) = expected(spec, sites) else { continue };
        let told: BTreeMap<Name, &Row> = panes
            .merged
            .iter()
            .filter(|((window, ..), _)| *window == number)
            .map(|((_, key, start, end), row)| ((panes.names.name(*key).to_owned(), *start, *end), row))
            .collect();
        for (name, wanted) in expected.panes.iter().filter(|(name, _)| !expected.open.contains(*name)) {
            compared += 1;
            match told.get(name).map(|row| sums_of(row, &panes)) {
                Some(sums) if is_same(&sums, wanted) => {}
                Some(sums) => different.add(|| {
                    let counts = |sums: &Sums| sums.values().map(|(count, _)| count).sum::<u64>();
                    format!("{}: {} values, {} at the sites", describe(spec, name), counts(&sums), counts(wanted))
                }),
                None if wanted.values().all(|(count, _)| *count == 0) => {}
                None => missing.add(|| describe(spec, name)),
            }
        }
    }
    said.tell(&different, "panes over all sites are not what those of the sites come to");
    said.tell(&missing, "panes over all sites were not said");
    compared
}

/// `None`: nobody at one of the sites can be asked.
fn expected(spec: &WindowSpec, sites: &[Delivered<'_>]) -> Option<Expected> {
    let mut all = Expected::default();
    for delivered in sites {
        let member = agree::asked(delivered)?;
        // A site says of a window what its own definition of it says.
        let Some(own) = member.node.config.windows.iter().find(|own| own.name == spec.name) else { continue };
        let uncertain = uncertain(&delivered.site);
        for (name, pane) in told_by(member, own) {
            let is_uncertain = uncertain.iter().any(|(from, to)| name.1 <= to.0 && from.0 <= name.2);
            let is_late = name.2 / 1_000_000 >= delivered.until;
            if pane.open || is_uncertain || is_late {
                all.open.insert(name.clone());
            }
            add(all.panes.entry(name).or_default(), &pane);
        }
    }
    Some(all)
}

fn add(sums: &mut Sums, pane: &Pane) {
    for metric in &pane.metrics {
        let held = sums.entry(metric.name.clone()).or_default();
        held.0 += metric.count;
        held.1 += metric.sum.unwrap_or_default();
    }
}

fn sums_of(row: &Row, panes: &Panes) -> Sums {
    let metrics = row.metrics.iter();
    metrics
        .map(|metric| (panes.names.name(metric.name).to_owned(), (metric.count, metric.sum.unwrap_or_default())))
        .collect()
}

fn is_same(told: &Sums, wanted: &Sums) -> bool {
    let of = |sums: &Sums, name: &String| sums.get(name).copied().unwrap_or_default();
    told.keys().chain(wanted.keys()).all(|name| {
        let (told, wanted) = (of(told, name), of(wanted, name));
        told.0 == wanted.0 && (told.1 - wanted.1).abs() <= TOLERANCE * told.1.abs().max(wanted.1.abs()).max(1.0)
    })
}
