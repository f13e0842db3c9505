//! `millpond replay` against the golden windows.

use std::{collections::BTreeMap, path::Path, process::Command};

use crate::support::{MILLPOND, run};

#[test]
fn replay_gives_the_golden_windows() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/windows");
    let index = std::fs::read_to_string(golden.join("index.txt")).expect("the index");
    let mut cases = 0;
    for line in index.lines() {
        let (name, rest) = line.split_once(' ').expect("a name");
        let of: BTreeMap<&str, &str> = rest.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        let ms = |key: &str| format!("{}ms", of[key]);
        let mut command = Command::new(MILLPOND);
        command.arg("replay").arg(golden.join(format!("{name}.in.csv"))).args(["--columns", "key,event_time_ms,value"]);
        command.args(["--size", &ms("size_ms"), "--bound", &ms("bound_ms"), "--lateness", &ms("lateness_ms")]);
        if of["slide_ms"] != "0" {
            command.args(["--slide", &ms("slide_ms")]);
        }
        let mut lines: Vec<String> = run(&mut command).lines().map(str::to_string).collect();
        let expected = std::fs::read_to_string(golden.join(format!("{name}.out.csv"))).expect("the golden file");
        let mut expected: Vec<String> = expected.lines().map(str::to_string).collect();
        assert_eq!(lines.len().to_string(), of["lines"], "{name}");
        lines.sort_unstable();
        expected.sort_unstable();
        assert_eq!(lines, expected, "{name}");
        cases += 1;
    }
    assert_eq!(cases, 4);
}
