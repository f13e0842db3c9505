//! What is given to a cloud for its sites ends as the scenario says; what came back was at no site but the first ones, and is nowhere any
//! more; and the rules of the last set that was good are at all nodes.
//!
//! That definitions were at a site is seen by its alerts: the rules of a set that goes bad fire wherever they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use millpond_core::{
    alert::Alert,
    ids::Seq,
    record::{self, Class, RecordKind},
};
use serde_json::Value as Json;

use crate::{
    checks::tally::{Findings, Tally},
    evidence::{Evidence, NodeEvidence},
    promise::{Broken, Promise},
    scenario::{Ends, Range},
};

pub fn check(cloud: &NodeEvidence, evidence: &Evidence) -> Vec<Broken> {
    let mut said = Findings::new(Promise::CanaryFirst, &cloud.name);
    let scenario = &evidence.scenario;
    // A shorter run may be over before some begin.
    let begins = |at: Range| at.1 <= scenario.duration;
    let rollouts =
        || scenario.rollouts.iter().enumerate().filter(|(_, spec)| spec.node == cloud.name && begins(spec.at));
    if rollouts().next().is_none() {
        return Vec::new();
    }
    let nothing = Json::Null;
    let known = evidence.witness.asked_in_the_end.get(&cloud.name).unwrap_or(&nothing);
    let Some(known) = known["rollouts"].as_array() else {
        said.say(format!("it did not say what became of the rollouts: {known}"));
        return said.finish();
    };
    let mut wanted: Option<BTreeSet<&str>> = None;
    let mut bad: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (number, spec) in rollouts() {
        let given = match evidence.witness.rollouts.get(&number) {
            Some(Ok(given)) => *given,
            Some(Err(why)) => {
                said.say(format!("rollout {number} of the scenario could not begin: {why}"));
                continue;
            }
            None => {
                said.say(format!("nobody asked for rollout {number} of the scenario"));
                continue;
            }
        };
        let Some(found) = known.iter().find(|one| one["rollout"] == given) else {
            said.say(format!("nothing is known of rollout {number} of the scenario"));
            continue;
        };
        let (step, why) = (found["step"].as_str().unwrap_or_default(), found["why"].as_str().unwrap_or_default());
        if step != spec.ends.name() {
            said.say(format!("rollout {number} of the scenario is {step}, not {}: {why}", spec.ends.name()));
        }
        match spec.ends {
            Ends::Returned => {
                if why.is_empty() {
                    said.say(format!("rollout {number} of the scenario came back without a reason"));
                }
                let first: BTreeSet<&str> =
                    found["canaries"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
                bad.extend(spec.rules.keys().map(|rule| (rule.as_str(), first.clone())));
            }
            Ends::Done => wanted = Some(spec.rules.keys().map(String::as_str).collect()),
        }
    }
    let wanted = wanted.unwrap_or_default();
    bad.retain(|rule, _| !wanted.contains(rule));
    let spec = scenario.nodes.iter().find(|spec| spec.name == cloud.name);
    let sites: BTreeMap<&str, &str> = spec.into_iter().flat_map(|spec| scenario.delivering_to(spec)).collect();
    let (mut elsewhere, mut differing) = (Tally::default(), Tally::default());
    for (node, site) in evidence.nodes.iter().filter_map(|node| Some((node, *sites.get(node.name.as_str())?))) {
        for (rule, _) in bad.iter().filter(|(_, first)| !first.contains(site)) {
            let fired = alerts_of(node, rule);
            if fired > 0 {
                elsewhere.add(|| format!("{rule} at {}, {fired} times", node.name));
            }
        }
        let answer = evidence.witness.asked_in_the_end.get(&node.name).unwrap_or(&nothing);
        let names = answer["texts"].as_array().map(|texts| texts.iter().filter_map(|text| text["name"].as_str()));
        let names: Option<BTreeSet<&str>> = names.map(Iterator::collect);
        if names.as_ref() != Some(&wanted) {
            differing.add(|| format!("{} has {names:?}, not {wanted:?}", node.name));
        }
    }
    said.tell(&elsewhere, "rules that came back were at other sites than the first");
    said.tell(&differing, "nodes have other rules than those of the last set that was good");
    said.finish()
}

/// How often a rule has changed an alert at a node.
fn alerts_of(node: &NodeEvidence, rule: &str) -> usize {
    let Ok(reader) = node.reader() else { return 0 };
    let mut count = 0;
    let scanned = reader.scan(Class::Alert, Seq(0), |row| {
        if row.kind == RecordKind::Alerts {
            let alerts = record::decode::<Vec<Alert>>(row.payload).unwrap_or_default();
            count += alerts.iter().filter(|alert| &*alert.rule == rule).count();
        }
        ControlFlow::Continue(())
    });
    scanned.map_or(0, |()| count)
}
