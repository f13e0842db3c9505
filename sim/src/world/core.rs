//! What everything in the world shares: the time, the heap of what will happen, randomness and the trace.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{clock::Alarm, trace::Tracer};

/// Nanoseconds since the world began. Nodes never see it: their clocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    pub fn after(self, ns: u64) -> Instant {
        Instant(self.0.saturating_add(ns))
    }
}

/// A machine in the world: a box, or the floor with its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// A host between two failures of its power. What was meant for an earlier boot never reaches a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub host: HostId,
    pub boot: u32,
}

/// The heap is ordered by (time, tie, sequence). Ties are drawn: what happens at the same nanosecond has no natural order, so
/// whoever needs one (a stream of bytes) keeps it by itself.
pub struct Core {
    seed: u64,
    state: Mutex<State>,
    tracer: Mutex<Tracer>,
}

struct State {
    now: Instant,
    next: u64,
    heap: BinaryHeap<Reverse<Item>>,
    ties: StdRng,
    yields: StdRng,
    /// How likely a handler lets others go first.
    yield_share: f64,
    /// Boot number of each host that is up.
    live: Vec<Option<u32>>,
    happened: u64,
}

struct Item {
    at: Instant,
    tie: u64,
    seq: u64,
    to: Option<Place>,
    kind: &'static str,
    act: Act,
}

/// What happens.
pub(crate) enum Act {
    /// A timer of a node; nobody may be waiting for it any more.
    Ring(Arc<Alarm>),
    Run(Box<dyn FnOnce() + Send>),
}

/// Something that is due: run `act` in the runtime of `to`.
pub(crate) struct Due {
    pub to: Option<Place>,
    pub kind: &'static str,
    pub act: Act,
}

impl Core {
    pub(crate) fn new(seed: u64, yield_share: f64) -> Arc<Core> {
        Arc::new(Core {
            seed,
            state: Mutex::new(State {
                now: Instant(0),
                next: 0,
                heap: BinaryHeap::new(),
                ties: stream(seed, "ties"),
                yields: stream(seed, "yields"),
                yield_share,
                live: Vec::new(),
                happened: 0,
            }),
            tracer: Mutex::new(Tracer::default()),
        })
    }

    pub fn now(&self) -> Instant {
        self.state().now
    }

    /// An independent stream of randomness of the world itself, such as `net` or `disk/edge`.
    pub fn rng(&self, purpose: &str) -> StdRng {
        stream(self.seed, purpose)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Has `act` run at `at` in the runtime of `to`, which is then driven until it is idle; without `to` it runs outside of all
    /// nodes. It is forgotten when that boot of the host is over by then.
    pub fn schedule(&self, at: Instant, to: Option<Place>, kind: &'static str, act: impl FnOnce() + Send + 'static) {
        self.push(at, to, kind, Act::Run(Box::new(act)));
    }

    pub(crate) fn push(&self, at: Instant, to: Option<Place>, kind: &'static str, act: Act) {
        let mut state = self.state();
        let seq = state.next;
        state.next += 1;
        let (at, tie) = (at.max(state.now), state.ties.random());
        state.heap.push(Reverse(Item { at, tie, seq, to, kind, act }));
    }

    /// Tells the trace what happened at a host. Everything told goes into the hash of the run.
    pub fn note(&self, host: HostId, kind: &'static str, detail: &[u8]) {
        let now = self.now();
        self.tracer().note(now, host, kind, detail);
    }

    /// The lock is not to be held while the world moves.
    pub fn tracer(&self) -> MutexGuard<'_, Tracer> {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this boot of the host is still running.
    pub fn is_live(&self, place: Place) -> bool {
        self.state().live.get(place.host.0 as usize).copied().flatten() == Some(place.boot)
    }

    pub(crate) fn set_live(&self, host: HostId, boot: Option<u32>) {
        let mut state = self.state();
        let at = host.0 as usize;
        if state.live.len() <= at {
            state.live.resize(at + 1, None);
        }
        state.live[at] = boot;
    }

    pub(crate) fn yields(&self) -> bool {
        let mut state = self.state();
        let share = state.yield_share;
        share > 0.0 && state.yields.random_bool(share)
    }

    /// When the next thing happens.
    pub(crate) fn peek(&self) -> Option<Instant> {
        self.state().heap.peek().map(|Reverse(item)| item.at)
    }

    /// Takes what happens next, if that is until `until`, and moves the time there.
    pub(crate) fn pop(&self, until: Instant) -> Option<Due> {
        let mut state = self.state();
        if state.heap.peek()?.0.at > until {
            return None;
        }
        let Reverse(item) = state.heap.pop()?;
        state.now = item.at;
        state.happened += 1;
        Some(Due { to: item.to, kind: item.kind, act: item.act })
    }

    /// Nothing happens until `at`.
    pub(crate) fn skip_to(&self, at: Instant) {
        let mut state = self.state();
        state.now = state.now.max(at);
    }

    /// The world is over: what would have happened is dropped, and with it whatever it kept alive.
    pub(crate) fn end(&self) {
        loop {
            let heap = std::mem::take(&mut self.state().heap);
            if heap.is_empty() {
                return;
            }
        }
    }

    /// How much has happened so far.
    pub fn happened(&self) -> u64 {
        self.state().happened
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seed of the stream for `purpose`: streams of different purposes have nothing to do with each other.
pub(crate) fn seed_of(seed: u64, purpose: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
    *hasher.finalize().as_bytes()
}

fn stream(seed: u64, purpose: &str) -> StdRng {
    StdRng::from_seed(seed_of(seed, purpose))
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Item) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Item) -> Ordering {
        (self.at, self.tie, self.seq).cmp(&(other.at, other.tie, other.seq))
    }
}
