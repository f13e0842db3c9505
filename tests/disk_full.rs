//! A small file system that fills while devices publish: the node says so, gives way by policy or refuses, recovers when there is room again,
//! and everything acknowledged is there or has a receipt.

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;

use crate::support::{MILLPOND, Node, arguments, folder, has, not_here, post, write};

const MIB: u64 = 1 << 20;

/// A node whose data lies on a tmpfs of its own, in a mount namespace of its own.
struct Small {
    node: Node,
}

impl Small {
    fn start(mount: &Path, config: &Path, set: &[&str], size_mib: u64, filler_mib: u64) -> Small {
        let mut edge = Command::new(MILLPOND);
        arguments(&mut edge, mount, Some(config), set);
        let edge: Vec<String> = edge.get_args().map(|arg| format!("'{}'", arg.to_string_lossy())).collect();
        let script = format!(
            "mount -t tmpfs -o size={size_mib}m tmpfs '{at}' && head -c {filler} /dev/zero > '{at}/filler' && exec '{MILLPOND}' {}",
            edge.join(" "),
            at = mount.display(),
            filler = filler_mib * MIB,
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        Small { node: Node::launch(command) }
    }

    fn remove_filler(&self, mount: &Path) {
        let pid = self.node.pid().to_string();
        let filler = mount.join("filler");
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--user", "--mount", "--preserve-credentials", "rm"]).arg(&filler);
        assert!(command.status().expect("nsenter runs").success());
    }
}

/// 500 events of random-looking text and numbers, which do not compress.
fn body(from: u64) -> String {
    let event = |seq: u64| {
        let mut noise = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let text: String = (0..8)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                format!("{noise:016x}")
            })
            .collect();
        format!(r#"{{"device":"d","ts":{},"seq":{seq},"v":{seq},"noise":"{text}"}}"#, 1_760_000_000_000 + seq)
    };
    (from..from + 500).map(event).collect::<Vec<_>>().join("\n")
}

fn can_mount() -> bool {
    let works = has("unshare", &["--user", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]);
    if !works {
        not_here(
            "a full disk, because this machine does not let us mount a tmpfs in a namespace (unshare --user --mount)",
        );
    }
    works
}

fn health(node: &Node) -> Value {
    node.get("/healthz")
}

/// Publishes until `until` says so; the number of events that were acknowledged. Refused bodies are sent again.
fn publish(node: &Node, next: &mut u64, mut until: impl FnMut(Option<u16>, u64) -> bool) -> u64 {
    let mut acked = 0;
    loop {
        let status = post(node.http, "/v1/telemetry", "application/x-ndjson", &body(*next));
        if status == Some(200) {
            acked += 500;
            *next += 500;
        }
        if until(status, acked) {
            return acked;
        }
        if status != Some(200) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn stored_events(node: &Node) -> u64 {
    node.get("/v1/journal")["classes"]["raw"]["events"].as_u64().expect("a number")
}

#[test]
fn a_full_disk_refuses_and_recovers_without_losing_anything() {
    if !can_mount() {
        return;
    }
    let (mount, folder) = (folder(), folder());
    let config = write(folder.path(), "edge.toml", "[store]\nwhen_full = \"refuse\"\n");
    let small = Small::start(mount.path(), &config, &[], 40, 20);
    let node = &small.node;
    let mut next = 0;
    let acked = publish(node, &mut next, |status, acked| {
        assert!(acked < 400_000, "the disk never filled");
        status != Some(200)
    });
    assert!(acked > 0);
    let said = health(node);
    assert!(said["reasons"].to_string().contains("MP0401"), "the node must say that the disk is full: {said}");
    assert_eq!(stored_events(node), acked, "what was refused must not be there, what was acknowledged must");
    small.remove_filler(mount.path());
    let more = publish(node, &mut next, |_, more| more >= 5_000);
    node.wait_for("health after recovery", |node| (health(node)["status"] == "ok").then_some(()));
    assert_eq!(stored_events(node), acked + more);
    let answer = node.get("/v1/query?device_id=d&metric=v&start=1760000000000&end=1770000000000&limit=1000000");
    let points = answer["points"].as_array().expect("points");
    assert_eq!(points.len() as u64, acked + more);
    assert!(points.iter().enumerate().all(|(seq, point)| point[1].as_f64() == Some(seq as f64)));
}

#[test]
fn a_full_disk_gives_way_by_class_with_receipts() {
    if !can_mount() {
        return;
    }
    let (mount, folder) = (folder(), folder());
    let config = write(
        folder.path(),
        "edge.toml",
        "[retention.raw]\nmax_bytes = 1000000000\nmax_age = \"30d\"\nfloor_bytes = 4000000\n\n[[windows]]\nname = \"w\"\nsize = \"10s\"\n",
    );
    let small = Small::start(mount.path(), &config, &[], 40, 16);
    let node = &small.node;
    let mut next = 0;
    let dropped = |node: &Node| node.get("/v1/journal")["classes"]["raw"]["dropped_events"].as_u64().unwrap_or(0);
    let acked = publish(node, &mut next, |_, acked| {
        assert!(acked < 1_000_000, "nothing ever gave way");
        acked % 5_000 == 0 && dropped(node) > 20_000
    });
    let journal = node.get("/v1/journal");
    let (stored, gone) = (stored_events(node), dropped(node));
    assert_eq!(stored + gone, acked, "every acknowledged event is there or has a receipt: {journal}");
    let receipts = node.get("/v1/drops?limit=100000");
    let receipts = receipts.as_array().or_else(|| receipts["drops"].as_array()).expect("a list");
    let raw = receipts.iter().map(|receipt| &receipt["range"]).filter(|range| range["class"] == "raw");
    let (count, events) =
        raw.fold((0, 0), |(n, sum), range| (n + 1, sum + range["events"].as_u64().expect("a number")));
    assert!(count > 0 && events == gone, "{count} receipts speak of {events} events, the journal of {gone}");
    // Results outlive the events that they were made of.
    let panes = node.get("/v1/windows/w?limit=100000");
    let panes = panes.as_array().or_else(|| panes["panes"].as_array()).expect("a list");
    let counted: u64 = panes.iter().map(|pane| pane["metrics"]["v"]["count"].as_u64().expect("a number")).sum();
    assert!(counted + 12_000 > acked && counted <= acked, "panes count {counted} of {acked} events");
    small.remove_filler(mount.path());
    node.wait_for("health after recovery", |node| (health(node)["status"] == "ok").then_some(()));
}
