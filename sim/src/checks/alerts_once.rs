//! Alerts go from pending to firing to resolved and never back; each is told once by identity; and a machine that broke has raised one.
//!
//! Delivery is at least once, so the same notification may come again, word for word. It errs on the side of the node where the node's
//! disk was lost, and where a receiver could not be reached shortly before the end.

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{
    alert::{Alert, AlertState},
    record::Class,
    rule::{Condition, Operator, RuleSpec, Severity},
    schema::Pattern,
    time::{Span, Timestamp},
};

use super::{
    journal::Journal,
    tally::{Findings, Tally, at, stamp, true_time},
};
use crate::{
    evidence::{Evidence, NodeEvidence},
    scenario::{Break, Fault},
    witness::{Device, Notified},
    world::core::Instant,
};

/// A webhook is tried again after five minutes at most; and a try takes its time.
const RETRIED_WITHIN_NS: u64 = 360_000_000_000;
/// An alert belongs to a break that it overlaps, give or take.
const AROUND: Span = Span::from_secs(60);

/// Returns how many notifications came more than once.
pub fn check(node: &NodeEvidence, journal: &Journal, evidence: &Evidence, said: &mut Findings) -> u64 {
    life_cycles(journal, said);
    let repeated = deliveries(node, journal, evidence, said);
    breaks(node, journal, evidence, said);
    repeated
}

/// The metrics of machines that break, which [`Journal`] is to note.
pub fn asked(node: &NodeEvidence, evidence: &Evidence) -> BTreeSet<(u32, String)> {
    let watched = watched(node, evidence);
    watched.into_iter().map(|watched| (watched.device, watched.metric)).collect()
}

fn life_cycles(journal: &Journal, said: &mut Findings) {
    let (mut back, mut shared, mut two_open) = (Tally::default(), Tally::default(), Tally::default());
    let mut known: BTreeMap<&str, &Alert> = BTreeMap::new();
    let mut open: BTreeMap<(&str, &str), &Alert> = BTreeMap::new();
    for alert in &journal.alerts {
        if let Some(before) = known.insert(&alert.id, alert) {
            if before.state > alert.state {
                back.add(|| format!("{} was {}, then {}", name(alert), before.state.name(), alert.state.name()));
            }
            if (&before.rule, &before.key, before.since) != (&alert.rule, &alert.key, alert.since) {
                shared.add(|| format!("{} and {} are both {}", name(before), name(alert), alert.id));
            }
        }
        let subject = (&*alert.rule, &*alert.key);
        if alert.state == AlertState::Resolved {
            if open.get(&subject).is_some_and(|other| other.id == alert.id) {
                open.remove(&subject);
            }
        } else if let Some(other) = open.insert(subject, alert).filter(|other| other.id != alert.id) {
            two_open.add(|| format!("{} while {} was", name(alert), name(other)));
        }
    }
    said.tell(&back, "alerts went back to an earlier state");
    said.tell(&shared, "alerts share their id");
    said.tell(&two_open, "alerts began while another of the same rule and device was open");
    let mut otherwise = Tally::default();
    for alert in &journal.alert_table {
        match known.get(&*alert.id) {
            Some(journaled) if journaled.state == alert.state => {}
            Some(journaled) => {
                otherwise.add(|| format!("{} is {}, but {}", name(alert), journaled.state.name(), alert.state.name()));
            }
            None if journal.gave_up(Class::Alert) => {}
            None => otherwise.add(|| format!("{} is not there", name(alert))),
        }
    }
    said.tell(&otherwise, "alerts are not in the journal as the table has them");
}

fn deliveries(node: &NodeEvidence, journal: &Journal, evidence: &Evidence, said: &mut Findings) -> u64 {
    let told = own_notifications(node, evidence);
    let (mut changed, mut repeated) = (Tally::default(), 0);
    let wiped = is_hit(node, evidence, |fault| matches!(fault, Fault::Wipe { .. } | Fault::LyingDisk { .. }));
    for ((receiver, key), all) in &told {
        repeated += all.len() as u64 - 1;
        if let Some(other) = all.iter().find(|other| other.body != all[0].body).filter(|_| !wiped) {
            changed.add(|| format!("{key} to {receiver} at {} and, otherwise, at {}", at(all[0].at), at(other.at)));
        }
    }
    said.tell(&changed, "notifications came again with another content");
    let latest: BTreeMap<&str, &Alert> = journal.alerts.iter().map(|alert| (&*alert.id, alert)).collect();
    let (mut untold, mut stuck) = (Tally::default(), Tally::default());
    for hook in &node.config.webhooks {
        let Some(receiver) =
            host(&hook.url).filter(|host| evidence.scenario.receivers.iter().any(|known| known == host))
        else {
            continue;
        };
        let digests: BTreeSet<(&str, i64)> =
            told.iter().filter(|((to, _), _)| *to == receiver).filter_map(digest).collect();
        let least = hook.min_severity.unwrap_or(Severity::Info);
        let reachable = was_reachable(node, receiver, evidence);
        let mut expect = |key: String, waits: bool, alert: &Alert, is_told: bool| {
            if !is_told && !waits {
                untold.add(|| format!("{key} to {receiver}: {}", name(alert)));
            } else if !is_told && reachable {
                stuck.add(|| format!("{key} to {receiver}: {}", name(alert)));
            }
        };
        for alert in latest.values().filter(|alert| alert.severity >= least) {
            let Some(notified) = alert.notified else { continue };
            if alert.digested {
                let is_told = digests.contains(&(&*alert.rule, notified.as_millis()));
                let waits = journal.outbox.iter().any(|(to, waiting)| *to == hook.name && waiting.rule == alert.rule);
                expect(format!("the digest of {}", alert.rule), waits, alert, is_told);
                continue;
            }
            let resolved = (alert.state == AlertState::Resolved).then_some("resolved");
            for what in ["firing"].into_iter().chain(resolved) {
                let key = format!("{}-{what}", alert.id);
                let waits = journal.outbox.iter().any(|(to, waiting)| *to == hook.name && waiting.id == key);
                let is_told = told.contains_key(&(receiver, &*key));
                expect(key, waits, alert, is_told);
            }
        }
    }
    said.tell(&untold, "notifications were never taken by their receiver, and wait no more");
    said.tell(&stuck, "notifications still wait though their receiver was there");
    repeated
}

/// By receiver and key, in order of time.
fn own_notifications<'a>(
    node: &NodeEvidence,
    evidence: &'a Evidence,
) -> BTreeMap<(&'a str, &'a str), Vec<&'a Notified>> {
    let alone = evidence.nodes.len() == 1;
    let is_own = |told: &&Notified| {
        let keys = told.body["alerts"].as_array().into_iter().flatten().filter_map(|alert| alert["key"].as_str());
        let mut devices = keys.filter_map(|key| evidence.witness.by_name.get(key));
        alone || devices.any(|device| evidence.witness.devices[*device as usize].node == node.name)
    };
    let mut told: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for notified in evidence.witness.notifications.iter().filter(is_own) {
        told.entry((&*notified.receiver, &*notified.key)).or_default().push(notified);
    }
    told
}

fn digest<'a>((_, all): (&(&str, &str), &Vec<&'a Notified>)) -> Option<(&'a str, i64)> {
    let body = &all.first()?.body;
    (body["kind"] == "digest").then_some((body["rule"].as_str()?, body["at"].as_i64()?))
}

/// Whether nothing stood between node and receiver for so long that every try has been made again.
fn was_reachable(node: &NodeEvidence, receiver: &str, evidence: &Evidence) -> bool {
    let since = evidence.ended.1.0.saturating_sub(RETRIED_WITHIN_NS);
    let concerns = |fault: &Fault| match fault {
        Fault::FailingReceiver { receiver: of, .. } => of == receiver,
        other => other.node() == Some(&*node.name),
    };
    let until = |at: u64, fault: &Fault| at + fault.clone().lasts_mut().map_or(0, |lasts| lasts.1.0.max(0) as u64);
    let up = node.up.last().is_none_or(|(begin, _)| begin.0 <= since);
    up && !evidence.injections.iter().any(|one| concerns(&one.fault) && until(one.at_ns, &one.fault) >= since)
}

fn is_hit(node: &NodeEvidence, evidence: &Evidence, is: impl Fn(&Fault) -> bool) -> bool {
    evidence.injections.iter().any(|one| one.fault.node() == Some(&*node.name) && is(&one.fault))
}

/// A machine that breaks, and a rule that sees it.
struct Watched<'a> {
    device: u32,
    metric: String,
    above: f64,
    rule: &'a RuleSpec,
    begin: Timestamp,
    end: Timestamp,
    every: Span,
}

fn watched<'a>(node: &'a NodeEvidence, evidence: &Evidence) -> Vec<Watched<'a>> {
    let mut found = Vec::new();
    for fleet in evidence.scenario.fleets.iter().filter(|fleet| fleet.node == node.name) {
        for broken in fleet.breaks.iter().filter(|broken| broken.fault == "bearing_wear") {
            for rule in &node.config.rules {
                let (Some(above), Some((device, name))) =
                    (vibration_above(&rule.when), device_of(broken, &fleet.name, evidence))
                else {
                    continue;
                };
                if !rule.device_types.is_empty()
                    && !type_of(name, node).is_some_and(|of| rule.device_types.contains(of))
                {
                    continue;
                }
                let time = |span: Span| true_time(Instant(span.0.max(0) as u64));
                let (begin, end) = (time(broken.at), time(broken.repaired));
                found.push(Watched {
                    device,
                    metric: "vibration".to_owned(),
                    above,
                    rule,
                    begin,
                    end,
                    every: fleet.every,
                });
            }
        }
    }
    found
}

fn device_of<'a>(broken: &Break, fleet: &str, evidence: &'a Evidence) -> Option<(u32, &'a str)> {
    let is = |device: &Device| {
        device.fleet == fleet && (device.name == broken.device || device.name == format!("{fleet}-{}", broken.device))
    };
    let at = evidence.witness.devices.iter().position(is)?;
    Some((at as u32, &evidence.witness.devices[at].name))
}

fn type_of<'a>(device: &str, node: &'a NodeEvidence) -> Option<&'a String> {
    let is = |patterns: &[String]| patterns.iter().any(|pattern| Pattern::new(pattern).matches(device));
    node.config.device_types.iter().find(|spec| is(&spec.devices)).map(|spec| &spec.name)
}

/// `vibration > x`, as a threshold or as an expression.
fn vibration_above(condition: &Condition) -> Option<f64> {
    match condition {
        Condition::Threshold { metric, op: Operator::Above, value, .. } if metric == "vibration" => Some(*value),
        Condition::Expression { expr } => {
            expr.strip_prefix("vibration")?.trim_start().strip_prefix('>')?.trim().parse().ok()
        }
        _ => None,
    }
}

fn breaks(node: &NodeEvidence, journal: &Journal, evidence: &Evidence, said: &mut Findings) {
    let excused =
        |fault: &Fault| matches!(fault, Fault::Wipe { .. } | Fault::LyingDisk { .. } | Fault::FlipBits { .. });
    if journal.gave_up(Class::Alert) || journal.gave_up(Class::Raw) || is_hit(node, evidence, excused) {
        return;
    }
    let (mut missing, mut many) = (Tally::default(), Tally::default());
    for watched in watched(node, evidence) {
        let Some(series) = journal.series.get(&(watched.device, watched.metric.clone())) else { continue };
        let device = &evidence.witness.devices[watched.device as usize].name;
        let around = watched.begin.saturating_sub(AROUND)..=watched.end.saturating_add(AROUND);
        let within: Vec<_> = series.iter().filter(|(time, _)| around.contains(time)).copied().collect();
        let overlaps = |alert: &&Alert| {
            let end = alert.cleared.or(alert.resolved).unwrap_or(Timestamp::MAX);
            alert.fired.is_some() && alert.since <= *around.end() && end >= *around.start()
        };
        let own = journal.alerts.iter().filter(|alert| *alert.rule == *watched.rule.name && *alert.key == **device);
        let latest: BTreeMap<&str, &Alert> = own.map(|alert| (&*alert.id, alert)).collect();
        let fired = latest.values().copied().filter(overlaps).count();
        let (stretches, longest) = stretches(&within, watched.above);
        let where_ = || {
            let (from, to) = (stamp(watched.begin), stamp(watched.end));
            format!("{device} broke from {from} to {to}; rule {} fired {fired} times", watched.rule.name)
        };
        if fired == 0 && longest > watched.rule.hold.0 + 2 * watched.every.0 {
            missing.add(|| format!("{}, though it held for {}", where_(), Span(longest)));
        } else if fired > stretches.max(1) {
            many.add(|| format!("{}, and it began to hold {stretches} times", where_()));
        }
    }
    said.tell(&missing, "machines broke and no alert fired");
    said.tell(&many, "machines raised more alerts than they broke");
}

/// How often the values rise above the limit, in the order of the journal, and the longest time for which they stay, which counts only
/// as long as time goes forward.
fn stretches(series: &[(Timestamp, f64)], above: f64) -> (usize, i64) {
    let (mut count, mut longest, mut begin) = (0, 0, None::<Timestamp>);
    let mut last = Timestamp::MIN;
    for (time, value) in series {
        if *value <= above {
            begin = None;
            continue;
        }
        if begin.is_none() {
            count += 1;
        }
        let from = *begin.filter(|_| *time >= last).get_or_insert(*time);
        begin = Some(from);
        longest = longest.max(time.since(from).0);
        last = *time;
    }
    (count, longest)
}

/// `http://host:port/path`
fn host(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split(['/', ':', '?']).next()
}

fn name(alert: &Alert) -> String {
    format!("{} of {} since {}", alert.rule, alert.key, stamp(alert.since))
}
