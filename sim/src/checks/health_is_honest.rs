//! A node that says it is ready takes events; one that cannot says so.
//!
//! It errs on the side of the node where a fault, a start or a refusal happened within a minute, and where a connection has older
//! readings from such a time to send first.

use super::{
    calm::{RECOVERY_NS, Troubled},
    stays_bounded::metric,
    tally::{Findings, Tally, at, stamp},
};
use crate::{
    evidence::{Evidence, NodeEvidence, Sample},
    scenario::{Fault, FleetSpec},
    witness::{Answer, Device, Probe, Sent},
    world::core::Instant,
};

/// Readings are acknowledged within this, when nothing is wrong.
const ACKED_WITHIN_NS: u64 = 60_000_000_000;

pub fn check(node: &NodeEvidence, evidence: &Evidence, said: &mut Findings) {
    answers(node, evidence, said);
    acknowledgements(node, evidence, said);
}

fn answers(node: &NodeEvidence, evidence: &Evidence, said: &mut Findings) {
    let troubled = Troubled::of(node, evidence, false);
    let (mut silent, mut not_ready, mut ready) = (Tally::default(), Tally::default(), Tally::default());
    for probe in evidence.witness.probes.iter().filter(|probe| probe.node == node.name && probe.at <= evidence.ended.1)
    {
        let refusing = refusing_around(node, probe.at);
        let calm = troubled.at(probe.at).is_none();
        match &probe.answer {
            Answer::Silent if calm => silent.add(|| at(probe.at)),
            Answer::Said { status: 200, .. } => {
                if let Some((before, after)) =
                    refusing.filter(|(before, after)| is_refusing(before) && is_refusing(after))
                    && takes_nothing(evidence, node, before.at, after.at)
                {
                    ready.add(|| format!("at {}, refusing at {} and {}", at(probe.at), at(before.at), at(after.at)));
                }
            }
            Answer::Said { status, body } if calm && !refusing.is_some_and(either_refuses) => {
                not_ready.add(|| format!("{status} at {}: {body}", at(probe.at)));
            }
            _ => {}
        }
    }
    said.tell(&silent, "questions about health had no answer though nothing was wrong");
    said.tell(&not_ready, "answers were `not ready` though nothing was wrong");
    said.tell(&ready, "answers were `ready` while new events were refused");
}

/// The samples before and after.
fn refusing_around(node: &NodeEvidence, at: Instant) -> Option<(&Sample, &Sample)> {
    let after = node.samples.partition_point(|sample| sample.at < at);
    let before = node.samples.partition_point(|sample| sample.at <= at).checked_sub(1)?;
    Some((node.samples.get(before)?, node.samples.get(after)?))
}

fn either_refuses((before, after): (&Sample, &Sample)) -> bool {
    is_refusing(before) || is_refusing(after)
}

fn is_refusing(sample: &Sample) -> bool {
    sample.up && metric(sample, "millpond_journal_refusing") > 0.0
}

/// Room may come and go within a moment: a node that took something meanwhile was ready in a way.
fn takes_nothing(evidence: &Evidence, node: &NodeEvidence, from: Instant, to: Instant) -> bool {
    let from = Instant(from.0.saturating_sub(1_000_000_000));
    let to = to.after(1_000_000_000);
    let devices = evidence.witness.devices.iter().filter(|device| device.node == node.name);
    !devices.flat_map(|device| &device.readings).any(|sent| (from..=to).contains(&sent.acked))
}

fn acknowledgements(node: &NodeEvidence, evidence: &Evidence, said: &mut Findings) {
    let troubled = Troubled::of(node, evidence, true);
    let mut slow = Tally::default();
    for fleet in evidence.scenario.fleets.iter().filter(|fleet| fleet.node == node.name && is_punctual(fleet, evidence))
    {
        let devices: Vec<&Device> = devices_of(fleet, evidence).collect();
        let free = free_after(&devices, &troubled);
        for device in &devices {
            for (index, sent) in device.readings.iter().enumerate() {
                // Readings of troubled times are sent first; if one of them never arrives, nothing can be said.
                let busy_until = troubled.before(sent.measured).map_or(Instant(0), |stretch| free[stretch]);
                let due = sent.measured.max(busy_until).after(ACKED_WITHIN_NS);
                let overdue = sent.acked > due && due < evidence.ended.1 && busy_until != Sent::NEVER;
                if overdue && troubled.is_calm(sent.measured, due) && said_ready(evidence, node, sent.measured, due) {
                    slow.add(|| {
                        format!(
                            "{} seq {}, stamped {}, measured at {}, acknowledged at {}",
                            device.name,
                            index + 1,
                            stamp(sent.stamp),
                            at(sent.measured),
                            at(sent.acked)
                        )
                    });
                }
            }
        }
    }
    said.tell(
        &slow,
        "readings were not acknowledged within a minute though the node said it was ready and nothing was wrong",
    );
}

/// A fleet whose devices send at once what they measure.
fn is_punctual(fleet: &FleetSpec, evidence: &Evidence) -> bool {
    let silenced = evidence.injections.iter().any(|injection| match &injection.fault {
        Fault::Silence { fleet: name, .. } => *name == fleet.name,
        _ => false,
    });
    fleet.mischief.silence == 0.0 && fleet.mischief.delay.0 + fleet.gather.0 < (RECOVERY_NS / 2) as i64 && !silenced
}

fn devices_of<'a>(fleet: &FleetSpec, evidence: &'a Evidence) -> impl Iterator<Item = &'a Device> {
    evidence.witness.devices.iter().filter(move |device| device.fleet == fleet.name)
}

/// For each troubled stretch: when the last reading measured until its end was acknowledged.
fn free_after(devices: &[&Device], troubled: &Troubled) -> Vec<Instant> {
    let mut free = vec![Instant(0); troubled.len()];
    for sent in devices.iter().flat_map(|device| &device.readings) {
        if let Some(stretch) = troubled.at(sent.measured) {
            free[stretch] = free[stretch].max(sent.acked);
        }
    }
    for at in 1..free.len() {
        free[at] = free[at].max(free[at - 1]);
    }
    free
}

/// Whether all answers in between were 200; a node that says otherwise is honest.
fn said_ready(evidence: &Evidence, node: &NodeEvidence, from: Instant, to: Instant) -> bool {
    let within = |probe: &&Probe| probe.node == node.name && (from..=to).contains(&probe.at);
    evidence.witness.probes.iter().filter(within).all(|probe| matches!(probe.answer, Answer::Said { status: 200, .. }))
}
