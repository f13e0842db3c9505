//! Values of one device and metric out of the archive.

use anyhow::Context;
use millpond_core::time::{Span, Timestamp};
use millpond_env::Env;

use super::{
    CloudPlan, Name, cloud,
    drain::{publish_history, samples},
    edge, ledger,
    report::QueryTimes,
    until,
};
use crate::bench::mesh::{histogram, quantiles};

/// Devices with a history.
const DEVICES: u32 = 2;
const QUESTIONS: i64 = 40;

/// # Errors
/// When a node does not do what is waited for.
pub async fn run(env: &Env, plan: &CloudPlan) -> anyhow::Result<QueryTimes> {
    eprintln!("{} days of {DEVICES} devices, one event a second", plan.days);
    let mut rng = env.rng("bench/query");
    let mill = Name::found(env, &mut rng, "mill");
    let (name, above, asks) = cloud(env, &mut rng, "", &["cloud.archive_every=\"1s\""], &[&mill]).await?;
    let (node, publishes) = edge(env, &mut rng, (&mill, &name), &above, "").await?;
    let seconds = i64::from(plan.days) * 86_400;
    let start = Timestamp((env.wall().0 / 86_400_000_000_000 - i64::from(plan.days)) * 86_400_000_000_000);
    publish_history(&publishes, DEVICES, start, seconds).await?;
    until(env, "everything in the cloud", async || {
        env.sleep(Span::from_millis(200)).await;
        let (delivered, at_site) = ledger(&asks, "mill").await?;
        Ok(delivered > 0 && at_site == 0)
    })
    .await?;
    let wanted = f64::from(DEVICES) * seconds as f64;
    until(env, "everything in the archive", async || {
        env.sleep(Span::from_millis(500)).await;
        Ok(gauge(&asks, "millpond_lake_rows").await? >= wanted)
    })
    .await?;
    asks.post("/v1/cloud/archive", &serde_json::json!({})).await.context("the archive in order")?;
    let (mut day, mut day_raw, mut all) = (histogram(), histogram(), histogram());
    for number in 0..QUESTIONS {
        let device = format!("press-{}", number % i64::from(DEVICES));
        let at = start.0 + (number * 7 % (i64::from(plan.days) - 1).max(1)) * 86_400_000_000_000;
        let ask = async |from: i64, to: i64, more: &str| {
            let (from, to) = (from / 1_000_000, to / 1_000_000);
            let path = format!("/v1/query?device_id={device}&metric=temperature&start={from}&end={to}{more}");
            let begun = env.now();
            let answer = asks.get(&path).await?;
            let points = answer["points"].as_array().map_or(0, Vec::len);
            anyhow::ensure!(points > 0, "no points: {path}");
            anyhow::Ok(env.now().since(begun).0.max(1) as u64)
        };
        day.record(ask(at, at + 86_400_000_000_000, "&aggregate=mean&step=1m").await?)?;
        day_raw.record(ask(at, at + 86_400_000_000_000, "").await?)?;
        // Never the same question: answers are kept.
        let from = start.0 + number * 1_000_000_000;
        all.record(ask(from, start.0 + seconds * 1_000_000_000, "&aggregate=mean&step=1h").await?)?;
    }
    let (bytes, rows) = (gauge(&asks, "millpond_lake_bytes").await?, gauge(&asks, "millpond_lake_rows").await?);
    node.stop(env).await?;
    Ok(QueryTimes {
        days: plan.days,
        day: quantiles(&day),
        day_raw: quantiles(&day_raw),
        all: quantiles(&all),
        rows: rows as u64,
        bytes_per_sample: bytes / (rows * 6.0),
    })
}

async fn gauge(client: &millpond_gateway::client::http::HttpClient, name: &str) -> anyhow::Result<f64> {
    Ok(samples(client, name).await?.first().map_or(0.0, |(_, value)| *value))
}
