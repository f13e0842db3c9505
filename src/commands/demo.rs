//! `millpond demo`: a node and a fleet of simulated machines on this computer.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use millpond_core::time::Span;

use crate::{
    demo::{self, Options},
    exit,
    world::World,
};

/// Run a node and a fleet of simulated machines on this computer, and watch them
///
/// The node is a second process, which you may kill: it is started again, and nothing that it acknowledged is lost. A press gets a
/// worn bearing after ten seconds and is repaired twenty seconds later. Ctrl-C ends the demo.
#[derive(Debug, Parser)]
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
    /// Directory for the node's data, which is kept; a temporary one that is removed when it is left out
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print lines, also on a terminal
    #[arg(long)]
    plain: bool,
    /// Seed of the machines
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options = Options {
        length: args.length,
        rate: args.rate,
        machines: args.machines,
        data: args.data,
        plain: args.plain,
        seed: args.seed,
    };
    let agrees = demo::run(&World::client(), options).await?;
    Ok(if agrees { exit::OK } else { exit::FAILED })
}
