//! The cloud has every record of a site that a node which delivers has, as its origin wrote it, and its accounts say so.

use millpond_cluster::cloud::account_of;
use millpond_core::record::{Class, Track};

use super::{Delivered, short};
use crate::{
    checks::{
        site::{Book, Copy},
        tally::{Findings, Tally},
    },
    evidence::Life,
};

#[derive(Default)]
struct Tallies {
    missing: Tally,
    other: Tally,
    made_up: Tally,
    ahead: Tally,
    hollow: Tally,
    strangers: Tally,
    accounts: Tally,
}

/// Returns how many records were compared.
pub fn check(delivered: &Delivered<'_>, said: &mut Findings) -> u64 {
    let (mut tallies, mut compared) = (Tallies::default(), 0);
    for (life, book) in delivered.site.books() {
        compared += compare(delivered, life, book, &mut tallies);
    }
    for (life, copy) in &delivered.copies {
        if !delivered.site.is_of_member(*life) {
            tallies.strangers.add(|| short(*life));
            continue;
        }
        nothing_made_up(delivered, *life, copy, &mut tallies);
        account(delivered, *life, copy, &mut tallies);
    }
    let of = delivered.name;
    said.tell(&tallies.missing, &format!("records of {of} are on a disk there and not in the cloud"));
    said.tell(&tallies.other, &format!("records of {of} are not what their origins wrote"));
    said.tell(&tallies.made_up, &format!("records of {of} were written by nobody"));
    said.tell(&tallies.ahead, &format!("copies cover numbers that no node of {of} has given"));
    said.tell(&tallies.hollow, &format!("records of {of} are not in copies that cover their numbers"));
    said.tell(&tallies.strangers, &format!("lives are of nobody in {of}"));
    said.tell(&tallies.accounts, &format!("accounts of {of} are wrong"));
    compared
}

/// Each record that can be delivered is in the cloud.
fn compare(delivered: &Delivered<'_>, life: Life, book: &Book, tallies: &mut Tallies) -> u64 {
    let (offer, copy) = (delivered.on_offer(life), delivered.copies.get(&life));
    let mut compared = 0;
    for (seq, row) in &book.records {
        let covered = copy.is_some_and(|copy| copy.held.track(row.class.track()).contains(*seq));
        let words = || format!("record {seq} ({}) of {}", row.class.name(), short(life));
        match copy.and_then(|copy| copy.book.records.get(seq)) {
            Some(theirs) => {
                compared += 1;
                if (theirs.class, theirs.digest) != (row.class, row.digest) {
                    tallies.other.add(words);
                }
            }
            None if covered && row.class == Class::Raw && delivered.has_moved(life, *seq) => compared += 1,
            None if covered => tallies.hollow.add(words),
            None => {
                let wanted = offer[row.class.track() as usize].contains(*seq);
                if wanted && !delivered.is_on_its_way(life, row.said_ms) {
                    tallies.missing.add(words);
                }
            }
        }
    }
    compared
}

/// What is in the cloud was written by the life's node, as far as its journal is there to ask; a reading was measured in any case.
fn nothing_made_up(delivered: &Delivered<'_>, life: Life, copy: &Copy, tallies: &mut Tallies) {
    if let Some((_, journal)) = delivered.site.journals.get(&life) {
        for (seq, row) in &copy.book.records {
            if !journal.records.contains_key(seq) && !journal.gave_up(row.class, *seq) {
                tallies.made_up.add(|| format!("record {seq} ({}) of {}", row.class.name(), short(life)));
            }
        }
        for track in Track::ALL {
            let last = copy.held.track(track).last();
            if last >= journal.next_seq.max(1) {
                tallies.ahead.add(|| format!("{} of {} up to {last}", track.name(), short(life)));
            }
        }
    }
    let devices = &delivered.site.evidence.witness.devices;
    for (device, seq) in copy.book.readings.keys() {
        if devices[*device as usize].readings.len() < *seq as usize {
            tallies.made_up.add(|| format!("{} seq {seq} in {}", devices[*device as usize].name, short(life)));
        }
    }
}

/// The line of a life adds up, nothing is missing, and nothing is at the site that could have come.
fn account(delivered: &Delivered<'_>, life: Life, copy: &Copy, tallies: &mut Tallies) {
    let read = account_of(&copy.reader).and_then(|account| {
        let stats = copy.reader.stats().map_err(|error| error.to_string())?;
        let class = |class: &millpond_store::ClassUsage| {
            class.records + class.dropped.iter().map(|dropped| dropped.records).sum::<u64>()
        };
        let gone =
            |class: &millpond_store::ClassUsage| class.dropped.iter().map(|dropped| dropped.records).sum::<u64>();
        Ok((account, stats.classes.iter().map(class).sum::<u64>(), gone(stats.class(Class::Raw))))
    });
    let (account, stored, gone) = match read {
        Ok(read) => read,
        Err(why) => return tallies.accounts.add(|| format!("{}: {why}", short(life))),
    };
    let covered = Track::ALL.map(|track| copy.held.track(track));
    let line = account.line(covered, stored);
    let mut wrong = |what: String| tallies.accounts.add(|| format!("{}: {what}", short(life)));
    if line.sum() != line.records {
        wrong(format!("the parts come to {}, of {} records", line.sum(), line.records));
    }
    // What is archived may have gone from the copy.
    let there = copy.book.records.len() as u64 + gone;
    if line.delivered != there {
        wrong(format!("{} records are said to be there, and {there} are", line.delivered));
    }
    let floor = copy.held.class_floor(Class::Raw).0;
    let archived = delivered.lake.as_ref().map(|lake| lake.ledger(delivered.name, life)).unwrap_or_default();
    if gone > 0 && copy.held.track(Track::Raw).iter().any(|(first, last)| !archived.covers(first, last.min(floor))) {
        wrong(format!("{gone} records have gone from the copy, up to {floor}, and not all are archived"));
    }
    if line.missing > 0 {
        wrong(format!("{} of {} records are missing", line.missing, line.records));
    }
    if line.aggregated > 0 {
        wrong(format!("{} records are said to stay by the terms", line.aggregated));
    }
    // What no node has that delivers cannot come any more.
    let offer = delivered.on_offer(life);
    let mut known = Track::ALL.map(|track| covered[track as usize].clone());
    Track::ALL.into_iter().for_each(|track| known[track as usize].merge(&offer[track as usize]));
    let beyond = line.records.saturating_sub(known[0].intersection(&known[1]).count());
    if line.at_site > beyond {
        wrong(format!("{} of {} records are said to be at the site, at most {beyond} are", line.at_site, line.records));
    }
    if let Some((_, journal)) = delivered.site.journals.get(&life) {
        expired(&line.expired.values().sum::<u64>(), (copy, gone), journal, &mut wrong);
    }
}

/// What is told to have been given up is what the journal has receipts for and the cloud has not.
fn expired(told: &u64, (copy, gone): (&Copy, u64), journal: &Book, wrong: &mut impl FnMut(String)) {
    let both = copy.held.track(Track::Results).intersection(copy.held.track(Track::Raw));
    let closed = both.iter().flat_map(|(first, last)| first..=last);
    let empty = closed.filter(|seq| !copy.book.records.contains_key(seq)).count() as u64;
    let empty = empty.saturating_sub(gone);
    let given_up: u64 = journal.receipts.iter().map(|receipt| receipt.records).sum();
    if *told != empty || empty > given_up {
        wrong(format!(
            "{told} records are said to be given up; {empty} are not there, and there are receipts for {given_up}"
        ));
    }
}
