//! Boxes of a site find each other, copy records, and go on for each other.

use millpond_core::planted::{Bug, plant};

use super::run;
use crate::promise::Promise;

/// Three boxes, two fleets that turn to other boxes when theirs is gone; what befalls them stands for `FAULTS`.
const SITE: &str = r#"
name = "site"
about = "Three boxes of a site."
duration = "60s"
settle = "90s"
watch = "5s"
SCENARIO
NODES

[[fleet]]
name = "a"
node = "north"
others = ["south", "west"]
devices = 4
every = "500ms"

[[fleet]]
name = "b"
node = "south"
others = ["west", "north"]
devices = 4
every = "500ms"
FAULTS
"#;

const NODE: &str = r#"
[[node]]
name = "NAME"
site = "mill"

[node.config]
site = { replicas = 1, ack = "ACK" }
checkpoint.every = "5s"

[[node.config.windows]]
name = "ten"
kind = "tumbling"
size = "10s"
bound = "1s"
lateness = "10m"
aggregates = ["count", "sum", "mean"]
"#;

fn site(ack: &str, scenario: &str, faults: &str) -> String {
    let nodes: String = ["north", "south", "west"].map(|name| NODE.replace("NAME", name).replace("ACK", ack)).concat();
    SITE.replace("SCENARIO", scenario).replace("NODES", &nodes).replace("FAULTS", faults)
}

#[test]
fn three_boxes_become_a_site() {
    let outcome = run(&site("site", "", ""), 1);
    for node in &outcome.evidence.nodes {
        let last = node.samples.last().expect("it was watched");
        let of = |name: &str| last.metrics.iter().filter(|(key, _)| key.starts_with(name)).collect::<Vec<_>>();
        println!("{}: {:?}", node.name, of("millpond_site"));
        println!("{:?}", node.failed_starts);
    }
    println!("{:#?}", outcome.report.counts);
    assert!(outcome.report.kept(), "{:#?}", outcome.report.broken);
    for node in &outcome.evidence.nodes {
        let last = node.samples.last().expect("it was watched");
        assert_eq!(last.metrics.get("millpond_site_members"), Some(&3.0), "{}", node.name);
        assert_eq!(last.metrics.get("millpond_site_links"), Some(&2.0), "{}", node.name);
    }
}

/// Nothing is broken without the bug, and with it the promise is, with one of a few seeds.
fn hunt(bug: Bug, promise: Promise, text: &str) {
    let sound = run(text, 1);
    assert!(sound.report.kept(), "without the bug: {:#?}", sound.report.broken);
    let found = |seed: u64| {
        plant(Some(bug));
        let report = run(text, seed).report;
        plant(None);
        let mut broken = report.broken.iter().filter(|broken| broken.promise == Some(promise));
        broken.next().inspect(|broken| println!("{bug:?}: seed {seed}: {}", broken.detail)).is_some()
    };
    assert!((1..=20).any(found), "{bug:?} was not found within 20 seeds");
}

#[test]
fn a_stranger_who_is_believed_is_found() {
    let stranger = r#"
[[node]]
name = "stranger"
stranger_to = "mill"

[[fleet]]
name = "c"
node = "stranger"
devices = 2
"#;
    hunt(Bug::SkipIdentityCheck, Promise::NobodyImpersonates, &site("local", "", stranger));
}

#[test]
fn a_node_that_keeps_what_a_repair_brought_to_itself_is_found() {
    // What north wrote reaches west by way of south only, and then north has lost it.
    let faults = r#"
[[fault]]
at = "10s"
kind = "partition"
node = "north"
whom = "west"
lasts = "80s"

[[fault]]
at = "40s"
kind = "wipe"
node = "north"
down = "5s"
"#;
    hunt(Bug::ForgetToAnnounce, Promise::Converges, &site("site", "", faults));
}

#[test]
fn what_is_left_out_altogether_is_taken_back() {
    let mut plan = super::plan(crate::scenario::shipped("partition_heals").expect("it is shipped").text);
    plan.scenario = plan.scenario.brief();
    for seed in [30, 39] {
        let options = crate::rehearsal::Options { seed, ..Default::default() };
        let report = crate::rehearsal::Rehearsal::new(plan.clone(), options).run().report;
        assert_ne!(report.holds(crate::promise::Promise::PanesAgree), Some(false), "{seed}: {:#?}", report.broken);
    }
}
