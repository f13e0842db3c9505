//! What a checker has to say: a few sentences with an example each, however much is wrong.

use millpond_core::time::Timestamp;

use crate::{
    promise::{Broken, Promise},
    world::{clock::EPOCH, core::Instant},
};

/// Sentences about one promise and node at most.
const SAID_MAX: usize = 5;
/// Examples in a sentence.
const EXAMPLES_MAX: usize = 3;

/// What is wrong with one promise on one node.
#[derive(Debug)]
pub struct Findings {
    promise: Promise,
    node: String,
    said: Vec<String>,
}

impl Findings {
    pub fn new(promise: Promise, node: &str) -> Findings {
        Findings { promise, node: node.to_owned(), said: Vec::new() }
    }

    pub fn say(&mut self, detail: String) {
        self.said.push(detail);
    }

    /// Says how many there are of something, if there are any.
    pub fn tell(&mut self, tally: &Tally, what: &str) {
        if tally.count > 0 {
            self.say(format!("{} {what}: {}", tally.count, tally.examples.join("; ")));
        }
    }

    pub fn finish(self) -> Vec<Broken> {
        let more = self.said.len().saturating_sub(SAID_MAX);
        let mut broken: Vec<Broken> = self
            .said
            .into_iter()
            .take(SAID_MAX)
            .map(|detail| Broken { promise: Some(self.promise), node: self.node.clone(), detail })
            .collect();
        if let Some(last) = broken.last_mut().filter(|_| more > 0) {
            last.detail.push_str(&format!(" (and {more} more kinds of trouble)"));
        }
        broken
    }
}

/// Things of one kind that are wrong: how many, and the first of them.
#[derive(Debug, Default)]
pub struct Tally {
    pub count: u64,
    examples: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// A stamp as time into the run, by true time.
pub fn stamp(time: Timestamp) -> String {
    ms((i128::from(time.0) - i128::from(EPOCH.0)) / 1_000_000)
}

/// A point of the run.
pub fn at(instant: Instant) -> String {
    if instant == Instant(u64::MAX) { "never".to_owned() } else { ms(i128::from(instant.0) / 1_000_000) }
}

/// `h:mm:ss.mmm`
fn ms(ms: i128) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    match ms % 1000 {
        0 => format!("{sign}{h}:{m:02}:{s:02}"),
        rest => format!("{sign}{h}:{m:02}:{s:02}.{rest:03}"),
    }
}

/// True time of a stamp, if it lies in the run.
pub fn true_time(instant: Instant) -> Timestamp {
    Timestamp(EPOCH.0.saturating_add(i64::try_from(instant.0).unwrap_or(i64::MAX)))
}
