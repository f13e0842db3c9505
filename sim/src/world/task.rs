//! Tasks, blocking work, randomness and the trace of one host during one boot.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use millpond_env::{Blocking, Entropy, Spawner, Trace, Worker};
use rand::{RngExt, rngs::StdRng};
use tokio::runtime::Handle;

use super::{
    core::{Core, Place, seed_of},
    disk::Disk,
    mishap::Mishaps,
};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub struct RuntimeSpawner(pub Handle);

impl Spawner for RuntimeSpawner {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }
}

/// Randomness by (seed, host, boot, purpose).
#[derive(Debug)]
pub struct SeededEntropy {
    pub core: Arc<Core>,
    pub place: Place,
}

impl Entropy for SeededEntropy {
    fn seed(&self, purpose: &str) -> [u8; 32] {
        seed_of(self.core.seed(), &format!("host/{}/{}/{purpose}", self.place.host.0, self.place.boot))
    }
}

#[derive(Debug)]
pub struct HostTrace {
    pub core: Arc<Core>,
    pub place: Place,
    pub mishaps: Arc<Mishaps>,
}

impl Trace for HostTrace {
    fn event(&self, kind: &'static str, detail: &[u8]) {
        self.core.note(self.place.host, kind, detail);
    }

    fn yields(&self) -> bool {
        self.mishaps.strike(&self.core, self.place);
        self.core.yields()
    }

    fn trips(&self, place: &'static str) -> Option<String> {
        self.mishaps.trips(place)
    }
}

/// Blocking work takes the time that its disk takes. A job runs, all at once, when its time is over, so that nobody sees its result
/// earlier; what it used beyond the time foreseen, the next one of its worker waits for.
pub struct HostBlocking {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    place: Place,
    disk: Option<Disk>,
    /// By how much the host's clock is behind while a job runs.
    behind: Arc<AtomicU64>,
    rng: Mutex<StdRng>,
}

impl HostBlocking {
    pub fn new(core: Arc<Core>, place: Place, disk: Option<Disk>, behind: Arc<AtomicU64>) -> HostBlocking {
        let rng = Mutex::new(core.rng(&format!("blocking/{}/{}", place.host.0, place.boot)));
        HostBlocking { shared: Arc::new(Shared { core, place, disk, behind, rng }) }
    }
}

impl Shared {
    /// Runs a job that was foreseen to take `foreseen` ns and ends now. Returns by how much it took longer.
    fn run(&self, job: Job, foreseen: u64) -> u64 {
        if let Some(disk) = &self.disk {
            disk.begin_job(self.behind.clone(), foreseen);
        }
        // A job that panics has lost its own result, and its owner sees that.
        let _ = catch_unwind(AssertUnwindSafe(job));
        self.disk.as_ref().map_or(0, |disk| disk.end_job().saturating_sub(foreseen))
    }

    /// How long the next job may take.
    fn foresee(&self) -> u64 {
        match &self.disk {
            Some(disk) => disk.foresee(),
            None => self.pause(),
        }
    }

    /// What handing work to a thread and back costs.
    fn pause(&self) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).random_range(5_000..80_000)
    }
}

impl fmt::Debug for HostBlocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostBlocking")
    }
}

impl Blocking for HostBlocking {
    fn worker(&self, _name: &str) -> Box<dyn Worker> {
        Box::new(HostWorker { shared: self.shared.clone(), line: Arc::new(Mutex::new(Line::default())) })
    }

    fn run(&self, job: Job) {
        let (shared, at) = (self.shared.clone(), self.shared.core.now().after(self.shared.pause()));
        self.shared.core.schedule(at, Some(self.shared.place), "job", move || {
            shared.run(job, 0);
        });
    }
}

struct HostWorker {
    shared: Arc<Shared>,
    line: Arc<Mutex<Line>>,
}

/// Jobs of one worker.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Job>,
    busy: bool,
}

impl fmt::Debug for HostWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostWorker")
    }
}

impl Worker for HostWorker {
    fn run(&self, job: Job) {
        let mut line = lock(&self.line);
        line.waiting.push_back(job);
        if !std::mem::replace(&mut line.busy, true) {
            drop(line);
            next(self.shared.clone(), self.line.clone(), 0);
        }
    }
}

impl Drop for HostWorker {
    /// What still waits is done at once, unless the power is gone.
    fn drop(&mut self) {
        if self.shared.core.is_live(self.shared.place) {
            loop {
                let Some(job) = lock(&self.line).waiting.pop_front() else { return };
                self.shared.run(job, 0);
            }
        }
    }
}

/// The first job of the line runs when the time that it takes is over; then the next.
fn next(shared: Arc<Shared>, line: Arc<Mutex<Line>>, debt: u64) {
    let foreseen = shared.foresee();
    let (at, place) = (shared.core.now().after(debt + foreseen), shared.place);
    shared.clone().core.schedule(at, Some(place), "job", move || {
        let Some(job) = lock(&line).waiting.pop_front() else {
            lock(&line).busy = false;
            return;
        };
        let debt = shared.run(job, foreseen);
        let more = {
            let mut line = lock(&line);
            line.busy = !line.waiting.is_empty();
            line.busy
        };
        if more {
            next(shared, line, debt);
        }
    });
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}
