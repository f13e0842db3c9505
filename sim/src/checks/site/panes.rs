//! The site's pane of a window (the merge of the newest share of each node, as a node answers it from its journal and its copies) is
//! what the model makes of all readings that are stored in the site, whoever stored them, and whoever said the share of a node that was
//! gone.
//!
//! A reading that is stored twice (see [`super::twice`]) is left out by all who have it but one. A pane may be said to be open for ever when the device
//! moved on to another node; what it says must be right all the same once the device has come past its end. Of windows from around
//! the loss of a disk nothing is said: shares of it may know of events that reached no copy.

use std::collections::BTreeMap;

use millpond_actors::site_panes;
use millpond_core::{
    time::{Span, Timestamp},
    window::{GroupBy, Pane, WindowSpec},
};

use super::{Member, Site};
use crate::{
    checks::{
        model,
        panes::{Names, Told, told},
        panes_agree::differs,
        plan::{Plan, Seen, Types},
        tally::{Findings, Tally, stamp, true_time},
    },
    scenario::Fault,
    world::core::Instant,
};

/// A window is compared when its device has come so far beyond its close.
const MARGIN: Span = Span::from_secs(60);
const AROUND_LOSS: Span = Span::from_secs(60);

/// Key, start, end.
pub type Name = (String, i64, i64);

#[derive(Default)]
struct Modelled {
    windows: BTreeMap<(u32, i64), model::Window>,
    /// Greatest stamps by (key, device).
    highs: BTreeMap<(u32, u32), i64>,
}

/// What a node says of a window, from its journal and its copies.
pub fn told_by(member: &Member<'_>, spec: &WindowSpec) -> BTreeMap<Name, Pane> {
    let own = [(&member.reader, member.node.life)];
    let copies = member.copies.iter().map(|(life, copy)| (&copy.reader, *life));
    let journals: Vec<_> = own.into_iter().chain(copies).collect();
    // What cannot be read was said elsewhere.
    let panes = site_panes::of_site(spec, &journals).unwrap_or_default();
    let own = panes.into_iter().filter(|pane| !pane.merged);
    own.map(|pane| ((pane.key.clone(), pane.start.0, pane.end.0), pane)).collect()
}

pub fn describe(spec: &WindowSpec, (key, start, end): &Name) -> String {
    format!("{} of {key} from {} to {}", spec.name, stamp(Timestamp(*start)), stamp(Timestamp(*end)))
}

/// Returns how many panes were compared.
pub fn check(site: &Site<'_>, said: &mut Findings) -> u64 {
    let Some(first) = site.witnesses().next() else { return 0 };
    let (mut different, mut missing, mut unexplained) = (Tally::default(), Tally::default(), Tally::default());
    let mut compared = 0;
    let types = Types::of(&first.node.config);
    let uncertain = uncertain(site);
    for spec in &first.node.config.windows {
        let plan = Plan::of(spec, &types);
        // Windows of each node alone are held against its own journal; sessions on several nodes are not joined.
        if spec.by == GroupBy::Node || plan.rules.aligned.is_none() {
            continue;
        }
        let mut names = Names::default();
        let modelled = match model(site, &plan, &types, spec, &mut names) {
            Ok(modelled) => modelled,
            Err(error) => {
                said.say(format!("the site's events cannot be read: {error}"));
                continue;
            }
        };
        let told = told_by(first, spec);
        let is_known = |start: i64, end: i64| !uncertain.iter().any(|(from, to)| start <= to.0 && from.0 <= end);
        for ((key, start), window) in &modelled.windows {
            let highs = modelled.highs.range((*key, 0)..=(*key, u32::MAX)).map(|(_, high)| *high);
            let high = if spec.by == GroupBy::Device { highs.max() } else { highs.min() };
            let past = plan.rules.is_closed(window.end, high.unwrap_or(i64::MIN).saturating_sub(MARGIN.0));
            if !past || !is_known(*start, window.end) {
                continue;
            }
            let name: Name = (names.name(*key).to_owned(), *start, window.end);
            let Some(pane) = told.get(&name).filter(|pane| !pane.metrics.is_empty()) else {
                if window.metrics.iter().any(|(_, acc)| acc.count + acc.skipped > window.less) {
                    missing.add(|| describe(spec, &name));
                }
                continue;
            };
            compared += 1;
            let metrics: Vec<Told> =
                pane.metrics.iter().map(|metric| self::told(names.enter(&metric.name), metric)).collect();
            if let Some((metric, what)) = differs(window, &metrics, false) {
                let open = if pane.open { ", open" } else { "" };
                different.add(|| {
                    format!(
                        "{}, revision {}{open}: of {}, {what}",
                        describe(spec, &name),
                        pane.revision,
                        names.name(metric)
                    )
                });
            }
        }
        for (name, pane) in told.iter().filter(|(_, pane)| !pane.metrics.is_empty()) {
            let key = names.enter(&name.0);
            let is_explained = modelled.windows.get(&(key, name.1)).is_some_and(|window| window.end == name.2);
            if !is_explained && is_known(pane.start.0, pane.end.0) {
                unexplained.add(|| describe(spec, name));
            }
        }
    }
    said.tell(&different, "panes of the site differ from the events that are stored in it");
    said.tell(&missing, "windows of the site have no pane though their time is past");
    said.tell(&unexplained, "panes of the site have no stored events");
    compared
}

fn model(
    site: &Site<'_>,
    plan: &Plan,
    types: &Types,
    spec: &WindowSpec,
    names: &mut Names,
) -> Result<Modelled, String> {
    let mut modelled = Modelled::default();
    site.each_batch(|life, record, batch| {
        let left_out = site.journals.get(&life).map(|(_, book)| &book.left_out);
        let devices = types.devices(batch, &site.evidence.witness);
        plan.read((batch, &devices), types, names, |Seen { key, device, seq, time, values }| {
            let high = modelled.highs.entry((key, device)).or_insert(i64::MIN);
            *high = (*high).max(time);
            let is_out = |seq| left_out.is_some_and(|all| all.contains(&(record, (device, seq))));
            let counts = values.is_some() && !seq.is_some_and(is_out);
            for (start, end) in plan.rules.windows(time).filter(|_| counts) {
                window(&mut modelled, key, start, end).add(time, values.unwrap_or_default());
            }
        });
    })?;
    // A late event is in no window that its node had closed by then; which of several, it does not say.
    for late in site.books().flat_map(|(_, book)| &book.late).filter(|late| late.window == spec.name) {
        let key = names.enter(&late.key);
        for (start, end) in plan.rules.windows(late.time.0) {
            window(&mut modelled, key, start, end).less += 1;
        }
    }
    Ok(modelled)
}

fn window(modelled: &mut Modelled, key: u32, start: i64, end: i64) -> &mut model::Window {
    modelled.windows.entry((key, start)).or_insert_with(|| model::Window { end, ..model::Window::default() })
}

/// Stretches of event time of which journals that are gone may have held more than their copies.
pub fn uncertain(site: &Site<'_>) -> Vec<(Timestamp, Timestamp)> {
    let member = |name: &str| site.members.iter().any(|member| member.node.name == name);
    let lost = site.evidence.injections.iter().filter_map(|injection| match &injection.fault {
        Fault::Wipe { node, .. } if member(node) => {
            let at = true_time(Instant(injection.at_ns));
            Some((at.saturating_sub(AROUND_LOSS), at.saturating_add(AROUND_LOSS)))
        }
        _ => None,
    });
    lost.collect()
}
