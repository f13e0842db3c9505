//! `millpond sim search`: many seeds over scenarios.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use millpond_core::time::Span;
use millpond_env::Env;
use millpond_sim::{
    rehearsal::{Options, Plan},
    scenario::SHIPPED,
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    rehearse::{Progress, Ran, Tracing, caught, rehearse},
    run::write_trace,
    stage, summary, words,
};
use crate::{
    commands::{
        out,
        table::{self, Column},
    },
    exit::{self, Told},
    world::World,
};

/// Play scenarios with many seeds until a promise breaks
///
/// Stops at the first run that breaks one, writes its trace, and exits with 1. Ends with a table and a line with the number of runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond sim search --seeds 1..100                     all scenarios that come with the program
  millpond sim search crash_storm --seeds 1..1000 --jobs 4
  millpond sim search crash_storm my.toml --seeds 7 --set duration=5m --keep-going")]
pub struct Args {
    /// Names or TOML files
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// All scenarios that come with the program; so it is, too, when none is named
    #[arg(long, conflicts_with = "scenarios")]
    all: bool,
    /// From..to, both included, or a single one
    #[arg(long, value_name = "A..B", default_value = "1..100", value_parser = seeds)]
    seeds: Seeds,
    /// Runs at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Play scenarios at their whole length, not at the brief one that they name for searches
    #[arg(long)]
    whole: bool,
    /// Go on after a broken promise
    #[arg(long)]
    keep_going: bool,
    /// Change each scenario, as `sim run` does
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where traces are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    traces: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seeds(u64, u64);

fn seeds(text: &str) -> Result<Seeds, String> {
    let one = |text: &str| {
        let seed = text.trim_start_matches('=').parse::<u64>().ok().filter(|seed| *seed <= i64::MAX as u64);
        seed.ok_or_else(|| format!("`{text}` is no seed"))
    };
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (one(from)?, one(to)?),
        None => (one(text)?, one(text)?),
    };
    if from > to { Err("the first seed is beyond the last".to_owned()) } else { Ok(Seeds(from, to)) }
}

/// What all jobs take from and look at.
#[derive(Debug)]
struct Work {
    plans: Vec<Plan>,
    left: Mutex<VecDeque<(usize, u64)>>,
    enough: AtomicBool,
    keep_going: bool,
}

/// A run that is over: which scenario, which seed, and what came of it.
type Done = (usize, u64, anyhow::Result<Option<Ran>>);

/// All runs of one scenario.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    runs: u64,
    broken: u64,
    simulated_ns: u64,
    cpu_ns: u64,
    faults: u64,
    power_losses: u64,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let env = World::client();
    let mut names = args.scenarios.clone();
    if names.is_empty() {
        names = SHIPPED.iter().map(|scenario| scenario.name.to_owned()).collect();
    }
    let plan = |name: &String| -> anyhow::Result<Plan> {
        let plan = stage::plan(&env, name, &[], &args.set)?;
        Ok(if args.whole { plan } else { Plan { scenario: plan.scenario.brief(), ..plan } })
    };
    let plans: Vec<Plan> = names.iter().map(plan).collect::<Result<_, _>>()?;
    let left: VecDeque<(usize, u64)> =
        (args.seeds.0..=args.seeds.1).flat_map(|seed| (0..names.len()).map(move |at| (at, seed))).collect();
    let total = left.len() as u64;
    let mut sums = vec![Sum::default(); plans.len()];
    let work =
        Arc::new(Work { plans, left: Mutex::new(left), enough: AtomicBool::new(false), keep_going: args.keep_going });
    let failed = look_for(&env, &args, &work, total, &mut sums).await?;
    out(table_of(&work.plans, &sums))?;
    let runs: u64 = sums.iter().map(|sum| sum.runs).sum();
    out(format!("runs={runs} broken={failed}\n"))?;
    Ok(if failed == 0 { exit::OK } else { exit::FAILED })
}

/// Runs until there is no work left, or enough is known; returns how many runs broke a promise.
async fn look_for(env: &Env, args: &Args, work: &Arc<Work>, total: u64, sums: &mut [Sum]) -> anyhow::Result<u64> {
    let mut progress = Progress::new(env, "search");
    let (done, mut results) = mpsc::unbounded_channel::<Done>();
    let mut workers = Vec::new();
    for _ in 0..args.jobs {
        let worker = env.blocking.worker("rehearsal");
        let (work, done) = (work.clone(), done.clone());
        worker.run(Box::new(move || take_turns(&work, &done)));
        workers.push(worker);
    }
    drop(done);
    let mut failed = 0;
    while let Some((at, seed, ran)) = results.recv().await {
        let plan = &work.plans[at];
        let ran = match ran {
            Ok(Some(ran)) => ran,
            Ok(None) => continue,
            Err(error) => {
                work.enough.store(true, Ordering::Relaxed);
                let name = &plan.scenario.name;
                return Err(error.context(Told::new(format!("scenario {name} with seed {seed} did not end"))));
            }
        };
        sums[at].add(&ran);
        if !ran.report.kept() {
            failed += 1;
            let file = format!("millpond-sim-{}-{seed}.toml", stage::file_name(&ran.report.scenario));
            eprintln!("\n{}\n{}", ran.report.line(), summary::broken(&ran.report));
            write_trace(plan, &ran, Some(&args.traces.join(file)))?;
        }
        let runs: u64 = sums.iter().map(|sum| sum.runs).sum();
        let text = format!("{runs} of {}, {failed} broken", words::plural(total, "run"));
        progress.say(1000 * runs / total.max(1), &text);
    }
    Ok(failed)
}

/// A job: a rehearsal lives on one thread from its beginning to its end.
fn take_turns(work: &Work, done: &mpsc::UnboundedSender<Done>) {
    while !work.enough.load(Ordering::Relaxed) {
        let next = work.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((at, seed)) = next else { return };
        let (plan, options) = (work.plans[at].clone(), Options { seed, injections: None });
        let go_on = |_: &_| !work.enough.load(Ordering::Relaxed);
        let ran = caught(|| rehearse(plan, options, Tracing::Hash, go_on));
        if !work.keep_going && matches!(&ran, Ok(Some(ran)) if !ran.report.kept()) {
            work.enough.store(true, Ordering::Relaxed);
        }
        if done.send((at, seed, ran)).is_err() {
            return;
        }
    }
}

impl Sum {
    fn add(&mut self, ran: &Ran) {
        self.runs += 1;
        self.broken += u64::from(!ran.report.kept());
        self.simulated_ns += ran.report.simulated_ns;
        self.cpu_ns += ran.cpu.0.max(0) as u64;
        self.faults += ran.injections.len() as u64;
        self.power_losses += ran.report.nodes.iter().map(|node| node.disk.power_losses).sum::<u64>();
    }
}

fn table_of(plans: &[Plan], sums: &[Sum]) -> String {
    let rows: Vec<serde_json::Value> = plans
        .iter()
        .zip(sums)
        .map(|(plan, sum)| {
            json!({
                "name": plan.scenario.name,
                "runs": sum.runs,
                "broken": sum.broken,
                "simulated": words::time(sum.simulated_ns).to_string(),
                "cpu": Span(sum.cpu_ns as i64 - sum.cpu_ns as i64 % 1_000_000).to_string(),
                "faults": sum.faults,
                "losses": sum.power_losses,
            })
        })
        .collect();
    let columns = [
        Column("SCENARIO", "name"),
        Column("RUNS", "runs"),
        Column("BROKEN", "broken"),
        Column("SIMULATED", "simulated"),
        Column("CPU", "cpu"),
        Column("FAULTS", "faults"),
        Column("POWER LOSSES", "losses"),
    ];
    table::render(&columns, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_or_a_range_with_both_ends() {
        assert_eq!(seeds("7"), Ok(Seeds(7, 7)));
        assert_eq!(seeds("1..1000"), Ok(Seeds(1, 1000)));
        assert_eq!(seeds("1..=3"), Ok(Seeds(1, 3)));
        for bad in ["", "3..1", "a..b", "1..", "9223372036854775808"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
    }
}
