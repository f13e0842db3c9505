//! One rehearsal from its beginning to its end, on a thread of its own, and how it is watched meanwhile.

use std::{
    io::IsTerminal,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressStyle};
use millpond_core::time::Span;
use millpond_env::{Env, Mono};
use millpond_sim::{
    rehearsal::{Options, Outcome, Plan, Rehearsal},
    report::Report,
    scenario::Injection,
    world::trace::Note,
};
use tokio::sync::oneshot;

use super::words;
use crate::{exit::Told, world::os};

/// Steps between two looks at a rehearsal.
const STEPS: u64 = 1024;
/// How often a line tells how far it is, where there is no terminal.
const LINE_EVERY: Span = Span::from_secs(5);

/// What came of a rehearsal, as far as it may leave its thread.
#[derive(Debug)]
pub struct Ran {
    pub report: Report,
    pub injections: Vec<Injection>,
    /// Of the thread, for this rehearsal alone.
    pub cpu: Span,
    /// What happened, when that was asked for.
    pub notes: Vec<Note>,
}

/// What the tracer does besides hashing.
#[derive(Clone, Debug)]
pub enum Tracing {
    Hash,
    Record,
    Compare(Arc<Vec<Note>>),
}

/// Runs it to its end. `watch` is called now and then; when it returns `false`, the rehearsal is given up: `None`.
pub fn rehearse(
    plan: Plan,
    options: Options,
    tracing: Tracing,
    mut watch: impl FnMut(&Rehearsal) -> bool,
) -> Option<Ran> {
    let begun = os::thread_cpu();
    let mut rehearsal = Rehearsal::new(plan, options);
    match tracing {
        Tracing::Hash => {}
        Tracing::Record => rehearsal.world().core().tracer().record(),
        Tracing::Compare(notes) => rehearsal.world().core().tracer().compare(notes),
    }
    let mut steps = 0_u64;
    while rehearsal.step() {
        steps += 1;
        if steps.is_multiple_of(STEPS) && !watch(&rehearsal) {
            return None;
        }
    }
    let notes = rehearsal.world().core().tracer().take_record();
    let Outcome { report, evidence } = rehearsal.finish();
    let injections = evidence.injections.clone();
    drop(evidence);
    Some(Ran { report, injections, cpu: Span(os::thread_cpu().0 - begun.0), notes })
}

/// Does work of minutes on a thread of its own, as rehearsals need it: outside of any executor.
///
/// # Errors
/// When it panics.
pub async fn on_thread<T: Send + 'static>(env: &Env, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    let (done, result) = oneshot::channel();
    let worker = env.blocking.worker("rehearsal");
    worker.run(Box::new(move || {
        let _ = done.send(caught(work));
    }));
    result.await?
}

/// # Errors
/// A panic, in words: a rehearsal keeps panics from the terminal.
pub fn caught<T>(work: impl FnOnce() -> T) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Told::new(format!("the simulation itself failed: {}", text.unwrap_or("it panicked"))).into()
    })
}

/// How far a rehearsal is: a bar on a terminal, a line every few seconds elsewhere; both on stderr.
#[derive(Debug)]
pub struct Progress {
    env: Env,
    bar: Option<ProgressBar>,
    told: Mono,
    what: String,
}

impl Progress {
    pub fn new(env: &Env, what: impl Into<String>) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1000);
            if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Progress { env: env.clone(), bar, told: env.now(), what: what.into() }
    }

    /// Looks at the rehearsal; always `true`, to go on.
    pub fn look(&mut self, rehearsal: &Rehearsal) -> bool {
        let scenario = rehearsal.scenario();
        let end = (scenario.duration + scenario.settle).0.max(1) as u64;
        let now = rehearsal.world().now().0;
        let faults = rehearsal.injections().iter().filter(|injection| injection.at_ns <= now).count() as u64;
        let text = format!("{} of {}, {}", words::time(now), words::time(end), words::plural(faults, "fault"));
        self.say(now.min(end) * 1000 / end, &text);
        true
    }

    /// `part` is of 1000.
    pub fn say(&mut self, part: u64, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(self.what.clone());
                bar.set_message(text.to_owned());
                bar.set_position(part);
            }
            None if self.env.now().since(self.told) >= LINE_EVERY => {
                self.told = self.env.now();
                eprintln!("{}: {text}", self.what);
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
