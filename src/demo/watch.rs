//! What the view learns of the node, with a login as a user would: results of windows and alerts by a subscription over MQTT, alerts
//! also over HTTP (a subscription misses what happens while it is down), journal and health over HTTP once a second.

use millpond_core::time::Span;
use millpond_env::Env;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Shared, config, status::Journal};
use millpond_gateway::client::{
    http::{HttpClient, HttpError},
    mqtt::{self, Connection},
};

const EVERY: Span = Span::from_secs(1);

/// Opens the subscription.
///
/// # Errors
/// When the node does not let the view in.
pub async fn open(env: &Env, node: (&str, u16), token: &str) -> Result<Connection, mqtt::MqttError> {
    let options = mqtt::Options {
        host: node.0.to_owned(),
        port: node.1,
        client_id: config::VIEW_USER.to_owned(),
        login: Some((config::VIEW_USER.to_owned(), token.to_owned())),
        in_flight: 1,
    };
    let mut connection = Connection::open(env, options).await?;
    connection.session().subscribe(&format!("windows/{}/#", config::WINDOW), 1);
    connection.session().subscribe("alerts/#", 1);
    Ok(connection)
}

pub async fn run(
    env: Env,
    mut connection: Connection,
    client: HttpClient,
    status: Shared,
    stopping: CancellationToken,
) {
    let mut next_ask = env.now();
    while !stopping.is_cancelled() {
        let now = env.now();
        if now >= next_ask {
            next_ask = now.after(EVERY);
            if let Err(error) = ask(&env, &client, &status).await {
                status.lock().health = format!("no answer: {error}");
            }
        }
        let outcome = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            outcome = connection.pump() => outcome,
            () = env.clock.timer(next_ask) => Ok(()),
        };
        take_messages(&env, &mut connection, &status);
        if outcome.is_err() {
            env.sleep(Span::from_millis(250)).await;
            // When it fails the next pump fails too, and we are here again.
            let _ = connection.reopen(&env).await;
        }
    }
}

fn take_messages(env: &Env, connection: &mut Connection, status: &Shared) {
    let now = env.now();
    let mut status = status.lock();
    for message in connection.session().messages() {
        let Ok(json) = serde_json::from_slice::<Value>(&message.payload) else { continue };
        if message.topic.starts_with("windows/") {
            status.take_panes(now, &[json]);
        } else {
            status.take_alerts(now, &[json]);
        }
    }
}

async fn ask(env: &Env, client: &HttpClient, status: &Shared) -> Result<(), HttpError> {
    let alerts = client.get("/v1/alerts?limit=40").await?;
    let journal = client.get("/v1/journal").await?;
    let health = client.get("/healthz").await?;
    let mut status = status.lock();
    status.take_alerts(env.now(), alerts["alerts"].as_array().map_or(&[], Vec::as_slice));
    status.journal = Journal {
        events: journal["classes"]["raw"]["events"].as_u64().unwrap_or_default(),
        file_bytes: journal["file_bytes"].as_u64().unwrap_or_default(),
        dead_letters: journal["dead_letters"].as_u64().unwrap_or_default(),
    };
    status.health = said_of_health(&health);
    Ok(())
}

fn said_of_health(health: &Value) -> String {
    let reasons: Vec<&str> = health["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let word = health["status"].as_str().unwrap_or("unknown");
    if reasons.is_empty() { word.to_owned() } else { format!("{word}: {}", reasons.join("; ")) }
}
