//! The time that jobs spend with a disk.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Jobs that run now: one, or several when a job runs what another worker has left.
#[derive(Debug, Default)]
pub struct Meter {
    jobs: Vec<Job>,
}

#[derive(Debug)]
struct Job {
    behind: Arc<AtomicU64>,
    foreseen: u64,
    spent: u64,
}

impl Meter {
    pub fn begin(&mut self, behind: Arc<AtomicU64>, foreseen: u64) {
        behind.store(foreseen, Ordering::Relaxed);
        self.jobs.push(Job { behind, foreseen, spent: 0 });
    }

    /// Whether operations take time now.
    pub fn is_running(&self) -> bool {
        !self.jobs.is_empty()
    }

    pub fn spend(&mut self, ns: u64) {
        if let Some(job) = self.jobs.last_mut() {
            job.spent += ns;
            job.behind.store(job.foreseen.saturating_sub(job.spent), Ordering::Relaxed);
        }
    }

    /// Nanoseconds that the job has spent; the job around it, if any, has spent them too.
    pub fn end(&mut self) -> u64 {
        let Some(job) = self.jobs.pop() else { return 0 };
        job.behind.store(0, Ordering::Relaxed);
        self.spend(job.spent);
        job.spent
    }
}
