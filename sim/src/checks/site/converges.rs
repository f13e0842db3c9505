//! At the end every node of a site holds all results of all origins, the events are with as many nodes as were asked for, and all answer
//! alike.

use std::collections::BTreeMap;

use millpond_core::{ids::Origin, record::Track, window::Pane};

use super::{Member, Site, panes, short};
use crate::{
    checks::tally::{Findings, Tally, true_time},
    world::core::Instant,
};

/// A node that was up for so long before the end has caught up.
const SETTLED_NS: u64 = 60_000_000_000;
/// What was written in the last moments may be on its way.
const ON_ITS_WAY_NS: u64 = 15_000_000_000;

pub fn check(site: &Site<'_>, said: &mut Findings) {
    let is_settled = |member: &&Member<'_>| is_settled(site, member);
    let settled: Vec<&Member<'_>> = site.members.iter().filter(is_settled).collect();
    if settled.len() < site.members.len() {
        let names: Vec<&str> = site.members.iter().map(|member| &*member.node.name).collect();
        said.say(format!("of {names:?} only {} were up for the last minute", settled.len()));
    }
    records(site, &settled, said);
    let witnesses: Vec<&Member<'_>> = site.witnesses().filter(is_settled).collect();
    homes(site, &witnesses, said);
    panes_alike(&witnesses, said);
}

/// Whether a member was up for long enough to have caught up.
pub fn is_settled(site: &Site<'_>, member: &Member<'_>) -> bool {
    let stopped = site.evidence.stopped();
    let last = member.node.up.last();
    last.is_some_and(|(begin, end)| begin.0.saturating_add(SETTLED_NS) <= stopped.0 && *end >= stopped)
}

fn records(site: &Site<'_>, settled: &[&Member<'_>], said: &mut Findings) {
    let (mut results, mut raw) = (Tally::default(), Tally::default());
    let until = Instant(site.evidence.stopped().0.saturating_sub(ON_ITS_WAY_NS));
    let until = true_time(until).as_millis();
    for (life, book) in site.books() {
        let others: Vec<&&Member<'_>> = settled.iter().filter(|member| member.node.life != life).collect();
        let own = site.journals.get(&life).map(|(number, _)| &site.members[*number]);
        for (seq, row) in book.records.iter().filter(|(_, row)| row.said_ms < until) {
            let has =
                |member: &&&Member<'_>| member.copies.get(&life).is_some_and(|copy| copy.accounts_for(row.class, *seq));
            let lacking = others.iter().filter(|member| !has(member));
            match row.class.track() {
                // A journal that is gone is of no use to its own node, which has another one.
                Track::Results => {
                    for member in lacking.filter(|member| member.node.life.0 != life.0) {
                        results.add(|| {
                            let (at, class) = (&member.node.name, row.class.name());
                            format!("at {at}, record {seq} ({class}) of {}", short(life))
                        });
                    }
                }
                Track::Raw => {
                    let Some(own) = own else { continue };
                    let held = others.iter().filter(|member| has(member)).count();
                    let wanted = site.replicas_of(own).min(others.len());
                    if held < wanted {
                        raw.add(|| format!("record {seq} of {}, {held} of {wanted}", own.node.name));
                    }
                }
            }
        }
    }
    said.tell(&results, "results of other nodes did not arrive");
    said.tell(&raw, "records of events are on fewer other nodes than were asked for");
}

/// Where each device is at home, by the later move.
fn homes(site: &Site<'_>, settled: &[&Member<'_>], said: &mut Findings) {
    let of = |member: &Member<'_>| {
        let mut homes: BTreeMap<&str, (u64, Origin)> = BTreeMap::new();
        let own =
            site.journals.iter().filter(|(life, _)| life.0 == member.node.life.0).map(|(life, (_, book))| (life, book));
        let copies = member.copies.iter().map(|(life, copy)| (life, &copy.book));
        for (life, book) in own.chain(copies) {
            for home in &book.homes {
                let known = homes.entry(&home.device).or_insert((home.moves, life.0));
                *known = (*known).max((home.moves, life.0));
            }
        }
        homes.into_iter().map(|(device, home)| (device.to_owned(), home)).collect::<BTreeMap<_, _>>()
    };
    let Some((first, others)) = settled.split_first() else { return };
    let known = of(first);
    let mut different = Tally::default();
    for member in others {
        for (device, home) in of(member) {
            if known.get(&device) != Some(&home) {
                different.add(|| format!("{device}, for {} and for {}", first.node.name, member.node.name));
            }
        }
    }
    said.tell(&different, "devices are at home at different nodes, depending on who is asked");
}

fn panes_alike(settled: &[&Member<'_>], said: &mut Findings) {
    let Some((first, others)) = settled.split_first() else { return };
    let mut different = Tally::default();
    for spec in &first.node.config.windows {
        let known = panes::told_by(first, spec);
        for member in others {
            let told = panes::told_by(member, spec);
            for (name, pane) in &told {
                if known.get(name) != Some(pane) {
                    different.add(|| {
                        let (one, other) = (&first.node.name, &member.node.name);
                        let known = known.get(name).map_or_else(|| "nothing".to_owned(), said_in_short);
                        let name = panes::describe(spec, name);
                        format!("{name}: {known} by {one}, {} by {other}", said_in_short(pane))
                    });
                }
            }
            for name in known.keys().filter(|name| !told.contains_key(*name)) {
                different.add(|| format!("{} is not known to {}", panes::describe(spec, name), member.node.name));
            }
        }
    }
    said.tell(&different, "panes are told differently by two nodes");
}

fn said_in_short(pane: &Pane) -> String {
    let metrics: Vec<String> =
        pane.metrics.iter().map(|metric| format!("{} {} {:?}", metric.name, metric.count, metric.sum)).collect();
    let open = if pane.open { "open" } else { "closed" };
    format!("revision {} ({open}; {})", pane.revision, metrics.join(", "))
}
