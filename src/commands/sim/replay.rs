//! `millpond sim replay`.

use std::{path::PathBuf, process::ExitCode};

use super::{
    prompt,
    rehearse::{Tracing, on_thread},
    run::once,
    stage, summary,
};
use crate::{commands::out, exit, world::World};

/// Play a run again from its trace file
///
/// Says whether it goes the same way as before; the exit code is 1 when a promise is broken. With --step it stops where you want and
/// shows what nodes, disks and network have come to. Looking changes nothing: the hash at the end is the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond sim replay millpond-sim-crash_storm-7.toml
  millpond sim replay millpond-sim-crash_storm-7.toml --step
  printf 'to fault\\nshow edge\\nto end\\n' | millpond sim replay millpond-sim-crash_storm-7.toml --step")]
pub struct Args {
    /// The trace file of a run
    trace: PathBuf,
    /// Read commands (`help` shows them) and stop where they say
    #[arg(long)]
    step: bool,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let env = World::client();
    let (file, plan) = stage::trace(&env, &args.trace)?;
    let before = file.hash.clone();
    let report = if args.step {
        let options = file.options();
        match on_thread(&env, move || prompt::run(plan, options)).await?? {
            Some(report) => report,
            None => return Ok(exit::OK),
        }
    } else {
        let ran = once(&env, &plan, &file.options(), Tracing::Hash).await?;
        out(summary::summary(&ran.report, Some(ran.cpu)))?;
        ran.report
    };
    if report.hash == before {
        eprintln!("the same run as in {}: hash {before}", args.trace.display());
    } else {
        eprintln!("not the same run as in {}: hash {} there, {} here", args.trace.display(), before, report.hash);
        if file.program != env!("CARGO_PKG_VERSION") {
            eprintln!("hint: the trace was written by version {}, this is {}", file.program, env!("CARGO_PKG_VERSION"));
        }
    }
    out(format!("{}\n", report.line()))?;
    Ok(if report.kept() { exit::OK } else { exit::FAILED })
}
