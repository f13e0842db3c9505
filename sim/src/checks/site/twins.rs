//! A change that a node has acknowledged stands in the tables of every node at the end, unless a later one of the same key replaced it.
//!
//! Each change has a value of its own, so what is found says which change it was. It may be one that was not acknowledged: such a change
//! may hold or not. What is found is wrong when an acknowledged change was surely later: it was asked for after the other was done, at
//! the same node, or later by more than the clocks of nodes differ. A node that has lost its disk took with it what it had
//! acknowledged shortly before, or cut off.

use std::{collections::BTreeMap, ops::ControlFlow};

use millpond_core::record;
use millpond_proto::{
    documents::{Documents, Kind},
    twin::Reported,
};
use millpond_store::Table;
use serde_json::Value as Json;

use super::{Member, Site, converges};
use crate::{
    checks::tally::{Findings, Tally, at},
    floor::read_rule,
    scenario::{Fault, What},
    witness::{Change, Sent},
};

/// By how much a stamp may be off beside the clock's error: what a node needs to look at it.
const LOOKS_NS: u64 = 1_000_000_000;

type Key<'a> = (What, &'a str, &'a str);

/// Returns the latest epoch of a document.
pub fn check(site: &Site<'_>, said: &mut Findings) -> u32 {
    let changes = &site.evidence.witness.changes;
    let mut keys: BTreeMap<Key<'_>, Vec<usize>> = BTreeMap::new();
    for (value, change) in changes.iter().enumerate().filter(|(_, change)| is_of(site, change)) {
        keys.entry((change.what, &change.name, &change.key)).or_default().push(value);
    }
    let apart = clocks_apart(site);
    let settled = site.members.iter().filter(|member| converges::is_settled(site, member));
    let tables: Vec<Tables<'_>> = settled.map(Tables::read).collect();
    let (mut lost, mut alien, mut differing) = (Tally::default(), Tally::default(), Tally::default());
    for (key, values) in &keys {
        let found: Vec<Option<usize>> = tables.iter().map(|tables| tables.value(*key)).collect();
        for (tables, found) in tables.iter().zip(&found) {
            let holds = found.and_then(|value| changes.get(value));
            if found.is_some_and(|found| !values.contains(&found)) {
                alien.add(|| format!("{} is {found:?} at {}", words(*key), tables.member.node.name));
                continue;
            }
            let later = values.iter().filter(|value| Some(**value) != *found).map(|value| (value, &changes[*value]));
            let mut later = later.filter(|(_, change)| is_later(change, holds, apart) && !is_excused(site, change));
            if let Some((value, change)) = later.next_back() {
                lost.add(|| {
                    let (name, done) = (&tables.member.node.name, at(change.acked));
                    let instead = found.map_or("nothing".to_owned(), |found| found.to_string());
                    format!("{} = {value}, by {} at {done}: {name} has {instead}", words(*key), change.node)
                });
            }
        }
        if let Some(at) = found.iter().position(|value| *value != found[0]) {
            let name = |at: usize| &tables[at].member.node.name;
            differing.add(|| {
                format!("{} is {:?} at {} and {:?} at {}", words(*key), found[0], name(0), found[at], name(at))
            });
        }
    }
    said.tell(&lost, "changes that were acknowledged are gone");
    said.tell(&alien, "things are what nobody said");
    said.tell(&differing, "things are told differently by two nodes");
    tables.iter().map(|tables| tables.documents.size().epoch).max().unwrap_or_default()
}

fn is_of(site: &Site<'_>, change: &Change) -> bool {
    site.members.iter().any(|member| member.node.name == change.node)
}

/// Whether an acknowledged change is later than the one that holds, whatever the clocks say.
fn is_later(change: &Change, holds: Option<&Change>, apart: u64) -> bool {
    let Some(holds) = holds else { return change.acked != Sent::NEVER };
    let slack = if change.node == holds.node { 0 } else { apart };
    change.acked != Sent::NEVER && holds.acked.0.saturating_add(slack) < change.asked.0
}

/// By how much the stamps of two nodes may differ that were made at one time, in ns.
fn clocks_apart(site: &Site<'_>) -> u64 {
    let evidence = site.evidence;
    let errors = site.members.iter().flat_map(|member| &member.node.clock_errors).map(|(_, error)| *error);
    let (least, most) = errors.fold((0_i64, 0_i64), |(least, most), error| (least.min(error), most.max(error)));
    let jumps = most.abs_diff(least);
    let always = evidence.scenario.nodes.iter().map(|node| node.clock.drift_ppm.abs());
    let sometimes = evidence.injections.iter().filter_map(|injection| match &injection.fault {
        Fault::ClockDrift { ppm, .. } => Some(ppm.abs()),
        _ => None,
    });
    let ppm = always.chain(sometimes).fold(0.0, f64::max);
    jumps + (2.0 * ppm * evidence.ended.1.0 as f64 / 1e6) as u64 + LOOKS_NS
}

/// A change that its node alone may have known when it lost its disk.
fn is_excused(site: &Site<'_>, change: &Change) -> bool {
    site.evidence.injections.iter().any(|injection| match &injection.fault {
        Fault::Wipe { node, .. } => *node == change.node && change.asked.0 <= injection.at_ns,
        _ => false,
    })
}

fn words((what, name, key): Key<'_>) -> String {
    format!("{} {name} {key}", what.name())
}

/// What a node knows, by what is on its disk.
struct Tables<'a> {
    member: &'a Member<'a>,
    documents: Documents,
    reported: BTreeMap<String, Json>,
}

impl<'a> Tables<'a> {
    fn read(member: &'a Member<'a>) -> Tables<'a> {
        let rows = |table| {
            let mut rows = Vec::new();
            let read = member.reader.range(table, b"", |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            });
            // What cannot be read is missing then.
            read.map(|()| rows).unwrap_or_default()
        };
        let documents = Documents::new(member.node.life.0, 0, rows(Table::Documents));
        let reported = rows(Table::Twins).into_iter().filter_map(|(device, row)| {
            Some((String::from_utf8(device).ok()?, record::decode::<Reported>(&row).ok()?.value()))
        });
        Tables { member, documents, reported: reported.collect() }
    }

    fn value(&self, (what, name, key): Key<'_>) -> Option<usize> {
        let number = |json: &Json| json.as_u64().and_then(|number| usize::try_from(number).ok());
        match what {
            What::Desired => number(&self.documents.desired(name)[key]),
            What::Reported => number(&self.reported.get(name)?[key]),
            What::Registry => number(&self.documents.device(name)?["place"]),
            What::Rules => read_rule(&self.documents.text(Kind::Rules, name)?),
        }
    }
}
