//! The executor of one host: tokio's, without drivers for time or sockets, driven until nothing can run.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio::runtime::{Builder, Handle, Runtime};

/// Stray uses of tokio's timers or sockets panic in it, loudly.
pub(crate) struct HostRuntime {
    runtime: Runtime,
    idle: Arc<Idle>,
}

#[derive(Default)]
struct Idle {
    parked: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Idle {
    fn waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostRuntime {
    /// # Panics
    /// When tokio cannot make an executor, which needs nothing of the operating system.
    pub fn new() -> HostRuntime {
        let idle = Arc::new(Idle::default());
        let parking = idle.clone();
        let runtime = Builder::new_current_thread()
            .on_thread_park(move || {
                parking.parked.store(true, Ordering::Relaxed);
                if let Some(waker) = parking.waker().take() {
                    waker.wake();
                }
            })
            .build()
            .expect("an executor without drivers can be made");
        HostRuntime { runtime, idle }
    }

    pub fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// Runs `first` inside the executor, then every task until none can go on.
    pub fn drive(&self, first: impl FnOnce()) {
        self.runtime.block_on(async {
            first();
            UntilIdle { idle: &self.idle, begun: false }.await;
        });
    }

    /// The power is gone: tasks are dropped where they stand.
    pub fn drop_all(self) {
        self.runtime.shutdown_background();
    }
}

/// Ready when the executor would have gone to sleep.
struct UntilIdle<'a> {
    idle: &'a Idle,
    begun: bool,
}

impl Future for UntilIdle<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.begun {
            self.begun = true;
            self.idle.parked.store(false, Ordering::Relaxed);
            *self.idle.waker() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.idle.parked.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driving_ends_when_no_task_can_go_on_and_not_before() {
        let runtime = HostRuntime::new();
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        runtime.handle().spawn(async move {
            while let Some(n) = rx.recv().await {
                for _ in 0..300 {
                    millpond_env::yield_now().await;
                }
                sink.lock().unwrap().push(n);
            }
        });
        for n in 0..100 {
            runtime.drive(|| tx.send(n).unwrap());
            assert_eq!(*seen.lock().unwrap(), (0..=n).collect::<Vec<u32>>());
        }
        drop(tx);
        runtime.drive(|| ());
        runtime.drop_all();
    }
}
