//! Threads for work that blocks.
#![expect(clippy::disallowed_methods, reason = "these are the threads behind Env")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use millpond_env::{Blocking, Worker};
use tokio::runtime::Handle;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub struct Threads {
    runtime: Handle,
}

impl Threads {
    pub fn new(runtime: Handle) -> Threads {
        Threads { runtime }
    }
}

impl Blocking for Threads {
    /// # Panics
    /// When the operating system refuses a thread, which a node cannot work without.
    fn worker(&self, name: &str) -> Box<dyn Worker> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::Builder::new()
            .name(name.chars().filter(|c| *c != '\0').collect())
            .spawn(move || queue.into_iter().for_each(run_caught))
            .expect("the operating system gives a thread");
        Box::new(Thread { jobs: Some(jobs), thread: Some(thread) })
    }

    fn run(&self, job: Job) {
        self.runtime.spawn_blocking(job);
    }
}

/// A job that panics has lost its own result, and its owner sees that; the thread goes on with the next.
fn run_caught(job: Job) {
    let _ = catch_unwind(AssertUnwindSafe(job));
}

/// A thread that runs jobs in their order. Dropping it waits until all of them have run.
#[derive(Debug)]
struct Thread {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker for Thread {
    fn run(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        // The last owner may be a job of this very thread, which cannot wait for itself.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn a_worker_runs_its_jobs_in_order_also_after_a_panic_and_before_it_ends() {
        let threads = Threads::new(Handle::current());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let worker = threads.worker("test");
        for n in 0..100 {
            let seen = seen.clone();
            worker.run(Box::new(move || {
                assert_ne!(n, 50, "this job fails on purpose");
                seen.lock().unwrap().push(n);
            }));
        }
        drop(worker);
        let expected: Vec<i32> = (0..100).filter(|n| *n != 50).collect();
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
