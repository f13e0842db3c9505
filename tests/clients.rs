//! Real MQTT clients: mosquitto's.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use crate::support::{MILLPOND, Node, folder, has, not_here, run, write};

fn there() -> bool {
    let there = has("sh", &["-c", "command -v mosquitto_pub && command -v mosquitto_sub"]);
    if !there {
        not_here("mosquitto's clients, because they are not installed");
    }
    there
}

fn publish(node: &Node, args: &[&str]) -> bool {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &node.mqtt.port().to_string()]).args(args);
    command.stderr(Stdio::null()).status().expect("mosquitto_pub runs").success()
}

/// A subscriber that is killed when dropped, and what it hears.
struct Subscriber(Child, mpsc::Receiver<String>);

impl Subscriber {
    fn start(node: &Node, args: &[&str]) -> Subscriber {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &node.mqtt.port().to_string(), "-v"]).args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("mosquitto_sub runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (tx, rx) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).all(|line| tx.send(line).is_ok()));
        Subscriber(child, rx)
    }

    fn hears(&self, line: &str) {
        let heard = self.1.recv_timeout(Duration::from_secs(20)).expect("a message");
        assert_eq!(heard, line);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn mosquittos_clients_publish_subscribe_and_keep_retained_messages() {
    if !there() {
        return;
    }
    let data = folder();
    let node = Node::start(data.path(), None, &[]);
    for (version, value) in [("311", 1), ("5", 2)] {
        let payload = format!(r#"{{"ts":{},"v":{value}}}"#, 1_760_000_000_000i64 + value);
        assert!(publish(&node, &["-V", version, "-q", "1", "-t", "devices/m/telemetry", "-m", &payload]));
    }
    let answer = node.get("/v1/query?device_id=m&metric=v&start=1760000000000&end=1760000001000");
    assert_eq!(answer["points"].to_string(), "[[1760000000001,1.0],[1760000000002,2.0]]");
    assert!(publish(&node, &["-q", "1", "-r", "-t", "line/status", "-m", "running"]));
    node.kill();
    let node = Node::start(data.path(), None, &[]);
    let subscriber = Subscriber::start(&node, &["-V", "5", "-q", "1", "-t", "line/#", "-t", "devices/+/telemetry"]);
    subscriber.hears("line/status running");
    assert!(publish(&node, &["-q", "1", "-t", "devices/m/telemetry", "-m", r#"{"v":3}"#]));
    subscriber.hears(r#"devices/m/telemetry {"v":3}"#);
    let dying = Subscriber::start(
        &node,
        &["-t", "x", "--will-topic", "line/status", "--will-payload", "gone", "--will-qos", "1"],
    );
    node.wait_for("its session", |node| {
        let metrics =
            ureq::get(format!("http://{}/metrics", node.http)).call().expect("metrics").body_mut().read_to_string();
        metrics.expect("text").contains("millpond_mqtt_connections 2").then_some(())
    });
    drop(dying);
    subscriber.hears("line/status gone");
    node.terminate();
}

#[test]
fn without_a_login_nobody_comes_in() {
    if !there() {
        return;
    }
    let (data, folder) = (folder(), folder());
    let text = format!(
        "[node]\ndata = \"{}\"\n[mqtt]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n",
        data.path().display()
    );
    let config = write(folder.path(), "edge.toml", &text);
    let mut command = Command::new(MILLPOND);
    command.arg("edge").arg("--config").arg(&config);
    let node = Node::launch(command);
    let telemetry = ["-q", "1", "-t", "devices/m/telemetry", "-m", r#"{"v":1}"#];
    assert!(!publish(&node, &telemetry), "a client without a login");
    assert!(!publish(&node, &[&["-u", "admin", "-P", "wrong"], &telemetry[..]].concat()), "a wrong password");
    let token = std::fs::read_to_string(data.path().join("admin.token")).expect("the token of the first start");
    assert!(publish(&node, &[&["-u", "admin", "-P", token.trim()], &telemetry[..]].concat()));
    let refused = crate::support::post(node.http, "/v1/telemetry", "application/json", r#"{"device":"m","v":1}"#);
    assert_eq!(refused, Some(401));
    let listed = run(Command::new(MILLPOND)
        .args(["devices", "--json", "--data"])
        .arg(data.path())
        .args(["--url", &format!("http://{}", node.http)]));
    assert!(listed.contains("\"m\""), "{listed}");
    node.terminate();
}
