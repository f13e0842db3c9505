//! Tasks, blocking work and the trace.

use std::{fmt::Debug, future::Future, pin::Pin, task::Poll};

use tokio::sync::oneshot;

use crate::Env;

pub trait Spawner: Debug + Send + Sync + 'static {
    /// Starts a task that belongs to this node and ends with it at the latest.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>);
}

/// A place for work that blocks: one thread each in the real world, the simulated world's own time otherwise.
pub trait Worker: Debug + Send + Sync + 'static {
    /// Runs `job` after all jobs handed over before it. Jobs still waiting are run when the worker is dropped.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

pub trait Blocking: Debug + Send + Sync + 'static {
    /// A worker of its own for a long-lived duty, such as committing to the journal.
    fn worker(&self, name: &str) -> Box<dyn Worker>;

    /// Runs a single job somewhere, in no order with others.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

/// What a simulation wants to know of a run, and hashes. The real world ignores it.
pub trait Trace: Debug + Send + Sync + 'static {
    fn event(&self, kind: &'static str, detail: &[u8]);

    /// Whether a handler shall let others go first here; a simulation draws it to widen the schedules it explores.
    fn yields(&self) -> bool {
        false
    }

    /// A device whose data is to make `place` (`gate` or `windows` of a shard) panic. Asked once when a shard starts; a simulation
    /// names one to see what becomes of the others.
    fn trips(&self, _place: &'static str) -> Option<String> {
        None
    }
}

impl Env {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawner.spawn(Box::pin(task));
    }

    /// Runs `job` off the executor and waits for its result; `None` when it panicked or the node is going down.
    pub async fn unblock<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (tx, rx) = oneshot::channel();
        self.blocking.run(Box::new(move || {
            let _ = tx.send(job());
        }));
        rx.await.ok()
    }

    /// A point at which a simulation may change the order of tasks. Costs nothing in the real world.
    pub async fn schedule_point(&self) {
        if self.trace.yields() {
            yield_now().await;
        }
    }
}

/// Goes to the back of the run queue. Tokio's own defers the wake-up until its driver was polled, which a world without a driver
/// does not have.
pub fn yield_now() -> impl Future<Output = ()> + Send {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}
