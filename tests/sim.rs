//! `millpond sim` as a user meets it.

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::support::MILLPOND;

/// Those of them with boxes that belong together.
const SITES: [&str; 18] = [
    "node_dies",
    "partition_heals",
    "node_wiped",
    "rolling_restart",
    "flaky_lte",
    "history_epoch",
    "expired_certificate",
    "version_skew",
    "site_to_site",
    "twenty_boxes",
    "cloud_unreachable_7d",
    "reconnect_all_sites",
    "cloud_crash_storm",
    "two_uplinks",
    "site_wiped",
    "metered_line",
    "canary_goes_bad",
    "lying_object_store",
];
const SHIPPED: [&str; 25] = [
    "offline_24h",
    "crash_storm",
    "disk_full",
    "clock_jumps",
    "reconnect_storm",
    "poison_device",
    "flash_slow",
    "node_dies",
    "partition_heals",
    "node_wiped",
    "rolling_restart",
    "flaky_lte",
    "history_epoch",
    "expired_certificate",
    "version_skew",
    "site_to_site",
    "twenty_boxes",
    "cloud_unreachable_7d",
    "reconnect_all_sites",
    "cloud_crash_storm",
    "two_uplinks",
    "site_wiped",
    "metered_line",
    "canary_goes_bad",
    "lying_object_store",
];

const SMALL: &str = r#"name = "small"
about = "A few devices and two losses of power."
duration = "40s"
settle = "15s"

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
at = "12s"
kind = "power_loss"
node = "edge"
mid_commit = true

[[fault]]
at = "25s"
kind = "power_loss"
node = "edge"
mid_commit = true
"#;

/// The power goes, and what the disk said to have written was never there.
const LYING: &str = r#"
[[fault]]
at = "2s"
kind = "lying_disk"
node = "edge"
lasts = "38s"
"#;

fn sim(dir: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(MILLPOND)
        .arg("sim")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("millpond runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last line of stdout, and the exit code.
fn last(output: &Output) -> (String, i32) {
    let line = text(&output.stdout).lines().last().unwrap_or_default().to_owned();
    (line, output.status.code().expect("it was not killed"))
}

fn write(dir: &Path, name: &str, content: &str) {
    std::fs::write(dir.join(name), content).expect("written");
}

#[test]
fn scenarios_are_listed_and_one_can_be_had_as_a_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let list = text(&sim(dir.path(), &["list"], "").stdout);
    for name in SHIPPED {
        assert!(list.contains(name), "{list}");
    }
    let one = sim(dir.path(), &["list", "crash_storm"], "");
    write(dir.path(), "my.toml", &text(&one.stdout));
    let run = sim(
        dir.path(),
        &[
            "run",
            "my.toml",
            "--seed",
            "3",
            "--set",
            "duration=20s",
            "--set",
            "settle=10s",
            "--set",
            "expect.power_losses=0",
            "--set",
            "expect.power_losses_mid_commit=0",
        ],
        "",
    );
    assert_eq!(run.status.code(), Some(0), "{}{}", text(&run.stdout), text(&run.stderr));
    let unknown = sim(dir.path(), &["run", "crash_strom"], "");
    assert!(text(&unknown.stderr).contains("crash_storm"), "{}", text(&unknown.stderr));
    assert_ne!(unknown.status.code(), Some(0));
}

#[test]
fn two_processes_play_the_same_run_and_two_seeds_do_not() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "small.toml", SMALL);
    let play = |seed: &str| last(&sim(dir.path(), &["run", "small.toml", "--seed", seed], ""));
    let (line, code) = play("7");
    assert_eq!(code, 0, "{line}");
    assert!(line.starts_with("scenario=small seed=7 hash=") && line.ends_with(" promises=kept"), "{line}");
    assert_eq!(play("7"), (line.clone(), 0));
    let other = play("8").0;
    assert_ne!(other.split_whitespace().nth(2), line.split_whitespace().nth(2));
    let check = sim(dir.path(), &["run", "small.toml", "--seed", "7", "--check"], "");
    assert!(text(&check.stderr).contains("both runs are the same"), "{}", text(&check.stderr));
    assert_eq!(last(&check), (line, 0));
}

#[test]
fn each_shipped_scenario_is_the_same_run_in_two_processes() {
    let dir = tempfile::tempdir().unwrap();
    for name in SHIPPED {
        // A site is asked whether it agrees after a minute without trouble.
        let settle = if SITES.contains(&name) { "settle=70s" } else { "settle=20s" };
        let args = ["run", name, "--seed", "1", "--set", "duration=1m", "--set", settle, "--set", "expect={}"];
        let (line, code) = last(&sim(dir.path(), &args, ""));
        assert_eq!((code, last(&sim(dir.path(), &args, "")).0), (0, line.clone()), "{line}");
    }
}

#[test]
fn a_broken_promise_leaves_a_trace_that_is_replayed_stepped_through_and_shrunk() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "lying.toml", &format!("{SMALL}{LYING}"));
    let run = sim(dir.path(), &["run", "lying.toml", "--seed", "5", "--report", "lying.json"], "");
    let (line, code) = last(&run);
    assert_eq!(code, 1, "{line}");
    assert!(line.ends_with("promises=broken") && text(&run.stdout).contains("✗ nothing_lost"), "{}", text(&run.stdout));

    let trace = "millpond-sim-small-5.toml";
    let again = sim(dir.path(), &["replay", trace], "");
    assert_eq!(last(&again), (line.clone(), 1));
    assert!(text(&again.stderr).contains("the same run as in"), "{}", text(&again.stderr));

    let script =
        "next 3\nmark\nto fault\nshow edge\nshow floor\nevents 5\nto 20s\ndiff\nfaults\nto event 2000\nto end\n";
    let stepped = sim(dir.path(), &["replay", trace, "--step"], script);
    assert_eq!(last(&stepped), (line, 1), "looking has changed the run");
    let shown = text(&stepped.stdout);
    assert!(shown.contains("lying_disk") && shown.contains("power_loss") && shown.contains("millpond_"), "{shown}");

    let shrunk = sim(dir.path(), &["shrink", trace, "-o", "less.toml"], "");
    let less = std::fs::read_to_string(dir.path().join("less.toml"));
    let less = less.unwrap_or_else(|_| panic!("{}{}", text(&shrunk.stdout), text(&shrunk.stderr)));
    assert_eq!(less.matches("[[injection]]").count(), 2, "a lying disk and one loss of power are enough: {less}");
    assert_eq!(last(&sim(dir.path(), &["replay", "less.toml"], "")).1, 1);

    let html = sim(dir.path(), &["report", "lying.json", "--html", "lying.html"], "");
    assert_eq!(html.status.code(), Some(0), "{}", text(&html.stderr));
    let page = std::fs::read_to_string(dir.path().join("lying.html")).unwrap();
    assert!(page.contains("nothing lost") && page.contains("<svg") && !page.contains("src=\"http"), "{page}");
    assert!(text(&sim(dir.path(), &["report", "lying.json"], "").stdout).contains("small"));
}

#[test]
fn a_search_ends_with_what_was_run() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "small.toml", SMALL);
    let search = sim(dir.path(), &["search", "small.toml", "--seeds", "1..4", "--jobs", "2"], "");
    assert_eq!(last(&search), ("runs=4 broken=0".to_owned(), 0), "{}", text(&search.stderr));
    write(dir.path(), "lying.toml", &format!("{SMALL}{LYING}"));
    let search = sim(dir.path(), &["search", "lying.toml", "--seeds", "1..9", "--jobs", "1"], "");
    assert_eq!(last(&search), ("runs=1 broken=1".to_owned(), 1), "it stops at the first");
    assert!(dir.path().join("millpond-sim-small-1.toml").is_file());
}

#[test]
fn mistakes_are_named_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let complains = |content: &str, place: &str, words: &str| {
        write(dir.path(), "bad.toml", content);
        let output = sim(dir.path(), &["run", "bad.toml", "--seed", "1"], "");
        let said = text(&output.stderr);
        assert_ne!(output.status.code(), Some(0));
        assert!(said.contains(place) && said.contains(words), "{said}");
    };
    complains(&SMALL.replace("devices = 5", "devices = 5\nspeed = 3"), "17", "speed");
    complains(&SMALL.replace("size = \"10s\"", "sise = \"10s\""), "12", "size");
    complains(&SMALL.replace("node = \"edge\"\ndevices", "node = \"elsewhere\"\ndevices"), "15", "elsewhere");
}
