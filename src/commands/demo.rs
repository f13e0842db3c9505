//! `millpond demo`: two sites of three nodes, a cloud and fleets of simulated machines on this computer.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use millpond_core::time::Span;

use crate::{
    demo::{self, Options},
    exit,
    world::World,
};

/// Run two sites, a cloud and fleets of simulated machines on this computer; kill nodes and cut a line
///
/// Two sites of three nodes each, and one node of a cloud to which they deliver; each node is a process of its own. An event is acknowledged when it is
/// on the disks of two nodes of its site. Press `k` and a number to kill a node with SIGKILL: its machines turn to the others, which go on with its
/// windows, and nothing that was acknowledged is lost. `r` starts it again. `c` cuts the line between the second site and the cloud: the site
/// goes on by itself; `c` again puts the line back, and you see how what is new comes first while the backlog drains. A press gets a worn
/// bearing after ten seconds and is repaired twenty seconds later.
///
/// Ctrl-C ends the demo. Then dead nodes are started again and a line that is cut is put back, and everything is counted: what was acknowledged is stored at its
/// site; the cloud's ledgers are closed, with nothing missing; the cloud has as many readings of each device as were acknowledged, and the
/// same panes. A second Ctrl-C ends that at once. Exits with 0 when all of it is so.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  millpond demo                                       on a terminal: watch, kill, start again, cut
  millpond demo --plain --for 40s --kill-after 12s    the same as lines, by itself
  millpond demo --plain --for 40s --cut-after 10s --heal-after 15s")]
pub struct Args {
    /// End by itself after this time
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<Span>,
    /// Readings per second, of all machines together
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Machines of the first site; the second has a third as many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(4..=100_000))]
    machines: u32,
    /// Directory for the nodes' data, which is kept; a temporary one that is removed when it is left out
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print lines, also on a terminal
    #[arg(long)]
    plain: bool,
    /// Seed of the machines
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kill a node (SIGKILL) after this time
    #[arg(long, value_name = "DURATION")]
    kill_after: Option<Span>,
    /// Start a dead node again after this time; with a screen the key `r` does
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    restart_after: Span,
    /// Cut the line between the second site and the cloud after this time
    #[arg(long, value_name = "DURATION")]
    cut_after: Option<Span>,
    /// Put a line that --cut-after has cut back again after this time; with a screen the key `c` does so as well
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    heal_after: Span,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options = Options {
        length: args.length,
        rate: args.rate,
        machines: args.machines,
        data: args.data,
        plain: args.plain,
        seed: args.seed,
        kill_after: args.kill_after,
        restart_after: args.restart_after,
        cut_after: args.cut_after,
        heal_after: args.heal_after,
    };
    let agrees = demo::run(&World::client(), options).await?;
    Ok(if agrees { exit::OK } else { exit::FAILED })
}
