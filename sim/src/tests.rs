//! Whole runs.

use crate::{
    rehearsal::{Options, Outcome, Plan, Rehearsal},
    scenario::{SHIPPED, Scenario},
};

pub fn plan(text: &str) -> Plan {
    let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let configs = scenario.nodes.iter().map(|node| node.config.clone().try_into().unwrap());
    Plan { configs: configs.collect(), scenario }
}

pub fn run(text: &str, seed: u64) -> Outcome {
    Rehearsal::new(plan(text), Options { seed, ..Options::default() }).run()
}

const SMALL: &str = r#"
name = "small"
about = "A few devices and a power loss."
duration = "60s"
settle = "20s"

[[node]]
name = "edge"

[[node.config.windows]]
name = "ten"
kind = "tumbling"
size = "10s"

[[fleet]]
node = "edge"
devices = 5

[[fault]]
at = "20s"
kind = "power_loss"
node = "edge"
mid_commit = true
"#;

#[test]
fn shipped_scenarios_can_be_read() {
    for scenario in SHIPPED {
        let plan = plan(scenario.text);
        assert_eq!(plan.scenario.name, scenario.name);
    }
}

#[test]
fn a_small_run_keeps_its_promises() {
    let outcome = run(SMALL, 1);
    println!("{:#?}", outcome.report);
    assert!(outcome.report.kept());
    assert_eq!(outcome.report.counts.measured, outcome.report.counts.acknowledged);
}
