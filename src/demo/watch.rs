//! Asks the node once a second, over its HTTP API and with a login.

use millpond_core::time::Span;
use millpond_env::Env;
use serde_json::Value;
use tokio::sync::watch as flag;

use super::{Shared, config, status::Journal};
use crate::client::http::{HttpClient, HttpError};

const EVERY: Span = Span::from_secs(1);

pub async fn run(env: Env, client: HttpClient, status: Shared, mut stopping: flag::Receiver<bool>) {
    while !*stopping.borrow() {
        if let Err(error) = ask(&env, &client, &status).await {
            status.lock().health = format!("no answer: {error}");
        }
        tokio::select! {
            biased;
            _ = stopping.changed() => {}
            () = env.sleep(EVERY) => {}
        }
    }
}

async fn ask(env: &Env, client: &HttpClient, status: &Shared) -> Result<(), HttpError> {
    let window = format!("/v1/windows/{}?limit=40", config::WINDOW);
    let panes = client.get(&window).await?;
    let alerts = client.get("/v1/alerts?limit=40").await?;
    let journal = client.get("/v1/journal").await?;
    let health = client.get("/healthz").await?;
    let now = env.now();
    let mut status = status.lock();
    status.take_panes(now, rows(&panes));
    status.take_alerts(now, rows(&alerts));
    status.journal = Journal {
        events: journal["classes"]["raw"]["events"].as_u64().unwrap_or_default(),
        file_bytes: journal["file_bytes"].as_u64().unwrap_or_default(),
        dead_letters: journal["dead_letters"].as_u64().unwrap_or_default(),
    };
    status.health = said_of_health(&health);
    Ok(())
}

/// The rows of an answer: an array, or an object with one.
fn rows(answer: &Value) -> &[Value] {
    let inner = || answer.as_object().and_then(|fields| fields.values().find_map(Value::as_array));
    answer.as_array().or_else(inner).map_or(&[], Vec::as_slice)
}

fn said_of_health(health: &Value) -> String {
    let reasons: Vec<&str> = health["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let word = health["status"].as_str().unwrap_or("unknown");
    if reasons.is_empty() { word.to_owned() } else { format!("{word}: {}", reasons.join("; ")) }
}
