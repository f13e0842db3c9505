//! What the view learns at the cloud, with a login as a user would: the ledger of each site, how old the newest value of one of its machines is
//! there, and how much is in the archive.

use std::collections::VecDeque;

use millpond_core::time::{Span, Timestamp};
use millpond_env::{Env, Mono};
use millpond_gateway::client::http::{self, HttpClient, HttpError};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    ledger::{Heads, Ledger},
    mesh::SITES,
    status::Machine,
};

const EVERY: Span = Span::from_millis(500);
/// As many as a node answers with.
const POINTS_MAX: u32 = 500_000;
/// Beyond any time stamp that a machine could have.
const FAR_MS: u64 = 4_102_444_800_000;
/// Over so many looks at a ledger it is told how fast it drains.
const LOOKS: usize = 6;
/// Fewer records are what is just on its way.
const DRAINS: u64 = 50;

/// What is known of the cloud.
#[derive(Clone, Debug, Default)]
pub struct CloudStatus {
    pub pid: u32,
    pub http: String,
    pub sites: [SiteStatus; SITES.len()],
    /// Events in its archive.
    pub archived: u64,
}

/// A site, as the cloud has it.
#[derive(Clone, Debug, Default)]
pub struct SiteStatus {
    /// Its line to the cloud is cut.
    pub is_cut: bool,
    pub ledger: Ledger,
    /// The journals of its nodes, also of those that are gone.
    pub heads: Heads,
    /// How old the newest value of a machine was in the cloud when somebody looked last.
    pub age: Option<Span>,
    /// How much was still at the site, look by look.
    looks: VecDeque<(Mono, u64)>,
}

impl SiteStatus {
    /// The cloud told its ledger.
    pub fn take(&mut self, now: Mono, ledger: Ledger) {
        self.ledger = ledger;
        self.looks.push_back((now, self.at_site()));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
    }

    /// A node told how far its journal goes.
    pub fn heard(&mut self, (life, head): ((String, u64), u64)) {
        let known = self.heads.entry(life).or_default();
        *known = head.max(*known);
    }

    pub fn at_site(&self) -> u64 {
        self.ledger.at_site(&self.heads)
    }

    pub fn is_closed(&self) -> bool {
        self.ledger.is_closed(&self.heads)
    }

    /// How long what is at the site takes at the present rate, while it becomes less.
    pub fn eta(&self) -> Option<Span> {
        let ((since, before), (until, left)) = (*self.looks.front()?, *self.looks.back()?);
        let drained = before.checked_sub(left).filter(|drained| *drained > 0 && left >= DRAINS)?;
        Some(Span::from_millis((until.since(since).as_secs_f64() * 1000.0 * left as f64 / drained as f64) as i64))
    }
}

pub async fn run(env: Env, client: HttpClient, since: Timestamp, status: Shared, stopping: CancellationToken) {
    let newest = [since.as_millis(); SITES.len()];
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        () = watch(&env, &client, newest, &status) => {}
    }
}

/// Looks for ever. What the cloud does not answer stays as it was.
async fn watch(env: &Env, client: &HttpClient, mut newest: [i64; SITES.len()], status: &Shared) {
    let first = |site: usize| status.lock().machines.iter().find(|machine| machine.site == site).cloned();
    let machines: Vec<Option<Machine>> = (0..SITES.len()).map(first).collect();
    loop {
        for (site, machine) in machines.iter().enumerate() {
            if let Ok(ledger) = ledger(client, SITES[site]).await {
                status.lock().cloud.sites[site].take(env.now(), ledger);
            }
            let Some(machine) = machine else { continue };
            if let Ok(Some(found)) = newest_of(client, machine, newest[site]).await {
                newest[site] = found;
                status.lock().cloud.sites[site].age = Some(Span::from_millis(env.wall().as_millis() - found));
            }
        }
        if let Ok(archived) = archived(client).await {
            status.lock().cloud.archived = archived;
        }
        env.sleep(EVERY).await;
    }
}

/// The ledger of a site; empty while nothing of it is there.
///
/// # Errors
/// When the cloud does not answer.
pub async fn ledger(client: &HttpClient, site: &str) -> Result<Ledger, HttpError> {
    // Of a site of which nothing is there the cloud has no ledger.
    let sites = client.get("/v1/cloud/sites").await?;
    if !sites["sites"].as_array().into_iter().flatten().any(|row| row["site"] == site) {
        return Ok(Ledger::default());
    }
    Ok(Ledger::of_json(&client.get(&format!("/v1/cloud/sites/{site}/ledger")).await?))
}

/// When the newest value of a machine was measured, if there is one from `since` on.
async fn newest_of(client: &HttpClient, machine: &Machine, since_ms: i64) -> Result<Option<i64>, HttpError> {
    let query = http::query_string(&[
        ("device_id", Some(machine.name.clone())),
        ("metric", Some(machine.metric.to_owned())),
        ("start", Some(since_ms.to_string())),
        ("end", Some(FAR_MS.to_string())),
        ("limit", Some(POINTS_MAX.to_string())),
    ]);
    let answer = client.get(&format!("/v1/query{query}")).await?;
    let last = answer["points"].as_array().and_then(|points| points.last());
    Ok(last.and_then(|point| point[0].as_f64()).map(|ms| ms as i64))
}

/// Readings of a machine from `since` on, in all tiers together.
///
/// # Errors
/// When the cloud does not answer.
pub async fn count(client: &HttpClient, machine: &Machine, since: Timestamp) -> Result<u64, HttpError> {
    let query = http::query_string(&[
        ("device_id", Some(machine.name.clone())),
        ("metric", Some(machine.metric.to_owned())),
        ("start", Some(since.as_millis().to_string())),
        ("end", Some(FAR_MS.to_string())),
        ("aggregate", Some("count".to_owned())),
        ("step", Some("20000d".to_owned())),
    ]);
    let answer = client.get(&format!("/v1/query{query}")).await?;
    let steps = answer["points"].as_array().into_iter().flatten();
    Ok(steps.filter_map(|point| point[1].as_f64()).sum::<f64>() as u64)
}

/// Events in the archive.
async fn archived(client: &HttpClient) -> Result<u64, HttpError> {
    let mut lines = client.lines("/metrics").await?;
    let mut found = 0;
    while let Some(line) = lines.next().await? {
        if let Some(rows) = line.strip_prefix("millpond_lake_rows ") {
            found = rows.parse::<f64>().unwrap_or_default() as u64;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_drains_tells_how_long_it_takes() {
        let mut site = SiteStatus::default();
        let mut look = |second: u64, head: u64| {
            let row = json!({ "rows": [{ "name": "hall", "origin": "aa", "incarnation": 0, "records": head, "at_site": head }] });
            site.take(Mono(second * 1_000_000_000), Ledger::of_json(&row));
            site.eta()
        };
        assert_eq!((look(1, 400), look(2, 500)), (None, None));
        assert_eq!(look(3, 300), Some(Span::from_secs(6)));
        assert_eq!(look(4, 10), None, "that is what is just on its way");
    }
}
