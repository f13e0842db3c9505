//! Every acknowledged reading is stored as it was sent, or lies in a dead letter, or is covered by a receipt; and the journal's own
//! numbers close: each is a record or lies in the range of a receipt.

use millpond_core::{
    record::{Class, DropReason},
    time::{Span, Timestamp},
};

use super::{
    journal::{Journal, is_excused},
    tally::{Findings, Tally, at, stamp, true_time},
};
use crate::{
    evidence::{Evidence, NodeEvidence},
    scenario::Fault,
    witness::{Device, Sent},
};

pub fn check(node: &NodeEvidence, journal: &Journal, evidence: &Evidence, said: &mut Findings) {
    // Of a site's nodes it does not matter which of them has a reading: see `site`.
    if evidence.site_of(node).is_none() {
        readings(node, journal, evidence, said);
    }
    said.tell(&journal.altered, "readings are not stored as they were sent");
    said.tell(&journal.strangers, "stored events were never sent");
    said.tell(&journal.unreadable, "records cannot be read");
    numbers(journal, said);
}

fn readings(node: &NodeEvidence, journal: &Journal, evidence: &Evidence, said: &mut Findings) {
    let (mut missing, mut too_young, mut acked) = (Tally::default(), Tally::default(), 0u64);
    for (device, kept) in evidence.witness.devices.iter().zip(&journal.devices) {
        if device.node != node.name {
            continue;
        }
        for (index, sent) in device.readings.iter().enumerate().filter(|(_, sent)| sent.is_acked()) {
            acked += 1;
            let seq = index as u64 + 1;
            if kept.has(seq) || is_excused(node, evidence, sent.acked) {
                continue;
            }
            if journal.usage.dead_letters.dropped > 0 && may_be_a_dropped_letter(node, evidence, device, sent) {
                continue;
            }
            missing.add(|| describe(device, seq, sent));
            if journal.oldest_before.is_some_and(|oldest| sent.measured > oldest) {
                too_young.add(|| describe(device, seq, sent));
            }
        }
    }
    let dropped = journal.dropped_events();
    if missing.count > dropped {
        let what = format!(
            "of {acked} acknowledged readings are nowhere, and receipts cover {dropped}; {} events are stored",
            journal.events
        );
        said.tell(&missing, &what);
    } else if !journal.was_damaged() {
        said.tell(&too_young, "acknowledged readings are not there, though older events are, and the oldest go first");
    }
}

/// Dead letters give way to newer ones by themselves, and take with them what would show that these were rejected.
fn may_be_a_dropped_letter(node: &NodeEvidence, evidence: &Evidence, device: &Device, sent: &Sent) -> bool {
    let error = node.clock_errors.iter().rev().find(|(since, _)| *since <= sent.acked).map_or(0, |(_, error)| *error);
    let latest = true_time(sent.acked).saturating_add(Span(error)).saturating_add(node.config.ingest.future_limit);
    let ahead = sent.stamp > Timestamp(latest.0.saturating_sub(Span::from_secs(10).0));
    let poison = |fault: &Fault| matches!(fault, Fault::Poison { device: of, .. } if *of == device.name);
    ahead || evidence.injections.iter().any(|injection| poison(&injection.fault))
}

pub fn numbers(journal: &Journal, said: &mut Findings) {
    said.tell(&journal.repeated_records, "records have a number that another has");
    let last = journal.next_seq.saturating_sub(1);
    let mut gaps = Tally::default();
    for (from, to) in journal.records.gaps(last) {
        // Receipts are few and wide; a gap lies in one, or in several that follow each other.
        let mut seq = from;
        while seq <= to {
            let end = journal.receipts.iter().filter(|receipt| (receipt.first..=receipt.last).contains(&seq));
            match end.map(|receipt| receipt.last).max() {
                Some(last) => seq = last + 1,
                None => break,
            }
        }
        if seq <= to {
            gaps.add(|| format!("{from} to {to}"));
        }
    }
    said.tell(&gaps, "gaps among the journal's numbers have no receipt");
    if journal.was_damaged() {
        return;
    }
    let given_up: u64 = journal.receipts.iter().map(|receipt| receipt.records).sum();
    if gaps.count == 0 && journal.records.len() + given_up != last {
        said.say(format!(
            "the journal has given {last} numbers, but holds {} records and receipts for {given_up}",
            journal.records.len()
        ));
    }
    for class in Class::ALL {
        for reason in [DropReason::Age, DropReason::Quota, DropReason::DiskFull] {
            let of = journal.receipts.iter().filter(|receipt| (receipt.class, receipt.reason) == (class, reason));
            let (records, events) =
                of.fold((0, 0), |(records, events), receipt| (records + receipt.records, events + receipt.events));
            let counted = journal.usage.class(class).dropped_for(reason);
            if (counted.records, counted.events) != (records, events) {
                said.say(format!(
                    "the store counts {} records and {} events of class {} given up for {reason:?}, receipts say {records} and {events}",
                    counted.records,
                    counted.events,
                    class.name()
                ));
            }
        }
    }
}

pub(super) fn describe(device: &Device, seq: u64, sent: &Sent) -> String {
    format!(
        "{} seq {seq}, stamped {}, measured at {}, acknowledged at {}",
        device.name,
        stamp(sent.stamp),
        at(sent.measured),
        at(sent.acked)
    )
}
