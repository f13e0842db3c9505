//! What the view learns of each node, with a login as a user would, over HTTP once a second: the members that the node sees, its copies of
//! the others, its journal, its alerts and its health; and from the first node of a site that lives the windows of the whole site.

use millpond_core::time::Span;
use millpond_env::Env;
use millpond_gateway::client::http::{HttpClient, HttpError};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Shared, config,
    mesh::{NAMES, OF_SITE, site_of},
    status::Seen,
};

const EVERY: Span = Span::from_secs(1);

pub async fn run(env: Env, node: usize, client: HttpClient, status: Shared, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let is_up = status.lock().nodes[node].up_since.is_some();
        if is_up && ask(&env, node, &client, &status).await.is_err() {
            status.lock().nodes[node].seen = Seen::default();
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = env.sleep(EVERY) => {}
        }
    }
}

async fn ask(env: &Env, node: usize, client: &HttpClient, status: &Shared) -> Result<(), HttpError> {
    let seen = Seen::of(&metrics(client).await?, &client.get("/v1/journal").await?, &client.get("/healthz").await?);
    let alerts = client.get("/v1/alerts?limit=40").await?;
    let speaks = status.lock().first_of(site_of(node), |node| node.up_since.is_some()) == Some(node);
    let panes =
        if speaks { client.get(&format!("/v1/windows/{}?limit=40", config::WINDOW)).await? } else { Value::Null };
    let now = env.now();
    let mut status = status.lock();
    status.take_alerts(now, site_of(node), alerts["alerts"].as_array().map_or(&[], Vec::as_slice));
    status.take_panes(now, site_of(node), panes["panes"].as_array().map_or(&[], Vec::as_slice));
    let before = std::mem::replace(&mut status.nodes[node].seen, seen.clone());
    if let Some(head) = seen.head.clone() {
        status.cloud.sites[site_of(node)].heard(head);
    }
    let name = NAMES[node];
    if seen.members != before.members && before.members > 0 {
        status.say(now, format!("{name} sees {} of {OF_SITE} nodes up", seen.members));
    }
    if seen.adopted > before.adopted {
        let more = seen.adopted - before.adopted;
        status.adopted += more;
        status.say(now, format!("{name} goes on with {more} windows of a node that is gone, from its copy"));
    }
    Ok(())
}

/// The metrics of the site, each summed over its labels. Of the events of another node only some keep a copy, and may keep a part of one; so
/// what is missing of them says nothing.
async fn metrics(client: &HttpClient) -> Result<Vec<(String, f64)>, HttpError> {
    let mut lines = client.lines("/metrics").await?;
    let mut found = Vec::new();
    while let Some(line) = lines.next().await? {
        found.extend(line.strip_prefix("millpond_site_").and_then(metric));
    }
    Ok(found)
}

fn metric(line: &str) -> Option<(String, f64)> {
    let (name, value) = line.rsplit_once(' ')?;
    if name.starts_with("missing_records") && !name.contains("track=\"results\"") {
        return None;
    }
    let name = name.split('{').next()?;
    Some((name.to_owned(), value.parse().ok()?))
}
