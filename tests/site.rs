//! A site of three real nodes: devices publish to all of them, acknowledgements wait for the site, and nodes die by `kill -9`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    MILLPOND, Node, folder, has,
    mqtt::Publisher,
    not_here,
    site::{Place, has_members, three},
    write,
};

const DEVICES: usize = 9;
const EVENTS: u64 = 3_000;
/// Event times begin here and go on in steps of 50 ms.
const BASE_MS: i64 = 1_760_000_000_000;
const STEP_MS: i64 = 50;

const CONFIG: &str = r#"
[checkpoint]
every = "1s"

[site]
replicas = 1
ack = "site"

[[windows]]
name = "tumbling"
size = "10s"
lateness = "1h"
idle_after = "2s"
aggregates = ["count", "sum", "min", "max", "mean", "first", "last"]
quantiles = [0.5, 0.99]

[[windows]]
name = "sliding"
kind = "sliding"
size = "20s"
slide = "5s"
lateness = "1h"
idle_after = "2s"
"#;

const WINDOWS: [&str; 2] = ["tumbling", "sliding"];

/// What a device sends: the same numbers in every run.
fn event(device: usize, seq: u64) -> String {
    // The last one lies far ahead, so that every window closes.
    let ts = if seq == EVENTS { BASE_MS + 50_000_000 } else { BASE_MS + seq as i64 * STEP_MS };
    let temperature = 20.0 + ((seq * 7 + device as u64 * 13) % 400) as f64 / 8.0;
    format!(r#"{{"device":"dev-{device}","ts":{ts},"seq":{seq},"temperature":{temperature}}}"#)
}

fn expected(device: usize, events: u64) -> Vec<(i64, f64)> {
    let of = |seq| {
        let event: Value = serde_json::from_str(&event(device, seq)).expect("JSON");
        (event["ts"].as_i64().expect("a time"), event["temperature"].as_f64().expect("a number"))
    };
    (0..events).map(of).collect()
}

/// The doors of the three nodes; publishers go to the next one when theirs is shut.
type Doors = Arc<Mutex<[Option<SocketAddr>; 3]>>;

/// Devices that publish until everything of theirs was acknowledged.
struct Crowd {
    acked: Vec<Arc<Mutex<BTreeSet<u64>>>>,
    doors: Doors,
    stop: Arc<AtomicBool>,
    running: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn begin(nodes: &[Node; 3]) -> Crowd {
        let doors: Doors = Arc::new(Mutex::new(nodes.each_ref().map(|node| Some(node.mqtt))));
        let stop = Arc::new(AtomicBool::new(false));
        let running = Arc::new(AtomicUsize::new(DEVICES));
        let acked: Vec<Arc<Mutex<BTreeSet<u64>>>> = (0..DEVICES).map(|_| Arc::default()).collect();
        let threads = (0..DEVICES).map(|device| {
            let (doors, acked, stop, running) = (doors.clone(), acked[device].clone(), stop.clone(), running.clone());
            std::thread::spawn(move || {
                publish(device, &doors, &acked, &stop);
                running.fetch_sub(1, Ordering::Relaxed);
            })
        });
        Crowd { threads: threads.collect(), acked, doors, stop, running }
    }

    fn door(&self, node: usize, door: Option<SocketAddr>) {
        self.doors.lock().expect("not poisoned")[node] = door;
    }

    fn acked(&self) -> usize {
        self.acked.iter().map(|acked| acked.lock().expect("not poisoned").len()).sum()
    }

    /// Waits until so many events in a hundred were acknowledged.
    fn reaches(&self, percent: usize) {
        let (begun, wanted) = (Instant::now(), DEVICES * EVENTS as usize * percent / 100);
        while self.acked() < wanted {
            assert!(begun.elapsed() < Duration::from_secs(90), "{} of {wanted} events were acknowledged", self.acked());
            assert!(self.running.load(Ordering::Relaxed) > 0 || self.acked() >= wanted, "publishers gave up");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What was acknowledged by now is there when a node is asked afterwards.
    fn is_known_to(&self, node: &Node) -> usize {
        let before: Vec<BTreeSet<u64>> =
            self.acked.iter().map(|acked| acked.lock().expect("not poisoned").clone()).collect();
        for (device, acked) in before.iter().enumerate() {
            let there: BTreeSet<i64> = series(node, device).into_iter().map(|(ts, _)| ts).collect();
            for seq in acked {
                assert!(there.contains(&(BASE_MS + *seq as i64 * STEP_MS)), "dev-{device} lost event {seq}");
            }
        }
        before.iter().map(BTreeSet::len).sum()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn publish(device: usize, doors: &Doors, acked: &Mutex<BTreeSet<u64>>, stop: &AtomicBool) {
    let mut at = device % 3;
    while !stop.load(Ordering::Relaxed) {
        let todo: Vec<u64> = {
            let acked = acked.lock().expect("not poisoned");
            (0..EVENTS).filter(|seq| !acked.contains(seq)).collect()
        };
        if todo.is_empty() {
            return;
        }
        let door = doors.lock().expect("not poisoned")[at];
        let publisher = door.and_then(|door| Publisher::connect(door, &format!("dev-{device}")).ok());
        if let Some(mut publisher) = publisher {
            let _ = publish_all(&mut publisher, device, &todo, acked, stop);
        } else {
            std::thread::sleep(Duration::from_millis(2));
        }
        at = (at + 1) % 3;
    }
}

fn publish_all(
    publisher: &mut Publisher,
    device: usize,
    todo: &[u64],
    acked: &Mutex<BTreeSet<u64>>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let topic = format!("devices/dev-{device}/telemetry");
    for seq in todo {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        publisher.publish(&topic, event(device, *seq).as_bytes(), *seq)?;
        if publisher.in_flight.len() >= 8 {
            let seq = publisher.acknowledged()?;
            acked.lock().expect("not poisoned").insert(seq);
        }
    }
    while !publisher.in_flight.is_empty() {
        let seq = publisher.acknowledged()?;
        acked.lock().expect("not poisoned").insert(seq);
    }
    Ok(())
}

/// Values of a device by time, from the whole site.
fn series(node: &Node, device: usize) -> Vec<(i64, f64)> {
    let (start, end) = (BASE_MS, BASE_MS + EVENTS as i64 * STEP_MS);
    let path = format!("/v1/query?device_id=dev-{device}&metric=temperature&start={start}&end={end}&limit=100000");
    let answer = node.get(&path);
    let points = answer["points"].as_array().expect("points").iter();
    points.map(|point| (point[0].as_f64().expect("a time") as i64, point[1].as_f64().expect("a number"))).collect()
}

type Panes = BTreeMap<(String, i64, i64), Value>;

/// The newest revision of each pane of the site, without its number.
fn panes(node: &Node, window: &str) -> Panes {
    let answer = node.get(&format!("/v1/windows/{window}?limit=100000"));
    let list = answer.as_array().or_else(|| answer["panes"].as_array()).expect("a list").iter();
    list.map(|pane| {
        let number = |key: &str| pane[key].as_i64().expect("a number");
        let key = pane["key"].as_str().expect("a key").to_string();
        ((key, number("start"), number("end")), pane["metrics"].clone())
    })
    .collect()
}

/// What one node alone makes of all events.
fn undisturbed(config: &Path) -> BTreeMap<&'static str, Panes> {
    let data = folder();
    let node = Node::start(data.path(), Some(config), &[]);
    for device in 0..DEVICES {
        let body: Vec<String> = (0..=EVENTS).map(|seq| event(device, seq)).collect();
        assert_eq!(node.post("/v1/telemetry", "application/x-ndjson", &body.join("\n")), Some(200));
    }
    let last = BASE_MS + (EVENTS as i64 - 1) * STEP_MS;
    node.wait_for("the last panes", |node| {
        let there =
            |window| panes(node, window).keys().filter(|(_, start, end)| (*start..*end).contains(&last)).count();
        (there("tumbling") == DEVICES && there("sliding") >= 4 * DEVICES).then_some(())
    });
    let all = WINDOWS.map(|window| (window, panes(&node, window)));
    node.terminate();
    all.into_iter().collect()
}

/// Waits until the node's panes are these, and says which are not when they do not come to be.
fn agrees(name: &str, node: &Node, reference: &BTreeMap<&'static str, Panes>) {
    for window in WINDOWS {
        let expected = &reference[window];
        let begun = Instant::now();
        loop {
            let found = panes(node, window);
            // The closing events may have opened a pane of their own by now, or not yet.
            let other = expected.iter().find(|(key, pane)| found.get(key) != Some(pane));
            let Some((key, pane)) = other else { break };
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{name} {window} {key:?}\n is {:?}\n not {pane}",
                found.get(key).map(Value::to_string)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_site_loses_nothing_acknowledged_when_its_nodes_are_killed() {
    let folder = folder();
    let config = write(folder.path(), "edge.toml", CONFIG);
    let ([north, south, west], nodes) = three(&config, &[]);
    let crowd = Crowd::begin(&nodes);
    let [first, second, third] = nodes;

    crowd.reaches(25);
    crowd.door(1, None);
    second.kill();
    let at_kill = crowd.acked();
    // The survivors take over what the dead one had promised, and its devices.
    crowd.reaches(45);
    println!("{at_kill} events were acknowledged when south was killed, {} are known", crowd.is_known_to(&first));
    crowd.is_known_to(&third);

    let second = south.start(&config, &[]);
    crowd.door(1, Some(second.mqtt));
    has_members(&second, 3);
    crowd.reaches(65);
    // The node at which the site was founded is one like the others.
    crowd.door(0, None);
    first.kill();
    crowd.reaches(100);
    println!("after north was killed {} are known", crowd.is_known_to(&second));
    crowd.is_known_to(&third);
    let first = north.start(&config, &[]);
    [&first, &second, &third].into_iter().for_each(|node| has_members(node, 3));

    for device in 0..DEVICES {
        let closed = first.post("/v1/telemetry", "application/json", &event(device, EVENTS));
        assert_eq!(closed, Some(200), "dev-{device}");
    }
    let reference = undisturbed(&config);
    for (place, node) in [(&north, &first), (&south, &second), (&west, &third)] {
        for device in 0..DEVICES {
            assert_eq!(
                series(node, device),
                expected(device, EVENTS),
                "dev-{device} at {}: lost or doubled",
                place.name
            );
        }
        agrees(place.name, node, &reference);
    }
    [first, second, third].into_iter().for_each(Node::terminate);
}

#[test]
fn a_stranger_gets_nowhere() {
    let folder = folder();
    let config = write(folder.path(), "edge.toml", "");
    let ([north, south, west], [first, second, third]) = three(&config, &[]);
    let seeds = format!("site.seeds=[\"{}\"]", first.site.expect("it is in a site"));

    // A node of another site knows the address and has a certificate, of somebody else.
    let (other, intruder) = Place::found("other", "intruder", &config, &[&seeds]);
    intruder.wait_for("three refusals", |_| (other.words().matches("was not reached").count() >= 3).then_some(()));
    assert_eq!(intruder.metric("millpond_site_links"), 0.0);
    assert_eq!(intruder.metric("millpond_site_members"), 1.0);
    intruder.terminate();

    // An invitation lets in one node, not two.
    let token = north.invite();
    let fourth = Place::join_with(&token, "east");
    let data = folder.path().join("fifth");
    let mut again = Command::new(MILLPOND);
    again.args(["node", "join", &token, "--name", "fifth", "--data"]).arg(&data).stderr(Stdio::null());
    assert!(!again.status().expect("it runs").success(), "an invitation was used twice");

    // Who is revoked where the site was founded is left by all, also by those that were told by others.
    let east = fourth.start(&config, &[]);
    [&first, &second, &third, &east].into_iter().for_each(|node| has_members(node, 4));
    let revoked = Command::new(MILLPOND)
        .args(["node", "revoke", &fourth.origin, "--data"])
        .arg(north.data())
        .stderr(Stdio::null())
        .status();
    assert!(revoked.expect("it runs").success());
    [&first, &second, &third].into_iter().for_each(|node| has_members(node, 3));
    east.wait_for("no links", |node| (node.metric("millpond_site_links") == 0.0).then_some(()));
    // One that was away meanwhile learns it from the others, while the founder is down.
    east.kill();
    first.terminate();
    let east = fourth.start(&config, &[]);
    let refused = |words: String| words.matches("was not reached").count();
    let before = refused(fourth.words());
    east.wait_for("refusals", |_| (refused(fourth.words()) >= before + 6).then_some(()));
    assert_eq!(east.metric("millpond_site_links"), 0.0);
    for (node, place) in [(&second, &south), (&third, &west)] {
        assert_eq!(node.metric("millpond_site_links"), 1.0, "{}", place.name);
    }
    [east, second, third].into_iter().for_each(Node::terminate);
}

#[test]
fn a_node_that_has_left_and_founded_again_agrees_with_the_others() {
    let folder = folder();
    let config = write(folder.path(), "edge.toml", CONFIG);
    let ([north, south, west], [first, second, third]) = three(&config, &[]);
    let body = |from: u64, to: u64| (from..to).map(|seq| event(0, seq)).collect::<Vec<_>>().join("\n");
    assert_eq!(second.post("/v1/telemetry", "application/x-ndjson", &body(0, 500)), Some(200));
    second.kill();
    // Its disk was replaced; the identity was kept elsewhere.
    for entry in std::fs::read_dir(south.data()).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name != "identity") {
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.expect("removed");
        }
    }
    let second = south.start(&config, &[]);
    [&first, &second, &third].into_iter().for_each(|node| has_members(node, 3));
    assert_eq!(second.post("/v1/telemetry", "application/x-ndjson", &body(400, 1000)), Some(200));
    for (place, node) in [(&north, &first), (&south, &second), (&west, &third)] {
        assert_eq!(series(node, 0), expected(0, 1000), "at {}", place.name);
    }
    [first, second, third].into_iter().for_each(Node::terminate);
}

/// Sends itself a datagram as nodes do that look around.
const HEARS_ITSELF: &str = r#"
from socket import *
one, other = inet_aton("224.0.0.251"), inet_aton("127.0.0.1")
hears, says = socket(AF_INET, SOCK_DGRAM), socket(AF_INET, SOCK_DGRAM)
hears.bind(("", 0))
hears.setsockopt(IPPROTO_IP, IP_ADD_MEMBERSHIP, one + other)
says.setsockopt(IPPROTO_IP, IP_MULTICAST_IF, other)
says.sendto(b"x", ("224.0.0.251", hears.getsockname()[1]))
hears.settimeout(2)
hears.recv(1)
"#;

#[test]
fn nodes_find_each_other_on_the_local_network() {
    if !has("python3", &["-c", HEARS_ITSELF]) {
        return not_here("mDNS, because nothing that is sent to 224.0.0.251 comes back on this machine's loopback");
    }
    let folder = folder();
    let config = write(folder.path(), "edge.toml", "[site]\nseeds = [\"mdns\"]\n");
    let (north, first) = Place::found("mill", "north", &config, &[]);
    let south = Place::join(&north, "south");
    std::fs::remove_file(south.data().join("identity/seeds")).expect("where north was is forgotten");
    let second = south.start(&config, &[]);
    [&first, &second].into_iter().for_each(|node| has_members(node, 2));
    [first, second].into_iter().for_each(Node::terminate);
}
