//! What a node of a cloud tells of the results of sites, it tells in causal order: of each life in the order of the numbers, without
//! leaving one out, and what was said in the place of another life not before that one was told up to where it was known.
//!
//! After a restart it may tell again what it told before, from any point on; never does it begin beyond where it was. A cloud that
//! has lost its disk begins anew.

use std::collections::BTreeMap;

use millpond_core::record::Track;
use millpond_store::Replica;

use crate::{
    checks::{
        site::{sequence_of, short},
        tally::{Findings, Tally},
    },
    evidence::{Given, Life, NodeEvidence},
};

type Name<'a> = (&'a str, Life);

/// Results of each life that the cloud has, by their numbers.
struct Shelf<'a>(BTreeMap<Name<'a>, Vec<u64>>);

/// Returns how many results were told for the first time.
pub fn check(cloud: &NodeEvidence, said: &mut Findings) -> u64 {
    let shelf = match Shelf::read(cloud) {
        Ok(shelf) => shelf,
        Err(why) => {
            said.say(why);
            return 0;
        }
    };
    let mut tallies = Tallies::default();
    // How far each life was told: by this boot, and by all since the disk was new.
    let (mut now, mut ever): (BTreeMap<Name<'_>, u64>, BTreeMap<Name<'_>, u64>) = Default::default();
    let mut boot = None;
    let mut first_told = 0;
    for given in &cloud.given {
        if boot != Some(given.boot) {
            if boot.is_some_and(|(_, disks): (u32, u32)| disks != given.boot.1) {
                ever.clear();
                first_told = 0;
            }
            boot = Some(given.boot);
            now.clear();
        }
        let name: Name<'_> = (&given.site, given.life);
        for record in &given.records {
            let known = ever.get(&name).copied().unwrap_or_default();
            match now.get(&name).copied() {
                Some(last) if record.seq <= last => tallies.again.add(|| words(given, record.seq)),
                Some(last) => shelf.left_out(name, last, record.seq, &mut tallies.left_out),
                None => shelf.left_out(name, known.min(record.seq), record.seq, &mut tallies.left_out),
            }
            for (of, through) in &record.of {
                let of_name = (name.0, *of);
                let told = ever.get(&of_name).copied().unwrap_or_default();
                if *of != given.life && shelf.last(of_name, *through) > told {
                    tallies.early.add(|| format!("{}, of {} through {through}", words(given, record.seq), short(*of)));
                }
            }
            now.insert(name, record.seq);
            if record.seq > known {
                first_told += 1;
                ever.insert(name, record.seq);
            }
        }
    }
    for (name, results) in &shelf.0 {
        let told = ever.get(name).copied().unwrap_or_default();
        let untold = results.iter().filter(|seq| **seq > told).count();
        if untold > 0 {
            tallies.untold.add(|| format!("{untold} of {} of {}, told up to {told}", short(name.1), name.0));
        }
    }
    said.tell(&tallies.again, "results were told twice or out of order by one program");
    said.tell(&tallies.left_out, "results were passed over");
    said.tell(&tallies.early, "results were told before what they were computed from");
    said.tell(&tallies.untold, "lives have results that were never told");
    first_told
}

#[derive(Default)]
struct Tallies {
    again: Tally,
    left_out: Tally,
    early: Tally,
    untold: Tally,
}

fn words(given: &Given, seq: u64) -> String {
    format!("record {seq} of {} of {}, boot {}", short(given.life), given.site, given.boot.0)
}

impl<'a> Shelf<'a> {
    fn read(cloud: &'a NodeEvidence) -> Result<Shelf<'a>, String> {
        let mut all = BTreeMap::new();
        for copy in &cloud.others {
            let replica = copy.replica.as_ref().map_err(|why| format!("the copy of {}: {why}", short(copy.life)))?;
            all.insert((&*copy.site, copy.life), results(replica)?);
        }
        Ok(Shelf(all))
    }

    fn of<'s>(&'s self, name: Name<'s>) -> &'s [u64] {
        self.0.get(&name).map_or(&[], Vec::as_slice)
    }

    /// The last result up to a number.
    fn last(&self, name: Name<'_>, through: u64) -> u64 {
        let results = self.of(name);
        results[..results.partition_point(|seq| *seq <= through)].last().copied().unwrap_or_default()
    }

    /// Notes results that lie between two that were told one after the other.
    fn left_out(&self, name: Name<'_>, after: u64, before: u64, tally: &mut Tally) {
        let results = self.of(name);
        let from = results.partition_point(|seq| *seq <= after);
        for seq in results[from..].iter().take_while(|seq| **seq < before) {
            tally.add(|| format!("record {seq} of {} of {}", short(name.1), name.0));
        }
    }
}

/// Numbers without a gap from the first on: what came beyond one waits for it.
fn results(replica: &Replica) -> Result<Vec<u64>, String> {
    let through = replica.held().track(Track::Results).prefix_end();
    let mut results = sequence_of(&replica.reader(), Track::Results)?;
    results.retain(|seq| *seq <= through);
    Ok(results)
}
