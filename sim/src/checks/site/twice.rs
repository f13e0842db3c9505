//! A reading stands once in all journals of a site.
//!
//! There is one exception, which is counted and not held against the site: a node had the reading on disk and told nobody when it was cut
//! off or died, so that its device sent it again to another node, and nobody whom that node could ask knew of it. The first node comes back
//! with its record, and then there are two. So a second record is excused when
//!
//! 1. the device had no acknowledgement when it was written; or none when it had sent the reading to the second node and gave up the connection,
//!    while that node was cut off: what was on its way arrived when nobody waited for it any more, and
//! 2. everybody who had the first one by then (the node that wrote it, and those who hold a copy that was written earlier) was down or
//!    cut off at some time while the other node asked; or the other node itself was cut off or had just started.
//!
//! However it came about: when the run is over, all but one of the nodes that have a reading leave it out of their windows. Of the journals on
//! disks that were lost nothing is asked.

use std::collections::BTreeMap;

use super::{Site, book::Reading, short};
use crate::{
    checks::tally::{Findings, Tally, at, true_time},
    evidence::{Evidence, Life, NodeEvidence},
    scenario::Fault,
    world::{clock::EPOCH, core::Instant},
};

/// How long a node asks others for what they know of a device, and more.
const ASKS_NS: u64 = 7_000_000_000;
/// How long after a fault nodes may need to be linked again.
const LINKS_NS: u64 = 15_000_000_000;
const CLOCKS_NS: u64 = 1_000_000_000;
/// With fewer losses a link is a poor one, but it is there.
const CUT_LOSS: f64 = 0.5;

/// Returns how many readings are there twice with an excuse.
pub fn check(site: &Site<'_>, said: &mut Findings) -> u64 {
    let mut first: BTreeMap<Reading, (Life, u64)> = BTreeMap::new();
    let (mut excused, mut twice, mut counted, mut nowhere) = (0, Tally::default(), Tally::default(), Tally::default());
    let mut doubles: BTreeMap<Reading, u32> = BTreeMap::new();
    let cut: BTreeMap<&str, Vec<(u64, u64)>> =
        site.members.iter().map(|member| (&*member.node.name, cut_off(member.node, site.evidence))).collect();
    for (life, book) in site.books() {
        for (reading, record) in &book.readings {
            let Some(other) = first.insert(*reading, (life, *record)) else { continue };
            if [life, other.0].iter().all(|life| site.journals.contains_key(life)) {
                doubles.entry(*reading).or_default();
            }
            if is_excused(site, &cut, *reading, other, (life, *record)) {
                excused += 1;
                continue;
            }
            twice.add(|| {
                let device = &site.evidence.witness.devices[reading.0 as usize];
                let place = |(life, record): (Life, u64)| {
                    let name = site.member_of(life).map_or("nobody", |member| &member.node.name);
                    format!(
                        "record {record} of {name} ({}) at {}",
                        short(life),
                        at(Instant(written(site, (life, record))))
                    )
                };
                let acked = device.readings.get(reading.1 as usize - 1).map_or(Instant(u64::MAX), |sent| sent.acked);
                format!(
                    "{} seq {}, acknowledged at {}, in {} and in {}",
                    device.name,
                    reading.1,
                    at(acked),
                    place(other),
                    place((life, *record))
                )
            });
        }
    }
    for (life, book) in site.books() {
        for (reading, record) in &book.readings {
            if let Some(counts) = doubles.get_mut(reading) {
                let counts_there = site.lost.contains_key(&life) || !book.left_out.contains(&(*record, *reading));
                *counts += u32::from(counts_there);
            }
        }
    }
    for ((device, seq), counts) in doubles {
        let name = || format!("{} seq {seq}", site.evidence.witness.devices[device as usize].name);
        match counts {
            0 => nowhere.add(name),
            1 => {}
            _ => counted.add(name),
        }
    }
    said.tell(&twice, "readings are stored by two nodes, and the second one could have known");
    said.tell(&counted, "readings are stored by two nodes and count at both");
    said.tell(&nowhere, "readings are stored by two nodes and count at none");
    excused
}

fn is_excused(
    site: &Site<'_>,
    cut: &BTreeMap<&str, Vec<(u64, u64)>>,
    (device, seq): Reading,
    one: (Life, u64),
    other: (Life, u64),
) -> bool {
    let (first, second) = if written(site, one) <= written(site, other) { (one, other) } else { (other, one) };
    let again = written(site, second);
    let troubled = |name: &str| {
        let asked = (again.saturating_sub(ASKS_NS), again.saturating_add(CLOCKS_NS));
        cut.get(name).is_some_and(|cut| cut.iter().any(|(from, to)| *from <= asked.1 && asked.0 <= *to))
    };
    let asks = site.member_of(second.0).is_some_and(|member| troubled(&member.node.name));
    let witness = &site.evidence.witness;
    let sent = witness.devices[device as usize].readings.get(seq as usize - 1);
    if sent.is_none_or(|sent| sent.acked.0.saturating_add(CLOCKS_NS) < again) {
        let stranded = witness.stranded.get(&(device, seq));
        return asks
            && stranded.zip(site.member_of(second.0)).is_some_and(|(at, member)| at.contains(&member.node.name));
    }
    let wrote = site.member_of(first.0).is_none_or(|member| troubled(&member.node.name));
    let held = site.members.iter().filter(|member| {
        let row = member.copies.get(&first.0).and_then(|copy| copy.book.records.get(&first.1));
        row.is_some_and(|row| ns(row.written_ms) < again)
    });
    asks || wrote && held.into_iter().all(|member| troubled(&member.node.name))
}

/// When a node wrote a record, in ns of the run.
fn written(site: &Site<'_>, (life, record): (Life, u64)) -> u64 {
    let book = site.journals.get(&life).map(|(_, book)| book).or_else(|| site.lost.get(&life));
    book.and_then(|book| book.records.get(&record)).map_or(0, |row| ns(row.said_ms))
}

fn ns(ms: i64) -> u64 {
    u64::try_from(i128::from(ms) * 1_000_000 - i128::from(true_time(Instant(0)).0)).unwrap_or(0)
}

/// When nobody could ask the node anything, with the time it takes to be linked again.
pub fn cut_off(node: &NodeEvidence, evidence: &Evidence) -> Vec<(u64, u64)> {
    debug_assert_eq!(true_time(Instant(0)), EPOCH);
    let mut all: Vec<(u64, u64)> = Vec::new();
    let mut down = 0;
    for (begin, end) in &node.up {
        all.push((down, begin.0.saturating_add(LINKS_NS)));
        down = end.0;
    }
    all.push((down, u64::MAX));
    for injection in &evidence.injections {
        let cuts = match &injection.fault {
            Fault::Partition { node: of, whom, .. } => *of == node.name || whom.as_ref() == Some(&node.name),
            Fault::Link { node: of, loss, .. } => *of == node.name && *loss >= CUT_LOSS,
            _ => false,
        };
        if cuts {
            let lasts = injection.fault.clone().lasts_mut().map_or(0, |lasts| lasts.1.0.max(0) as u64);
            all.push((injection.at_ns, injection.at_ns.saturating_add(lasts).saturating_add(LINKS_NS)));
        }
    }
    all
}
