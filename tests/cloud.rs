//! Sites that deliver to a cloud: real processes, set up with the commands that an operator uses.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::support::{
    MILLPOND, Node, arguments_as, folder, has, not_here, post,
    relay::Relay,
    run,
    site::{Place, has_members},
    write,
};

const EDGE: &str = r#"
[[windows]]
name = "ten"
size = "10s"
idle_after = "1s"
"#;

/// A node of the cloud.
pub fn cloud(data: &Path, config: &Path, set: &[&str]) -> Node {
    let mut command = Command::new(MILLPOND);
    arguments_as(&mut command, "cloud", data, Some(config), set);
    Node::launch(command)
}

pub fn trust(args: &[&str], data: &Path) -> Output {
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
    if !sites["sites"]
        .as_array()
        .is_some_and(|sites| sites.iter().any(|known| known["site"] == site && known["nodes"].as_u64() > Some(0)))
    {
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
    let device = serde_json::json!({ "device_id": "press-1", "tenant": "default", "sites": ["mill"] });
    assert_eq!(above.get("/v1/devices")["devices"], serde_json::json!([device]));
    assert_eq!(above.get("/v1/devices/press-1"), device);
    let as_prometheus = |path: &str| above.get(&format!("/prometheus/api/v1/{path}"))["data"].clone();
    assert_eq!(as_prometheus("label/device/values"), serde_json::json!(["press-1"]));
    assert_eq!(as_prometheus("label/__name__/values"), serde_json::json!(["temperature"]));
    above.wait_for("the newest value in a chart", |_| {
        let newest = as_prometheus("query?query=temperature%7Bdevice%3D~%22press-.*%22%7D&time=1760000701");
        (newest["result"][0]["value"][1] == "700").then_some(())
    });
    // What came to the cloud's own node is the default tenant's, and nobody else's.
    assert_eq!(above.post("/v1/telemetry", "application/x-ndjson", &events("own-1", 1, 5)), Some(200));
    let values_of = |tenant: &str| {
        let range = "start=1760000000000&end=1760001000000";
        let path = format!("/v1/query?device_id=own-1&metric=temperature&{range}&tenant={tenant}");
        above.get(&path)["points"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((values_of("default"), values_of("acme")), (5, 0));
    assert_eq!(above.get("/v1/devices?tenant=acme")["devices"], serde_json::json!([]));
    let left = north.wait_for("an empty uplink", |north| {
        let uplinks = north.get("/v1/uplinks");
        (uplinks["uplinks"][0]["left"] == serde_json::json!({ "results": 0, "raw": 0 })).then_some(uplinks)
    });
    assert_eq!(left["uplinks"][0]["cloud"], "cloud");
    [north, above].into_iter().for_each(Node::terminate);
}

/// A site of two nodes, each with a line of its own to the cloud.
struct Plant {
    name: &'static str,
    places: [Place; 2],
    nodes: Vec<Option<Node>>,
    lines: [Relay; 2],
}

impl Plant {
    fn found(name: &'static str, config: &Path, cloud: (&Path, SocketAddr)) -> Plant {
        let (first, north) = Place::found(name, "north", config, &[]);
        let second = Place::join(&first, "south");
        let south = second.start(config, &[]);
        has_members(&north, 2);
        let certificate = |data: &Path| data.join("identity/site.crt").display().to_string();
        trust(&[&certificate(&first.data())], cloud.0);
        let lines = [Relay::to(cloud.1), Relay::to(cloud.1)];
        for (place, line) in [&first, &second].into_iter().zip(&lines) {
            trust(&[&certificate(cloud.0), "--uplink", &line.addr.to_string()], &place.data());
        }
        Plant { name, places: [first, second], nodes: vec![Some(north), Some(south)], lines }
    }

    fn doors(&self) -> Vec<SocketAddr> {
        self.nodes.iter().flatten().map(|node| node.http).collect()
    }
}

/// Publishes readings of one device one after the other, each until a node has acknowledged it.
struct Publisher {
    device: String,
    next: i64,
}

impl Publisher {
    /// One batch; `true` when it was acknowledged.
    fn publish(&mut self, doors: &[SocketAddr], turn: usize) -> bool {
        let Some(door) = doors.get(turn % doors.len().max(1)) else { return false };
        let body = events(&self.device, self.next, BATCH);
        let done = post(*door, "/v1/telemetry", "application/x-ndjson", &body) == Some(200);
        if done {
            self.next += BATCH;
        }
        done
    }

    fn acknowledged(&self) -> i64 {
        self.next - 1
    }
}

const BATCH: i64 = 20;

/// Count and sum of a device's temperature.
fn totals(cloud: &Node, device: &str) -> (f64, f64) {
    let ask = |aggregate: &str| {
        let path = format!(
            "/v1/query?device_id={device}&metric=temperature&start=1760000000000&end=1770000000000&aggregate={aggregate}&step=20000d"
        );
        cloud.get(&path)["points"][0][1].as_f64().unwrap_or(0.0)
    };
    (ask("count"), ask("sum"))
}

/// What the Parquet files say, by DuckDB: count and sum by device.
fn totals_in_the_lake(lake: &Path) -> BTreeMap<String, (f64, f64)> {
    let script = format!(
        "import duckdb, json; print(json.dumps(duckdb.sql(\"SELECT device, count(temperature)::DOUBLE, sum(temperature) FROM read_parquet('{}/events/**/*.parquet', union_by_name=true, hive_partitioning=true) GROUP BY device\").fetchall()))",
        lake.display()
    );
    let said = run(Command::new("python3").args(["-c", &script]));
    let rows: Vec<(String, f64, f64)> = serde_json::from_str(&said).expect("rows");
    rows.into_iter().map(|(device, count, sum)| (device, (count, sum))).collect()
}

#[test]
fn three_sites_lose_nothing_whatever_is_cut_or_killed() {
    let seconds = std::env::var("MILLPOND_CLOUD_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(30);
    let folder = folder();
    let config = write(folder.path(), "edge.toml", EDGE);
    let cloud_data = folder.path().join("cloud");
    let start = |listen: &str| cloud(&cloud_data, &config, &[listen, "cloud.archive_every=2s"]);
    let mut above = start("site.listen=127.0.0.1:0");
    let door = above.site.expect("it is in a site");
    let listen = format!("site.listen={door}");
    let names = ["mill", "bakery", "dairy"];
    let mut plants: Vec<Plant> = names.iter().map(|name| Plant::found(name, &config, (&cloud_data, door))).collect();
    let device = |plant: &str, n: usize| Publisher { device: format!("{plant}-{n}"), next: 1 };
    let mut publishers: Vec<(usize, Publisher)> = (0..plants.len())
        .flat_map(|at| (0..2).map(move |n| (at, n)))
        .map(|(at, n)| (at, device(names[at], n)))
        .collect();
    let begun = Instant::now();
    let (mut turn, mut step) = (0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        for (at, publisher) in &mut publishers {
            publisher.publish(&plants[*at].doors(), turn / 7);
        }
        turn += 1;
        // One after the other, over and over: a line is cut, a node is killed, the cloud is killed, and all come back.
        let now = begun.elapsed().as_secs_f64() / 2.0;
        if now < step as f64 {
            continue;
        }
        let plant = &mut plants[(step / 6) % 3];
        match step % 6 {
            0 => plant.lines[0].cut(true),
            1 => plant.lines[1].cut(true),
            2 => {
                plant.lines.iter().for_each(|line| line.cut(false));
                above.kill();
                above = start(&listen);
            }
            3 => plant.nodes[1].take().into_iter().for_each(Node::kill),
            4 => plant.lines[0].cut(true),
            _ => {
                plant.nodes[1] = Some(plant.places[1].start(&config, &[]));
                plant.lines[0].cut(false);
            }
        }
        step += 1;
    }
    for plant in &mut plants {
        plant.lines.iter().for_each(|line| line.cut(false));
        for (place, node) in plant.places.iter().zip(&mut plant.nodes) {
            node.get_or_insert_with(|| place.start(&config, &[]));
        }
    }
    for plant in &plants {
        above.wait_for("a closed ledger", |above| is_closed(&ledger(above, plant.name), 2).then_some(()));
        assert!(ledger(&above, plant.name).iter().all(|row| row["missing"] == 0), "{:?}", ledger(&above, plant.name));
    }
    for (_, publisher) in &publishers {
        let acknowledged = publisher.acknowledged() as f64;
        assert!(acknowledged > 0.0, "{} published nothing", publisher.device);
        let wanted = (acknowledged, acknowledged * (acknowledged + 1.0) / 2.0);
        above.wait_for("the device's totals", |above| {
            let totals = totals(above, &publisher.device);
            assert!(totals.0 <= wanted.0 + BATCH as f64, "{}: {totals:?} of {wanted:?}", publisher.device);
            // A batch may be there whose acknowledgement got lost.
            (totals.0 >= wanted.0).then_some(())
        });
    }
    if !has("python3", &["-c", "import duckdb"]) {
        return not_here("the lake, because python3 has no duckdb");
    }
    let all: BTreeMap<String, (f64, f64)> =
        publishers.iter().map(|(_, publisher)| (publisher.device.clone(), totals(&above, &publisher.device))).collect();
    above.wait_for("the same in the lake", |_| {
        let files = cloud_data.join("lake/events");
        (files.exists() && totals_in_the_lake(&cloud_data.join("lake")) == all).then_some(())
    });
    for plant in plants {
        plant.nodes.into_iter().flatten().for_each(Node::terminate);
    }
    above.terminate();
}

/// What DuckDB makes of the same input: (device, day since 1970, count, sum, least, greatest).
type Days = Vec<(String, i64, f64, f64, f64, f64)>;

const DAY: i64 = 86_400_000;
const EVERY: i64 = 900_000;

fn days_of_input(csv: &Path) -> Days {
    let script = format!(
        "import duckdb, json; print(json.dumps(duckdb.sql(\"SELECT device, ts // {DAY} AS d, count(*)::DOUBLE, sum(v), min(v), max(v) FROM read_csv('{}') GROUP BY device, d ORDER BY device, d\").fetchall()))",
        csv.display()
    );
    serde_json::from_str(&run(Command::new("python3").args(["-c", &script]))).expect("rows")
}

/// The same as the cloud answers it, over all tiers.
fn days_of_cloud(cloud: &Node, devices: &[String]) -> Days {
    let mut days = Days::new();
    for device in devices {
        let ask = |aggregate: &str| -> Vec<(i64, f64)> {
            let path = format!(
                "/v1/query?device_id={device}&metric=v&start=0&end=4000000000000&aggregate={aggregate}&step=1d"
            );
            let points = cloud.get(&path)["points"].as_array().cloned().unwrap_or_default();
            points.iter().map(|p| (p[0].as_i64().expect("a time") / DAY, p[1].as_f64().expect("a number"))).collect()
        };
        let (count, sum, min, max) = (ask("count"), ask("sum"), ask("min"), ask("max"));
        for (at, (day, many)) in count.iter().enumerate() {
            days.push((device.clone(), *day, *many, sum[at].1, min[at].1, max[at].1));
        }
    }
    days
}

fn sql(cloud: &Node, question: &str) -> Output {
    let url = format!("http://{}", cloud.http);
    Command::new(MILLPOND).args(["sql", question, "--url", &url, "--json"]).output().expect("it runs")
}

/// The same in one question in SQL, in a program that answers some.
fn days_in_sql(cloud: &Node) -> Days {
    let question = "SELECT device, to_unixtime(time) / 86400 AS day, count(value) AS many, sum(value) AS sum, \
        min(value) AS least, max(value) AS most FROM readings WHERE metric = 'v' GROUP BY device, day ORDER BY device, day";
    let said = sql(cloud, question);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let number = |name: &str| row[name].as_f64().expect("a number");
        let device = row["device"].as_str().expect("a text").to_owned();
        (device, number("day") as i64, number("many"), number("sum"), number("least"), number("most"))
    };
    String::from_utf8_lossy(&said.stdout).lines().map(row).collect()
}

/// Questions in SQL read, and nothing else, and say what is wrong with them.
fn sql_only_reads(cloud: &Node) {
    let questions = [
        ("SELEKT 1", "SELEKT"),
        ("SELECT nothing FROM readings", "nothing"),
        ("SELECT * FROM '/etc/passwd'", "/etc/passwd"),
        ("DROP TABLE readings", "DDL"),
        ("INSERT INTO readings SELECT * FROM readings", "DML"),
        ("COPY readings TO '/tmp/stolen.csv'", "DML"),
        ("SET datafusion.execution.batch_size = 1", "Statement"),
    ];
    for (question, about) in questions {
        let said = sql(cloud, question);
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && error.contains(about), "{question}: {error}");
    }
}

#[test]
fn ninety_days_are_queried_aged_and_forgotten() {
    if !has("python3", &["-c", "import duckdb"]) {
        return not_here("ninety days of history, because python3 has no duckdb");
    }
    let folder = folder();
    let config = write(folder.path(), "edge.toml", "");
    let cloud_data = folder.path().join("cloud");
    let set = ["site.listen=127.0.0.1:0", "cloud.archive_every=1s", "cloud.warm=30d", "cloud.cold=80d", "cloud.hot=1d"];
    let above = cloud(&cloud_data, &config, &set);
    let door = above.site.expect("it is in a site").to_string();
    let (mill, north) = Place::found("mill", "north", &config, &[]);
    let certificate = |data: &Path| data.join("identity/site.crt").display().to_string();
    trust(&[&certificate(&mill.data())], &cloud_data);
    trust(&[&certificate(&cloud_data), "--uplink", &door], &mill.data());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a date").as_millis() as i64;
    let start = (now / DAY - 90) * DAY;
    let devices: Vec<String> = (0..3).map(|n| format!("press-{n}")).collect();
    let mut csv = String::from("device,ts,v\n");
    for (n, device) in (0..).zip(&devices) {
        let mut lines = String::new();
        for (seq, ts) in (1..).zip((start..now - DAY).step_by(EVERY as usize)) {
            let v = ((seq * 37 + n * 11) % 1000) as f64 / 8.0;
            lines += &format!("{{\"device\":\"{device}\",\"ts\":{ts},\"seq\":{seq},\"v\":{v}}}\n");
            csv += &format!("{device},{ts},{v}\n");
        }
        assert_eq!(north.post("/v1/telemetry", "application/x-ndjson", &lines), Some(200));
    }
    let csv = write(folder.path(), "input.csv", &csv);
    let input = days_of_input(&csv);
    above.wait_for("a closed ledger", |above| is_closed(&ledger(above, "mill"), 1).then_some(()));
    // Wherever the border is at the moment, nothing counts twice and nothing is missing.
    assert_eq!(days_of_cloud(&above, &devices), input);
    if cfg!(feature = "sql") {
        assert_eq!(days_in_sql(&above), input);
    } else {
        let said = sql(&above, "SELECT 1");
        assert!(String::from_utf8_lossy(&said.stderr).contains("--features sql"), "{said:?}");
    }
    above.wait_for("all of it in the lake", |above| {
        (above.metric("millpond_lake_rows") as usize == input.iter().map(|day| day.2 as usize).sum::<usize>())
            .then_some(())
    });
    assert_eq!(days_of_cloud(&above, &devices), input);
    // The lifecycle: what is older than 80 days goes, what is older than 30 is in the cold tier.
    assert_eq!(above.post("/v1/cloud/archive", "application/json", "{}"), Some(200));
    let kept: Days = input.iter().filter(|day| day.1 * DAY >= start + 11 * DAY).cloned().collect();
    let aged = days_of_cloud(&above, &devices);
    assert!(aged.len() < input.len(), "nothing was given up");
    if cfg!(feature = "sql") {
        assert_eq!(days_in_sql(&above), aged);
        sql_only_reads(&above);
    }
    assert!(kept.iter().all(|day| aged.contains(day)), "more was given up than what was too old");
    let cold = cloud_data.join("lake/cold");
    assert!(
        cold.exists(),
        "nothing is in the cold tier: {:?}",
        std::fs::read_dir(cloud_data.join("lake")).map(|d| d.flatten().map(|e| e.path()).collect::<Vec<_>>())
    );
    // One device is forgotten, in all tiers.
    let url = format!("http://{}", above.http);
    let said = run(Command::new(MILLPOND).args(["device", "forget", "press-1", "--url", &url, "--json"]));
    assert!(said.contains("press-1"), "{said}");
    assert!(days_of_cloud(&above, &devices[1..2]).is_empty());
    let known = above.get("/v1/devices")["devices"].as_array().cloned().unwrap_or_default();
    let known: Vec<_> = known.iter().filter_map(|device| device["device_id"].as_str()).collect();
    assert_eq!(known, ["press-0", "press-2"]);
    let others = [devices[0].clone(), devices[2].clone()];
    let left: Days = aged.iter().filter(|day| day.0 != "press-1").cloned().collect();
    assert_eq!(days_of_cloud(&above, &others), left);
    if cfg!(feature = "sql") {
        assert_eq!(days_in_sql(&above), left);
    }
    [north, above].into_iter().for_each(Node::terminate);
}

const WHOLE: &str = r#"
[[windows]]
name = "ten"
size = "10s"
by = "site"
idle_after = "1s"
"#;
const CLOUD: &str = r#"
[[rules]]
name = "busy"
when = { type = "window", window = "ten", metric = "temperature", aggregate = "count", op = ">", value = 15.0 }

[[cloud.sinks]]
name = "panes"
kind = "file"
target = "panes.ndjson"
classes = ["pane", "raw"]
sites = ["mill"]
"#;

#[test]
fn windows_and_alerts_span_sites_and_sinks_hand_on_what_came() {
    let folder = folder();
    let config = write(folder.path(), "edge.toml", WHOLE);
    let above_config = write(folder.path(), "cloud.toml", &format!("{WHOLE}{CLOUD}"));
    let cloud_data = folder.path().join("cloud");
    let above = cloud(&cloud_data, &above_config, &["site.listen=127.0.0.1:0"]);
    let door = above.site.expect("it is in a site").to_string();
    let certificate = |data: &Path| data.join("identity/site.crt").display().to_string();
    let sites: Vec<(Place, Node)> =
        [("mill", "north"), ("bakery", "oven")].map(|(site, node)| Place::found(site, node, &config, &[])).into();
    for (place, _) in &sites {
        trust(&[&certificate(&place.data())], &cloud_data);
        trust(&[&certificate(&cloud_data), "--uplink", &door], &place.data());
    }
    for (n, (_, node)) in sites.iter().enumerate() {
        assert_eq!(
            node.post("/v1/telemetry", "application/x-ndjson", &events(&format!("press-{n}"), 1, 100)),
            Some(200)
        );
    }
    // Ten readings of each site are in each window: neither site has seen twenty.
    above.wait_for("a window of both sites", |above| {
        let panes = above.get("/v1/windows/ten?limit=1000")["panes"].as_array().cloned().unwrap_or_default();
        let whole = panes.iter().filter(|pane| pane["metrics"]["temperature"]["count"] == 20);
        (whole.count() >= 8).then_some(())
    });
    above.wait_for("an alert over both", |above| {
        let alerts = above.get("/v1/alerts")["alerts"].as_array().cloned().unwrap_or_default();
        alerts.iter().any(|alert| alert["rule"] == "busy" && alert["fired"].is_number()).then_some(())
    });
    for (_, node) in &sites {
        assert_eq!(node.get("/v1/alerts")["alerts"], Value::Array(Vec::new()), "a site sees no other");
    }
    let lines = above.wait_for("all that the mill said", |_| {
        let text = std::fs::read_to_string(cloud_data.join("panes.ndjson")).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of = |class: &str| lines.iter().filter(|line| line["class"] == class).count();
        (of("raw") == 100 && of("pane") >= 8).then_some(lines.clone())
    });
    assert!(lines.iter().all(|line| line["site"] == "mill"));
    let keys: std::collections::BTreeSet<&str> = lines.iter().filter_map(|line| line["key"].as_str()).collect();
    assert_eq!(keys.len(), lines.len(), "nothing came twice while nothing failed");
    // Started again it does not begin anew.
    above.terminate();
    let listen = format!("site.listen={door}");
    let above = cloud(&cloud_data, &above_config, &[&listen]);
    let more = events("press-0", 101, 1);
    assert_eq!(sites[0].1.post("/v1/telemetry", "application/x-ndjson", &more), Some(200));
    above.wait_for("the next event", |_| {
        let text = std::fs::read_to_string(cloud_data.join("panes.ndjson")).unwrap_or_default();
        text.lines().any(|line| line.contains("\"seq\":101")).then_some(())
    });
    let text = std::fs::read_to_string(cloud_data.join("panes.ndjson")).unwrap_or_default();
    assert_eq!(text.lines().filter(|line| line.contains("\"class\":\"raw\"")).count(), 101);
    sites.into_iter().for_each(|(_, node)| node.terminate());
    above.terminate();
}
