//! Many sites that deliver blocks as fast as they are confirmed, over real connections of this process.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, anyhow};
use millpond_cluster::{
    identity::{self, NodeIdentity},
    transport::{Event, Options, OtherSite, Transport},
};
use millpond_core::{
    batch::BatchBuilder,
    block,
    ids::{Incarnation, Origin, Seq},
    record::{Class, Hlc, RecordKind, Track},
    time::{Span, Timestamp},
};
use millpond_env::Env;
use millpond_proto::{
    sites::Question,
    uplink::{Delivery, Lane, Receipt, Sent},
    wire::{self, Record, Run},
};

use super::{CloudPlan, Name, cloud, drain::push, report::Reconcile};
use crate::{bench::process, world::World};

/// Readings of one block: six numbers of as many devices, one second after the other.
const ROWS: u32 = 2048;
const BLOCKS: u64 = 16;
/// Runs of one site on their way.
const AHEAD: u64 = 8;

/// # Errors
/// When the cloud does not take what is delivered.
pub async fn run(env: &Env, plan: &CloudPlan) -> anyhow::Result<Reconcile> {
    eprintln!("{} sites that deliver blocks for {}", plan.sites, plan.duration);
    let mut rng = env.rng("bench/reconcile");
    let names: Vec<Name> = (0..plan.sites).map(|n| Name::found(env, &mut rng, &format!("site-{n}"))).collect();
    let all: Vec<&Name> = names.iter().collect();
    let (cloud_name, above, _asks) = cloud(env, &mut rng, "", &["cloud.archive_every=\"1d\""], &all).await?;
    let door = above.site().context("the cloud has no address")?;
    let before = process::usage(above.pid())?;
    let (begun, events) = (env.now(), Arc::new(AtomicU64::new(0)));
    let until = begun.after(plan.duration);
    let mut ended = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let launch = name.node(env, &mut rng, "north", &[])?;
        let data = launch.temporary.context("a directory")?;
        let world = World::new(&data.join("data"))?;
        let me = NodeIdentity::load(world.disk.as_ref())?.context("an identity")?;
        let origin = me.origin;
        let (listen, identity, provider) = (([127, 0, 0, 1], 0).into(), Arc::new(me), identity::provider());
        let (transport, mut heard) = Transport::open(env, Options { listen, identity, provider }).await?;
        env.spawn(async move {
            while let Some(event) = heard.recv().await {
                drop::<Event>(event)
            }
        });
        let authority = cloud_name.authority.certificate().clone();
        let revoked = Default::default();
        transport.set_others(vec![OtherSite { site: "cloud".into(), authority, revoked }])?;
        let payloads = payloads(n, env.wall());
        let (env_in, events) = (env.clone(), events.clone());
        let (tell, end) = tokio::sync::oneshot::channel();
        env.spawn(async move {
            let done = deliver(&env_in, &transport, origin, door, &payloads, until, &events).await;
            let _ = tell.send(done);
            drop(data);
        });
        ended.push(end);
    }
    for end in ended {
        end.await.context("a site")??;
    }
    let took = env.now().since(begun).as_secs_f64();
    let usage = process::usage(above.pid())?;
    let events = events.load(Ordering::Relaxed);
    Ok(Reconcile {
        sites: plan.sites,
        events,
        seconds: took,
        events_per_s: events as f64 / took,
        cpu_ns_per_event: (usage.cpu_ns - before.cpu_ns) as f64 / events.max(1) as f64,
        rss_peak_bytes: usage.rss_peak_bytes,
    })
}

fn payloads(site: usize, now: Timestamp) -> Vec<bytes::Bytes> {
    let block_of = |n: u64| {
        let mut builder = BatchBuilder::default();
        for row in 0..ROWS {
            let device = format!("site-{site}-{}", row / 64);
            let time = Timestamp(now.0 + (n as i64 * 64 + i64::from(row % 64)) * 1_000_000_000);
            let value = |metric: u32| f64::from((row * 7 + metric * 13) % 1000) / 10.0 + f64::from(metric);
            let values = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)];
            let seq = n * 64 + u64::from(row % 64);
            push(&mut builder, (&device, time, seq), values.map(|(name, metric)| (name, value(metric))));
        }
        let mut bytes = Vec::new();
        for batch in builder.finish() {
            block::encode(&batch, &mut bytes);
        }
        bytes.into()
    };
    (0..BLOCKS).map(block_of).collect()
}

async fn deliver(
    env: &Env,
    transport: &Transport,
    origin: Origin,
    door: std::net::SocketAddr,
    payloads: &[bytes::Bytes],
    until: millpond_env::Mono,
    events: &AtomicU64,
) -> anyhow::Result<()> {
    let link = loop {
        match transport.call("cloud", &[door]).await {
            Ok(link) => break link,
            // It reads its trust files a moment after it is ready.
            Err(why) if env.now() >= until => return Err(anyhow!("the cloud cannot be reached: {why}")),
            Err(_) => env.sleep(Span::from_millis(100)).await,
        }
    };
    let (incarnation, lane, name) = (Incarnation(1), Lane::Live, "north".to_owned());
    let question = Question::Deliver { origin, incarnation, lane, name, windows: Vec::new() };
    let (mut out, mut receipts) = link.open(Class::Pane, wire::encode(&question)).await?;
    let (mut seq, mut under_way) = (0, 0);
    loop {
        while under_way < AHEAD && env.now() < until {
            let records: Vec<Record> = payloads
                .iter()
                .enumerate()
                .map(|(n, payload)| Record {
                    seq: Seq(seq + 1 + n as u64),
                    kind: RecordKind::Events,
                    hlc: Hlc::default().tick(env.wall().as_millis()),
                    rows: ROWS,
                    min_time: Timestamp(0),
                    max_time: env.wall(),
                    payload: payload.clone(),
                })
                .collect();
            let (first, last) = (Seq(seq + 1), Seq(seq + records.len() as u64));
            let run = Run { origin, incarnation, track: Track::Raw, first, last, records };
            out.send(wire::encode(&Delivery::Sent(Sent { run, passed: Vec::new() }))).await?;
            (seq, under_way) = (last.0, under_way + 1);
        }
        if under_way == 0 {
            return Ok(());
        }
        let frame = env.timeout(Span::from_secs(60), receipts.next()).await.map_err(|_| anyhow!("no receipt"))??;
        let frame = frame.context("the cloud takes no more")?;
        match wire::decode::<Receipt>(&frame)? {
            Receipt::Stored(_) => {
                under_way -= 1;
                events.fetch_add(payloads.len() as u64 * u64::from(ROWS), Ordering::Relaxed);
            }
            other => return Err(anyhow!("{other:?}")),
        }
    }
}
