//! A reading that counts once at its site counts once in the cloud.
//!
//! The site leaves all but one of the records out that hold a reading; what it says of that is among the results that it delivers. Of
//! lives whose journals are gone nobody can say what was left out: there a reading must count in the cloud, and may more than once.

use std::collections::BTreeMap;

use super::Delivered;
use crate::{
    checks::{
        site::{Book, Reading},
        tally::{Findings, Tally},
    },
    evidence::Life,
};

#[derive(Default)]
struct Counts {
    counts: u64,
    /// A record that holds it is of a life whose journal is gone, or may be on its way.
    uncertain: bool,
    /// Of such a record that must be in the cloud.
    wanted: bool,
}

pub fn check(delivered: &Delivered<'_>, said: &mut Findings) {
    let at_site = at_site(delivered);
    let in_cloud = delivered.counts();
    let (mut missing, mut twice) = (Tally::default(), Tally::default());
    let devices = &delivered.site.evidence.witness.devices;
    for (reading, counts) in &at_site {
        let device = &devices[reading.0 as usize];
        let acked = device.readings.get(reading.1 as usize - 1).is_some_and(|sent| sent.is_acked());
        let there = in_cloud.get(reading).copied().unwrap_or_default();
        let words = || format!("{} seq {}", device.name, reading.1);
        if acked && counts.counts > 0 && counts.wanted && there == 0 {
            missing.add(words);
        }
        if counts.counts == 1 && !counts.uncertain && there > 1 {
            twice.add(words);
        }
    }
    let of = delivered.name;
    said.tell(&missing, &format!("readings that {of} has acknowledged do not count in the cloud"));
    said.tell(&twice, &format!("readings that count once in {of} count more than once in the cloud"));
}

fn at_site(delivered: &Delivered<'_>) -> BTreeMap<Reading, Counts> {
    let mut all: BTreeMap<Reading, Counts> = BTreeMap::new();
    for (life, book) in delivered.site.books() {
        let offer = delivered.on_offer(life);
        let is_gone = delivered.site.lost.contains_key(&life);
        let late_words = says_late(delivered, life, book);
        for (reading, record) in &book.readings {
            let counts = all.entry(*reading).or_default();
            counts.counts += u64::from(!book.left_out.contains(&(*record, *reading)));
            let on_its_way = book.records.get(record).is_some_and(|row| delivered.is_on_its_way(life, row.said_ms));
            counts.uncertain |= is_gone || on_its_way || late_words;
            counts.wanted |= !on_its_way && offer[1].contains(*record);
        }
    }
    all
}

/// Whether the node left something out so late that the cloud may not know of it.
fn says_late(delivered: &Delivered<'_>, life: Life, book: &Book) -> bool {
    let late = book.records.values().filter(|row| row.leaves_out);
    late.into_iter().any(|row| delivered.is_on_its_way(life, row.said_ms))
}
