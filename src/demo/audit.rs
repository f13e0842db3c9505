//! Whether everything that was acknowledged at a site is there: asked of one living node, which answers for the whole site.

use millpond_core::time::{Span, Timestamp};
use millpond_env::Env;
use millpond_gateway::client::http::{self, HttpClient};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    status::{Audit, Machine},
};

/// At least; a count that takes long is made less often.
const EVERY: Span = Span::from_secs(2);
/// As many as a node answers with.
const POINTS_MAX: u32 = 500_000;
/// Beyond any time stamp that a machine could have.
const FAR_MS: u64 = 4_102_444_800_000;

/// Readings of each machine from `since` on that the site has, by the values of one metric that each reading has. One that stands in two journals,
/// because its acknowledgement was lost with a node, is one.
///
/// # Errors
/// When the node does not answer.
pub async fn stored(client: &HttpClient, machines: &[Machine], since: Timestamp) -> anyhow::Result<Vec<u64>> {
    let mut counts = Vec::with_capacity(machines.len());
    for machine in machines {
        let query = http::query_string(&[
            ("device_id", Some(machine.name.clone())),
            ("metric", Some(machine.metric.to_owned())),
            ("start", Some(since.as_millis().to_string())),
            ("end", Some(FAR_MS.to_string())),
            ("limit", Some(POINTS_MAX.to_string())),
        ]);
        let answer = client.get(&format!("/v1/query{query}")).await?;
        counts.push(answer["points"].as_array().map_or(0, |points| points.len() as u64));
    }
    Ok(counts)
}

/// Counts again and again at one site; `before` is what was there when the demo began.
pub async fn run(
    env: Env,
    site: usize,
    clients: Vec<HttpClient>,
    (since, before): (Timestamp, Vec<u64>),
    status: Shared,
    stopping: CancellationToken,
) {
    while !stopping.is_cancelled() {
        let (machines, speaks) = {
            let status = status.lock();
            (status.machines_of(site), status.first_of(site, |node| node.seen.members > 0))
        };
        let begun = env.now();
        let stored = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            stored = async { stored(&clients[speaks?], &machines, since).await.ok() } => stored,
        };
        let took = env.now().since(begun);
        if let Some(stored) = stored {
            let audit = Audit::of(&machines, &before, &stored);
            let mut status = status.lock();
            if audit.missing > 0 {
                let now = env.now();
                status.say(now, format!("NOT FOUND: {} readings that were acknowledged", audit.missing));
            }
            status.audits[site] = Some(audit);
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = env.sleep(EVERY.max(Span(took.0 * 4))) => {}
        }
    }
}
