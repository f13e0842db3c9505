//! A site that was offline for long, and comes back with live events beside its backlog.

use anyhow::Context;
use bytes::Bytes;
use millpond_core::{
    batch::BatchBuilder,
    block,
    record::Class,
    time::{Span, Timestamp},
    value::Value,
};
use millpond_env::Env;
use millpond_gateway::client::http::HttpClient;

use super::{CloudPlan, Name, cloud, ledger, report::Drain, until};
use crate::{
    bench::{
        mesh::{histogram, quantiles},
        node::ChildNode,
    },
    world::World,
};

const BLOCK_ROWS: i64 = 3600;
const WINDOW: &str = r#"
[[windows]]
name = "minute"
size = "1m"
"#;

/// # Errors
/// When a node does not do what is waited for.
pub async fn run(env: &Env, plan: &CloudPlan) -> anyhow::Result<Drain> {
    eprintln!("a site of {} devices that was offline for {}", plan.devices, plan.offline);
    let mut rng = env.rng("bench/drain");
    let mill = Name::found(env, &mut rng, "mill");
    let (name, above, asks) = cloud(env, &mut rng, "", &[], &[&mill]).await?;
    let mut launch = mill.node(env, &mut rng, "north", &[])?;
    let data = launch.temporary.clone().context("a directory")?;
    launch.config = Some(WINDOW.to_owned());
    let node = ChildNode::start(env, launch).await?;
    let publishes = node.client(env, None)?;
    let seconds = plan.offline.0 / 1_000_000_000;
    let from = Timestamp(env.wall().0 - plan.offline.0);
    let json_bytes = publish_history(&publishes, plan.devices, from, seconds).await?;
    // The windows of the last hour need not be closed, but the panes of the rest are there.
    env.sleep(Span::from_secs(2)).await;
    let uplink = above.site().context("the cloud has no address")?.to_string();
    let world = World::new(&data.join("data"))?;
    millpond_cluster::identity::save_trusted(world.disk.as_ref(), &name.trusted(&Class::ALL, vec![uplink]))?;
    until(env, "the first record", async || Ok(ledger(&asks, "mill").await?.0 > 0)).await?;
    let begun = env.now();
    let mut seen = histogram();
    let mut number = 0;
    loop {
        number += 1;
        let (asked, at) = (env.now(), env.wall().as_millis());
        let body = format!("{{\"ts\":{at},\"seq\":{number},\"n\":{number}}}");
        publishes.post_bytes("/v1/telemetry?device=live", "application/json", Bytes::from(body)).await?;
        let question = format!("/v1/query?device_id=live&metric=n&start={at}&end={}", at + 1);
        until(env, "a live event in the cloud", async || {
            Ok(asks.get(&question).await?["points"].as_array().is_some_and(|points| !points.is_empty()))
        })
        .await?;
        seen.record(env.now().since(asked).0.max(1) as u64)?;
        if ledger(&asks, "mill").await?.1 < 16 {
            break;
        }
        env.sleep(Span::from_millis(20)).await;
    }
    let took = env.now().since(begun).as_secs_f64();
    let (sent, results) = sent_bytes(&publishes).await?;
    node.stop(env).await?;
    Ok(Drain {
        events: u64::from(plan.devices) * seconds as u64,
        offline_s: seconds as u64,
        seconds: took,
        times_real_time: seconds as f64 / took,
        live: quantiles(&seen),
        json_bytes,
        sent_bytes: sent,
        sent_share: sent as f64 / json_bytes as f64,
        results_share: results as f64 / json_bytes as f64,
    })
}

/// One event a second of each device, in blocks; returns how many bytes they are as JSON, one event a line.
pub(super) async fn publish_history(
    client: &HttpClient,
    devices: u32,
    from: Timestamp,
    seconds: i64,
) -> anyhow::Result<u64> {
    let mut json_bytes = 0;
    for device in 0..devices {
        let name = format!("press-{device}");
        let mut begun = 0;
        while begun < seconds {
            let rows = BLOCK_ROWS.min(seconds - begun);
            let mut builder = BatchBuilder::default();
            for second in begun..begun + rows {
                let time = Timestamp(from.0 + second * 1_000_000_000);
                let values = values(device, second);
                if second % 97 == 0 {
                    let line = format!(
                        "{{\"device_id\":\"{name}\",\"ts\":{},\"seq\":{second},\"temperature\":{},\"pressure\":{},\"vibration\":{},\"speed\":{},\"current\":{},\"humidity\":{}}}\n",
                        time.as_millis(),
                        values[0].1,
                        values[1].1,
                        values[2].1,
                        values[3].1,
                        values[4].1,
                        values[5].1
                    );
                    json_bytes += line.len() as u64 * 97;
                }
                push(&mut builder, (&name, time, second as u64 + 1), values);
            }
            let mut bytes = Vec::new();
            for batch in builder.finish() {
                block::encode(&batch, &mut bytes);
            }
            let posted = client.post_bytes("/v1/telemetry", "application/x-millpond-block", bytes.into()).await;
            posted.context("a block of events")?;
            begun += rows;
        }
    }
    Ok(json_bytes)
}

/// Adds an event to a batch.
pub(super) fn push<const N: usize>(
    builder: &mut BatchBuilder,
    (device, time, seq): (&str, Timestamp, u64),
    values: [(&'static str, f64); N],
) {
    builder.begin(device);
    builder.time(time);
    builder.seq(seq);
    for (metric, value) in values {
        builder.cell(metric, Value::F64(value));
    }
    builder.end();
}

/// Slow curves with noise, rounded as sensors round.
fn values(device: u32, second: i64) -> [(&'static str, f64); 6] {
    let noise = |salt: i64| {
        let mut x = (second * 6 + salt + i64::from(device) * 7919) as u64;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x >> 40) as f64 / f64::from(1 << 24)) - 0.5
    };
    let wave = |period: f64| (second as f64 / period).sin();
    let round = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
    [
        ("temperature", round(60.0 + 8.0 * wave(3600.0) + noise(0), 1)),
        ("pressure", round(4.0 + 0.3 * wave(900.0) + 0.05 * noise(1), 2)),
        ("vibration", round(1.2 + 0.2 * wave(60.0) + 0.3 * noise(2), 2)),
        ("speed", round(1480.0 + 10.0 * wave(300.0) + 4.0 * noise(3), 0)),
        ("current", round(12.0 + wave(600.0) + 0.4 * noise(4), 2)),
        ("humidity", round(45.0 + 5.0 * wave(7200.0) + 0.2 * noise(5), 1)),
    ]
}

/// All bytes of records that were sent, and those of results alone.
async fn sent_bytes(client: &HttpClient) -> anyhow::Result<(u64, u64)> {
    let all = samples(client, "millpond_uplink_sent_bytes_total").await?;
    let sum =
        |word: &str| all.iter().filter(|(line, _)| line.contains(word)).map(|(_, value)| *value).sum::<f64>() as u64;
    Ok((sum("cloud"), sum("results")))
}

/// The lines of a metric, with their values.
pub(super) async fn samples(client: &HttpClient, name: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let mut lines = client.lines("/metrics").await?;
    let mut found = Vec::new();
    while let Some(line) = lines.next().await? {
        if line.starts_with(name)
            && let Some((labels, value)) = line.rsplit_once(' ')
        {
            found.push((labels.to_owned(), value.parse().unwrap_or(0.0)));
        }
    }
    Ok(found)
}
