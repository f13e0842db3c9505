//! Two sites of one real node each exchange records, set up with the commands that an operator uses.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{MILLPOND, Node, folder, run, site::Place, write};

const CONFIG: &str = r#"
[[windows]]
name = "ten"
size = "10s"
idle_after = "1s"
"#;

/// A minute of readings, the last one ten minutes later, so that windows close.
fn events(device: &str) -> String {
    let at = |n: i64| 1_760_000_000_000 + if n == 60 { 600_000 } else { n * 1000 };
    let line = |n: i64| format!(r#"{{"device":"{device}","ts":{},"seq":{n},"temperature":{n}}}"#, at(n));
    (0..=60).map(line).collect::<Vec<_>>().join("\n")
}

fn site(args: &[&str], place: &Place) -> Output {
    let mut command = Command::new(MILLPOND);
    command.arg("site").args(args).arg("--data").arg(place.data());
    command.output().expect("it runs")
}

fn values(node: &Node, device: &str, site: &str) -> usize {
    let path = format!("/v1/query?device_id={device}&metric=temperature&start=1760000000000&end=1760000060000{site}");
    node.get(&path)["points"].as_array().map_or(0, Vec::len)
}

#[test]
fn two_sites_exchange_what_they_agreed_on() {
    let folder = folder();
    let config = write(folder.path(), "edge.toml", CONFIG);
    let (mill, north) = Place::found("mill", "north", &config, &[]);
    let (bakery, oven) = Place::found("bakery", "oven", &config, &[]);
    for (node, devices) in [(&north, ["press-1", "saw-1"]), (&oven, ["press-1", "mixer-1"])] {
        for device in devices {
            assert_eq!(node.post("/v1/telemetry", "application/x-ndjson", &events(device)), Some(200));
        }
    }
    let certificate = |place: &Place| place.data().join("identity/site.crt").display().to_string();
    let door = north.site.expect("it is in a site").to_string();
    // The bakery asks before the mill knows it: nothing comes, and then it does, without a restart.
    let said = site(&["trust", &certificate(&mill), "--classes", "pane", "--address", &door], &bakery);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    oven.wait_for("a refusal", |_| bakery.words().contains("a node of another site was not reached").then_some(()));
    let said = site(&["trust", &certificate(&bakery), "--classes", "raw,pane", "--devices", "press-*"], &mill);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    oven.wait_for("the mill's events", |oven| {
        let taken = oven.metric("millpond_other_site_taken_records_total") > 0.0;
        (taken && values(oven, "press-1", "&site=mill") == 60).then_some(())
    });
    assert_eq!(values(&oven, "saw-1", "&site=mill"), 0);
    assert_eq!(values(&oven, "saw-1", ""), 0);

    let cli = |args: &[&str]| {
        let url = format!("http://{}", oven.http);
        run(Command::new(MILLPOND).args(args).args(["--url", &url, "--json"]))
    };
    oven.wait_for("the mill's panes", |_| {
        let panes = cli(&["windows", "ten", "--site", "mill"]);
        let keys = panes
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["key"].as_str().map(str::to_owned));
        let keys: Vec<String> = keys.collect();
        (keys.len() >= 6 && keys.iter().all(|key| key == "press-1")).then_some(())
    });
    assert!(cli(&["ledger"]).contains("mill/north"));
    assert!(
        cli(&["query", "press-1", "temperature", "--site", "mill", "--start", "1760000000000"])
            .contains("1760000000000")
    );

    let listed = run(Command::new(MILLPOND).args(["site", "trusts", "--json", "--data"]).arg(mill.data()));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&listed["site"], &listed["devices"]), (&"bakery".into(), &vec!["press-*"].into()));
    assert!(site(&["distrust", "bakery"], &mill).status.success());
    let before = bakery.words().matches("a node of another site was not reached").count();
    oven.wait_for("a refusal", |_| {
        (bakery.words().matches("a node of another site was not reached").count() > before).then_some(())
    });
    // What came stays.
    assert_eq!(values(&oven, "press-1", "&site=mill"), 60);
    [north, oven].into_iter().for_each(Node::terminate);
}

#[test]
fn what_is_wrong_with_a_trusted_site_is_said_with_a_hint() {
    let folder = folder();
    let config = write(folder.path(), "edge.toml", CONFIG);
    let (mill, node) = Place::found("mill", "north", &config, &[]);
    node.terminate();
    let own = mill.data().join("identity/site.crt").display().to_string();
    let junk = write(folder.path(), "junk.crt", "no certificate").display().to_string();
    let check = |args: &[&str], words: &[&str]| {
        let said = site(args, &mill);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && words.iter().all(|word| text.contains(word)), "{args:?}: {text}");
    };
    check(&["trust", &own], &["this node's own site", "hint:"]);
    check(&["trust", &junk], &["junk.crt cannot be used", "identity/site.crt"]);
    check(&["trust", &own, "--classes", "panes"], &["no class `panes`", "alert, state, pane or raw"]);
    check(&["trust", &own, "--address", "10.0.0.1"], &["--address 10.0.0.1", "10.1.0.5:7800"]);
    check(&["trust", &own, "--devices", "oven-?"], &["only `*`", "hint:"]);
    check(&["distrust", "bakery"], &["bakery", "millpond site trusts"]);
}

#[test]
fn a_node_that_another_site_has_revoked_is_not_believed() {
    let folder = folder();
    let config = write(folder.path(), "edge.toml", CONFIG);
    let (mill, north) = Place::found("mill", "north", &config, &[]);
    let (bakery, oven) = Place::found("bakery", "oven", &config, &[]);
    let mixer = Place::join(&bakery, "mixer");
    let third = mixer.start(&config, &[]);
    let certificate = |place: &Place| place.data().join("identity/site.crt").display().to_string();
    let door = north.site.expect("it is in a site").to_string();
    assert!(site(&["trust", &certificate(&bakery), "--classes", "raw"], &mill).status.success());
    for place in [&bakery, &mixer] {
        assert!(site(&["trust", &certificate(&mill), "--address", &door], place).status.success());
    }
    assert_eq!(north.post("/v1/telemetry", "application/x-ndjson", &events("press-1")), Some(200));
    for node in [&oven, &third] {
        node.wait_for("the mill's events", |node| {
            (node.metric("millpond_other_site_taken_records_total") > 0.0).then_some(())
        });
    }
    let revoked = Command::new(MILLPOND).args(["node", "revoke", &mixer.origin, "--data"]).arg(bakery.data()).output();
    assert!(revoked.expect("it runs").status.success());
    // The oven tells the mill, which ends the connection and takes no other.
    third.wait_for("a refusal", |_| {
        let words = mixer.words();
        (words.contains("a node of another site was not reached") && words.contains("revoked")).then_some(())
    });
    assert_eq!(north.post("/v1/telemetry", "application/x-ndjson", &events("press-2")), Some(200));
    let before = third.metric("millpond_other_site_taken_records_total");
    oven.wait_for("the mill's next events", |oven| (values(oven, "press-2", "&site=mill") == 60).then_some(()));
    assert_eq!(third.metric("millpond_other_site_taken_records_total"), before);
    [third, oven, north].into_iter().for_each(Node::terminate);
}
