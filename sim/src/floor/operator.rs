//! An operator: changes one thing after the other, each to a value that nobody used before, and notes what nodes said to it.

use bytes::Bytes;
use millpond_core::time::Span;
use millpond_env::{Env, StdRng};
use millpond_gateway::client::http::HttpClient;
use rand::RngExt;
use serde_json::json;

use super::{Doors, Floor, true_time};
use crate::{
    scenario::{OperatorSpec, What},
    witness::{Change, Sent},
};

/// Whoever waits longer turns to something else.
const PATIENCE: Span = Span::from_secs(5);

pub(super) async fn operate(env: Env, floor: Floor, spec: OperatorSpec, doors: Vec<Doors>) {
    let mut rng = env.rng(&format!("operator/{}", spec.name));
    let client = |doors: &Doors| {
        HttpClient::new(env.clone(), &format!("http://{}:{}", doors.host, doors.http), Some(&doors.token)).ok()
    };
    let clients: Vec<_> = doors.iter().filter_map(|doors| Some((doors.host.clone(), client(doors)?))).collect();
    while !clients.is_empty() {
        env.sleep(spec.every.draw(&mut rng)).await;
        if floor.is_quiet() {
            return;
        }
        let (node, client) = &clients[rng.random_range(0..clients.len())];
        let change = draw(&spec, node, &env, &mut rng);
        let (what, name, key) = (change.what, change.name.clone(), change.key.clone());
        let value = floor.with_witness(|witness| witness.asked(change));
        let (method, path, body) = question(what, &name, &key, value);
        let said = env.timeout(PATIENCE, client.ask(method, &path, Some(Bytes::from(body)))).await;
        if matches!(said, Ok(Ok(_))) {
            floor.with_witness(|witness| witness.changes[value].acked = true_time(&env));
        }
    }
}

fn draw(spec: &OperatorSpec, node: &str, env: &Env, rng: &mut StdRng) -> Change {
    let what = spec.changes[rng.random_range(0..spec.changes.len())];
    let (device, key) = (rng.random_range(1..=spec.devices), rng.random_range(1..=spec.keys));
    let key = if matches!(what, What::Desired | What::Reported) { format!("key-{key}") } else { String::new() };
    let name = format!("{}-{device}", spec.name);
    Change { what, name, key, node: node.to_owned(), asked: true_time(env), acked: Sent::NEVER }
}

/// How a change is asked for: method, path and body.
fn question(what: What, name: &str, key: &str, value: usize) -> (&'static str, String, String) {
    match what {
        What::Desired => ("PATCH", format!("/v1/devices/{name}/twin/desired"), json!({ key: value }).to_string()),
        What::Reported => ("PATCH", format!("/v1/devices/{name}/twin/reported"), json!({ key: value }).to_string()),
        What::Registry => ("PUT", format!("/v1/devices/{name}"), json!({ "place": value }).to_string()),
        What::Rules => ("PUT", format!("/v1/site/texts/rules/{name}"), rule(value)),
    }
}

/// A rule that no device of a rehearsal meets.
pub fn rule(value: usize) -> String {
    format!("when = {{ type = \"threshold\", metric = \"nobody_measures_this\", op = \">\", value = {value}.0 }}")
}

/// The value in such a rule.
pub fn read_rule(text: &str) -> Option<usize> {
    text.split_once("value = ")?.1.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_its_value() {
        for value in [0, 7, 12_345] {
            assert_eq!(read_rule(&rule(value)), Some(value));
        }
        assert_eq!(read_rule("when = 1"), None);
    }
}
