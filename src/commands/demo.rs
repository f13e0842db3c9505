//! `millpond demo`: a site of three nodes and a fleet of simulated machines on this computer.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use millpond_core::time::Span;

use crate::{
    demo::{self, Options},
    exit,
    world::World,
};

/// Run a site of three nodes and a fleet of simulated machines on this computer, and kill nodes
///
/// Each node is a process of its own; an event is acknowledged when it is on the disks of two of them. Press `k` and a number to kill one with
/// SIGKILL: its machines turn to the others, which go on with its windows, and nothing that was acknowledged is lost. `r` starts it again.
/// A press gets a worn bearing after ten seconds and is repaired twenty seconds later. Ctrl-C ends the demo.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  millpond demo                                       on a terminal: watch, kill, start again
  millpond demo --plain --for 40s --kill-after 12s    the same as lines, by itself")]
pub struct Args {
    /// End by itself after this time
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<Span>,
    /// Readings per second, of all machines together
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Machines
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
    };
    let agrees = demo::run(&World::client(), options).await?;
    Ok(if agrees { exit::OK } else { exit::FAILED })
}
