//! Boxes of a site find each other, copy records, and go on for each other.

use millpond_core::planted::{Bug, plant};

use super::{Outcome, run};
use crate::{evidence::NodeEvidence, promise::Promise};

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

const ONLY_TWINS: &str = r#"promises = ["twin_never_lost"]"#;

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

/// Somebody changes twins, devices and rules at north all the time.
const OPERATOR: &str = r#"
[[operator]]
nodes = ["north"]
every = ["50ms", "300ms"]
changes = ["desired", "registry", "rules"]
"#;

#[test]
fn a_change_that_is_acknowledged_before_it_is_on_disk_is_found() {
    // Nobody else has it either.
    let alone = ["south", "west"].map(|whom| {
        format!(
            "[[fault]]\nat = \"5s\"\nkind = \"partition\"\nnode = \"north\"\nwhom = \"{whom}\"\nlasts = \"55s\"\n\n"
        )
    });
    let faults = r#"
[[fault]]
at = "5s"
kind = "slow_disk"
node = "north"
sync = ["20ms", "60ms"]
lasts = "55s"

[[fault]]
every = ["5s", "10s"]
from = "5s"
kind = "power_loss"
node = "north"
mid_commit = true
down = "1s"
"#;
    let text = site("local", ONLY_TWINS, &(OPERATOR.to_owned() + &alone.concat() + faults));
    hunt(Bug::ShipBeforeDurable, Promise::TwinNeverLost, &text);
}

#[test]
fn a_node_that_counts_its_changes_as_in_an_earlier_life_is_found() {
    // It comes back without its disk, and sees nobody who knows what it has said before.
    let alone = ["south", "west"].map(|whom| {
        format!(
            "[[fault]]\nat = \"20s\"\nkind = \"partition\"\nnode = \"north\"\nwhom = \"{whom}\"\nlasts = \"30s\"\n\n"
        )
    });
    let faults = r#"
[[fault]]
at = "21s"
kind = "wipe"
node = "north"
down = "1s"
"#;
    let text = site("local", ONLY_TWINS, &(OPERATOR.to_owned() + &alone.concat() + faults));
    hunt(Bug::ReuseDocumentActor, Promise::TwinNeverLost, &text);
}

#[test]
fn edits_that_do_not_go_over_into_the_next_epoch_are_found() {
    let mut text = crate::scenario::shipped("history_epoch").expect("it is shipped").text.to_owned();
    for (from, to) in [("duration = \"20m\"", "duration = \"4m\""), ("changes = 2000", ""), ("epoch = 10", "epoch = 3")]
    {
        assert!(text.contains(from));
        text = text.replace(from, to);
    }
    hunt(Bug::ForgetUnsentEdits, Promise::TwinNeverLost, &text.replace("power_losses = 15", ""));
}

#[test]
fn who_has_an_expired_certificate_gets_nowhere_until_it_is_renewed_and_loses_nothing() {
    let faults = r#"
[[fault]]
at = "20s"
kind = "partition"
node = "north"
whom = "south"
lasts = "35s"

[[fault]]
at = "20s"
kind = "partition"
node = "north"
whom = "west"
lasts = "35s"

[[fault]]
at = "45s"
kind = "restart"
node = "north"
down = "1s"
"#;
    let text = site("local", "", faults).replace("site = \"mill\"\n", "site = \"mill\"\ncertificate_life = \"40s\"\n");
    let links = |outcome: &Outcome| {
        let last = |node: &NodeEvidence| node.samples.last()?.metrics.get("millpond_site_links").copied();
        outcome.evidence.nodes.iter().map(|node| last(node).unwrap_or(-1.0)).collect::<Vec<_>>()
    };
    // Nobody issues certificates: those who were linked stay so, and north is let in by nobody.
    let nobody = run(&text, 1);
    assert_eq!(links(&nobody), [0.0, 1.0, 1.0]);
    assert_eq!(nobody.report.holds(Promise::NothingLost), Some(true), "{:#?}", nobody.report.broken);
    assert_eq!(nobody.report.holds(Promise::Converges), Some(false));
    let founded = run(&text.replace("name = \"south\"\n", "name = \"south\"\nfounder = true\n"), 1);
    assert!(founded.report.kept(), "{:#?}", founded.report.broken);
    assert_eq!(links(&founded), [2.0, 2.0, 2.0]);
    let north = founded.evidence.nodes[0].samples.iter();
    let left: Vec<f64> =
        north.filter_map(|sample| sample.metrics.get("millpond_site_certificate_seconds").copied()).collect();
    assert!(left.windows(2).any(|pair| pair[0] < 0.0 && pair[1] > 0.0), "it ran out and was renewed: {left:?}");
}

#[test]
fn with_whom_there_is_no_common_version_is_no_member_and_disturbs_nobody() {
    let text = site("local", "", "").replace("watch = \"5s\"", "watch = \"500ms\"");
    let text = text.replace("name = \"west\"\n", "name = \"west\"\nwire = \"alien\"\n");
    let text = text.replace("others = [\"south\", \"west\"]", "").replace("others = [\"west\", \"north\"]", "");
    let outcome = run(&text, 1);
    assert!(outcome.report.kept(), "{:#?}", outcome.report.broken);
    for (node, members) in outcome.evidence.nodes.iter().zip([2.0, 2.0, 1.0]) {
        let most = node.samples.iter().filter_map(|sample| sample.metrics.get("millpond_site_members").copied());
        assert_eq!(most.fold(0.0, f64::max), members, "{}", node.name);
        assert_eq!(node.samples.last().expect("it was watched").metrics["millpond_site_links"], members - 1.0);
    }
}

#[test]
fn what_is_left_out_altogether_is_taken_back() {
    super::keeps("partition_heals", Promise::PanesAgree, &[30, 39]);
}

/// With the first seed more of what the device had sent arrives at its old node between the question and the move; with the second one the old
/// node is linked again and still counts as down; with the third one each of two nodes has a part of what the old node stored.
#[test]
fn a_device_is_taken_by_one_node_while_partitions_heal() {
    super::keeps("partition_heals", Promise::NothingTwice, &[97, 221, 204]);
}

#[test]
fn boxes_find_each_other_on_the_local_network() {
    let outcome = run(&site("local", "", "").replace("replicas = 1", "seeds = [\"mdns\"], replicas = 1"), 1);
    assert!(outcome.report.kept(), "{:#?}", outcome.report.broken);
    for node in &outcome.evidence.nodes {
        assert_eq!(node.samples.last().expect("it was watched").metrics["millpond_site_links"], 2.0, "{}", node.name);
    }
}

/// The store of a node is lost, and the node is back: of what it had others have copies.
#[test]
fn a_device_of_a_node_that_lost_its_store_is_known_from_copies() {
    super::keeps("node_wiped", Promise::NothingTwice, &[93, 133, 282]);
}

/// South is cut off from its devices and from north, where they go; west sees both.
#[test]
fn a_node_that_is_linked_with_somebody_else_is_asked_through_it() {
    let cut = |whom: &str| {
        format!("[[fault]]\nat = \"20s\"\nkind = \"partition\"\nnode = \"south\"\nwhom = \"{whom}\"\nlasts = \"35s\"\n")
    };
    let storm = "[[fault]]\nat = \"21s\"\nkind = \"reconnect_storm\"\nfleet = \"b\"\n";
    let text = site("local", "", &format!("{}{}{storm}", cut("floor"), cut("north")));
    let outcome = run(&text.replace("others = [\"west\", \"north\"]", "others = [\"north\"]"), 1);
    assert!(outcome.report.kept(), "{:#?}", outcome.report.broken);
    let last =
        |node: usize, name: &str| outcome.evidence.nodes[node].samples.last().expect("it was watched").metrics[name];
    assert_eq!([0, 1, 2].map(|node| last(node, "millpond_site_unverified_devices")), [0.0; 3]);
    assert!(outcome.report.counts.reconnects >= 4, "{:?}", outcome.report.counts);
}
