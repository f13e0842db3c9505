//! How long an event takes from the edge to the cloud, and an alert over two sites.

use anyhow::Context;
use bytes::Bytes;
use millpond_core::time::Span;
use millpond_env::Env;
use millpond_gateway::client::http::HttpClient;

use super::{Name, cloud, edge, report::Visible, until};
use crate::bench::mesh::{histogram, quantiles};

/// The same at the sites and in the cloud.
const WINDOW: &str = r#"
[[windows]]
name = "second"
size = "1s"
by = "site"
bound = "0s"
idle_after = "1s"
"#;
const RULE: &str = r#"
[[rules]]
name = "hot"
when = { type = "window", window = "second", metric = "n", aggregate = "max", op = ">", value = 1000.0 }
"#;

/// # Errors
/// When a node does not do what is waited for.
pub async fn run(env: &Env, events: u32) -> anyhow::Result<Visible> {
    eprintln!("a cloud and two sites of one node each");
    let mut rng = env.rng("bench/cloud");
    let (mill, bakery) = (Name::found(env, &mut rng, "mill"), Name::found(env, &mut rng, "bakery"));
    let config = format!("{WINDOW}{RULE}");
    let (name, above, asks) = cloud(env, &mut rng, &config, &[], &[&mill, &bakery]).await?;
    let (_north, publishes) = edge(env, &mut rng, (&mill, &name), &above, WINDOW).await?;
    let (_oven, bakes) = edge(env, &mut rng, (&bakery, &name), &above, WINDOW).await?;
    let post = async |client: &HttpClient, device: &str, at: i64, seq: u64, value: u64| {
        let body = format!("{{\"ts\":{at},\"seq\":{seq},\"n\":{value}}}");
        let path = format!("/v1/telemetry?device={device}");
        client.post_bytes(&path, "application/json", Bytes::from(body)).await.map(drop).context("an event")
    };
    let mut seen = histogram();
    for number in 0..=u64::from(events) {
        let (begun, at) = (env.now(), env.wall().as_millis());
        post(&publishes, "seen", at, number, 1).await?;
        let question = format!("/v1/query?device_id=seen&metric=n&start={at}&end={}", at + 1);
        until(env, "an event in the cloud", async || {
            Ok(asks.get(&question).await?["points"].as_array().is_some_and(|points| !points.is_empty()))
        })
        .await?;
        // The first one waits for the connection.
        if number > 0 {
            seen.record(env.now().since(begun).0.max(1) as u64)?;
        }
        env.sleep(Span::from_millis(20)).await;
    }
    eprintln!("alerts");
    let mut alerts = histogram();
    let firing = async |wanted: bool| {
        until(env, "an alert", async || {
            let alerts = asks.get("/v1/alerts?state=firing").await?;
            Ok(alerts["alerts"].as_array().is_some_and(|alerts| alerts.is_empty() != wanted))
        })
        .await
    };
    let both = async |at: i64, seq: u64, value: u64| {
        post(&publishes, "a", at, seq, value).await?;
        post(&bakes, "b", at, seq, value).await
    };
    for number in 0..u64::from((events / 10).max(5)) {
        // A hot second, closed by the first event of the next one, which is not, and that by the one after.
        let start = env.wall().as_millis() / 1000 * 1000 + 1000;
        both(start, number * 3 + 1, 5_000).await?;
        env.sleep(Span::from_millis(start + 1000 - env.wall().as_millis())).await;
        let begun = env.now();
        both(start + 1000, number * 3 + 2, 0).await?;
        firing(true).await?;
        alerts.record(env.now().since(begun).0.max(1) as u64)?;
        env.sleep(Span::from_millis(start + 2000 - env.wall().as_millis())).await;
        both(start + 2000, number * 3 + 3, 0).await?;
        firing(false).await?;
    }
    Ok(Visible { event: quantiles(&seen), alert: quantiles(&alerts) })
}
