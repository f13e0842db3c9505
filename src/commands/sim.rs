//! `millpond sim`: a site and its devices in simulated time, under faults, and whether the promises hold.

mod html;
mod list;
mod prompt;
mod rehearse;
mod replay;
mod report;
mod run;
mod search;
mod shrink;
mod stage;
mod state;
mod summary;
mod words;

use std::process::ExitCode;

/// Rehearse power losses, full disks, wrong clocks and poor networks with simulated nodes
///
/// The nodes are the real program; time, network, disks and devices are simulated. The same program, scenario and seed give the same
/// run each time, so what went wrong once can be seen again, step by step.
#[derive(Debug, clap::Args)]
#[command(after_help = "Start here:
  millpond sim list                         the scenarios that come with the program
  millpond sim run crash_storm              one run, with a seed that is drawn and printed
  millpond sim list crash_storm > my.toml   a scenario to change
  millpond sim run my.toml --seed 7
  millpond sim search --seeds 1..100        many runs, until one breaks a promise
  millpond sim replay TRACE --step          what happened, step by step
  millpond sim shrink TRACE                 the fewest faults that still break it")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    List(list::Args),
    Run(run::Args),
    Search(search::Args),
    Replay(replay::Args),
    Shrink(shrink::Args),
    Report(report::Args),
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List(args) => list::run(args).await,
        What::Run(args) => run::run(args).await,
        What::Search(args) => search::run(args).await,
        What::Replay(args) => replay::run(args).await,
        What::Shrink(args) => shrink::run(args).await,
        What::Report(args) => report::run(args).await,
    }
}
