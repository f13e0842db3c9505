//! Each checker finds the bug that it is there for, and says nothing of the same run without it.

use millpond_core::planted::{Bug, plant};

use super::{Outcome, run};
use crate::promise::Promise;

/// A minute and a half of a few devices; what the case needs stands in for `…`.
const SHORT: &str = r#"
name = "planted"
about = "A short run in which a planted bug shows."
duration = "90s"
settle = "20s"
watch = "5s"
receivers = ["alerts.example"]
PROMISES

[[node]]
name = "edge"
config.checkpoint.every = "3s"
CONFIG

[[node.config.windows]]
name = "five"
kind = "tumbling"
size = "5s"
bound = "1s"
lateness = "10m"
aggregates = ["count", "sum"]

[[fleet]]
node = "edge"
devices = 8
every = "250ms"
FLEET
FAULTS
"#;

const POWER_LOSSES: &str = r#"
[[fault]]
every = ["2s", "9s"]
kind = "power_loss"
node = "edge"
mid_commit = true
down = ["100ms", "2s"]
"#;

/// Seeds until the bug is found, at most 200.
fn hunt(bug: Bug, promises: &[Promise], config: &str, fleet: &str, faults: &str) {
    let names: Vec<&str> = promises.iter().map(|promise| promise.name()).collect();
    let text = SHORT.replace("PROMISES", &format!("promises = {names:?}"));
    let text = text.replace("CONFIG", config).replace("FLEET", fleet).replace("FAULTS", faults);
    let sound = run(&text, 1);
    assert!(sound.report.kept(), "without the bug: {:#?}", sound.report.broken);
    let found = |seed: u64| -> bool {
        plant(Some(bug));
        let Outcome { report, .. } = run(&text, seed);
        plant(None);
        let mut broken =
            report.broken.iter().filter(|broken| broken.promise.is_some_and(|name| promises.contains(&name)));
        broken.next().inspect(|broken| println!("{bug:?}: seed {seed}: {}", broken.detail)).is_some()
    };
    assert!((1..=200).any(found), "{bug:?} was not found within 200 seeds");
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    hunt(Bug::AckBeforeCommit, &[Promise::NothingLost], "", "", POWER_LOSSES);
}

#[test]
fn a_cursor_outside_of_the_transaction_is_found() {
    let promises = [Promise::PanesAgree, Promise::NothingTwice];
    hunt(Bug::CursorOutsideTransaction, &promises, "", "", POWER_LOSSES);
}

#[test]
fn a_forgotten_checkpoint_is_found() {
    let promises = [Promise::PanesAgree, Promise::NothingTwice];
    hunt(Bug::ForgetCheckpoint, &promises, "", "", POWER_LOSSES);
}

#[test]
fn a_future_stamp_that_moves_the_watermark_is_found() {
    let fleet = r#"mischief = { future = 0.01, future_by = "2h" }"#;
    hunt(Bug::FutureStampMovesWatermark, &[Promise::PanesAgree], "", fleet, "");
}

#[test]
fn records_dropped_without_a_receipt_are_found() {
    let config = r#"config.retention.raw = { max_bytes = 16384, max_age = "1d", floor_bytes = 4096 }"#;
    hunt(Bug::DropWithoutRecord, &[Promise::NothingLost], config, "", "");
}

#[test]
fn forgotten_duplicates_are_found() {
    let fleet = r#"mischief = { duplicate = 0.05, delay = "1s" }"#;
    hunt(Bug::ForgetDuplicates, &[Promise::NothingTwice], "", fleet, "");
}

#[test]
fn a_forgotten_quota_is_found() {
    let config = r#"config.retention.raw = { max_bytes = 16384, max_age = "1d", floor_bytes = 4096 }"#;
    hunt(Bug::ForgetQuota, &[Promise::StaysBounded], config, "", "");
}

#[test]
fn a_notification_with_a_new_identity_for_each_try_is_found() {
    let config = r#"config.webhooks = [{ name = "people", url = "http://alerts.example/hook" }]
[[node.config.rules]]
name = "vibration"
for = "2s"
when = { type = "threshold", metric = "vibration", op = ">", value = 9.0 }"#;
    let fleet = r#"breaks = [{ device = "press-0001", fault = "bearing_wear", at = "20s", repaired = "50s" }]"#;
    hunt(Bug::NewKeyForEachTry, &[Promise::AlertsOnce], config, fleet, "");
}

#[test]
fn a_node_that_always_says_it_is_ready_is_found() {
    let config = "config.store.when_full = \"refuse\"";
    let fault = r#"
[[fault]]
at = "20s"
kind = "full_disk"
node = "edge"
lasts = "50s"
"#;
    hunt(Bug::AlwaysReady, &[Promise::HealthIsHonest], config, "", fault);
}

#[test]
fn a_disk_that_lies_breaks_the_promise_and_a_repair_brings_the_node_back() {
    let faults = r#"
[[fault]]
at = "5s"
kind = "lying_disk"
node = "edge"
lasts = "60s"

[[fault]]
at = "40s"
kind = "power_loss"
node = "edge"
mid_commit = true
down = "5s"

[[fault]]
at = "60s"
kind = "repair"
node = "edge"
"#;
    let text = SHORT.replace("PROMISES", "").replace("CONFIG", "").replace("FLEET", "").replace("FAULTS", faults);
    let mut repaired = false;
    for seed in 1..=5 {
        let Outcome { report, evidence } = run(&text, seed);
        let lost = report.holds(Promise::NothingLost) == Some(false);
        assert!(lost, "seed {seed}: a lying disk lost nothing: {:#?}", report.broken);
        let node = &evidence.nodes[0];
        let outcome = &node.repairs[0].1;
        if !outcome.starts_with("the journal was repaired") {
            continue;
        }
        // It came back, took what was sent afterwards, and its ledger says that something is missing.
        let reader = node.reader().expect("the repaired journal opens");
        let stats = reader.stats().expect("readable");
        println!("seed {seed}: {outcome}; {:?}", node.failed_starts);
        assert!(report.counts.stored > 0 && evidence.witness.acknowledged() == evidence.witness.published());
        assert!(!node.failed_starts.is_empty(), "the damaged journal kept the node from starting");
        repaired |=
            stats.classes.iter().any(|class| class.dropped_for(millpond_core::record::DropReason::Damaged).records > 0);
    }
    assert!(repaired, "no run needed a repair that lost records");
}
