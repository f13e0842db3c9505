//! Time: a monotonic clock, a wall clock that may lie, and timers.

use std::{fmt::Debug, future::Future, pin::Pin, task::Poll, time::Duration};

use millpond_core::time::{Span, Timestamp};

use crate::Env;

/// A reading of the monotonic clock: nanoseconds since the node's process (or simulated world) began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    pub fn after(self, span: Span) -> Mono {
        Mono(self.0.saturating_add(span.0.max(0) as u64))
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Mono) -> Span {
        Span(self.0.saturating_sub(earlier.0).min(i64::MAX as u64) as i64)
    }
}

pub trait Clock: Debug + Send + Sync + 'static {
    fn now(&self) -> Mono;

    /// The wall clock. It may be wrong, jump and go back.
    fn wall(&self) -> Timestamp;

    /// Resolves when the monotonic clock reaches `at`.
    fn timer(&self, at: Mono) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The time of a [`Env::timeout`] was over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl Env {
    pub fn now(&self) -> Mono {
        self.clock.now()
    }

    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    pub fn sleep(&self, span: Span) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.clock.timer(self.now().after(span))
    }

    /// Runs `future` for at most `span`; it is looked at first when both are ready.
    pub async fn timeout<F: Future>(&self, span: Span, future: F) -> Result<F::Output, Elapsed> {
        let mut future = std::pin::pin!(future);
        let mut timer = self.sleep(span);
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            timer.as_mut().poll(cx).map(|()| Err(Elapsed))
        })
        .await
    }
}

impl From<Mono> for Duration {
    fn from(mono: Mono) -> Duration {
        Duration::from_nanos(mono.0)
    }
}
