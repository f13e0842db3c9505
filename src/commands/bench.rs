//! `millpond bench`: how fast, at which cost.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use millpond_core::time::Span;

use crate::{
    bench::{self, Format, Plan, Target, node::Launch},
    commands::out,
    exit,
    world::{World, os},
};

/// Measure a node (or another MQTT server) on this machine
#[derive(Debug, Parser)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Ingest(Ingest),
    Idle(Idle),
    Mesh(Mesh),
    Cloud(Cloud),
}

/// Time what the nodes of a site do for each other
///
/// Starts three nodes on this machine, one process each, with data in new directories that are removed at the end; and simulates a larger
/// site. Without --only all parts are measured, one after the other.
#[derive(Debug, Parser)]
struct Mesh {
    /// Events whose way is timed
    #[arg(long, default_value_t = 300)]
    events: u32,
    /// Megabytes of events that a node misses and catches up with
    #[arg(long, default_value_t = 256)]
    backlog_mb: u64,
    /// How long the site is left alone to measure it idle
    #[arg(long, default_value = "10s")]
    idle: Span,
    /// Changes of devices, and as many of twins, that are timed until all three nodes show them
    #[arg(long, default_value_t = 200)]
    changes: u32,
    /// Changes of one document that each of two nodes makes before they see each other
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    edits: u32,
    /// Boxes of a simulated site, to time changes on their way to all of them
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=200))]
    boxes: u16,
    /// Measure only this; may be repeated
    #[arg(long, value_enum)]
    only: Vec<bench::Part>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Time what a cloud does with what sites deliver
///
/// Starts a node of a cloud and nodes of sites on this machine, one process each, with data in new directories that are removed at the end. Without
/// --only all parts are measured, one after the other.
#[derive(Debug, Parser)]
struct Cloud {
    /// Events whose way to the cloud is timed, and a tenth as many alerts
    #[arg(long, default_value_t = 200)]
    events: u32,
    /// Sites that deliver blocks at once
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    sites: u16,
    /// How long they do
    #[arg(long, default_value = "10s")]
    duration: Span,
    /// Devices of a site with a backlog, one event a second each
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: u32,
    /// How long that site was offline
    #[arg(long, default_value = "24h")]
    offline: Span,
    /// Days of history that are queried
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(2..=3650))]
    days: u32,
    /// Measure only this; may be repeated
    #[arg(long, value_enum)]
    only: Vec<bench::CloudPart>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Publish as fast as the server acknowledges, and show what that costs
///
/// Without --peer a node is started as a second process, with data in a new directory that is removed at the end.
#[derive(Debug, Parser)]
struct Ingest {
    /// What is published
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Connections
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Publishes without an acknowledgement on each connection
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=65_534))]
    in_flight: u16,
    /// Devices; each publishes over one connection
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Readings of a device in one publish (JSON always has one)
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Metrics of a reading: up to six numbers, then a text and a boolean
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=8))]
    metrics: u32,
    /// How long to publish
    #[arg(long, default_value = "10s")]
    duration: Span,
    /// A server that runs already, instead of a node of our own
    #[arg(long, value_name = "HOST:PORT")]
    peer: Option<String>,
    /// Process of that server, for its CPU time and memory
    #[arg(long, requires = "peer")]
    peer_pid: Option<u32>,
    /// Login at that server
    #[arg(long, requires = "peer")]
    user: Option<String>,
    #[arg(long, requires = "user")]
    password: Option<String>,
    /// A token instead of user and password
    #[arg(long, requires = "peer", conflicts_with = "user")]
    token: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
    /// Threads that publish
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Events per second to prepare payloads for; blocks end early when the server is faster
    #[arg(long)]
    rate_max: Option<u64>,
    /// Seed of the machines
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Show memory and CPU time of a node that has nothing to do
#[derive(Debug, Parser)]
struct Idle {
    /// How long to leave it alone
    #[arg(long, default_value = "10s")]
    settle: Span,
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct NodeArgs {
    /// Where our own node keeps its data; it stays there
    #[arg(long)]
    data: Option<PathBuf>,
    /// Configuration of our own node, for example with windows and rules; its doors are open for all whatever it says
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Settings of our own node
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl NodeArgs {
    fn launch(self) -> anyhow::Result<Launch> {
        let mut launch = Launch::open();
        launch.data = self.data;
        launch.sets.extend(self.sets);
        if let Some(path) = self.config {
            let text = os::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            launch.config = Some(String::from_utf8(text).with_context(|| format!("{} is not text", path.display()))?);
        }
        Ok(launch)
    }

    fn is_empty(&self) -> bool {
        self.data.is_none() && self.config.is_none() && self.sets.is_empty()
    }
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let env = World::client();
    match args.what {
        What::Ingest(args) => {
            let json = args.json;
            let (plan, launch) = args.plan()?;
            let report = bench::ingest(&env, plan, launch).await?;
            out(if json { format!("{}\n", serde_json::to_string(&report)?) } else { report.to_string() })?;
            // Acknowledged and stored are the same events, or the node broke its first promise.
            Ok(if report.stored_agrees == Some(false) { exit::FAILED } else { exit::OK })
        }
        What::Mesh(args) => {
            let plan = bench::MeshPlan {
                parts: args.only,
                events: args.events,
                backlog_bytes: args.backlog_mb * 1_000_000,
                idle: args.idle,
                changes: args.changes,
                edits: args.edits,
                boxes: args.boxes,
            };
            let report = bench::mesh(&env, plan).await?;
            out(if args.json { format!("{}\n", serde_json::to_string(&report)?) } else { report.to_string() })?;
            Ok(exit::OK)
        }
        What::Cloud(args) => {
            let plan = bench::CloudPlan {
                parts: args.only,
                events: args.events,
                sites: args.sites,
                duration: args.duration,
                devices: args.devices,
                offline: args.offline,
                days: args.days,
            };
            let report = bench::cloud::run(&env, plan).await?;
            out(if args.json { format!("{}\n", serde_json::to_string(&report)?) } else { report.to_string() })?;
            Ok(exit::OK)
        }
        What::Idle(args) => {
            let report = bench::idle(&env, args.node.launch()?, args.settle).await?;
            out(if args.json { format!("{}\n", serde_json::to_string(&report)?) } else { report.to_string() })?;
            Ok(exit::OK)
        }
    }
}

impl Ingest {
    fn plan(self) -> anyhow::Result<(Plan, Launch)> {
        if self.peer.is_some() && !self.node.is_empty() {
            bail!("--data, --config and --set are for our own node, but --peer names another server");
        }
        let target = match &self.peer {
            None => Target::Own,
            Some(peer) => match peer.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
                Some((host, Ok(port))) if !host.is_empty() => {
                    Target::Peer { host: host.trim_matches(['[', ']']).to_owned(), port, pid: self.peer_pid }
                }
                _ => bail!("--peer {peer} is not HOST:PORT"),
            },
        };
        let login = match (self.user, self.token) {
            (Some(user), _) => Some((user, self.password.unwrap_or_default())),
            (None, Some(token)) => Some((String::new(), token)),
            (None, None) => None,
        };
        let plan = Plan {
            format: self.format,
            target,
            login,
            connections: self.connections,
            in_flight: self.in_flight,
            devices: self.devices,
            batch: if self.format == Format::Json { 1 } else { self.batch },
            metrics: self.metrics,
            duration: self.duration,
            threads: self.threads,
            rate_max: self.rate_max.unwrap_or(self.format.rate_max()).max(1),
            seed: self.seed,
        };
        Ok((plan, self.node.launch()?))
    }
}
