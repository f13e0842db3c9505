//! The site under load: three nodes as processes of their own on the loopback, enrolled by an authority that lives only here. What three
//! nodes cannot show is measured without them: long documents by themselves ([`documents`]), and many boxes in simulated time ([`boxes`]).

mod boxes;
mod changes;
mod documents;
mod report;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use millpond_cluster::identity::{self, Authority, Key, Order};
use millpond_core::{
    ids::{Incarnation, Origin},
    time::{Span, Timestamp},
};
use millpond_env::Env;
use millpond_gateway::client::http::HttpClient;
use rand::Rng;
use serde_json::Value;

use super::{
    node::{ChildNode, Launch},
    process,
};
use crate::world::World;

pub use self::report::{MeshReport, Quantiles, SiteReport, histogram, quantiles};

const NAMES: [&str; 3] = ["north", "south", "west"];
/// Pause between two looks at something that is waited for.
const LOOK_EVERY: Span = Span::from_millis(1);
const PATIENCE: Span = Span::from_secs(120);
const WINDOW: &str = r#"
[[windows]]
name = "minute"
kind = "tumbling"
size = "1m"
bound = "1s"
lateness = "1h"
"#;

/// A part of the measurement that can be had by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Events, acknowledgements, takeover, catching up, and idleness of three nodes
    Site,
    /// Changes of registry and twins on three nodes
    Changes,
    /// Two long documents that become one
    Documents,
    /// A change on its way through many simulated boxes
    Boxes,
}

/// What is measured, and how much of it.
#[derive(Clone, Debug)]
pub struct MeshPlan {
    pub parts: Vec<Part>,
    /// Events whose way is timed.
    pub events: u32,
    /// Bytes of events that a node has missed and catches up with.
    pub backlog_bytes: u64,
    /// How long the site is left alone before its memory and its talk are measured.
    pub idle: Span,
    /// Changes of the registry, and as many of twins, whose way is timed.
    pub changes: u32,
    /// Changes of one document on each of two nodes that do not see each other.
    pub edits: u32,
    /// Boxes of the simulated site.
    pub boxes: u16,
}

/// Three nodes.
struct Site {
    env: Env,
    nodes: Vec<ChildNode>,
    clients: Vec<HttpClient>,
}

impl Site {
    async fn start(env: &Env, sets: &[&str]) -> anyhow::Result<Site> {
        let mut rng = env.rng("bench/mesh");
        let authority_key = Key::random(&mut rng);
        let authority = Authority::found("bench", &authority_key, env.wall());
        let mut site = Site { env: env.clone(), nodes: Vec::new(), clients: Vec::new() };
        for name in NAMES {
            let mut launch = Launch::open();
            launch.config = Some(WINDOW.to_owned());
            launch.sets.extend(["site.listen=\"127.0.0.1:0\"".to_owned(), format!("node.name=\"{name}\"")]);
            launch.sets.extend(sets.iter().map(|set| (*set).to_owned()));
            if let Some(first) = site.nodes.first() {
                let seed = first.site().context("the first node is in no site")?;
                launch.sets.push(format!("site.seeds=[\"{seed}\"]"));
            }
            let data = super::node::own_directory()?;
            let key = Key::random(&mut rng);
            let mut origin = Origin::default();
            rng.fill_bytes(&mut origin.0);
            let order = Order { origin, node: name, public_key: key.public(), now: env.wall() };
            let (certificate, root) = (authority.issue(&order), authority.certificate().clone());
            let world = World::new(&data.join("data"))?;
            identity::files::install(world.disk.as_ref(), &key, &certificate, &root, Incarnation(0))?;
            launch.temporary = Some(data);
            let node = ChildNode::start(env, launch).await?;
            site.clients.push(node.client(env, None)?);
            site.nodes.push(node);
        }
        site.until("three members", async |site| {
            for client in &site.clients {
                if members(client).await?.iter().filter(|member| member["state"] == "up").count() < 3 {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        Ok(site)
    }

    /// Looks until it is so.
    async fn until(&self, what: &str, so: impl AsyncFn(&Site) -> anyhow::Result<bool>) -> anyhow::Result<Span> {
        let begun = self.env.now();
        while self.env.now().since(begun) < PATIENCE {
            if so(self).await? {
                return Ok(self.env.now().since(begun));
            }
            self.env.sleep(LOOK_EVERY).await;
        }
        bail!("{what}: not within {PATIENCE}")
    }

    /// Publishes one reading; answered when it is acknowledged.
    async fn publish(&self, node: usize, device: &str, time: Timestamp, value: u64) -> anyhow::Result<()> {
        let body = format!("{{\"ts\":{},\"seq\":{value},\"n\":{value}}}", time.as_millis());
        let path = format!("/v1/telemetry?device={device}");
        self.clients[node].post_bytes(&path, "application/json", Bytes::from(body)).await?;
        Ok(())
    }

    async fn stop(self) -> anyhow::Result<()> {
        for node in self.nodes {
            node.stop(&self.env).await?;
        }
        Ok(())
    }
}

/// # Errors
/// When a node does not do what is waited for.
pub async fn run(env: &Env, plan: MeshPlan) -> anyhow::Result<MeshReport> {
    let mut report = MeshReport::default();
    for part in [Part::Site, Part::Changes, Part::Documents, Part::Boxes] {
        if !plan.parts.is_empty() && !plan.parts.contains(&part) {
            continue;
        }
        match part {
            Part::Site => report.site = Some(site(env, &plan).await?),
            Part::Changes => report.changes = Some(changes::run(env, plan.changes).await?),
            Part::Documents => report.documents = Some(documents::run(env, plan.edits).await?),
            Part::Boxes => report.boxes = Some(boxes::run(env, plan.boxes).await?),
        }
    }
    Ok(report)
}

/// What three nodes do with events.
async fn site(env: &Env, plan: &MeshPlan) -> anyhow::Result<SiteReport> {
    eprintln!("a site of three nodes, acknowledging when the node's own disk has the event");
    let site = Site::start(env, &["site.replicas=2", "site.ack=\"local\""]).await?;
    env.sleep(plan.idle).await;
    let (idle_rss_bytes, idle_bytes_per_s_and_pair) = idle(&site, plan.idle).await?;
    let (ack_local, visible) = visible(&site, plan.events).await?;
    eprintln!("a kill");
    let (takeover_ms, takeover_after_suspicion_ms) = takeover(&site).await?;
    drop(site);
    eprintln!("a site of three nodes, acknowledging when one more node's disk has the event");
    let site = Site::start(env, &["site.replicas=1", "site.ack=\"site\""]).await?;
    let (ack_site, _) = acknowledged(&site, plan.events, 20).await?;
    site.stop().await?;
    eprintln!("catching up");
    let (catch_up_bytes, catch_up_s, ack_while_catching_up) = catch_up(env, plan.backlog_bytes).await?;
    Ok(SiteReport {
        visible,
        ack_local,
        ack_site,
        takeover_ms,
        takeover_after_suspicion_ms,
        catch_up_bytes,
        catch_up_s,
        ack_while_catching_up,
        idle_rss_bytes,
        idle_bytes_per_s_and_pair,
    })
}

/// Publishes at the first node so many times, with a pause between, and times the acknowledgements.
async fn acknowledged(site: &Site, events: u32, pause_ms: i64) -> anyhow::Result<(Quantiles, Histogram<u64>)> {
    let mut acks = histogram();
    for number in 1..=u64::from(events) {
        let begun = site.env.now();
        site.publish(0, "timed", site.env.wall(), number).await?;
        acks.record(site.env.now().since(begun).0.max(1) as u64)?;
        site.env.sleep(Span::from_millis(pause_ms)).await;
    }
    Ok((quantiles(&acks), acks))
}

/// Acknowledgement, and the time until the last node's answer to a query has the event.
async fn visible(site: &Site, events: u32) -> anyhow::Result<(Quantiles, Quantiles)> {
    let (mut acks, mut seen) = (histogram(), histogram());
    for number in 1..=u64::from(events) {
        let (begun, time) = (site.env.now(), site.env.wall());
        site.publish(0, "seen", time, number).await?;
        acks.record(site.env.now().since(begun).0.max(1) as u64)?;
        let at = time.as_millis();
        let question = format!("/v1/query?device_id=seen&metric=n&start={at}&end={}", at + 1);
        site.until("an event at the other node", async |site| {
            let answer = site.clients[2].get(&question).await?;
            Ok(answer["points"].as_array().is_some_and(|points| !points.is_empty()))
        })
        .await?;
        seen.record(site.env.now().since(begun).0.max(1) as u64)?;
        site.env.sleep(Span::from_millis(20)).await;
    }
    Ok((quantiles(&acks), quantiles(&seen)))
}

/// Kills the second node and waits for its open window at the first.
async fn takeover(site: &Site) -> anyhow::Result<(f64, f64)> {
    let start = Timestamp(site.env.wall().0 - site.env.wall().0.rem_euclid(60_000_000_000));
    for number in 1..=50_i64 {
        let time = Timestamp(start.0 + number * 1_000_000);
        site.publish(1, "orphan", time, number as u64).await?;
    }
    // Its results and events have to be elsewhere before it dies: with `ack = "local"` nobody has promised that.
    site.env.sleep(Span::from_secs(1)).await;
    let origin = members(&site.clients[1]).await?[0]["origin"].clone();
    let begun = site.env.now();
    site.nodes[1].kill();
    let gone = site.until("a suspicion", async |site| {
        let members = members(&site.clients[0]).await?;
        Ok(members.iter().any(|member| member["origin"] == origin && member["state"] != "up"))
    });
    let suspected = gone.await?;
    site.until("the window of the dead node", async |site| {
        let panes = site.clients[0].get("/v1/windows/minute?key=orphan").await?;
        let panes = panes["panes"].as_array().cloned().unwrap_or_default();
        Ok(panes.iter().any(|pane| pane["metrics"]["n"]["count"] == 50))
    })
    .await?;
    let whole = site.env.now().since(begun);
    Ok((whole.as_secs_f64() * 1e3, Span(whole.0 - suspected.0).as_secs_f64() * 1e3))
}

/// One node misses events and comes back; another one goes on acknowledging.
async fn catch_up(env: &Env, bytes: u64) -> anyhow::Result<(u64, f64, Quantiles)> {
    let sets = [
        "site.replicas=2",
        "site.ack=\"local\"",
        "retention.raw={max_bytes=8589934592,max_age=\"30d\",floor_bytes=8388608}",
    ];
    let mut site = Site::start(env, &[&sets[..], &["site.replica_max_bytes=8589934592"]].concat()).await?;
    site.nodes[2].kill();
    let mut noise = env.rng("bench/backlog");
    let mut seq = 0;
    while raw_bytes(&site.clients[0]).await? < bytes {
        for _ in 0..8 {
            let mut lines = String::new();
            for _ in 0..2_000 {
                seq += 1;
                lines += &format!(
                    "{{\"device_id\":\"bulk-{}\",\"seq\":{seq},\"ts\":{},\"a\":{},\"b\":{},\"c\":{}}}\n",
                    seq % 50,
                    env.wall().as_millis(),
                    noise.next_u32(),
                    noise.next_u32(),
                    noise.next_u32()
                );
            }
            let posted = site.clients[0].post_bytes("/v1/telemetry", "application/x-ndjson", Bytes::from(lines));
            posted.await.context("a bulk of events")?;
        }
    }
    let held = raw_bytes(&site.clients[0]).await?;
    site.nodes[2].restart(env).await?;
    let begun = env.now();
    let mut acks = histogram();
    let mut number = 0;
    loop {
        let asked = env.now();
        number += 1;
        site.publish(0, "live", env.wall(), number).await?;
        acks.record(env.now().since(asked).0.max(1) as u64)?;
        let ledger = site.clients[2].get("/v1/site/ledger").await?;
        let rows = ledger["rows"].as_array().cloned().unwrap_or_default();
        let raw = rows.iter().filter(|row| row["track"] == "raw" && row["own"] == false);
        let (mut missing, mut known) = (0, 0);
        for row in raw {
            missing += row["missing"].as_u64().unwrap_or_default();
            known += row["head"].as_u64().unwrap_or_default();
        }
        if known > 0 && missing < 64 {
            break;
        }
        if env.now().since(begun) > PATIENCE {
            bail!("the node did not catch up: {missing} records are missing");
        }
        env.sleep(Span::from_millis(20)).await;
    }
    let took = env.now().since(begun).as_secs_f64();
    site.stop().await?;
    Ok((held, took, quantiles(&acks)))
}

async fn idle(site: &Site, span: Span) -> anyhow::Result<(Vec<u64>, f64)> {
    let talk = async || -> anyhow::Result<u64> {
        let mut bytes = 0;
        for client in &site.clients {
            bytes += members(client).await?.iter().filter_map(|member| member["sent_bytes"].as_u64()).sum::<u64>();
        }
        Ok(bytes)
    };
    let before = talk().await?;
    site.env.sleep(span).await;
    let bytes = talk().await? - before;
    let rss = site.nodes.iter().map(|node| Ok(process::usage(node.pid())?.rss_bytes)).collect::<anyhow::Result<_>>()?;
    // Three nodes are three pairs.
    Ok((rss, bytes as f64 / span.as_secs_f64() / 3.0))
}

async fn members(client: &HttpClient) -> anyhow::Result<Vec<Value>> {
    let answer = client.get("/v1/site/members").await?;
    Ok(answer["members"].as_array().cloned().unwrap_or_default())
}

async fn raw_bytes(client: &HttpClient) -> anyhow::Result<u64> {
    Ok(client.get("/v1/journal").await?["classes"]["raw"]["bytes"].as_u64().unwrap_or_default())
}
