//! The connections: each keeps its window full, counts acknowledgements and notes how long they took.

use std::sync::{
    Arc, Barrier, Mutex,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, anyhow, bail};
use hdrhistogram::Histogram;
use millpond_core::time::Span;
use millpond_env::{Env, Mono};
use tokio::sync::oneshot;

use super::{
    Sampled,
    plan::Plan,
    supply::{Lane, Supply},
};
use millpond_gateway::client::mqtt::{Connection, Options};

use crate::world::World;

/// How often the user hears something.
const PROGRESS: Span = Span::from_secs(2);
/// Longest latency that is told apart: longer ones count as this long.
const LATENCY_NS_MAX: u64 = 120_000_000_000;

/// What the connections did.
#[derive(Debug)]
pub struct Driven {
    pub publishes: u64,
    pub events: u64,
    pub payload_bytes: u64,
    /// From the first publish to the last acknowledgement.
    pub elapsed: Span,
    /// From publish to acknowledgement, in ns.
    pub latency: Histogram<u64>,
    /// The prepared payloads were used up before the time was over.
    pub ran_dry: bool,
    pub before: Sampled,
}

#[derive(Debug)]
struct Tally {
    publishes: u64,
    events: u64,
    payload_bytes: u64,
    last_ack: Mono,
    latency: Histogram<u64>,
    ran_dry: bool,
}

/// Opens all connections, takes `before` once they stand, publishes for the time of the plan and waits for what is under way.
///
/// # Errors
/// When one connection fails or is not done `drain` after the end.
pub async fn run(
    env: &Env,
    plan: &Plan,
    supply: Supply,
    peer: (&str, u16),
    drain: Span,
    before: impl AsyncFnOnce() -> anyhow::Result<Sampled>,
) -> anyhow::Result<Driven> {
    let threads = plan.threads.clamp(1, plan.connections) as usize;
    let gate = Arc::new(Barrier::new(threads + 1));
    let acked = Arc::new(AtomicU64::new(0));
    let mut shares: Vec<Vec<(usize, Lane)>> = (0..threads).map(|_| Vec::new()).collect();
    supply.lanes.into_iter().enumerate().for_each(|(at, lane)| shares[at % threads].push((at, lane)));
    let mut results = Vec::new();
    let mut workers = Vec::new();
    for (number, lanes) in shares.into_iter().enumerate() {
        let worker = env.blocking.worker(&format!("generator-{number}"));
        let (tx, rx) = oneshot::channel();
        let thread = Thread {
            plan: plan.clone(),
            peer: (peer.0.to_owned(), peer.1),
            drain,
            gate: gate.clone(),
            acked: acked.clone(),
        };
        worker.run(Box::new(move || {
            let _ = tx.send(thread.run(lanes));
        }));
        workers.push(worker);
        results.push(rx);
    }
    wait_at(env, &gate).await?;
    let before = before().await;
    let begun = env.now();
    wait_at(env, &gate).await?;
    let before = before?;
    let tell = async {
        loop {
            let (count, at) = (acked.load(Ordering::Relaxed), env.now());
            env.sleep(PROGRESS).await;
            let rate = (acked.load(Ordering::Relaxed) - count) as f64 / env.now().since(at).as_secs_f64();
            eprintln!("{:6.1} s  {rate:>12.0} events/s", env.now().since(begun).as_secs_f64());
        }
    };
    let gather = async {
        let mut tallies = Vec::new();
        for result in results {
            tallies.push(result.await.map_err(|_| anyhow!("a generator thread failed"))??);
        }
        anyhow::Ok(tallies)
    };
    tokio::select! {
        biased;
        tallies = gather => merge(tallies?, before),
        () = tell => bail!("the progress ended"),
    }
}

fn merge(tallies: Vec<(Tally, Span)>, before: Sampled) -> anyhow::Result<Driven> {
    let mut driven = Driven {
        publishes: 0,
        events: 0,
        payload_bytes: 0,
        elapsed: Span::ZERO,
        latency: histogram()?,
        ran_dry: false,
        before,
    };
    for (tally, elapsed) in tallies {
        driven.publishes += tally.publishes;
        driven.events += tally.events;
        driven.payload_bytes += tally.payload_bytes;
        driven.elapsed = driven.elapsed.max(elapsed);
        driven.latency.add(tally.latency).map_err(|error| anyhow!("latencies do not add up: {error}"))?;
        driven.ran_dry |= tally.ran_dry;
    }
    Ok(driven)
}

async fn wait_at(env: &Env, gate: &Arc<Barrier>) -> anyhow::Result<()> {
    let gate = gate.clone();
    env.unblock(move || {
        gate.wait();
    })
    .await
    .context("the generator threads are gone")
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_max(LATENCY_NS_MAX, 3).map_err(|error| anyhow!("no histogram: {error}"))
}

/// One thread with a runtime of its own.
struct Thread {
    plan: Plan,
    peer: (String, u16),
    drain: Span,
    gate: Arc<Barrier>,
    acked: Arc<AtomicU64>,
}

impl Thread {
    fn run(self, lanes: Vec<(usize, Lane)>) -> anyhow::Result<(Tally, Span)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let opened = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
            let connections = runtime.block_on(async {
                let env = World::client();
                let mut connections = Vec::new();
                for (number, lane) in lanes {
                    connections.push((Connection::open(&env, self.options(number)).await?, lane));
                }
                anyhow::Ok((env, connections))
            })?;
            Ok((runtime, connections))
        });
        // Everyone passes the gate twice, also after an error: the others wait for it.
        self.gate.wait();
        self.gate.wait();
        let (runtime, (env, connections)) = opened?;
        runtime.block_on(self.publish(&env, connections))
    }

    fn options(&self, number: usize) -> Options {
        Options {
            host: self.peer.0.clone(),
            port: self.peer.1,
            client_id: format!("bench-{number}"),
            login: self.plan.login.clone(),
            in_flight: self.plan.in_flight,
        }
    }

    async fn publish(&self, env: &Env, connections: Vec<(Connection, Lane)>) -> anyhow::Result<(Tally, Span)> {
        let begun = env.now();
        let deadline = begun.after(self.plan.duration);
        let tally = Arc::new(Mutex::new(Tally {
            publishes: 0,
            events: 0,
            payload_bytes: 0,
            last_ack: begun,
            latency: histogram()?,
            ran_dry: false,
        }));
        let mut done = Vec::new();
        for (connection, lane) in connections {
            let (tx, rx) = oneshot::channel();
            let one = drive(env.clone(), connection, lane, deadline, tally.clone(), self.acked.clone());
            env.spawn(async move {
                let _ = tx.send(one.await);
            });
            done.push(rx);
        }
        let all = async {
            for one in done {
                one.await.map_err(|_| anyhow!("a connection's task failed"))??;
            }
            anyhow::Ok(())
        };
        env.timeout(self.plan.duration + self.drain, all)
            .await
            .map_err(|_| anyhow!("publishes were still not acknowledged {} after the end", self.drain))??;
        let tally = Arc::into_inner(tally).context("a connection still runs")?;
        let tally = tally.into_inner().map_err(|_| anyhow!("a connection panicked"))?;
        let elapsed = tally.last_ack.since(begun);
        Ok((tally, elapsed))
    }
}

async fn drive(
    env: Env,
    mut connection: Connection,
    mut lane: Lane,
    deadline: Mono,
    tally: Arc<Mutex<Tally>>,
    acked: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut now = env.now();
    let mut more = true;
    let (mut ran_dry, mut payload_bytes) = (false, 0);
    loop {
        let session = connection.session();
        more &= now < deadline;
        while more && session.has_room() {
            let Some(outgoing) = lane.next() else {
                (more, ran_dry) = (false, true);
                break;
            };
            payload_bytes += outgoing.payload.len() as u64;
            session.publish_unkept(outgoing.topic, outgoing.payload, outgoing.events, now);
        }
        if !more && session.in_flight() == 0 {
            break;
        }
        connection.pump().await?;
        now = env.now();
        let mut tally = tally.lock().map_err(|_| anyhow!("another connection panicked"))?;
        let mut events = 0;
        for ack in connection.session().acks() {
            tally.publishes += 1;
            events += ack.tag;
            tally.latency.saturating_record(now.since(ack.published).0 as u64);
            tally.last_ack = now;
        }
        tally.events += events;
        acked.fetch_add(events, Ordering::Relaxed);
    }
    connection.close().await?;
    let mut tally = tally.lock().map_err(|_| anyhow!("another connection panicked"))?;
    tally.ran_dry |= ran_dry;
    tally.payload_bytes += payload_bytes;
    Ok(())
}
