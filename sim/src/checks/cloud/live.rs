//! What is new comes to the cloud at once, however much from before is still to come.
//!
//! A reading is asked for when the node that acknowledged it had its connection for so long before, and until it was due: nobody was
//! down or cut off. A slow link excuses nothing, unless it loses most of what it carries.

use super::Delivered;
use crate::{
    checks::{
        site::cut_off,
        tally::{Findings, Tally, at},
    },
    world::{clock::EPOCH, core::Instant},
};

/// From acknowledgement to the disk of the cloud.
const BOUND_NS: u64 = 15_000_000_000;
/// After trouble a node calls again within this, and from then on what is new is live.
const CALLS_NS: u64 = 60_000_000_000;

/// Returns how many readings came while older ones of the same life were still to come.
pub fn check(delivered: &Delivered<'_>, said: &mut Findings) -> u64 {
    let evidence = delivered.site.evidence;
    let above = cut_off(delivered.cloud, evidence);
    let (mut late, mut beside) = (Tally::default(), 0);
    for (number, member) in delivered.site.members.iter().enumerate().filter(|(at, _)| delivered.delivers[*at]) {
        let Some(copy) = delivered.copies.get(&member.node.life) else { continue };
        let mut cut = cut_off(member.node, evidence);
        cut.extend(&above);
        let arrived =
            |record: u64| copy.book.records.get(&record).map(|row| ns(delivered.cloud.true_ms(row.written_ms)));
        // When the last of the records up to each number came.
        let mut last_of: Vec<(u64, u64)> = Vec::new();
        for (seq, row) in copy.book.records.iter().filter(|(_, row)| row.class == millpond_core::record::Class::Raw) {
            let came = ns(delivered.cloud.true_ms(row.written_ms));
            let most = last_of.last().map_or(0, |(_, most)| *most);
            last_of.push((*seq, most.max(came)));
        }
        let Some((_, journal)) = delivered.site.journals.get(&member.node.life) else { continue };
        debug_assert_eq!(delivered.site.journals[&member.node.life].0, number);
        for (reading, record) in &journal.readings {
            let device = &evidence.witness.devices[reading.0 as usize];
            let Some(sent) = device.readings.get(reading.1 as usize - 1).filter(|sent| sent.is_acked()) else {
                continue;
            };
            let due = sent.acked.0.saturating_add(BOUND_NS);
            let quiet = (sent.acked.0.saturating_sub(CALLS_NS), due);
            // When it came nobody can tell any more.
            if delivered.has_moved(member.node.life, *record) {
                continue;
            }
            let is_cut = cut.iter().any(|(from, to)| *from <= quiet.1 && quiet.0 <= *to);
            // A record that is older than the acknowledgement waited for the site, or for its device.
            let waited = ns(member.node.true_ms(journal.records[record].said_ms)) < quiet.0;
            if is_cut || waited || due > evidence.stopped().0 {
                continue;
            }
            let came = arrived(*record);
            if came.is_none_or(|came| came > due) {
                late.add(|| {
                    let came = at(Instant(came.unwrap_or(u64::MAX)));
                    format!("{} seq {}, acknowledged at {}: {came}", device.name, reading.1, at(sent.acked))
                });
                continue;
            }
            let before = last_of[..last_of.partition_point(|(seq, _)| seq < record)].last();
            beside += u64::from(before.is_some_and(|(_, most)| came.is_some_and(|came| came < *most)));
        }
    }
    said.tell(&late, &format!("readings of {} were new and came late to the cloud", delivered.name));
    beside
}

pub(super) fn ns(ms: i64) -> u64 {
    u64::try_from((ms - EPOCH.as_millis()).max(0)).unwrap_or(0).saturating_mul(1_000_000)
}
