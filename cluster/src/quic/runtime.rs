//! Time and tasks for quinn.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use millpond_env::{Env, Mono};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};

/// quinn counts in [`Instant`]s, which only the operating system can make. So one is taken as the beginning of the environment's
/// clock; quinn looks at differences alone, and no difference depends on which one it was.
#[derive(Clone, Debug)]
pub struct QuinnRuntime {
    env: Env,
    beginning: Instant,
}

impl QuinnRuntime {
    #[expect(clippy::disallowed_methods, reason = "there is no other way to an Instant; its value is never seen")]
    pub fn new(env: Env) -> QuinnRuntime {
        QuinnRuntime { env, beginning: Instant::now() }
    }

    fn instant(&self, mono: Mono) -> Instant {
        self.beginning + Duration::from(mono)
    }

    fn mono(&self, instant: Instant) -> Mono {
        let ns = instant.saturating_duration_since(self.beginning).as_nanos();
        Mono(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

impl Runtime for QuinnRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let at = self.mono(at);
        Box::pin(Timer { runtime: self.clone(), due: at, set: at, sleep: self.env.clock.timer(at) })
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.env.spawner.spawn(task);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "sockets come from the environment"))
    }

    fn now(&self) -> Instant {
        self.instant(self.env.now())
    }
}

/// quinn moves its timers with nearly every packet, mostly to later: a timer that is set too early rings once more than needed,
/// which is cheaper than a new one each time.
struct Timer {
    runtime: QuinnRuntime,
    due: Mono,
    /// When `sleep` ends.
    set: Mono,
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Timer {
    fn rewind(&mut self) {
        self.set = self.due;
        self.sleep = self.runtime.env.clock.timer(self.due);
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("due", &self.due).finish_non_exhaustive()
    }
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.due = self.runtime.mono(at);
        if self.due < self.set {
            self.rewind();
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.runtime.env.now() >= self.due {
                return Poll::Ready(());
            }
            if self.set < self.due && self.runtime.env.now() >= self.set {
                self.rewind();
            }
            match self.sleep.as_mut().poll(cx) {
                Poll::Ready(()) if self.set < self.due => self.rewind(),
                other => return other,
            }
        }
    }
}
