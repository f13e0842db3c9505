//! `millpond sim run`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use millpond_env::Env;
use millpond_sim::{
    promise::Broken,
    rehearsal::{Options, Plan},
    trace_file::TraceFile,
};
use rand::RngExt;

use super::{
    rehearse::{Progress, Ran, Tracing, on_thread, rehearse},
    stage, summary,
};
use crate::{
    commands::out,
    exit,
    world::{World, os},
};

/// Play a scenario once and check the promises
///
/// The last line says scenario, seed, hash and whether the promises were kept; the exit code is 1 when one was broken. A broken run is
/// written to a trace file that `sim replay` plays again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond sim run crash_storm
  millpond sim run crash_storm --seed 7 --report crash.json
  millpond sim run crash_storm --config edge=my-edge.toml       your own configuration under its faults
  millpond sim run offline_24h --set duration=2h --set settle=5m --set expect.events_stored=0
  millpond sim run my.toml --seed 7 --check                     twice, compared event by event")]
pub struct Args {
    /// Name of a scenario that comes with the program, or a TOML file
    scenario: String,
    /// Decides everything that is left to chance; drawn and printed when it is not given
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Configuration for all nodes that the scenario gives none, or for one node, instead of the scenario's
    #[arg(long, value_name = "[NODE=]FILE")]
    config: Vec<String>,
    /// Change the scenario; entries of lists count from 0, as in node.0.disk.bytes=1000000000
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write the result as JSON, for `sim report`
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Write the trace here, also of a run that kept all promises
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Run it twice and show the first event that differs
    #[arg(long)]
    check: bool,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let env = World::client();
    let plan = stage::plan(&env, &args.scenario, &args.config, &args.set)?;
    let seed = args.seed.unwrap_or_else(|| u64::from(env.rng("seed of a rehearsal").random::<u32>()));
    eprintln!("{} with seed {seed}", plan.scenario.name);
    let options = Options { seed, injections: None };
    let ran = if args.check {
        twice(&env, &plan, &options).await?
    } else {
        once(&env, &plan, &options, Tracing::Hash).await?
    };
    out(summary::summary(&ran.report, Some(ran.cpu)))?;
    if let Some(path) = &args.report {
        let json = serde_json::to_vec_pretty(&ran.report)?;
        os::write(path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !ran.report.kept() || args.trace.is_some() {
        write_trace(&plan, &ran, args.trace.as_deref())?;
    }
    out(format!("{}\n", ran.report.line()))?;
    Ok(if ran.report.kept() { exit::OK } else { exit::FAILED })
}

/// Runs it with progress on stderr.
pub async fn once(env: &Env, plan: &Plan, options: &Options, tracing: Tracing) -> anyhow::Result<Ran> {
    let mut progress = Progress::new(env, plan.scenario.name.clone());
    let (plan, options) = (plan.clone(), options.clone());
    let ran = on_thread(env, move || rehearse(plan, options, tracing, |rehearsal| progress.look(rehearsal))).await?;
    ran.context("nobody gives this run up")
}

async fn twice(env: &Env, plan: &Plan, options: &Options) -> anyhow::Result<Ran> {
    let mut first = once(env, plan, options, Tracing::Record).await?;
    let notes = Arc::new(std::mem::take(&mut first.notes));
    eprintln!("once more, compared event by event");
    let mut second = once(env, plan, options, Tracing::Compare(notes)).await?;
    let same = second.report.hash == first.report.hash;
    if same {
        eprintln!("both runs are the same: {} events, hash {}", second.report.noted, second.report.hash);
    } else if second.report.broken.iter().all(|broken| broken.promise.is_some()) {
        // The second run was over while the first still had something to do: no event of it differs.
        let detail = format!(
            "the run is not the same as before: it ends after {} of {} events",
            second.report.noted, first.report.noted
        );
        second.report.broken.push(Broken { promise: None, node: String::new(), detail });
    }
    Ok(second)
}

/// Writes the trace, to where it usually goes when nothing else is said, and tells how to play it again.
pub fn write_trace(plan: &Plan, ran: &Ran, path: Option<&Path>) -> anyhow::Result<PathBuf> {
    let report = &ran.report;
    let usual = || PathBuf::from(format!("millpond-sim-{}-{}.toml", stage::file_name(&report.scenario), report.seed));
    let path = path.map_or_else(usual, Path::to_path_buf);
    let file = TraceFile::new(env!("CARGO_PKG_VERSION"), report, plan.scenario.clone(), ran.injections.clone());
    os::write(&path, file.render()?.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("trace: {0}\nhint: millpond sim replay {0}", path.display());
    Ok(path)
}
