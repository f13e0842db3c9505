//! The promises of a cloud: what its node has of each site that delivers to it, against the journals and copies of that site's nodes.
//!
//! What a checker takes for known: everything heals before the end, so that a site can reach its cloud for as long as the scenario
//! settles. What was written within [`ON_ITS_WAY_MS`] before the nodes were asked to end may be on its way. What the terms keep at a site
//! is held against them by [`keeps_to_terms`](super::keeps_to_terms); here only sites are compared that let everything out.

mod agree;
mod budget;
mod canary;
mod lake;
mod ledger;
mod live;
mod once;
mod order;
mod told;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use millpond_core::record::{Class, Track};
use millpond_proto::RangeSet;
use millpond_store::Held;

use self::lake::Archived;
use super::{
    Found,
    site::{Copy, Reading, Site, short},
    tally::{Findings, true_time},
};
use crate::{
    evidence::{Evidence, Life, NodeEvidence},
    promise::{Broken, Promise},
    scenario::TrustSpec,
    world::core::Instant,
};

/// What was written in the last moments may be on its way.
const ON_ITS_WAY_MS: i64 = 15_000;

/// What the cloud has of one site, and the site itself.
struct Delivered<'a> {
    /// The cloud's node.
    cloud: &'a NodeEvidence,
    name: &'a str,
    site: Site<'a>,
    copies: BTreeMap<Life, Copy>,
    /// `None`: the cloud archives nothing.
    lake: Option<Rc<Archived>>,
    /// By number of the member: whether it delivers.
    delivers: Vec<bool>,
    /// True time from which on records may be on their way, in ms since 1970.
    until: i64,
}

/// Checks what the nodes of clouds promise of the sites that deliver to them.
pub fn check(evidence: &Evidence, found: &mut Found) -> Vec<Broken> {
    let mut broken = Vec::new();
    for spec in evidence.scenario.nodes.iter().filter(|spec| spec.cloud) {
        let (Some(cloud), Some(own)) = (evidence.node(&spec.name), &spec.site) else { continue };
        for promise in &evidence.scenario.promises {
            if *promise == Promise::CausalOrder {
                let mut said = Findings::new(*promise, &spec.name);
                found.given += order::check(cloud, &mut said);
                broken.extend(said.finish());
            }
        }
        if evidence.scenario.checks(Promise::CanaryFirst) {
            broken.extend(canary::check(cloud, evidence));
        }
        if evidence.scenario.checks(Promise::BudgetIsTrue) {
            broken.extend(budget::check(own, evidence));
        }
        let lake = match Archived::read(cloud, evidence) {
            Ok(lake) => lake.map(Rc::new),
            Err(why) => {
                let mut said = Findings::new(Promise::OnceInTheLake, &spec.name);
                said.say(why);
                broken.extend(said.finish());
                continue;
            }
        };
        found.archived += lake.as_ref().map_or(0, |lake| lake.rows());
        let mut all = Vec::new();
        for site in delivering(evidence, own) {
            let mut said = Findings::new(Promise::LedgerCloses, &spec.name);
            match Delivered::read((cloud, &lake), own, site, evidence) {
                Ok(Some(delivered)) => {
                    broken.extend(delivered.check(found));
                    all.push(delivered);
                }
                Ok(None) => {}
                Err(why) => said.say(why),
            }
            broken.extend(said.finish());
        }
        if evidence.scenario.checks(Promise::EdgeAndCloudAgree) {
            let mut said = Findings::new(Promise::EdgeAndCloudAgree, &spec.name);
            found.agreed += whole::check(cloud, &all, evidence, &mut said);
            broken.extend(said.finish());
        }
    }
    broken
}

/// The sites of which a node delivers to this cloud, and lets everything out.
fn delivering<'a>(evidence: &'a Evidence, cloud: &str) -> BTreeSet<&'a str> {
    let delivers = |name: &str| uplink_of(evidence, name, cloud).is_some_and(lets_all_out);
    evidence.nodes.iter().filter(|node| delivers(&node.name)).filter_map(|node| evidence.site_of(node)).collect()
}

/// The terms by which a node delivers to a cloud.
pub(super) fn uplink_of<'a>(evidence: &'a Evidence, node: &str, cloud: &str) -> Option<&'a TrustSpec> {
    let spec = evidence.scenario.nodes.iter().find(|spec| spec.name == node)?;
    spec.trusts.iter().find(|trust| trust.uplink && trust.site == cloud)
}

fn lets_all_out(trust: &TrustSpec) -> bool {
    Class::ALL.iter().all(|class| trust.classes.contains(class)) && trust.devices.iter().any(|device| device == "*")
}

impl<'a> Delivered<'a> {
    /// `None` when a journal of the site cannot be opened: that was said.
    fn read(
        (cloud, lake): (&'a NodeEvidence, &Option<Rc<Archived>>),
        own: &str,
        name: &'a str,
        evidence: &'a Evidence,
    ) -> Result<Option<Delivered<'a>>, String> {
        let nodes: Vec<&NodeEvidence> =
            evidence.nodes.iter().filter(|node| evidence.site_of(node) == Some(name)).collect();
        let delivers = nodes.iter().map(|node| uplink_of(evidence, &node.name, own).is_some()).collect();
        let Some(site) = Site::read(nodes, evidence)? else { return Ok(None) };
        let mut copies = BTreeMap::new();
        for copy in cloud.others.iter().filter(|copy| copy.site == name) {
            let replica = copy.replica.as_ref().map_err(|why| format!("the copy of {}: {why}", short(copy.life)))?;
            copies.insert(copy.life, Copy::read(replica, evidence)?);
        }
        let until = true_time(Instant(evidence.stopped().0)).as_millis() - ON_ITS_WAY_MS;
        Ok(Some(Delivered { cloud, name, site, copies, lake: lake.clone(), delivers, until }))
    }

    fn check(&self, found: &mut Found) -> Vec<Broken> {
        let mut broken = Vec::new();
        for promise in &self.site.evidence.scenario.promises {
            let mut said = Findings::new(*promise, &self.cloud.name);
            match promise {
                Promise::LedgerCloses => {
                    found.in_cloud += ledger::check(self, &mut said);
                    once::check(self, &mut said);
                    told::check(self, &mut said);
                }
                Promise::EdgeAndCloudAgree => found.agreed += agree::check(self, &mut said),
                Promise::OnceInTheLake => lake::check(self, &mut said),
                Promise::LiveFirst => found.live_beside_backlog += live::check(self, &mut said),
                Promise::BudgetIsTrue => {
                    let cloud = self.site.evidence.site_of(self.cloud).unwrap_or_default();
                    found.undelivered += budget::endurance(self, cloud, &mut said);
                }
                _ => {}
            }
            broken.extend(said.finish());
        }
        broken
    }

    /// Whether a record of events is archived, and gone from the copy.
    fn has_moved(&self, life: Life, seq: u64) -> bool {
        let Some(lake) = &self.lake else { return false };
        let is_copied = self.copies.get(&life).is_some_and(|copy| copy.book.records.contains_key(&seq));
        !is_copied && lake.ledger(self.name, life).contains(seq)
    }

    /// How often each reading counts in the cloud: in the lake where its ledger has the record, or else in the copy.
    fn counts(&self) -> BTreeMap<Reading, u64> {
        let mut all: BTreeMap<Reading, u64> = BTreeMap::new();
        for (life, copy) in &self.copies {
            let ledger = self.lake.as_ref().map(|lake| lake.ledger(self.name, *life)).unwrap_or_default();
            for (reading, record) in copy.book.readings.iter().filter(|(_, record)| !ledger.contains(**record)) {
                let counts = !copy.book.left_out.contains(&(*record, *reading));
                *all.entry(*reading).or_default() += u64::from(counts);
            }
        }
        for (_, _, reading, count) in self.lake.iter().flat_map(|lake| lake.rows_of_site(self.name)) {
            *all.entry(reading).or_default() += u64::from(count);
        }
        all
    }

    /// Whether the record of a life may be on its way still.
    fn is_on_its_way(&self, life: Life, said_ms: i64) -> bool {
        let said = self.site.member_of(life).map_or(said_ms, |member| member.node.true_ms(said_ms));
        said >= self.until
    }

    /// What nodes that deliver have of a life, by track: numbers that the cloud can have.
    fn on_offer(&self, life: Life) -> [RangeSet; 2] {
        let mut offer: [RangeSet; 2] = Default::default();
        let members = self.site.members.iter().zip(&self.delivers).filter(|(_, delivers)| **delivers);
        for (member, _) in members {
            if let Some(copy) = member.copies.get(&life) {
                Track::ALL.into_iter().for_each(|track| offer[track as usize].merge(&offered(&copy.held, track)));
            }
        }
        let own = self.site.journals.get(&life).filter(|(number, _)| self.delivers[*number]);
        if let Some((_, book)) = own {
            let early = |row: &&super::site::Row| self.is_on_its_way(life, row.said_ms);
            let first_late = book.records.iter().find(|(_, row)| early(row)).map_or(book.next_seq, |(seq, _)| *seq);
            if first_late > 1 {
                offer.iter_mut().for_each(|track| track.insert(1, first_late - 1));
            }
        }
        offer
    }
}

fn offered(held: &Held, track: Track) -> RangeSet {
    held.offered(track)
}
