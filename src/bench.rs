//! The benchmark: drives a node (or any MQTT server) through its real port from this process and says what it did and what it cost.
//!
//! Payloads are prepared before the measured time ([`supply`]); the connections ([`drive`]) run on threads and runtimes of their
//! own; the node ([`node`]) is a second process, so that its CPU time and memory are its own.

pub mod cloud;
mod drive;
mod mesh;
pub mod node;
mod plan;
pub mod process;
mod report;
mod supply;

use anyhow::{Context, bail};
use millpond_core::time::Span;
use millpond_env::Env;

pub use cloud::{CloudPart, CloudPlan};
pub use mesh::{MeshPlan, Part, Quantiles, run as mesh};
use node::{ChildNode, Launch, Stored};
pub use plan::{Format, Plan, Target};
pub use report::{Idle, Report};
use supply::Supply;

/// How long publishes that are under way at the end may take to be acknowledged.
const DRAIN_TIMEOUT: Span = Span::from_secs(60);

/// Publishes as planned and measures. Words go to stderr.
///
/// # Errors
/// When the node does not start, a connection fails, or publishes stay unacknowledged: a figure would mean nothing then.
pub async fn ingest(env: &Env, plan: Plan, launch: Launch) -> anyhow::Result<Report> {
    let supply_plan = plan.clone();
    let wall = env.wall();
    let begun = env.now();
    let supply =
        env.unblock(move || Supply::prepare(&supply_plan, wall)).await.context("preparing payloads failed")??;
    eprintln!(
        "prepared {} for {} devices in {:.1} s: {} events and {} bytes per publish",
        plan.format.name(),
        plan.devices,
        env.now().since(begun).as_secs_f64(),
        supply.events_per_publish(),
        supply.bytes_per_publish(),
    );
    let node = match &plan.target {
        Target::Own => Some(ChildNode::start(env, launch).await?),
        Target::Peer { .. } => None,
    };
    let (host, port, pid) = match (&node, &plan.target) {
        (Some(node), _) => (node.mqtt().0.to_owned(), node.mqtt().1, Some(node.pid())),
        (None, Target::Peer { host, port, pid }) => (host.clone(), *port, *pid),
        (None, Target::Own) => bail!("the node has no port"),
    };
    eprintln!(
        "publishing for {} to {host}:{port}: {} connections, {} in flight each",
        plan.duration, plan.connections, plan.in_flight
    );
    let before = async || sample(env, node.as_ref(), pid).await;
    let driven = drive::run(env, &plan, supply, (&host, port), DRAIN_TIMEOUT, before).await?;
    let after = sample(env, node.as_ref(), pid).await?;
    let report = Report::new(&plan, &driven, after);
    if let Some(node) = node {
        node.stop(env).await?;
    }
    Ok(report)
}

/// Starts a node, leaves it alone for `settle`, and measures its memory.
///
/// # Errors
/// When the node does not start.
pub async fn idle(env: &Env, launch: Launch, settle: Span) -> anyhow::Result<Idle> {
    let node = ChildNode::start(env, launch).await?;
    let before = process::usage(node.pid()).context("the node's process")?;
    env.sleep(settle).await;
    let after = process::usage(node.pid()).context("the node's process")?;
    let idle = Idle {
        rss_bytes: after.rss_bytes,
        rss_peak_bytes: after.rss_peak_bytes,
        cpu_ms_per_s: (after.cpu_ns - before.cpu_ns) as f64 / 1e6 / settle.as_secs_f64(),
    };
    node.stop(env).await?;
    Ok(idle)
}

/// What is known of the server at a moment.
#[derive(Clone, Debug, Default)]
struct Sampled {
    server: Option<process::Usage>,
    own_cpu_ns: u64,
    stored: Option<Stored>,
}

async fn sample(env: &Env, node: Option<&ChildNode>, pid: Option<u32>) -> anyhow::Result<Sampled> {
    let stored = match node {
        Some(node) => Some(node.stored(&node.client(env, None)?).await?),
        None => None,
    };
    let server = pid.map(process::usage).transpose().context("the server's process")?;
    Ok(Sampled { server, own_cpu_ns: process::usage(std::process::id())?.cpu_ns, stored })
}
