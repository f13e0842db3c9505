//! Sites that deliver to a cloud: real processes, set up with the commands that an operator uses.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::support::{MILLPOND, Node, arguments_as, folder, site::Place, write};

const EDGE: &str = r#"
[[windows]]
name = "ten"
size = "10s"
idle_after = "1s"
"#;

/// A node of the cloud.
fn cloud(data: &Path, config: &Path, set: &[&str]) -> Node {
    let mut command = Command::new(MILLPOND);
    arguments_as(&mut command, "cloud", data, Some(config), set);
    Node::launch(command)
}

fn trust(args: &[&str], data: &Path) -> Output {
    let mut command = Command::new(MILLPOND);
    let said = command.args(["site", "trust"]).args(args).arg("--data").arg(data).output().expect("it runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    said
}

fn events(device: &str, from: i64, many: i64) -> String {
    let line = |n: i64| {
        format!(r#"{{"device":"{device}","ts":{},"seq":{n},"temperature":{n}}}"#, 1_760_000_000_000 + n * 1000)
    };
    (from..from + many).map(line).collect::<Vec<_>>().join("\n")
}

/// The lines of a site's ledger, when there are any.
fn ledger(cloud: &Node, site: &str) -> Vec<Value> {
    let sites = cloud.get("/v1/cloud/sites");
    if !sites["sites"].as_array().is_some_and(|sites| sites.iter().any(|known| known["site"] == site)) {
        return Vec::new();
    }
    cloud.get(&format!("/v1/cloud/sites/{site}/ledger"))["rows"].as_array().cloned().unwrap_or_default()
}

fn is_closed(rows: &[Value], nodes: usize) -> bool {
    rows.len() == nodes && rows.iter().all(|row| row["closed"] == true && row["records"].as_u64() > Some(0))
}

#[test]
fn what_a_site_acknowledged_arrives_in_the_cloud() {
    let folder = folder();
    let config = write(folder.path(), "edge.toml", EDGE);
    let cloud_data = folder.path().join("cloud");
    let set = ["site.listen=127.0.0.1:0"];
    let above = cloud(&cloud_data, &config, &set);
    let door = above.site.expect("it is in a site").to_string();
    let (mill, north) = Place::found("mill", "north", &config, &[]);
    assert_eq!(north.post("/v1/telemetry", "application/x-ndjson", &events("press-1", 1, 500)), Some(200));
    let certificate = |data: &Path| data.join("identity/site.crt").display().to_string();
    trust(&[&certificate(&mill.data())], &cloud_data);
    trust(&[&certificate(&cloud_data), "--uplink", &door], &mill.data());
    above.wait_for("the mill's records", |above| is_closed(&ledger(above, "mill"), 1).then_some(()));
    // What is new comes at once.
    assert_eq!(north.post("/v1/telemetry", "application/x-ndjson", &events("press-1", 501, 100)), Some(200));
    above.wait_for("the newest value", |above| {
        let path = "/v1/query?device_id=press-1&metric=temperature&start=1760000000000&end=1760001000000&site=mill";
        (above.get(path)["points"].as_array().map_or(0, Vec::len) == 600).then_some(())
    });
    above.wait_for("the mill's panes", |above| {
        let panes = above.get("/v1/windows/ten?site=mill")["panes"].as_array().map_or(0, Vec::len);
        (panes >= 50).then_some(())
    });
    // Killed and started again, it goes on from what is on disk.
    above.kill();
    assert_eq!(north.post("/v1/telemetry", "application/x-ndjson", &events("press-1", 601, 100)), Some(200));
    let listen = format!("site.listen={door}");
    let above = cloud(&cloud_data, &config, &[&listen]);
    above.wait_for("everything", |above| {
        let rows = ledger(above, "mill");
        (is_closed(&rows, 1) && rows[0]["missing"] == 0).then_some(())
    });
    let left = north.wait_for("an empty uplink", |north| {
        let uplinks = north.get("/v1/uplinks");
        (uplinks["uplinks"][0]["left"] == serde_json::json!({ "results": 0, "raw": 0 })).then_some(uplinks)
    });
    assert_eq!(left["uplinks"][0]["cloud"], "cloud");
    [north, above].into_iter().for_each(Node::terminate);
}
