//! What copies hold and say that they cover, against the journals that they are copies of.

use millpond_core::record::{Class, Track};

use super::{Copy, Site, book::Book, short};
use crate::{
    checks::tally::{Findings, Tally},
    evidence::Life,
};

/// No copy covers a number that its origin never gave, or one whose record it does not have though its origin does.
pub fn closes(site: &Site<'_>, said: &mut Findings) {
    let (mut ahead, mut hollow, mut unreadable) = (Tally::default(), Tally::default(), Tally::default());
    for member in &site.members {
        for why in &member.unreadable {
            unreadable.add(|| format!("at {}, {why}", member.node.name));
        }
        for (life, copy) in &member.copies {
            let Some((_, journal)) = site.journals.get(life) else { continue };
            for track in Track::ALL {
                let last = copy.held.track(track).last();
                if last >= journal.next_seq.max(1) {
                    ahead.add(|| {
                        let (at, track) = (&member.node.name, track.name());
                        format!("at {at}, {track} of {} up to {last}, of {}", short(*life), journal.next_seq - 1)
                    });
                }
            }
            missing(*life, copy, journal, |seq| hollow.add(|| format!("at {}, {seq}", member.node.name)));
        }
    }
    said.tell(&unreadable, "copies cannot be read");
    said.tell(&ahead, "copies cover numbers that their origins have not given");
    said.tell(&hollow, "records are not in copies that cover their numbers");
}

fn missing(life: Life, copy: &Copy, journal: &Book, mut each: impl FnMut(String)) {
    for (seq, row) in &journal.records {
        if copy.held.track(row.class.track()).contains(*seq) && !copy.accounts_for(row.class, *seq) {
            each(format!("record {seq} ({}) of {}", row.class.name(), short(life)));
        }
    }
}

/// Copies are of nodes of the site, and each record in them is one that its origin wrote.
pub fn nobody_impersonates(site: &Site<'_>, said: &mut Findings) {
    let (mut strangers, mut other, mut unknown) = (Tally::default(), Tally::default(), Tally::default());
    for member in &site.members {
        let at = &member.node.name;
        for (life, copy) in &member.copies {
            if !site.is_of_member(*life) {
                strangers.add(|| format!("at {at}, {} records of {}", copy.book.records.len(), short(*life)));
                continue;
            }
            let Some((_, journal)) = site.journals.get(life) else { continue };
            for (seq, row) in &copy.book.records {
                match journal.records.get(seq) {
                    Some(own) if (own.class, own.digest) == (row.class, row.digest) => {}
                    Some(_) => other.add(|| format!("at {at}, record {seq} of {}", short(*life))),
                    None if gave_up(journal, row.class, *seq) => {}
                    None => unknown.add(|| format!("at {at}, record {seq} ({}) of {}", row.class.name(), short(*life))),
                }
            }
        }
    }
    said.tell(&strangers, "copies are of journals of nobody in the site");
    said.tell(&other, "records in copies are not what their origins wrote");
    said.tell(&unknown, "records in copies were never written by their origins");
    for (life, book) in &site.lost {
        said.tell(&book.differing, &format!("records of {} are told differently by its copies", short(*life)));
    }
}

fn gave_up(journal: &Book, class: Class, seq: u64) -> bool {
    journal.gave_up(class, seq)
}
