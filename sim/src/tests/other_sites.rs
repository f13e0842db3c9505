//! Two sites exchange records: all that they may have of each other, once, and nothing else.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use millpond_actors::config::Config;
use millpond_core::{
    planted::{Bug, plant},
    record::Class,
    time::Span,
};
use millpond_env::Env;
use millpond_gateway::client::http::HttpClient;
use millpond_proto::sites::terms::Terms;
use serde_json::{Value, json};

use super::run;
use crate::{
    promise::Promise,
    site::{Node, Phase},
    tls::Authority,
    world::{HostSpec, World, clock::EPOCH, core::HostId, disk::DiskSpec, net::LinkSpec},
};

/// Two sites of one box each, and a cut link; what the case needs stands in for `MORE`.
const SITES: &str = r#"
name = "two_sites"
about = "Two sites of one box each."
duration = "60s"
settle = "90s"
watch = "5s"

[[node]]
name = "north"
site = "mill"
config = { checkpoint = { every = "5s" }, windows = [{ name = "ten", size = "10s", lateness = "10m" }, { name = "all", size = "10s", by = "site", lateness = "10m" }] }

[[node.trusts]]
site = "bakery"
classes = ["raw", "pane"]
devices = ["*press*"]

[[node]]
name = "oven"
site = "bakery"
config = { checkpoint = { every = "5s" }, windows = [{ name = "ten", size = "10s", lateness = "10m" }] }

[[node.trusts]]
site = "mill"
classes = ["alert"]
from = ["north"]

[[fleet]]
name = "a"
node = "north"
devices = 6
every = "500ms"

[[fleet]]
name = "c"
node = "oven"
devices = 2
every = "500ms"

[[fault]]
at = "20s"
kind = "partition"
node = "oven"
whom = "north"
lasts = "25s"
MORE
"#;

#[test]
fn a_site_has_all_that_it_may_have_of_another_and_nothing_else() {
    let outcome = run(&SITES.replace("MORE", ""), 1);
    assert!(outcome.report.kept(), "{:#?}", outcome.report.broken);
    let oven = outcome.evidence.node("oven").expect("it is there");
    let last = oven.samples.last().expect("it was watched");
    let of = |name: &str| last.metrics.get(&format!("millpond_other_site_{name}{{site=\"mill\"}}")).copied();
    assert!(of("taken_records_total").is_some_and(|records| records > 50.0), "{:#?}", last.metrics);
    assert_eq!(of("lag_records"), Some(0.0));
    assert!(outcome.report.counts.of_other_sites > 100, "{:#?}", outcome.report.counts);
    // It knew of the cut.
    let silent = oven
        .samples
        .iter()
        .filter_map(|sample| sample.metrics.get("millpond_other_site_silent_seconds{site=\"mill\"}"));
    assert!(silent.fold(0.0, |most: f64, seconds| most.max(*seconds)) > 10.0);
    assert!(of("silent_seconds").is_some_and(|seconds| seconds < 10.0));
    // North takes nothing, though it is trusted with alerts.
    assert!(outcome.evidence.node("north").is_some_and(|north| north.others.is_empty()));
}

#[test]
fn a_site_that_gives_whatever_is_asked_for_is_found() {
    let text = SITES.replace("MORE", "");
    plant(Some(Bug::ForgetTerms));
    let report = run(&text, 1).report;
    plant(None);
    assert_eq!(report.holds(Promise::KeepsToTerms), Some(false), "{:#?}", report.broken);
}

#[test]
fn a_site_that_lacks_what_it_may_have_is_found() {
    // The link is cut until the end, and nobody waits until the rest is there.
    let text = SITES.replace("MORE", "").replace("duration = \"60s\"", "duration = \"150s\"");
    let text = text.replace("settle = \"90s\"", "settle = \"1s\"\npromises = [\"keeps_to_terms\"]");
    let report = run(&text.replace("lasts = \"25s\"", "lasts = \"200s\""), 1).report;
    assert_eq!(report.holds(Promise::KeepsToTerms), Some(false), "{:#?}", report.broken);
}

#[test]
fn who_is_not_trusted_gets_nothing() {
    // The mill does not know the bakery: its box calls, and is turned away.
    let text = SITES.replace("MORE", "");
    let begin = text.find("[[node.trusts]]\nsite = \"bakery\"").expect("it is there");
    let end = text.find("[[node]]\nname = \"oven\"").expect("it is there");
    let outcome = run(&format!("{}{}", &text[..begin], &text[end..]), 1);
    assert!(outcome.report.kept(), "{:#?}", outcome.report.broken);
    assert!(outcome.evidence.node("oven").is_some_and(|oven| oven.others.is_empty()));
    assert_eq!(outcome.report.counts.of_other_sites, 0);
}

const TOKEN: &str = "token";
const CONFIG: &str = r#"
checkpoint.every = "5s"

[[windows]]
name = "ten"
size = "10s"
idle_after = "2s"

[[windows]]
name = "types"
size = "10s"
by = "site"
idle_after = "2s"

[[rules]]
name = "hot"
when = { type = "threshold", metric = "temperature", op = ">", value = 80 }
"#;

/// A mill of two boxes and a bakery of one. North and the bakery's oven give each other all of the presses and fetch it.
struct Country {
    world: World,
    nodes: Vec<Node>,
    outside: HostId,
    env: Env,
}

fn host(name: &str, number: u8, disk: Option<DiskSpec>) -> HostSpec {
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number));
    HostSpec { name: name.to_owned(), address, clock_offset: Span::ZERO, clock_ppm: 0.0, disk }
}

impl Country {
    fn new() -> Country {
        let mut world = World::new(1, 0.0);
        world.network().set_default(LinkSpec { latency: (Span(150_000), Span(900_000)), ..LinkSpec::default() });
        let outside = world.add(host("outside", 1, None));
        let (mill, bakery) = (Authority::named(1, "mill"), Authority::named(2, "bakery"));
        let terms = || Terms { classes: Class::ALL.to_vec(), devices: vec!["press-*".to_owned()], ..Terms::default() };
        let mut nodes = Vec::new();
        for (at, name) in ["north", "south", "oven"].into_iter().enumerate() {
            let id = world.add(host(name, at as u8 + 2, Some(DiskSpec::default())));
            let mut config: Config = toml::from_str(CONFIG).expect("it is a configuration");
            config.node.name = name.to_owned();
            config.site.seeds =
                if name == "oven" { Vec::new() } else { vec!["north:7800".into(), "south:7800".into()] };
            let mut node = Node::new(name.to_owned(), id, config, 2, Span::from_secs(1), TOKEN);
            node.papers = Some(if name == "oven" { bakery.papers(name) } else { mill.papers(name) });
            match name {
                "north" => node.trusts = vec![bakery.trusted(terms(), vec!["oven:7800".to_owned()])],
                "oven" => node.trusts = vec![mill.trusted(terms(), vec!["north:7800".to_owned()])],
                _ => {}
            }
            nodes.push(node);
        }
        let env = world.boot(outside);
        nodes.iter_mut().for_each(|node| node.start(&mut world));
        let mut country = Country { world, nodes, outside, env };
        country.run(Span::from_secs(10));
        assert!(country.nodes.iter().all(|node| node.phase() == Phase::Up));
        country
    }

    fn run(&mut self, span: Span) {
        let until = self.world.now().after(span.0 as u64);
        while self.world.step(until).is_some() {}
    }

    fn ask(&mut self, node: &str, method: &'static str, path: &str, body: Option<String>) -> Result<Value, String> {
        let answer: Arc<Mutex<Option<Result<Value, String>>>> = Arc::default();
        let url = format!("http://{node}:8080");
        let client = HttpClient::new(self.env.clone(), &url, Some(TOKEN)).expect("an address");
        let (tell, path, env) = (answer.clone(), path.to_owned(), self.env.clone());
        self.world.enter(self.outside, || {
            env.spawn(async move {
                let said = client.ask(method, &path, body.map(Into::into)).await.map_err(|error| error.to_string());
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

    /// Five readings of a device, a second apart, from the beginning of the world on.
    fn publish(&mut self, node: &str, device: &str, temperature: f64) {
        let ts = |n: i64| EPOCH.as_millis() + n * 1000;
        let row = |n: i64| json!({ "device": device, "ts": ts(n), "seq": n, "temperature": temperature + n as f64 });
        let rows: Vec<Value> = (1..=5).map(row).collect();
        let said = self.ask(node, "POST", "/v1/telemetry", Some(json!(rows).to_string()));
        assert_eq!(said.map(|said| said["accepted"].clone()), Ok(json!(5)));
    }

    /// The values that a node knows of a device.
    fn values(&mut self, node: &str, device: &str, site: &str) -> Result<Vec<f64>, String> {
        let end = EPOCH.as_millis() + 600_000;
        let path = format!("/v1/query?device_id={device}&metric=temperature&end={end}{site}");
        let answer = self.ask(node, "GET", &path, None)?;
        let points = answer["points"].as_array().cloned().unwrap_or_default();
        Ok(points.iter().filter_map(|point| point[1].as_f64()).collect())
    }
}

fn list<'a>(answer: &'a Value, key: &str) -> Vec<&'a Value> {
    answer[key].as_array().map(|list| list.iter().collect()).unwrap_or_default()
}

#[test]
fn devices_of_two_sites_with_one_name_are_told_apart() {
    let mut country = Country::new();
    country.publish("north", "press-1", 100.0);
    country.publish("south", "press-2", 70.0);
    country.publish("north", "saw-1", 200.0);
    country.publish("oven", "press-1", 50.0);
    country.run(Span::from_secs(40));
    let five = |base: f64| Ok((1..=5).map(|n| base + f64::from(n)).collect::<Vec<f64>>());
    assert_eq!(country.values("oven", "press-1", "&site=mill"), five(100.0));
    assert_eq!(country.values("oven", "press-1", ""), five(50.0));
    assert_eq!(country.values("north", "press-1", "&site=bakery"), five(50.0));
    assert_eq!(country.values("north", "press-1", ""), five(100.0));
    // What south wrote came by way of north's copy; what the terms leave out did not come.
    assert_eq!(country.values("oven", "press-2", "&site=mill"), five(70.0));
    assert_eq!(country.values("oven", "saw-1", "&site=mill"), Ok(Vec::new()));
    // South takes nothing from the bakery: it asks its mate.
    assert_eq!(country.values("south", "press-1", "&site=bakery"), five(50.0));
    assert!(country.values("oven", "press-1", "&site=smithy").is_err());

    let panes = country.get("oven", "/v1/windows/ten?site=mill");
    let mut keys: Vec<&str> = list(&panes, "panes").iter().filter_map(|pane| pane["key"].as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["press-1", "press-2"], "{panes}");
    assert!(country.ask("oven", "GET", "/v1/windows/types?site=mill", None).is_err());
    assert_eq!(list(&country.get("oven", "/v1/windows/ten"), "panes").len(), 1);
    let alerts = country.get("oven", "/v1/alerts?site=mill");
    let keys: Vec<&str> = list(&alerts, "alerts").iter().filter_map(|alert| alert["key"].as_str()).collect();
    assert_eq!(keys, ["press-1"], "{alerts}");
    assert!(list(&country.get("oven", "/v1/alerts"), "alerts").is_empty());

    let ledger = country.get("oven", "/v1/site/ledger");
    let rows: Vec<&Value> = list(&ledger, "rows").into_iter().filter(|row| row["site"] == "mill").collect();
    assert_eq!(rows.len(), 4, "{ledger}");
    assert!(rows.iter().all(|row| row["missing"] == 0), "{ledger}");
    assert!(rows.iter().any(|row| row["name"] == "mill/south"), "{ledger}");
}
