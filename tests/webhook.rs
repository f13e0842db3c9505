//! An alert reaches a webhook, also one that is down at first, and across a `kill -9` of the node.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::mpsc,
};

use serde_json::Value;

use crate::support::{Node, folder, write};

/// A small server that answers each POST with the next status, the last one for ever, and tells what it got.
fn server(statuses: &'static [u16]) -> (std::net::SocketAddr, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            let (head, body) = loop {
                let Ok(read @ 1..) = stream.read(&mut buffer) else { break (String::new(), Vec::new()) };
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length =
                    head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    break (head.to_lowercase(), body.as_bytes().to_vec());
                }
            };
            let status = statuses[n.min(statuses.len() - 1)];
            let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let key = head.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap_or_default();
            if status == 200 && tx.send((key.to_string(), serde_json::from_slice(&body).unwrap_or_default())).is_err() {
                return;
            }
        }
    });
    (address, rx)
}

#[test]
fn an_alert_reaches_a_webhook_that_was_down_and_a_node_that_was_killed() {
    let (address, heard) = server(&[500, 200]);
    let (data, folder) = (folder(), folder());
    let text = format!(
        r#"
[[rules]]
name = "hot"
when = {{ type = "threshold", metric = "t", op = ">", value = 80.0, clear = 75.0 }}
for = "2s"
enrich = {{ double = "t * 2.0" }}

[[webhooks]]
name = "pager"
url = "http://{address}/hook"
"#
    );
    let config = write(folder.path(), "edge.toml", &text);
    let node = Node::start(data.path(), Some(&config), &[]);
    let at = |second: i64, t: f64| format!(r#"{{"device":"d","ts":{},"t":{t}}}"#, 1_760_000_000_000 + second * 1000);
    let hot: Vec<String> = (0..5).map(|second| at(second, 81.0 + second as f64)).collect();
    assert_eq!(node.post("/v1/telemetry", "application/x-ndjson", &hot.join("\n")), Some(200));
    node.wait_for("the alert", |node| {
        let alerts = node.get("/v1/alerts?state=firing");
        (alerts["alerts"].as_array().expect("a list").len() == 1).then_some(())
    });
    // The first try gets 500; the next one comes from a node that was killed meanwhile.
    node.kill();
    let node = Node::start(data.path(), Some(&config), &[]);
    let (key, said) = heard.recv_timeout(std::time::Duration::from_secs(30)).expect("a notification");
    assert_eq!((said["kind"].as_str(), said["rule"].as_str()), (Some("firing"), Some("hot")));
    assert_eq!(said["id"].as_str(), Some(key.as_str()));
    assert_eq!(said["alerts"][0]["key"], "d");
    assert_eq!(said["alerts"][0]["facts"]["double"], "166");
    assert_eq!(node.post("/v1/telemetry", "application/json", &at(6, 60.0)), Some(200));
    let (_, said) = heard.recv_timeout(std::time::Duration::from_secs(30)).expect("the end of it");
    assert_eq!(said["kind"], "resolved");
    let alerts = node.get("/v1/alerts");
    assert_eq!(alerts["alerts"].as_array().expect("a list").len(), 1, "one alert, not two: {alerts}");
    node.terminate();
}
