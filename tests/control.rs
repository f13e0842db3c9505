//! Definitions that a cloud gives its sites: real processes, and the commands that an operator uses.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cloud::{cloud, trust},
    support::{MILLPOND, Node, folder, site::Place, write},
};

const EDGE: &str = r#"
[[windows]]
name = "ten"
size = "10s"
idle_after = "1s"
aggregates = ["count", "mean"]
"#;

const HOT: &str = r#"
[[rules]]
name = "hot"
quiet = "0s"
when = { type = "threshold", metric = "temperature", op = ">", value = 90.0 }
"#;

/// A cloud and two sites, mill and bakery.
struct Three {
    folder: TempDir,
    config: PathBuf,
    above: Node,
    mill: (Place, Node),
    /// Its node may be away.
    bakery: (Place, Option<Node>),
}

impl Three {
    fn start() -> Three {
        Three::start_with("")
    }

    /// With more in the configuration of the cloud.
    fn start_with(more: &str) -> Three {
        let folder = folder();
        let config = write(folder.path(), "edge.toml", EDGE);
        let data = folder.path().join("cloud");
        let cloud_config = write(folder.path(), "cloud.toml", &format!("{EDGE}{more}"));
        let above = cloud(&data, &cloud_config, &["site.listen=127.0.0.1:0"]);
        let door = above.site.expect("it is in a site").to_string();
        let certificate = |data: &Path| data.join("identity/site.crt").display().to_string();
        let site = |name, node| {
            let (place, node) = Place::found(name, node, &config, &[]);
            trust(&[&certificate(&place.data())], &data);
            trust(&[&certificate(&data), "--uplink", &door], &place.data());
            (place, node)
        };
        let (mill, (place, oven)) = (site("mill", "north"), site("bakery", "oven"));
        above.wait_for("both sites", |above| {
            let sites = above.get("/v1/cloud/sites");
            let there =
                |name: &str| sites["sites"].as_array().is_some_and(|all| all.iter().any(|one| one["site"] == name));
            (there("mill") && there("bakery")).then_some(())
        });
        Three { folder, config, above, mill, bakery: (place, Some(oven)) }
    }

    fn oven(&self) -> &Node {
        self.bakery.1.as_ref().expect("it is not away")
    }

    fn command(&self, args: &[&str]) -> Output {
        let (url, data) = (format!("http://{}", self.above.http), self.folder.path().join("cloud"));
        Command::new(MILLPOND).args(args).args(["--url", &url, "--data"]).arg(data).output().expect("it runs")
    }

    /// Rolls out what `text` says; what the command says.
    fn apply(&self, text: &str, args: &[&str]) -> String {
        let definitions = self.folder.path().join("definitions");
        std::fs::create_dir_all(&definitions).expect("a folder");
        write(&definitions, "all.toml", text);
        let path = definitions.display().to_string();
        let canary: &[&str] = if args.contains(&"--canary") { &[] } else { &["--canary", "mill"] };
        let said = self.command(&[&["apply", "-f", &path, "--yes"], canary, args].concat());
        let words = [said.stdout, said.stderr].concat();
        let words = String::from_utf8_lossy(&words).into_owned();
        assert!(said.status.success(), "{words}");
        words
    }

    fn wait_for_step(&self, step: &str) -> Value {
        self.above.wait_for(step, |above| {
            let newest = above.get("/v1/cloud/rollouts")["rollouts"][0].clone();
            (newest["step"] == step).then_some(newest)
        })
    }

    fn show(&self) -> String {
        let said = self.command(&["rollout", "show"]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    }
}

#[test]
fn a_user_of_a_tenant_sees_and_changes_what_is_the_tenants() {
    let made = Command::new(MILLPOND).args(["token", "new", "anna", "--role", "admin", "--tenant", "acme"]).output();
    let made = made.expect("it runs");
    let (token, user) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    let user = user.split("\n\n").next().expect("lines for the configuration");
    let three = Three::start_with(&format!("{user}\n\n[[cloud.sites]]\nsite = \"bakery\"\ntenant = \"acme\"\n"));
    measure(&three.mill.1, "press-1", &[60.0]);
    measure(three.oven(), "press-1", &[20.0]);
    let range = "start=1760000000000&end=1760000001000";
    let points = |above: &Node, tenant: &str| {
        above.get(&format!("/v1/query?device_id=press-1&metric=temperature&{range}&tenant={tenant}"))["points"].clone()
    };
    three.above.wait_for("an event of each site", |above| {
        let all = ["default", "acme"].map(|tenant| points(above, tenant)[0][1].as_f64());
        (all == [Some(60.0), Some(20.0)]).then_some(())
    });
    let anna = |args: &[&str]| {
        let said = three.command(&[args, &["--token", token.trim()]].concat());
        let words =
            String::from_utf8_lossy(if said.status.success() { &said.stdout } else { &said.stderr }).into_owned();
        (said.status.success(), words)
    };
    let values = ["query", "press-1", "temperature", "--start", "1760000000000", "--end", "1760000001000", "--json"];
    let (done, words) = anna(&values);
    assert!(done && words.contains("[[1760000000000,20.0]]"), "{words}");
    let refused = |args: &[&str]| {
        let (done, words) = anna(args);
        assert!(!done, "{args:?}: {words}");
        words
    };
    let words = refused(&[&values[..], &["--tenant", "default"]].concat());
    assert!(words.contains("a user of the tenant `acme`"), "{words}");
    refused(&["ledger", "mill"]);
    // Windows and alerts over sites, too.
    let keys = |list: &str, path: &str, tenant: &str| {
        let answer = three.above.get(&format!("{path}?tenant={tenant}"));
        let keys = answer[list].as_array().into_iter().flatten().map(|one| one["key"].to_string());
        keys.collect::<Vec<String>>().join(" ")
    };
    three.above.wait_for("a pane of each site", |_| {
        let panes = ["default", "acme"].map(|tenant| keys("panes", "/v1/windows/ten", tenant));
        (panes == ["\"press-1\"", "\"acme/press-1\""]).then_some(())
    });
    let (done, words) = anna(&["windows", "ten", "--json"]);
    assert!(done && words.contains("acme/press-1") && !words.contains("\"press-1\""), "{words}");
    assert!(anna(&["alerts"]).0);
    let (done, words) = anna(&["sites", "--json"]);
    assert!(done && words.contains("bakery") && !words.contains("mill"), "{words}");
    assert!(anna(&["ledger", "bakery"]).0);
    // What she rolls out goes to her tenant's sites, and others cannot be named.
    let said = three.apply(HOT, &["--canary", "bakery", "--watch", "1s", "--token", token.trim()]);
    assert!(said.contains("for 1 site"), "{said}");
    three.wait_for_step("done");
    assert_eq!((texts(three.oven(), "rules"), texts(&three.mill.1, "rules")), (vec!["hot".to_owned()], Vec::new()));
    three.apply(HOT, &["--watch", "1s"]);
    three.wait_for_step("done");
    let (_, words) = anna(&["rollout", "list", "--json"]);
    assert!(words.contains("acme") && !words.contains("default"), "{words}");
    refused(&["rollout", "undo", "2"]);
    refused(&["apply", "-f", &three.folder.path().join("definitions").display().to_string(), "--tenant", "default"]);
    assert!(anna(&["rollout", "undo", "1"]).0);
    let edge = Command::new(MILLPOND).args(["edge", "--config"]).arg(three.folder.path().join("cloud.toml")).output();
    let words = String::from_utf8_lossy(&edge.expect("it runs").stderr).into_owned();
    assert!(words.contains("only the nodes of a cloud know tenants"), "{words}");
}

/// Names of the texts of a kind at a site.
fn texts(node: &Node, kind: &str) -> Vec<String> {
    let answer = node.get(&format!("/v1/site/texts/{kind}"));
    let names = answer["texts"].as_array().into_iter().flatten().filter_map(|text| text["name"].as_str());
    names.map(str::to_owned).collect()
}

fn measure(node: &Node, device: &str, values: &[f64]) {
    let line = |(n, value): (usize, &f64)| {
        format!(r#"{{"device":"{device}","ts":{},"seq":{n},"temperature":{value:.1}}}"#, 1_760_000_000_000 + n * 1000)
    };
    let lines: Vec<String> = values.iter().enumerate().map(line).collect();
    assert_eq!(node.post("/v1/telemetry", "application/x-ndjson", &lines.join("\n")), Some(200));
}

fn alerts(node: &Node) -> usize {
    node.get("/v1/alerts")["alerts"].as_array().map_or(0, Vec::len)
}

#[test]
fn definitions_reach_all_sites_by_a_canary() {
    let mut three = Three::start();
    three.bakery.1.take().expect("it is there").terminate();
    let dry = three.apply(HOT, &["--dry-run"]);
    assert!(dry.contains("+ rules hot") && dry.contains("value = 90.0"), "{dry}");
    assert!(three.above.get("/v1/cloud/rollouts")["rollouts"].as_array().is_some_and(Vec::is_empty));
    three.apply(HOT, &["--watch", "1s"]);
    let done = three.wait_for_step("done");
    assert_eq!(done["canaries"], serde_json::json!(["mill"]));
    assert_eq!(texts(&three.mill.1, "rules"), ["hot"]);
    let again = three.apply(HOT, &[]);
    assert!(again.contains("Nothing to do"), "{again}");
    // Who was away gets what is current.
    three.bakery.1 = Some(three.bakery.0.start(&three.config, &[]));
    three.oven().wait_for("the rule", |oven| (texts(oven, "rules") == ["hot"]).then_some(()));
    three.above.wait_for("both sites' word", |above| {
        let sites = above.get("/v1/cloud/sites");
        let works = |site: &Value| site["state"] == "applied" && site["head"] == done["head"];
        sites["sites"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(works)).then_some(())
    });
    measure(three.oven(), "oven-1", &[95.0]);
    three.oven().wait_for("an alert", |oven| (alerts(oven) == 1).then_some(()));
    // A rule in the shadow is counted, and raises nothing.
    let shadow = HOT.replace("90.0", "50.0").replace("quiet = \"0s\"", "shadow = true");
    let said = three.apply(&shadow, &["--watch", "1s"]);
    assert!(said.contains("+ rules hot--shadow"), "{said}");
    three.wait_for_step("done");
    let north = &three.mill.1;
    measure(north, "press-1", &[60.0, 20.0, 95.0]);
    let compared = three.above.wait_for("what would have fired", |above| {
        let at = above.get("/v1/cloud/rollouts")["rollouts"][0]["at"].clone();
        let mill = at.as_array()?.iter().find(|at| at["site"] == "mill")?["shadow"][0].clone();
        (mill["fired_new"] == 2 && mill["fired_old"] == 1).then_some(mill)
    });
    assert_eq!((&compared["only_new"], &compared["only_old"]), (&Value::from(1), &Value::from(0)));
    assert_eq!(alerts(north), 1, "the one of 95 degrees");
    assert!(three.show().contains("FIRED NEW"), "{}", three.show());
    // By hand everything is as before.
    let said = three.command(&["rollout", "undo", "2"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    north.wait_for("the rule of before", |north| (texts(north, "rules") == ["hot"]).then_some(()));
}

#[test]
fn definitions_that_are_bad_for_the_canary_come_back_by_themselves() {
    let three = Three::start();
    let north = &three.mill.1;
    three.apply(HOT, &["--watch", "1s"]);
    three.wait_for_step("done");
    // The mill has a rule of its own that needs what the new window does not compute.
    let own = r#"
[[rules]]
name = "slow"
when = { type = "window", window = "ten", metric = "temperature", aggregate = "mean", op = ">", value = 500.0 }
"#;
    let own = write(three.folder.path(), "own.toml", own);
    let url = format!("http://{}", north.http);
    let data = three.mill.0.data();
    let said = Command::new(MILLPOND).args(["rules", "apply", "--url", &url, "--data"]).arg(data).arg(own).output();
    let said = said.expect("it runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    three.apply(
        &format!("{HOT}\n[[windows]]\nname = \"ten\"\nsize = \"20s\"\naggregates = [\"count\"]\n"),
        &["--watch", "60s"],
    );
    let returned = three.wait_for_step("returned");
    let why = returned["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("mill rejected rules slow") && why.contains("mean"), "{why}");
    assert!(three.show().contains(&format!("taken back: {why}")), "{}", three.show());
    assert!(texts(three.oven(), "windows").is_empty(), "it never got there");
    // One that fires all the time.
    let always = HOT.replace("90.0", "-1000.0").replace("\"hot\"", "\"always\"");
    three.apply(&format!("{HOT}{always}"), &["--watch", "60s", "--max-alert-rate", "3/min"]);
    north.wait_for("the rule", |north| texts(north, "rules").contains(&"always".to_owned()).then_some(()));
    three.above.wait_for("the canary's word", |above| {
        (above.get("/v1/cloud/rollouts")["rollouts"][0]["at"].as_array()?.iter().any(|at| at["state"] == "applied"))
            .then_some(())
    });
    (0..10).for_each(|n| measure(north, &format!("press-{n}"), &[1.0, 2.0]));
    let returned = three.wait_for_step("returned");
    let why = returned["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("mill raised ") && why.ends_with("more than 3"), "{why}");
    assert!(three.show().contains("taken back: mill raised"), "{}", three.show());
    north.wait_for("the rules of before", |north| (texts(north, "rules") == ["hot", "slow"]).then_some(()));
    assert_eq!(texts(three.oven(), "rules"), ["hot"]);
    let list = three.command(&["rollout", "list"]);
    assert_eq!(String::from_utf8_lossy(&list.stdout).matches("returned").count(), 2);
}
