//! A recorded machine, published by a real client, against the file itself and another tool.

use std::process::Command;

use crate::support::{Node, folder, has, not_here, run, shared, write};

const CONFIG: &str = r#"
[[windows]]
name = "hourly"
size = "1h"

[[rules]]
name = "machine-failure"
when = { type = "threshold", metric = "temperature", op = "<", value = 45.0, clear = 60.0 }
for = "10m"
severity = "critical"
"#;

#[test]
fn a_recorded_machine_is_stored_whole_and_its_failure_is_noticed() {
    let Some(file) = shared("data/recorded/machine_temperature_system_failure.csv") else {
        return not_here("the recorded machine, because its file is not beside this checkout");
    };
    if !has("python3", &["-c", "import paho.mqtt.client, duckdb"]) {
        return not_here("the recorded machine, because python3 has no paho-mqtt or no duckdb");
    }
    let (data, folder) = (folder(), folder());
    let config = write(folder.path(), "edge.toml", CONFIG);
    let node = Node::start(data.path(), Some(&config), &[]);
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/recorded.py")).arg(file);
    command.args([node.mqtt.to_string(), node.http.to_string()]);
    println!("{}", run(&mut command));
    node.terminate();
}
