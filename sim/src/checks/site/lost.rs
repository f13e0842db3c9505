//! Every acknowledged reading stands in a journal of the site, or in the copies of one that is gone, or is a dead letter, or is
//! covered by a receipt. What a node acknowledged for the site stands in as many copies besides.

use millpond_actors::settings::Ack;
use millpond_core::record::Class;

use super::{Member, Site, book::Reading};
use crate::{
    checks::{
        nothing_lost::describe,
        tally::{Findings, Tally},
    },
    evidence::Life,
    scenario::Fault,
    witness::Sent,
};

pub fn check(site: &Site<'_>, said: &mut Findings) {
    let witness = &site.evidence.witness;
    let (mut missing, mut few, mut acked) = (Tally::default(), Tally::default(), 0u64);
    for (number, device) in (0..).zip(&witness.devices) {
        if !site.members.iter().any(|member| member.node.name == device.node) {
            continue;
        }
        for (seq, sent) in (1..).zip(&device.readings).filter(|(_, sent)| sent.is_acked()) {
            acked += 1;
            let at = places(site, (number, seq));
            if at.is_empty() && !is_rejected(site, (number, seq)) && !is_excused(site, sent) {
                missing.add(|| describe(device, seq, sent));
            }
            if !at.is_empty() && !at.iter().any(|(life, record)| has_enough_copies(site, *life, *record)) {
                few.add(|| describe(device, seq, sent));
            }
        }
    }
    let dropped: u64 = site
        .books()
        .flat_map(|(_, book)| &book.receipts)
        .filter(|receipt| receipt.class == Class::Raw)
        .map(|receipt| receipt.events)
        .sum();
    if missing.count > dropped {
        said.tell(
            &missing,
            &format!("of {acked} readings that the site acknowledged are nowhere in it, and receipts cover {dropped}"),
        );
    }
    said.tell(&few, "readings that were acknowledged for the site are not in as many copies as were asked for");
}

fn places(site: &Site<'_>, reading: Reading) -> Vec<(Life, u64)> {
    site.books().filter_map(|(life, book)| Some((life, *book.readings.get(&reading)?))).collect()
}

fn is_rejected(site: &Site<'_>, reading: Reading) -> bool {
    site.books().any(|(_, book)| book.letters.contains(&reading))
}

/// A node that acknowledges what is on its own disk alone takes it along when it loses the disk.
fn is_excused(site: &Site<'_>, sent: &Sent) -> bool {
    let lost = |member: &Member<'_>| {
        site.evidence.injections.iter().any(|injection| match &injection.fault {
            Fault::Wipe { node, down } => {
                *node == member.node.name && sent.acked.0 <= injection.at_ns + down.0.0.max(0) as u64
            }
            _ => false,
        })
    };
    site.members.iter().any(|member| member.node.config.site.ack == Ack::Local && lost(member))
}

/// What stands in a journal that is gone was found in a copy; of who acknowledges by itself no more was asked.
fn has_enough_copies(site: &Site<'_>, life: Life, record: u64) -> bool {
    let Some(member) = site.member_of(life) else { return true };
    if !site.journals.contains_key(&life) || member.node.config.site.ack == Ack::Local {
        return true;
    }
    let copies = site.members.iter().filter_map(|other| other.copies.get(&life));
    copies.filter(|copy| copy.accounts_for(Class::Raw, record)).count() >= site.replicas_of(member)
}
