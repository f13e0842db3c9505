//! `millpond sim shrink`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use millpond_core::time::Span;
use millpond_sim::{
    promise::{Broken, Promise},
    rehearsal::{Options, Plan},
    report::Report,
    scenario::{Expect, Injection},
    shrink::{minimise, shorten},
};

use super::{
    rehearse::{Progress, Ran, Tracing, on_thread, rehearse},
    run::write_trace,
    stage, summary, words,
};
use crate::{
    commands::out,
    exit::{self, Failure, Told},
    world::World,
};

/// Find the fewest faults and the shortest time that still break the same promise
///
/// Plays the run again and again with fewer faults, then shorter, and writes the least that fails as a new trace.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond sim shrink millpond-sim-crash_storm-7.toml
  millpond sim shrink millpond-sim-crash_storm-7.toml -o lost.toml")]
pub struct Args {
    /// The trace file of a run that broke a promise
    trace: PathBuf,
    /// Where the new trace is written; otherwise beside the old, with `-small` in its name
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let env = World::client();
    let (file, plan) = stage::trace(&env, &args.trace)?;
    let (faults, duration) = (file.injections.len(), file.scenario.duration);
    let progress = Progress::new(&env, "shrink");
    let options = file.options();
    let small = on_thread(&env, move || Shrinking::new(plan, options.seed, progress).go(options.injections)).await?;
    let Some((plan, ran, tries)) = small else {
        let told = Told::new(format!("the run of {} breaks no promise with this program", args.trace.display()));
        return Err(told.hint("what was wrong may have been repaired").failure(Failure::BadInput).into());
    };
    let path = args.output.unwrap_or_else(|| beside(&args.trace));
    write_trace(&plan, &ran, Some(&path))?;
    let (left, short) = (ran.injections.len(), plan.scenario.duration);
    out(summary::broken(&ran.report))?;
    out(format!(
        "{left} of {} in {short} of {duration}, after {}\n",
        words::plural(faults as u64, "fault"),
        words::plural(tries, "run")
    ))?;
    out(format!("{}\n", ran.report.line()))?;
    Ok(exit::OK)
}

fn beside(trace: &Path) -> PathBuf {
    let stem = trace.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    trace.with_file_name(format!("{stem}-small.toml"))
}

/// What must stay broken for a smaller run to be the same failure.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failing {
    Promise(Promise),
    /// The run itself, with what it says, numbers left out.
    Run(String),
}

impl Failing {
    /// A promise, when one is broken: that less happened than expected is of no interest then.
    fn of(report: &Report) -> Option<Failing> {
        let promise = report.broken.iter().find_map(|broken| broken.promise).map(Failing::Promise);
        promise.or_else(|| report.broken.first().map(|broken| Failing::Run(words_of(broken))))
    }

    fn is_in(&self, report: &Report) -> bool {
        report.broken.iter().any(|broken| match self {
            Failing::Promise(promise) => broken.promise == Some(*promise),
            Failing::Run(words) => broken.promise.is_none() && words_of(broken) == *words,
        })
    }
}

fn words_of(broken: &Broken) -> String {
    let line = broken.detail.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

struct Shrinking {
    plan: Plan,
    seed: u64,
    progress: Progress,
    tries: u64,
    /// The last run that failed as it should, with its plan.
    best: Option<(Plan, Ran)>,
}

impl Shrinking {
    fn new(plan: Plan, seed: u64, progress: Progress) -> Shrinking {
        Shrinking { plan, seed, progress, tries: 0, best: None }
    }

    fn go(mut self, injections: Option<Vec<Injection>>) -> Option<(Plan, Ran, u64)> {
        let all = injections.unwrap_or_default();
        let first = self.play(&all)?;
        let failing = Failing::of(&first.report)?;
        self.best = Some((self.plan.clone(), first));
        if matches!(failing, Failing::Promise(_)) {
            self.plan.scenario.expect = Expect::default();
        }
        let least = minimise(&all, |some| self.fails(some, &failing));
        let last = least.last().map_or(0, |injection| injection.at_ns);
        let whole = self.plan.scenario.duration;
        // A fault at the very end of the measuring would be no part of it.
        shorten(Span(last as i64), whole, |duration| {
            self.plan.scenario.duration = duration;
            let kept: Vec<Injection> =
                least.iter().filter(|injection| (injection.at_ns as i64) < duration.0).cloned().collect();
            kept.len() == least.len() && self.fails(&kept, &failing)
        });
        let tries = self.tries;
        self.best.map(|(plan, ran)| (plan, ran, tries))
    }

    fn fails(&mut self, injections: &[Injection], failing: &Failing) -> bool {
        let left = self.best.as_ref().map_or(0, |(_, ran)| ran.injections.len());
        let text = format!("run {}, {} left", self.tries + 1, words::plural(left as u64, "fault"));
        self.progress.say(0, &text);
        let Some(ran) = self.play(injections).filter(|ran| failing.is_in(&ran.report)) else { return false };
        self.best = Some((self.plan.clone(), ran));
        true
    }

    fn play(&mut self, injections: &[Injection]) -> Option<Ran> {
        self.tries += 1;
        let options = Options { seed: self.seed, injections: Some(injections.to_vec()) };
        rehearse(self.plan.clone(), options, Tracing::Hash, |_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_known_by_its_promise_or_by_its_words() {
        let broken = |promise, detail: &str| Broken { promise, node: String::new(), detail: detail.to_owned() };
        let few = |n| broken(None, &format!("only {n} of 40 power losses\nmore"));
        assert_eq!(words_of(&few(3)), words_of(&few(0)));
        assert_ne!(words_of(&few(3)), words_of(&broken(None, "a panic")));
    }
}
