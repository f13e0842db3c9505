//! A cloud and a site that delivers to it, and what careless changes would do to them.

use millpond_core::planted::{Bug, plant};

use super::{Outcome, run};
use crate::promise::Promise;

/// A cloud and a site of one or two boxes; what the case needs stands in for the words in capitals.
const CLOUD: &str = r#"
name = "a_cloud"
about = "A cloud and a site."
duration = "120s"
settle = "90s"
watch = "2s"

[[node]]
name = "above"
site = "cloud"
cloud = true
trusts = [{ site = "mill", classes = [] }]

[[node]]
name = "north"
site = "mill"
trusts = [{ site = "cloud", classes = ["alert", "state", "pane", "raw"], uplink = true }]
config = { checkpoint = { every = "5s" }, site = { replicas = 1, ack = "local" }, windows = [{ name = "ten", size = "10s", lateness = "10m" }] CONFIG }
MATE

[[fleet]]
name = "a"
node = "north"
devices = 4
every = "500ms"
FAULTS
"#;

const SOUTH: &str = r#"
[[node]]
name = "south"
site = "mill"
trusts = [{ site = "cloud", classes = ["alert", "state", "pane", "raw"], uplink = true }]
config = { checkpoint = { every = "5s" }, site = { replicas = 1, ack = "local" }, windows = [{ name = "ten", size = "10s", lateness = "10m" }] }

[[fleet]]
name = "b"
node = "south"
devices = 4
every = "500ms"
"#;

fn text(config: &str, mate: &str, faults: &str) -> String {
    CLOUD.replace("CONFIG", config).replace("MATE", mate).replace("FAULTS", faults)
}

/// Seeds until the bug is found, at most 20.
fn hunt(bug: Bug, promise: Promise, text: &str) {
    let sound = run(text, 1);
    assert!(sound.report.kept(), "without the bug: {:#?}", sound.report.broken);
    let found = |seed: u64| -> bool {
        plant(Some(bug));
        let Outcome { report, .. } = run(text, seed);
        plant(None);
        let mut broken = report.broken.iter().filter(|broken| broken.promise == Some(promise));
        broken.next().inspect(|broken| println!("{bug:?}: seed {seed}: {}", broken.detail)).is_some()
    };
    assert!((1..=20).any(found), "{bug:?} was not found within 20 seeds");
}

#[test]
fn what_a_site_has_arrives_in_the_cloud() {
    let cut = "[[fault]]\nat = \"20s\"\nkind = \"partition\"\nnode = \"above\"\nlasts = \"40s\"";
    let outcome = run(&text("", SOUTH, cut), 1);
    assert!(outcome.report.kept(), "{:#?}", outcome.report.broken);
    let counts = &outcome.report.counts;
    assert!(counts.in_cloud > 500 && counts.given > 50 && counts.agreed > 50, "{counts:#?}");
}

/// With the first seed texts come to a node of the canary from another one, and alerts fire there, before it hears of the order; with the
/// second one a node takes back what another one writes, because that is what the cloud had told it before the line broke; with the
/// third one power goes when the alerts of new texts are on disk.
#[test]
fn a_canary_that_is_noisy_before_it_knows_why_loses_it() {
    super::keeps("canary_goes_bad", Promise::CanaryFirst, &[46, 30, 85]);
}

/// The disk of a box is lost while it cannot reach the cloud, and it has shown before what the cloud does not have.
#[test]
fn what_is_not_delivered_is_shown_while_the_cloud_is_away() {
    super::keeps("site_wiped", Promise::LedgerCloses, &[32]);
}

/// What a program holds in circles would fill the memory of a search.
#[test]
fn nothing_of_a_world_outlives_it() {
    let storm =
        "[[fault]]\nevery = [\"20s\", \"30s\"]\nkind = \"power_loss\"\nnode = \"above\"\ndown = [\"1s\", \"2s\"]";
    let plan = super::plan(&text("", SOUTH, storm));
    let options = crate::rehearsal::Options { seed: 1, ..Default::default() };
    let rehearsal = crate::rehearsal::Rehearsal::new(plan, options);
    let core = std::sync::Arc::downgrade(rehearsal.world().core());
    let Outcome { report, evidence } = rehearsal.run();
    assert!(report.counts.in_cloud > 0, "{:#?}", report.counts);
    drop(evidence);
    assert_eq!(core.strong_count(), 0);
}

#[test]
fn a_receipt_before_the_commit_is_found() {
    // The cloud's disk takes its time; what it had not written is lost on both sides.
    let faults = r#"
[[fault]]
at = "20s"
kind = "slow_disk"
node = "above"
sync = ["80s", "90s"]
lasts = "80s"

[[fault]]
at = "75s"
kind = "power_loss"
node = "above"
down = "3s"

[[fault]]
at = "75s"
kind = "wipe"
node = "north"
down = "3s"
"#;
    hunt(Bug::ReceiptBeforeCommit, Promise::LedgerCloses, &text("", "", faults));
}

#[test]
fn results_that_do_not_wait_for_what_they_were_computed_from_are_found() {
    // South dies while nobody can reach the cloud, and north speaks for it.
    let faults = r#"
[[fault]]
at = "25s"
kind = "partition"
node = "above"
lasts = "80s"

[[fault]]
at = "35s"
kind = "power_loss"
node = "south"
down = "85s"
"#;
    hunt(Bug::ApplyBeforeAfter, Promise::CausalOrder, &text("", SOUTH, faults));
}

#[test]
fn forgotten_receipts_of_what_was_given_up_are_found() {
    // What is given up while the cloud cannot be reached never gets there.
    let config = ", retention = { raw = { max_bytes = 16384, max_age = \"1d\", floor_bytes = 4096 } }";
    let cut = "[[fault]]\nat = \"20s\"\nkind = \"partition\"\nnode = \"above\"\nlasts = \"90s\"";
    // The panes of what was given up cannot be compared.
    let text = text(config, "", cut).replace("watch = \"2s\"", "watch = \"2s\"\npromises = [\"ledger_closes\"]");
    hunt(Bug::ForgetDropRanges, Promise::LedgerCloses, &text);
}

#[test]
fn a_line_of_which_only_deliveries_are_counted_is_found() {
    let budget = "uplink = true, budget = { rate = 400 }";
    let lossy = "[[fault]]\nat = \"10s\"\nkind = \"link\"\nnode = \"above\"\nloss = 0.1\nlasts = \"30m\"";
    let text = text("", "", lossy).replace("uplink = true", budget).replace("120s", "30m");
    let text = text.replace("devices = 4", "devices = 12");
    let text = text.replace("watch = \"2s\"", "watch = \"10s\"\npromises = [\"budget_is_true\"]");
    hunt(Bug::ForgetWhatIsCarried, Promise::BudgetIsTrue, &text);
}

#[test]
fn a_box_that_does_not_see_its_time_run_out_is_found() {
    let config = ", retention = { raw = { max_bytes = 600000, max_age = \"1d\", floor_bytes = 4096 } }";
    let cut = "[[fault]]\nat = \"18m\"\nkind = \"partition\"\nnode = \"above\"\nlasts = \"25m\"";
    let text = text(config, "", cut).replace("120s", "45m");
    let text = text.replace("watch = \"2s\"", "watch = \"10s\"\npromises = [\"budget_is_true\"]");
    hunt(Bug::TellTimeAsOfLastContact, Promise::BudgetIsTrue, &text);
}

#[test]
fn definitions_that_do_not_wait_for_the_first_site_are_found() {
    let text = crate::scenario::shipped("canary_goes_bad").unwrap().text;
    hunt(Bug::EverybodyIsCanary, Promise::CanaryFirst, text);
}

/// The cloud moves what is settled into its archive at once.
fn archiving(text: &str, config: &str) -> String {
    let cloud = "cloud = true\nconfig = { cloud = { archive_every = \"3s\" CONFIG } }\n";
    text.replace("cloud = true\n", &cloud.replace("CONFIG", config))
}

#[test]
fn what_is_archived_and_asked_for_twice_is_found() {
    hunt(Bug::ServeBorderTwice, Promise::OnceInTheLake, &archiving(&text("", "", ""), ""));
}

#[test]
fn copies_that_forget_before_the_manifest_are_found() {
    // Copies forget once a minute, and most of what the store is asked for is not done then.
    let poor = "[[fault]]\nat = \"30s\"\nkind = \"poor_store\"\nnode = \"above\"\nrefused = 0.7\nlasts = \"80s\"";
    let text = archiving(&text("", "", poor), ", hot = \"1s\"");
    hunt(Bug::ReleaseBeforeManifest, Promise::OnceInTheLake, &text);
}

#[test]
fn a_revision_that_counts_as_another_share_is_found() {
    let text = text("", SOUTH, "mischief = { disorder = 0.1, delay = \"8s\" }");
    let windows = "windows = [{ name = \"ten\", size = \"10s\", lateness = \"10m\" }]";
    let text = text.replace("cloud = true\n", &format!("cloud = true\nconfig = {{ {windows} }}\n"));
    let text = text.replace("lateness", "bound = \"1s\", lateness");
    hunt(Bug::CountRevisionTwice, Promise::EdgeAndCloudAgree, &text);
}

#[test]
fn a_store_that_lies_costs_nothing() {
    let faults = r#"
[[fault]]
at = "20s"
kind = "poor_store"
node = "above"
refused = 0.2
lied = 0.3
duplicate = 0.3
latency = ["1ms", "3s"]
lasts = "90s"

[[fault]]
every = ["10s", "20s"]
kind = "kill"
node = "above"
down = "1s"
"#;
    let text = archiving(&text("", SOUTH, faults), ", hot = \"10s\"");
    for seed in 1..=3 {
        let outcome = run(&text, seed);
        assert!(outcome.report.kept(), "seed {seed}: {:#?}", outcome.report.broken);
        let counts = &outcome.report.counts;
        assert!(counts.archived > 1000 && counts.store_failures > 5, "{counts:#?}");
    }
}

/// Three boxes with `replicas = 1`: of the events of one that is gone each of its mates has a part, or one of them all.
#[test]
fn what_only_one_mate_of_a_lost_node_has_arrives_too() {
    let west = SOUTH.replace("south", "west").replace("\"b\"", "\"c\"");
    let faults = r#"
[[fault]]
at = "20s"
kind = "partition"
node = "above"
lasts = "45s"

[[fault]]
at = "60s"
kind = "wipe"
node = "north"
down = "3s"
"#;
    let text = text("", &format!("{SOUTH}{west}"), faults).replace("replicas = 0", "replicas = 1");
    for seed in 1..=4 {
        let report = run(&text, seed).report;
        assert!(report.kept(), "seed {seed}: {:#?}", report.broken);
    }
}
