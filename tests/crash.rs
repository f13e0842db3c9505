//! `kill -9` at any moment: what was acknowledged is there, once, and the panes are those of a run that nothing disturbed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::support::{Node, folder, mqtt::Publisher, post, write};

const ROUNDS: usize = 55;
const DEVICES: usize = 6;
/// The last devices publish over HTTP.
const HTTP_DEVICES: usize = 2;
const EVENTS: u64 = 12_000;
/// Event times begin here and go on in steps of 50 ms.
const BASE_MS: i64 = 1_760_000_000_000;
const STEP_MS: i64 = 50;

const CONFIG: &str = r#"
[checkpoint]
every = "1s"

[[windows]]
name = "tumbling"
size = "10s"
lateness = "1h"
aggregates = ["count", "sum", "min", "max", "mean", "stddev", "first", "last"]
quantiles = [0.5, 0.99]

[[windows]]
name = "sliding"
kind = "sliding"
size = "20s"
slide = "5s"
lateness = "1h"

[[windows]]
name = "node"
size = "30s"
by = "node"
lateness = "10h"
idle_after = "10m"

[[windows]]
name = "sessions"
kind = "session"
gap = "5s"
lateness = "1h"
"#;

/// What a device sends: the same numbers in every run.
fn payload(device: usize, seq: u64) -> String {
    // Pauses of ten seconds end sessions.
    let ts = BASE_MS + seq as i64 * STEP_MS + (seq / 400) as i64 * 10_000;
    let temperature = 20.0 + ((seq * 7 + device as u64 * 13) % 400) as f64 / 10.0;
    let pressure = 1.0 + ((seq * 31 + device as u64) % 97) as f64 / 1000.0;
    format!(r#"{{"device":"dev-{device}","ts":{ts},"seq":{seq},"temperature":{temperature},"pressure":{pressure}}}"#)
}

/// The last event of a device lies far ahead, so that every window closes.
fn closing(device: usize) -> String {
    let ts = BASE_MS + 50_000_000;
    format!(r#"{{"device":"dev-{device}","ts":{ts},"seq":{EVENTS},"temperature":0.0,"pressure":0.0}}"#)
}

fn event(device: usize, seq: u64) -> String {
    if seq == EVENTS { closing(device) } else { payload(device, seq) }
}

/// Where the node is at present; publishers look here after each broken connection.
type Doors = Arc<Mutex<Option<(std::net::SocketAddr, std::net::SocketAddr)>>>;

/// Publishes everything of a device, again and again what was not acknowledged; what was is in `acked`.
fn publish_mqtt(device: usize, doors: &Doors, acked: &Mutex<BTreeSet<u64>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some((mqtt, _)) = *doors.lock().expect("not poisoned") else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let Ok(mut publisher) = Publisher::connect(mqtt, &format!("dev-{device}")) else { continue };
        let todo: Vec<u64> = {
            let acked = acked.lock().expect("not poisoned");
            (0..EVENTS).filter(|seq| !acked.contains(seq)).collect()
        };
        if todo.is_empty() {
            return;
        }
        let topic = format!("devices/dev-{device}/telemetry");
        for seq in todo {
            if stop.load(Ordering::Relaxed) || publisher.publish(&topic, event(device, seq).as_bytes(), seq).is_err() {
                break;
            }
            if publisher.in_flight.len() >= 8 {
                let Ok(seq) = publisher.acknowledged() else { break };
                acked.lock().expect("not poisoned").insert(seq);
            }
        }
        while !publisher.in_flight.is_empty() {
            let Ok(seq) = publisher.acknowledged() else { break };
            acked.lock().expect("not poisoned").insert(seq);
        }
    }
}

fn publish_http(device: usize, doors: &Doors, acked: &Mutex<BTreeSet<u64>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let todo: Vec<u64> = {
            let acked = acked.lock().expect("not poisoned");
            (0..EVENTS).filter(|seq| !acked.contains(seq)).take(20).collect()
        };
        if todo.is_empty() {
            return;
        }
        let Some((_, http)) = *doors.lock().expect("not poisoned") else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let body: Vec<String> = todo.iter().map(|seq| event(device, *seq)).collect();
        match post(http, "/v1/telemetry", "application/x-ndjson", &body.join("\n")) {
            Some(200) => acked.lock().expect("not poisoned").extend(todo),
            Some(status) => assert!(status >= 500, "the node answered {status}"),
            None => {}
        }
    }
}

/// Values of one metric of one device by time.
fn series(node: &Node, device: usize, metric: &str) -> Vec<(i64, f64)> {
    let path = format!(
        "/v1/query?device_id=dev-{device}&metric={metric}&start={}&end={}&limit=1000000",
        BASE_MS,
        BASE_MS + 100_000_000
    );
    let answer = node.get(&path);
    let points = answer["points"].as_array().expect("points").iter();
    points.map(|point| (point[0].as_f64().expect("a time") as i64, point[1].as_f64().expect("a number"))).collect()
}

fn expected(device: usize, metric: &str) -> Vec<(i64, f64)> {
    let of = |seq| {
        let event: Value = serde_json::from_str(&event(device, seq)).expect("JSON");
        (event["ts"].as_i64().expect("a time"), event[metric].as_f64().expect("a number"))
    };
    (0..=EVENTS).map(of).collect()
}

/// The newest revision of each pane, without its number.
fn panes(node: &Node, window: &str) -> BTreeMap<(String, i64, i64), Value> {
    let answer = node.get(&format!("/v1/windows/{window}?limit=1000000"));
    let list = answer.as_array().or_else(|| answer["panes"].as_array()).expect("a list").iter();
    list.map(|pane| {
        let number = |key: &str| pane[key].as_i64().expect("a number");
        let key = pane["key"].as_str().expect("a key").to_string();
        ((key, number("start"), number("end")), pane["metrics"].clone())
    })
    // A session that was merged into another leaves an empty pane behind.
    .filter(|(_, metrics)| {
        metrics.as_object().is_some_and(|metrics| metrics.values().any(|metric| metric["count"] != 0))
    })
    .collect()
}

fn settled(node: &Node) {
    for device in 0..DEVICES {
        post(node.http, "/v1/telemetry", "application/json", &closing(device));
    }
    // The window of the node waits for its slowest device; its last pane is the one to wait for.
    let last = expected(0, "pressure")[EVENTS as usize - 1].0;
    node.wait_for("the last panes", |node| {
        let whole = panes(node, "node").keys().any(|(_, start, end)| *start <= last && last < *end);
        let each = panes(node, "tumbling").keys().filter(|(_, start, end)| *start <= last && last < *end).count();
        (whole && each == DEVICES).then_some(())
    });
}

fn undisturbed(config: &Path) -> BTreeMap<&'static str, BTreeMap<(String, i64, i64), Value>> {
    let data = folder();
    let node = Node::start(data.path(), Some(config), &[]);
    for device in 0..DEVICES {
        for from in (0..EVENTS).step_by(1000) {
            let body: Vec<String> = (from..from + 1000).map(|seq| event(device, seq)).collect();
            assert_eq!(node.post("/v1/telemetry", "application/x-ndjson", &body.join("\n")), Some(200));
        }
    }
    settled(&node);
    let all = WINDOWS.map(|window| (window, panes(&node, window)));
    node.terminate();
    all.into_iter().collect()
}

const WINDOWS: [&str; 4] = ["tumbling", "sliding", "node", "sessions"];

#[test]
fn kill_9_at_any_moment_loses_nothing_acknowledged_and_doubles_nothing() {
    let (folder, data) = (folder(), folder());
    let config = write(folder.path(), "edge.toml", CONFIG);
    let doors: Doors = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let running = Arc::new(AtomicUsize::new(DEVICES));
    let acked: Vec<Arc<Mutex<BTreeSet<u64>>>> = (0..DEVICES).map(|_| Arc::default()).collect();
    let publishers: Vec<_> = (0..DEVICES)
        .map(|device| {
            let (doors, acked, stop, running) = (doors.clone(), acked[device].clone(), stop.clone(), running.clone());
            std::thread::spawn(move || {
                let publish = if device < DEVICES - HTTP_DEVICES { publish_mqtt } else { publish_http };
                publish(device, &doors, &acked, &stop);
                running.fetch_sub(1, Ordering::Relaxed);
            })
        })
        .collect();

    // A small generator is enough to kill at moments that nobody chose.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    println!("seed {random:#x}");
    let mut kills = 0;
    while kills < ROUNDS {
        let node = Node::start(data.path(), Some(&config), &[]);
        *doors.lock().expect("not poisoned") = Some((node.mqtt, node.http));
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_millis(20 + random % 130));
        *doors.lock().expect("not poisoned") = None;
        node.kill();
        kills += 1;
    }
    let during: usize = acked.iter().map(|acked| acked.lock().expect("not poisoned").len()).sum();
    assert!(during > 1000, "only {during} events were acknowledged between the kills: too quiet to prove anything");

    let node = Node::start(data.path(), Some(&config), &[]);
    // First of all: what was acknowledged before the last kill is there.
    for (device, acked) in acked.iter().enumerate() {
        let there: BTreeSet<i64> = series(&node, device, "pressure").into_iter().map(|(ts, _)| ts).collect();
        let all = expected(device, "pressure");
        for seq in acked.lock().expect("not poisoned").iter() {
            assert!(there.contains(&all[*seq as usize].0), "dev-{device} lost event {seq}");
        }
    }
    *doors.lock().expect("not poisoned") = Some((node.mqtt, node.http));
    publishers.into_iter().for_each(|publisher| publisher.join().expect("a publisher"));
    settled(&node);
    for device in 0..DEVICES {
        for metric in ["temperature", "pressure"] {
            let (there, all) = (series(&node, device, metric), expected(device, metric));
            assert_eq!(there.len(), all.len(), "dev-{device} {metric}: lost or doubled");
            assert_eq!(there, all, "dev-{device} {metric}");
        }
    }
    let reference = undisturbed(&config);
    for window in WINDOWS {
        let (found, expected) = (panes(&node, window), &reference[window]);
        assert!(!expected.is_empty(), "{window}");
        for (key, pane) in expected {
            assert_eq!(found.get(key), Some(pane), "{window} {key:?}");
        }
        assert_eq!(found.len(), expected.len(), "{window} has other panes");
    }
    println!("{kills} kills, {during} events acknowledged between them");
    node.terminate();
}
