//! The checkers: one per promise, each with the promise's name. They know what the floor saw ([`crate::witness`]), what was done to the
//! site, and what stands in the journals; they ask no node anything.
//!
//! | checker | holds against each other |
//! |---|---|
//! | `nothing_lost` | acknowledged readings; journal, dead letters and receipts |
//! | `nothing_twice` | the journal and itself |
//! | `panes_agree` | journaled panes and late events; a model that keeps every window apart and counts by hand |
//! | `stays_bounded` | sizes over time; the limits of the configuration |
//! | `alerts_once` | journaled alerts; what receivers were told, and planned faults of machines |
//! | `health_is_honest` | answers to `/readyz`; faults, refusals and acknowledgements |
//! | `converges` | the journals and copies of a site's nodes; each other |
//! | `ledger_closes` | what copies say that they cover; the journals that they are copies of |
//! | `nobody_impersonates` | records in copies; records in the journals of the nodes that are said to have written them |
//! | `twin_never_lost` | acknowledged changes of twins, devices and rules; the tables of a site's nodes |
//! | `keeps_to_terms` | copies of another site's records; its journals and what it lets leave |
//!
//! | `causal_order` | what a node of a cloud told of results; the copies that it has |
//! | `edge_and_cloud_agree` | panes as the cloud's copies tell them; as a node of the site does |
//! | `live_first` | acknowledged readings; when the cloud had them on its disk |
//! | `budget_is_true` | what went over a line, and what was given up while it was cut; what the trust file allows, and what the box said |
//! | `once_in_the_lake` | what the cloud has archived; its copies, the sites' journals, and what it answers |
//! | `canary_first` | what a cloud says of its rollouts, and nodes of their rules; the journals' alerts |
//!
//! What a cloud has of the sites that deliver to it is held against those sites' journals by `ledger_closes` too ([`cloud`]).
//!
//! Nodes of a site keep the first three together as well ([`site`]): a reading may stand in the journal of any of them, but of one.
//!
//! A checker that errs on the side of the node says where in a comment. What is not compared: standard deviations, quantiles, and
//! session windows by type or node.

mod alerts_once;
mod bits;
mod calm;
mod cloud;
mod expected;
mod health_is_honest;
mod journal;
mod keeps_to_terms;
mod letters;
mod model;
mod nothing_lost;
mod nothing_twice;
mod panes;
mod panes_agree;
mod plan;
mod site;
mod stays_bounded;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::{
    evidence::{Evidence, NodeEvidence},
    promise::{Broken, Promise},
};
pub use expected::store_failures;
use journal::Journal;
use panes::Panes;
use tally::Findings;

/// What the journals of all nodes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Events in the journals.
    pub stored: u64,
    /// Dead letters, those that gave way to newer ones included.
    pub dead_letters: u64,
    /// Receipts for records that were given up, and the events in those.
    pub receipts: u64,
    pub dropped: u64,
    /// Panes by name, without their revisions; those that were held against the model.
    pub panes: u64,
    pub panes_compared: u64,
    /// Journaled late events.
    pub late: u64,
    /// Alerts that fired.
    pub alerts: u64,
    /// Readings that two nodes of a site stored, because the second one could not know of it.
    pub stored_again: u64,
    /// The latest epoch of a document of a site.
    pub epoch: u32,
    /// Parts of records of other sites.
    pub of_other_sites: u64,
    /// Records that the cloud has and a site too; results that it told of; panes that both tell.
    pub in_cloud: u64,
    pub given: u64,
    pub agreed: u64,
    /// Readings that came to the cloud while older ones were still to come.
    pub live_beside_backlog: u64,
    /// Times that a node gave up events that its cloud does not have.
    pub undelivered: u64,
    /// Readings in archives of clouds.
    pub archived: u64,
    /// Notifications that a receiver took more than once.
    pub repeated_notifications: u64,
}

/// Checks the scenario's promises and its expectations.
pub fn check(evidence: &Evidence) -> (Vec<Broken>, Found) {
    let (mut broken, mut found) = (Vec::new(), Found::default());
    for node in &evidence.nodes {
        broken.extend(check_node(node, evidence, &mut found));
    }
    let sites: BTreeSet<&str> = evidence.nodes.iter().filter_map(|node| evidence.site_of(node)).collect();
    for name in sites {
        broken.extend(site::check(name, evidence, &mut found));
    }
    if evidence.scenario.promises.contains(&Promise::KeepsToTerms) {
        let (said, compared) = keeps_to_terms::check(evidence);
        broken.extend(said);
        found.of_other_sites = compared;
    }
    broken.extend(cloud::check(evidence, &mut found));
    broken.extend(expected::check(evidence, &found));
    (broken, found)
}

fn check_node(node: &NodeEvidence, evidence: &Evidence, found: &mut Found) -> Vec<Broken> {
    let findings = |promise| Findings::new(promise, &node.name);
    let read = || -> Result<(Journal, Panes), String> {
        let reader = node.reader().map_err(str::to_owned)?;
        let journal = Journal::read(&reader, node, evidence)?;
        let panes = Panes::read(&reader, &node.config, evidence)?;
        Ok((journal, panes))
    };
    let mut broken = Vec::new();
    let read = read();
    match &read {
        Ok((journal, panes)) => {
            found.stored += journal.events;
            found.dead_letters += journal.letters_ever();
            found.receipts += journal.receipts.len() as u64;
            found.dropped += journal.dropped_events();
            found.panes += panes.rows.len() as u64;
            found.late += panes.late.len() as u64;
            found.alerts += journal.alerts_fired();
        }
        Err(why) => {
            let mut said = findings(Promise::NothingLost);
            said.say(format!("the journal cannot be read: {why}"));
            broken.extend(said.finish());
        }
    }
    for promise in &evidence.scenario.promises {
        let mut said = findings(*promise);
        match (promise, &read) {
            (Promise::StaysBounded, read) => {
                stays_bounded::check(node, read.as_ref().ok().map(|(journal, _)| journal), evidence, &mut said);
            }
            (Promise::HealthIsHonest, _) => health_is_honest::check(node, evidence, &mut said),
            (_, Err(_)) => {}
            (Promise::NothingLost, Ok((journal, _))) => nothing_lost::check(node, journal, evidence, &mut said),
            (Promise::NothingTwice, Ok((journal, panes))) => nothing_twice::check(journal, panes, &mut said),
            (Promise::PanesAgree, Ok((journal, panes))) => {
                found.panes_compared += panes_agree::check(node, journal, panes, evidence, &mut said);
            }
            (Promise::AlertsOnce, Ok((journal, _))) => {
                found.repeated_notifications += alerts_once::check(node, journal, evidence, &mut said);
            }
            // Of sites and clouds.
            (
                Promise::Converges
                | Promise::LedgerCloses
                | Promise::NobodyImpersonates
                | Promise::TwinNeverLost
                | Promise::KeepsToTerms
                | Promise::CausalOrder
                | Promise::EdgeAndCloudAgree
                | Promise::LiveFirst
                | Promise::BudgetIsTrue
                | Promise::OnceInTheLake
                | Promise::CanaryFirst,
                Ok(_),
            ) => {}
        }
        broken.extend(said.finish());
    }
    broken
}
