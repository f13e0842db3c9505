//! Boxes of a site that share registry, twins, commands and texts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use millpond_actors::config::Config;
use millpond_core::{
    planted::{Bug, plant},
    time::Span,
};
use millpond_env::Env;
use millpond_gateway::client::{
    http::HttpClient,
    mqtt::{Connection, Options},
};
use serde_json::{Value, json};

use crate::{
    site::{Node, Phase, USER},
    tls::Authority,
    world::{HostSpec, World, core::HostId, disk::DiskSpec, net::LinkSpec},
};

const TOKEN: &str = "token";
const BOXES: [&str; 3] = ["north", "south", "west"];

/// Three boxes, and a place from which a person and a device speak to them.
struct Town {
    world: World,
    nodes: Vec<Node>,
    outside: HostId,
    env: Env,
}

fn host(name: &str, number: u8, disk: Option<DiskSpec>) -> HostSpec {
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number));
    HostSpec { name: name.to_owned(), address, clock_offset: Span::ZERO, clock_ppm: 0.0, disk }
}

impl Town {
    fn new(seed: u64) -> Town {
        let mut world = World::new(seed, 0.0);
        world.network().set_default(LinkSpec { latency: (Span(150_000), Span(900_000)), ..LinkSpec::default() });
        let outside = world.add(host("outside", 1, None));
        let authority = Authority::new(seed);
        let mut nodes = Vec::new();
        for (at, name) in BOXES.iter().enumerate() {
            let id = world.add(host(name, at as u8 + 2, Some(DiskSpec::default())));
            let mut config = Config::default();
            config.node.name = (*name).to_owned();
            config.site.seeds = BOXES.iter().filter(|mate| *mate != name).map(|mate| format!("{mate}:7800")).collect();
            let mut node = Node::new((*name).to_owned(), id, config, 2, Span::from_secs(1), TOKEN);
            node.papers = Some(authority.papers(name));
            nodes.push(node);
        }
        let env = world.boot(outside);
        nodes.iter_mut().for_each(|node| node.start(&mut world));
        let mut town = Town { world, nodes, outside, env };
        town.run(Span::from_secs(10));
        assert!(town.nodes.iter().all(|node| node.phase() == Phase::Up));
        town
    }

    fn run(&mut self, span: Span) {
        let until = self.world.now().after(span.0 as u64);
        while self.world.step(until).is_some() {}
    }

    fn host(&self, name: &str) -> HostId {
        self.nodes.iter().find(|node| node.name == name).expect("a box").host
    }

    /// Asks a box over HTTP and lets the world run until it has answered.
    fn ask(&mut self, node: &str, method: &'static str, path: &str, body: Option<Value>) -> Result<Value, String> {
        let answer: Arc<Mutex<Option<Result<Value, String>>>> = Arc::default();
        let client =
            HttpClient::new(self.env.clone(), &format!("http://{node}:8080"), Some(TOKEN)).expect("an address");
        let (tell, path, env) = (answer.clone(), path.to_owned(), self.env.clone());
        let body = body.map(|body| Bytes::from(body.as_str().map_or_else(|| body.to_string(), str::to_owned)));
        self.world.enter(self.outside, || {
            env.spawn(async move {
                let said = client.ask(method, &path, body).await.map_err(|error| error.to_string());
                *tell.lock().expect("nobody panics here") = Some(said);
            });
        });
        for _ in 0..600 {
            if let Some(answer) = answer.lock().expect("nobody panics here").take() {
                return answer;
            }
            self.run(Span::from_millis(50));
        }
        panic!("{method} was not answered by {node}");
    }

    fn get(&mut self, node: &str, path: &str) -> Value {
        self.ask(node, "GET", path, None).unwrap_or_else(|error| panic!("{node} {path}: {error}"))
    }

    /// Lets the world run until all boxes give this for an address.
    fn agree(&mut self, path: &str, wanted: impl Fn(&Result<Value, String>) -> bool) {
        let mut last = BTreeMap::new();
        for _ in 0..60 {
            last = BOXES.iter().map(|node| (*node, self.ask(node, "GET", path, None))).collect();
            if last.values().all(&wanted) {
                return;
            }
            self.run(Span::from_millis(500));
        }
        panic!("{path}: {last:#?}");
    }
}

/// A device that does what it is told: it reports its delta, and answers commands with their names.
async fn device(env: Env, node: &str, name: &str, heard: Arc<Mutex<Vec<(String, Value)>>>) {
    let options = Options {
        host: node.to_owned(),
        port: 1883,
        client_id: name.to_owned(),
        login: Some((USER.to_owned(), TOKEN.to_owned())),
        in_flight: 16,
    };
    let mut connection = Connection::open(&env, options).await.expect("a door");
    connection.session().subscribe(&format!("devices/{name}/twin/delta"), 1);
    connection.session().subscribe(&format!("devices/{name}/commands/+"), 1);
    let telemetry: Arc<str> = format!("devices/{name}/telemetry").into();
    let reported: Arc<str> = format!("devices/{name}/twin/reported").into();
    connection.session().publish(&telemetry, Bytes::from_static(b"{\"t\":1}"), 0, env.now());
    while connection.pump().await.is_ok() {
        let messages: Vec<_> = connection.session().messages().collect();
        connection.session().acks();
        for message in messages {
            let said: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
            heard.lock().expect("nobody panics here").push((message.topic.clone(), said.clone()));
            let now = env.now();
            if message.topic.ends_with("/twin/delta") {
                if said.as_object().is_some_and(|todo| !todo.is_empty()) {
                    connection.session().publish(&reported, message.payload, 0, now);
                }
            } else {
                let answer = json!({ "did": said["name"] }).to_string();
                connection.session().publish(&format!("{}/result", message.topic).into(), answer.into(), 0, now);
            }
        }
    }
}

#[test]
fn three_boxes_share_a_twin() {
    let mut town = Town::new(1);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (env, seen) = (town.env.clone(), heard.clone());
    town.world.enter(town.outside, || env.clone().spawn(async move { device(env, "north", "press", seen).await }));
    town.agree("/v1/devices", |answer| {
        let known = answer.as_ref().map(|answer| answer["devices"][0].clone()).unwrap_or_default();
        known["device_id"] == "press"
            && known["registered"] == true
            && known["home"] == "north"
            && known["last_seen"].is_i64()
    });
    // What somebody says elsewhere reaches the device where it is, and what it reports reaches everybody.
    let said =
        town.ask("south", "PATCH", "/v1/devices/press/twin/desired", Some(json!({"speed": 5, "net": {"ip": "a"}})));
    assert_eq!(said.expect("accepted")["desired"]["speed"], 5);
    town.agree("/v1/devices/press/twin", |answer| {
        answer
            .as_ref()
            .is_ok_and(|twin| twin["reported"] == json!({"speed": 5, "net": {"ip": "a"}}) && twin["delta"] == json!({}))
    });
    // A command goes to where the device is, and its outcome can be had anywhere.
    let given = town.ask("west", "POST", "/v1/devices/press/commands", Some(json!({"id": "7", "name": "stop"})));
    assert_eq!(given.expect("accepted")["id"], "7");
    town.agree("/v1/devices/press/commands/7", |answer| {
        answer
            .as_ref()
            .is_ok_and(|command| command["status"] == "delivered" && command["answer"] == json!({"did": "stop"}))
    });
    let commands =
        heard.lock().expect("nobody panics here").iter().filter(|(topic, _)| topic.ends_with("/commands/7")).count();
    assert_eq!(commands, 1);
    // Texts are judged, and the same everywhere.
    let rule = "when = { type = \"threshold\", metric = \"t\", op = \">\", value = 9.0 }";
    let put = town.ask("west", "PUT", "/v1/site/texts/rules/hot", Some(rule.into())).expect("accepted");
    town.agree("/v1/site/texts/rules", |answer| answer.as_ref().is_ok_and(|texts| texts["head"] == put["head"]));
    let refused = town.ask("west", "PUT", "/v1/site/texts/rules/hot", Some("when = 1".into()));
    assert!(refused.as_ref().is_err_and(|error| error.contains("400")), "{refused:?}");
    // All of it outlives the power.
    for at in 0..town.nodes.len() {
        let host = town.nodes[at].host;
        town.world.power_off(host);
        let now = town.world.now();
        town.nodes[at].gone(now);
        town.nodes[at].start(&mut town.world);
    }
    town.run(Span::from_secs(5));
    for node in BOXES {
        let twin = town.get(node, "/v1/devices/press/twin");
        assert_eq!((&twin["reported"]["speed"], &twin["desired"]["speed"]), (&json!(5), &json!(5)), "{node}");
        assert_eq!(town.get(node, "/v1/site/texts/rules")["head"], put["head"], "{node}");
    }
    assert_eq!(town.get("west", "/v1/devices/press/commands/7")["status"], "delivered");
}

#[test]
fn a_change_is_made_a_quarter_of_a_second_after_its_edit_whenever_that_is() {
    let mut town = Town::new(4);
    for speed in 0..10 {
        let asked = town.world.now();
        let edit = json!({ "speed": speed });
        town.ask("north", "PATCH", "/v1/devices/press/twin/desired", Some(edit)).expect("accepted");
        let took = Span((town.world.now().0 - asked.0) as i64);
        // Whoever asks looks every 50 ms.
        assert!((Span::from_millis(250)..=Span::from_millis(300)).contains(&took), "{speed}: {took}");
        town.run(Span::from_millis(17));
    }
}

#[test]
fn a_command_waits_for_its_device_and_follows_it() {
    let mut town = Town::new(3);
    town.ask("north", "PUT", "/v1/devices/press", Some(json!({"type": "press"}))).expect("registered");
    let give = |town: &mut Town, id: &str, deadline_s: f64| {
        let command = json!({"id": id, "name": "stop", "deadline_s": deadline_s});
        town.ask("north", "POST", "/v1/devices/press/commands", Some(command)).expect("accepted")
    };
    assert_eq!(give(&mut town, "late", 5.0)["status"], "queued");
    assert_eq!(give(&mut town, "waits", 3600.0)["status"], "queued");
    assert_eq!(give(&mut town, "waits", 3600.0)["status"], "queued", "the same command again");
    let open = town.get("north", "/v1/devices/press/commands");
    assert_eq!(open["commands"].as_array().map(Vec::len), Some(2));
    town.run(Span::from_secs(10));
    assert_eq!(town.get("north", "/v1/devices/press/commands/late")["status"], "expired");
    // It turns up elsewhere.
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (env, seen) = (town.env.clone(), heard.clone());
    town.world.enter(town.outside, || env.clone().spawn(async move { device(env, "west", "press", seen).await }));
    town.agree("/v1/devices/press/commands/waits", |answer| {
        answer.as_ref().is_ok_and(|command| command["status"] == "delivered")
    });
    let heard = heard.lock().expect("nobody panics here").clone();
    let commands: Vec<&str> =
        heard.iter().map(|(topic, _)| topic.as_str()).filter(|topic| topic.contains("/commands/")).collect();
    assert_eq!(commands, ["devices/press/commands/waits"]);
}

/// One box is cut off; a device is deleted at another, and long after changed at the one that knows nothing of it. Whether the device stays
/// deleted everywhere.
fn absence(seed: u64) -> bool {
    let mut town = Town::new(seed);
    town.ask("north", "PUT", "/v1/devices/press", Some(json!({"type": "press"}))).expect("registered");
    town.agree("/v1/devices/press", |answer| answer.as_ref().is_ok_and(|device| device["type"] == "press"));
    let south = town.host("south");
    for other in ["north", "west"] {
        let other = town.host(other);
        town.world.network().cut_both(south, other);
    }
    town.run(Span::from_secs(60));
    town.ask("north", "DELETE", "/v1/devices/press", None).expect("deleted");
    town.run(Span::from_secs(60));
    // Long after, and knowing nothing of it.
    town.ask("south", "PUT", "/v1/devices/press", Some(json!({"type": "oven"})))
        .expect("it is there for all that south knows");
    town.ask("south", "PATCH", "/v1/devices/press/twin/desired", Some(json!({"speed": 1}))).expect("here too");
    let south_sees = town.get("south", "/v1/devices/press");
    assert_eq!(south_sees["registered"], true);
    town.world.network().heal_all();
    town.run(Span::from_secs(40));
    BOXES.iter().all(|node| {
        let device = town.ask(node, "GET", "/v1/devices/press", None);
        let listed = town.get(node, "/v1/devices")["devices"].as_array().is_some_and(|devices| !devices.is_empty());
        device.is_ok_and(|device| device["deleted"] == true) && !listed
    })
}

#[test]
fn a_deleted_device_stays_deleted_for_one_who_was_away() {
    assert!(absence(1));
    plant(Some(Bug::ResurrectDevice));
    let stays = absence(1);
    plant(None);
    assert!(!stays, "a device that comes back to life is not seen");
}

#[test]
fn what_two_people_write_apart_is_shown_until_somebody_decides() {
    let mut town = Town::new(2);
    let desired = "/v1/devices/press/twin/desired";
    town.ask("north", "PATCH", desired, Some(json!({"speed": 1}))).expect("accepted");
    town.agree("/v1/devices/press/twin", |answer| answer.as_ref().is_ok_and(|twin| twin["desired"]["speed"] == 1));
    let south = town.host("south");
    town.world.network().cut_both(south, town.host("north"));
    town.world.network().cut_both(south, town.host("west"));
    town.ask("north", "PATCH", desired, Some(json!({"speed": 2}))).expect("accepted");
    town.run(Span::from_secs(2));
    town.ask("south", "PATCH", desired, Some(json!({"speed": 3}))).expect("accepted");
    town.world.network().heal_all();
    town.agree("/v1/site/conflicts", |answer| {
        answer
            .as_ref()
            .is_ok_and(|all| all["conflicts"][0]["versions"].as_array().is_some_and(|versions| versions.len() == 2))
    });
    let conflict = town.get("west", "/v1/site/conflicts")["conflicts"][0].clone();
    assert_eq!((&conflict["name"], &conflict["path"]), (&json!("press"), &json!("/speed")));
    let versions: Vec<&Value> =
        conflict["versions"].as_array().expect("versions").iter().map(|version| &version["value"]).collect();
    assert_eq!(versions, [&json!(3), &json!(2)], "the later one holds");
    let stale = json!({"kind": "desired", "name": "press", "path": "/speed", "version": 1, "stamp": "1-0"});
    assert!(town.ask("west", "POST", "/v1/site/conflicts/resolve", Some(stale)).is_err());
    let decide = json!({"kind": "desired", "name": "press", "path": "/speed", "version": 1, "stamp": conflict["versions"][1]["stamp"]});
    town.ask("west", "POST", "/v1/site/conflicts/resolve", Some(decide)).expect("decided");
    town.agree("/v1/devices/press/twin", |answer| {
        answer.as_ref().is_ok_and(|twin| twin["desired"]["speed"] == 2 && twin["conflicts"] == json!([]))
    });
}
