//! The demonstration, as somebody sees it who has just built the program.

use std::{
    path::Path,
    process::{Command, Stdio},
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

#[test]
fn a_node_of_the_demo_is_killed_and_nothing_is_lost() {
    let folder = folder();
    let data = folder.path().join("site");
    let said = run(Command::new(MILLPOND)
        .args(["demo", "--plain", "--for", "18s", "--kill-after", "4s", "--restart-after", "5s"])
        .args(["--machines", "20", "--rate", "200", "--data"])
        .arg(&data)
        .stderr(Stdio::null()));
    for what in [
        "south died (signal: 9",
        "south is back",
        "found",
        "killed 1 times and started again 1 times",
        "all three agree",
    ] {
        assert!(said.contains(what), "{what}\n{said}");
    }
    assert!(!said.contains("NOT FOUND"), "{said}");
    assert_eq!(processes(&data), 0, "children are left behind");
}

#[test]
fn the_nodes_of_the_demo_die_with_it() {
    let folder = folder();
    let data = folder.path().join("site");
    let mut command = Command::new(MILLPOND);
    command.args(["demo", "--plain", "--machines", "4", "--rate", "40", "--data"]).arg(&data);
    let mut demo = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let wait = |what: &str, wanted: fn(usize) -> bool| {
        let begun = std::time::Instant::now();
        while !wanted(processes(&data)) {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "waited a minute for {what}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait("three nodes", |many| many == 3);
    demo.kill().expect("it runs");
    demo.wait().expect("it ends");
    wait("nobody", |many| many == 0);
}
