//! The demonstration, as somebody sees it who has just built the program.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{MILLPOND, folder, run};

/// Processes that work below a directory.
fn processes(below: &Path) -> usize {
    let below = below.to_str().expect("a path");
    let all = std::fs::read_dir("/proc")
        .expect("processes")
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    all.filter(|line| String::from_utf8_lossy(line).contains(&format!("node.data=\"{below}"))).count()
}

/// What the demo says at the end when nothing is missing anywhere.
const IN_ORDER: [&str; 4] = [
    "all three agree",
    "in the cloud: the same\npanes of mill",
    "in the cloud: the same\npanes of bakery",
    "missing 0: closed",
];

fn wait(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_node_of_the_demo_is_killed_and_nothing_is_lost() {
    let folder = folder();
    let data = folder.path().join("site");
    let said = run(Command::new(MILLPOND)
        .args(["demo", "--plain", "--for", "18s", "--kill-after", "4s", "--restart-after", "5s"])
        .args(["--machines", "20", "--rate", "200", "--data"])
        .arg(&data)
        .stderr(Stdio::null()));
    for what in IN_ORDER.into_iter().chain([
        "south died (signal: 9",
        "south is back",
        "found",
        "killed 1 times and started again 1 times",
    ]) {
        assert!(said.contains(what), "{what}\n{said}");
    }
    assert!(!said.contains("NOT "), "{said}");
    assert_eq!(processes(&data), 0, "children are left behind");
}

#[test]
fn a_site_that_was_cut_off_from_the_cloud_delivers_everything_when_the_line_is_back() {
    let folder = folder();
    let data = folder.path().join("sites");
    let said = run(Command::new(MILLPOND)
        .args(["demo", "--plain", "--for", "10s", "--cut-after", "3s", "--heal-after", "4s"])
        .args(["--machines", "12", "--rate", "200", "--data"])
        .arg(&data)
        .stderr(Stdio::null()));
    for what in IN_ORDER.into_iter().chain([
        "the line of bakery to the cloud is cut",
        "bakery (line cut) delivered",
        "the line of bakery to the cloud is there again",
        "the line of a site to the cloud was cut 1 times",
    ]) {
        assert!(said.contains(what), "{what}\n{said}");
    }
    assert!(!said.contains("NOT "), "{said}");
    // While it was cut more and more was waiting at the site.
    let cut = said.lines().filter(|line| line.contains("bakery (line cut)"));
    let left: Vec<u64> =
        cut.map(|line| number_after(line.rsplit_once("bakery").expect("a site").1, "at site ")).collect();
    assert!(left.iter().any(|left| *left > 20), "{left:?}\n{said}");
    assert_eq!(processes(&data), 0, "children are left behind");
}

fn number_after(text: &str, word: &str) -> u64 {
    let (_, after) = text.split_once(word).expect(word);
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn ctrl_c_while_the_demo_starts_leaves_nothing_behind() {
    let folder = folder();
    let mut command = Command::new(MILLPOND);
    command.args(["demo", "--plain", "--machines", "4", "--rate", "40"]).env("TMPDIR", folder.path());
    let mut demo = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait("a node that starts", || processes(folder.path()) > 0);
    run(Command::new("kill").args(["-INT", &demo.id().to_string()]));
    demo.wait().expect("it ends");
    assert_eq!(processes(folder.path()), 0, "children are left behind");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "data is left behind");
}

#[test]
fn the_nodes_of_the_demo_die_with_it() {
    let folder = folder();
    let data = folder.path().join("site");
    let mut command = Command::new(MILLPOND);
    command.args(["demo", "--plain", "--machines", "4", "--rate", "40", "--data"]).arg(&data);
    let mut demo = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait("six nodes and the cloud", || processes(&data) == 7);
    demo.kill().expect("it runs");
    demo.wait().expect("it ends");
    wait("nobody", || processes(&data) == 0);
}
