//! Somebody who gives a cloud definitions for its sites, and asks in the end what became of them.

use bytes::Bytes;
use millpond_core::time::Span;
use millpond_env::Env;
use millpond_gateway::client::http::HttpClient;
use serde_json::{Value as Json, json};

use super::{Doors, Floor, true_time};
use crate::{scenario::RolloutSpec, world::core::Instant};

const PATIENCE: Span = Span::from_secs(20);
/// The cloud may be away.
const AGAIN: Span = Span::from_secs(2);

fn client(env: &Env, doors: &Doors) -> Option<HttpClient> {
    HttpClient::new(env.clone(), &format!("http://{}:{}", doors.host, doors.http), Some(&doors.token)).ok()
}

/// `number` is that of the rollout in the scenario.
pub(super) async fn roll_out(env: Env, floor: Floor, number: usize, spec: RolloutSpec, doors: Doors) {
    let at = spec.at.draw(&mut env.rng(&format!("rollout/{number}")));
    let Some(client) = client(&env, &doors) else { return };
    env.sleep(at).await;
    let texts: Vec<Json> =
        spec.rules.iter().map(|(name, text)| json!({ "kind": "rules", "name": name, "text": text })).collect();
    let mut wanted = json!({ "texts": texts, "watch": spec.watch.to_string(), "canary": spec.canary });
    if let Some(rate) = spec.max_alert_rate {
        wanted["max_alert_rate"] = rate.into();
    }
    let body = Bytes::from(wanted.to_string());
    while !floor.is_quiet() {
        let asked = client.ask("PUT", "/v1/cloud/heads", Some(body.clone()));
        let given = match env.timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => answer["rollout"].as_u64().ok_or_else(|| answer.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        };
        let is_given = given.is_ok();
        floor.with_witness(|witness| witness.rollouts.insert(number, given));
        if is_given {
            return;
        }
        env.sleep(AGAIN).await;
    }
}

/// Asks a node once, shortly before the end: one of a cloud for its rollouts, another one for its rules.
pub(super) async fn look(env: Env, floor: Floor, (node, doors): (String, Doors), is_cloud: bool, at: Instant) {
    let Some(client) = client(&env, &doors) else { return };
    env.sleep(Span(at.0.saturating_sub(true_time(&env).0) as i64)).await;
    let path = if is_cloud { "/v1/cloud/rollouts" } else { "/v1/site/texts/rules" };
    let answer = match env.timeout(PATIENCE, client.get(path)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => error.to_string().into(),
        Err(_) => "no answer".into(),
    };
    if !floor.is_closed() {
        floor.with_witness(|witness| witness.asked_in_the_end.insert(node, answer));
    }
}
