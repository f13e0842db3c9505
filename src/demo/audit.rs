//! Whether everything that was acknowledged is there: asked of one living node, which answers for the whole site.

use millpond_core::time::Span;
use millpond_env::Env;
use millpond_gateway::client::http::{self, HttpClient};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    status::{Audit, Machine},
};

const EVERY: Span = Span::from_secs(4);
/// Beyond any time stamp that a machine could have.
const FAR_MS: u64 = 4_102_444_800_000;

/// Readings of each machine that the site has, by the count of one metric that each reading has.
///
/// # Errors
/// When the node does not answer.
pub async fn stored(client: &HttpClient, machines: &[Machine]) -> anyhow::Result<Vec<u64>> {
    let mut counts = Vec::with_capacity(machines.len());
    for machine in machines {
        let text = |text: &str| Some(text.to_owned());
        let query = http::query_string(&[
            ("device_id", text(&machine.name)),
            ("metric", text(machine.metric)),
            ("start", text("0")),
            ("end", Some(FAR_MS.to_string())),
            ("aggregate", text("count")),
            ("step", text("87600h")),
        ]);
        let answer = client.get(&format!("/v1/query{query}")).await?;
        let points = answer["points"].as_array().map_or(&[][..], Vec::as_slice);
        counts.push(points.iter().filter_map(|point| point[1].as_f64()).sum::<f64>() as u64);
    }
    Ok(counts)
}

/// Counts again and again; `before` is what was there when the demo began.
pub async fn run(env: Env, clients: Vec<HttpClient>, before: Vec<u64>, status: Shared, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let (machines, speaks) = {
            let status = status.lock();
            (status.machines.clone(), status.nodes.iter().position(|node| node.seen.members > 0))
        };
        if let Some(speaks) = speaks
            && let Ok(stored) = stored(&clients[speaks], &machines).await
        {
            let audit = Audit::of(&machines, &before, &stored);
            let mut status = status.lock();
            if audit.missing > 0 {
                let now = env.now();
                status.say(now, format!("NOT FOUND: {} readings that were acknowledged", audit.missing));
            }
            status.audit = Some(audit);
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = env.sleep(EVERY) => {}
        }
    }
}
