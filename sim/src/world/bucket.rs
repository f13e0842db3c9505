//! An object store: a machine of its own, which keeps what was stored there whatever becomes of the programs that use it.
//!
//! ```text
//!   program ── request ──► effect ── answer ──► program
//!              (lost when the link is cut)       (lost likewise; the program waits, and gives up)
//! ```
//!
//! A request takes effect when it arrives, all at once, as in stores that are strongly consistent. A program that ended meanwhile does not
//! know whether it did: its request is on the way, or it never left. What the store says need not be what it did ([`StoreSpec`]).

mod client;
mod objects;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use millpond_core::time::Span;
use millpond_env::Env;
use object_store::{Error, ObjectStore, Result};
use rand::{RngExt, rngs::StdRng};

use self::{client::Client, objects::Objects};
use super::{
    core::{Core, HostId, Place},
    net::Network,
};

/// How a store behaves. Shares are of operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoreSpec {
    /// Not done, and said to have failed.
    pub refused: f64,
    /// Done, and said to have failed.
    pub lied: f64,
    /// Writes that are done a second time, later. The answer may be that of either time.
    pub duplicate: f64,
    /// From the request to its effect, and from there to the answer.
    pub latency: (Span, Span),
}

impl StoreSpec {
    /// A store on a good day.
    pub const CALM: StoreSpec =
        StoreSpec { refused: 0.0, lied: 0.0, duplicate: 0.0, latency: (Span(1_000_000), Span(20_000_000)) };
}

/// What became of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub operations: u64,
    pub refused: u64,
    pub lied: u64,
    pub duplicated: u64,
    /// The program that asked gave up waiting.
    pub unanswered: u64,
}

impl StoreStats {
    /// Operations that were said to have failed, or of which nobody heard.
    pub fn failures(&self) -> u64 {
        self.refused + self.lied + self.unanswered
    }
}

/// The store as its world sees it. Cheap to clone.
#[derive(Clone)]
pub struct Bucket(Arc<Shared>);

struct Shared {
    core: Arc<Core>,
    network: Network,
    host: HostId,
    state: Mutex<State>,
}

struct State {
    objects: Objects,
    spec: StoreSpec,
    stats: StoreStats,
    rng: StdRng,
}

/// What will become of an operation.
struct Fate {
    /// Nanoseconds until it takes effect, each time.
    arrives: Vec<u64>,
    /// Which time it is that is answered, and how long that takes.
    answers: (usize, u64),
    outcome: Outcome,
    /// Should the program end before it takes effect: it never left.
    stays: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    Lied,
}

impl Bucket {
    /// The store at a host of the world.
    pub fn new(core: Arc<Core>, network: Network, host: HostId) -> Bucket {
        let rng = core.rng(&format!("bucket/{}", host.0));
        let state = State { objects: Objects::default(), spec: StoreSpec::CALM, stats: StoreStats::default(), rng };
        Bucket(Arc::new(Shared { core, network, host, state: Mutex::new(state) }))
    }

    pub fn host(&self) -> HostId {
        self.0.host
    }

    /// The store as one boot of a host uses it.
    pub fn client(&self, env: Env, place: Place) -> Arc<dyn ObjectStore> {
        Arc::new(Client::new(self.clone(), Some((env, place))))
    }

    /// The store for who looks at it from outside of the world: nothing takes time, and nothing fails.
    pub fn at_rest(&self) -> Arc<dyn ObjectStore> {
        Arc::new(Client::new(self.clone(), None))
    }

    pub fn set(&self, spec: StoreSpec) {
        self.state().spec = spec;
    }

    pub fn stats(&self) -> StoreStats {
        self.state().stats
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an operation on its way. `answer` runs at `place` when the answer is there, which may be never.
    fn send<T: Send + 'static>(
        &self,
        place: Place,
        what: &'static str,
        writes: bool,
        effect: impl Fn(&mut Objects) -> Result<T> + Send + Sync + 'static,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let Shared { core, network, host, .. } = &*self.0;
        let fate = self.state().draw(writes);
        if !network.is_open(place.host, *host) {
            core.note(*host, "store out of reach", what.as_bytes());
            return;
        }
        let (now, effect, mut answer) = (core.now(), Arc::new(effect), Some(answer));
        for (number, arrives) in fate.arrives.iter().enumerate() {
            let (bucket, effect) = (self.clone(), effect.clone());
            let answer = (number == fate.answers.0).then(|| answer.take()).flatten();
            let (outcome, stays, back) = (fate.outcome, fate.stays, fate.answers.1);
            core.schedule(now.after(*arrives), None, "store", move || {
                let Shared { core, network, host, .. } = &*bucket.0;
                if stays && !core.is_live(place) {
                    return;
                }
                let said = bucket.take_effect(what, outcome, &*effect);
                let Some(answer) = answer.filter(|_| network.is_open(*host, place.host)) else { return };
                core.schedule(core.now().after(back), Some(place), "store", move || answer(said));
            });
        }
    }

    fn take_effect<T>(
        &self,
        what: &'static str,
        outcome: Outcome,
        effect: impl Fn(&mut Objects) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state();
        let (done, note) = match outcome {
            Outcome::Done => (Some(effect(&mut state.objects)), "store"),
            Outcome::Lied => (Some(effect(&mut state.objects)), "store lies"),
            Outcome::Refused => (None, "store refuses"),
        };
        drop(state);
        self.0.core.note(self.0.host, note, what.as_bytes());
        done.filter(|_| outcome == Outcome::Done).unwrap_or_else(|| Err(broken("it is not well")))
    }
}

impl State {
    fn draw(&mut self, writes: bool) -> Fate {
        let State { spec, stats, rng, .. } = self;
        let mut chance = |share: f64| share > 0.0 && rng.random_bool(share.min(1.0));
        let outcome = match (chance(spec.refused), chance(spec.lied)) {
            (true, _) => Outcome::Refused,
            (false, true) => Outcome::Lied,
            (false, false) => Outcome::Done,
        };
        let twice = writes && chance(spec.duplicate);
        let stays = chance(0.5);
        let mut latency = || {
            let (least, most) = (spec.latency.0.0.max(0) as u64, spec.latency.1.0.max(0) as u64);
            if least >= most { least } else { rng.random_range(least..=most) }
        };
        let arrives: Vec<u64> = (0..1 + usize::from(twice)).map(|_| latency()).collect();
        let back = latency();
        let answered = if twice { rng.random_range(0..2) } else { 0 };
        stats.operations += 1;
        stats.refused += u64::from(outcome == Outcome::Refused);
        stats.lied += u64::from(outcome == Outcome::Lied);
        stats.duplicated += u64::from(twice);
        Fate { arrives, answers: (answered, back), outcome, stays }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("host", &self.0.host).finish_non_exhaustive()
    }
}

fn broken(why: &'static str) -> Error {
    Error::Generic { store: "bucket", source: why.into() }
}

/// Runs what waits for nothing of the world, as what reads a store [at rest](Bucket::at_rest) does.
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    let (mut future, mut cx) = (std::pin::pin!(future), Context::from_waker(Waker::noop()));
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
            return result;
        }
    }
}

#[cfg(test)]
mod tests;
