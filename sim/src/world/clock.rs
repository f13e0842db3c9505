//! Clocks of hosts: each has its own offset, drift and jumps. Timers ring by the host's own idea of time.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use millpond_core::time::{Span, Timestamp};
use millpond_env::{Clock, Mono};

use super::core::{Act, Core, Instant, Place};

/// True time of the world's first nanosecond: 2026-11-20 08:15:00 UTC.
pub const EPOCH: Timestamp = Timestamp(1_795_162_500_000_000_000);

/// How a host's clock errs. It outlives the host's boots, as the clock chip does.
#[derive(Debug)]
pub struct Drifting {
    line: Mutex<Line>,
}

/// Local time as a straight line since the last change.
#[derive(Clone, Copy, Debug)]
struct Line {
    since: Instant,
    mono: u64,
    wall: i64,
    ppm: f64,
}

impl Line {
    fn elapsed(&self, now: Instant) -> u64 {
        let true_ns = now.0.saturating_sub(self.since.0);
        (true_ns as i64 + (true_ns as f64 * self.ppm / 1e6) as i64).max(0) as u64
    }

    fn at(&self, now: Instant) -> Line {
        let elapsed = self.elapsed(now);
        Line { since: now, mono: self.mono + elapsed, wall: self.wall.saturating_add(elapsed as i64), ppm: self.ppm }
    }
}

impl Drifting {
    pub fn new(offset: Span, ppm: f64) -> Arc<Drifting> {
        let wall = EPOCH.0.saturating_add(offset.0);
        Arc::new(Drifting { line: Mutex::new(Line { since: Instant(0), mono: 0, wall, ppm }) })
    }

    /// The wall clock is set forward or back.
    pub fn step(&self, now: Instant, by: Span) {
        let mut line = self.line();
        *line = line.at(now);
        line.wall = line.wall.saturating_add(by.0);
    }

    /// The wall clock shows true time again, and drifts no more than before.
    pub fn set_right(&self, now: Instant) {
        let mut line = self.line();
        *line = line.at(now);
        line.wall = EPOCH.0.saturating_add(now.0 as i64);
    }

    pub fn drift(&self, now: Instant, ppm: f64) {
        let mut line = self.line();
        *line = line.at(now);
        line.ppm = ppm;
    }

    /// How far the wall clock is from the truth.
    pub fn error(&self, now: Instant) -> Span {
        Span(self.line().at(now).wall.saturating_sub(EPOCH.0.saturating_add(now.0 as i64)))
    }

    fn read(&self, now: Instant) -> (Mono, Timestamp) {
        let line = self.line().at(now);
        (Mono(line.mono), Timestamp(line.wall))
    }

    /// When the host's monotonic clock will show `mono`, by its present speed.
    fn instant_of(&self, mono: Mono) -> Instant {
        let line = *self.line();
        let local = mono.0.saturating_sub(line.mono);
        Instant(line.since.0.saturating_add((local as f64 / (1.0 + line.ppm / 1e6)).ceil() as u64))
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host's clock during one boot.
#[derive(Debug)]
pub struct HostClock {
    core: Arc<Core>,
    place: Place,
    drifting: Arc<Drifting>,
    /// Blocking work runs at the end of the time that it takes; while it runs, the clock shows that much less.
    behind: Arc<AtomicU64>,
}

impl HostClock {
    pub fn new(core: Arc<Core>, place: Place, drifting: Arc<Drifting>, behind: Arc<AtomicU64>) -> HostClock {
        HostClock { core, place, drifting, behind }
    }

    fn read(&self) -> (Mono, Timestamp) {
        let behind = self.behind.load(Ordering::Relaxed);
        self.drifting.read(Instant(self.core.now().0.saturating_sub(behind)))
    }
}

impl Clock for HostClock {
    fn now(&self) -> Mono {
        self.read().0
    }

    fn wall(&self) -> Timestamp {
        self.read().1
    }

    fn timer(&self, at: Mono) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let alarm = Arc::new(Alarm {
            core: self.core.clone(),
            place: self.place,
            drifting: self.drifting.clone(),
            at,
            waker: Mutex::new(None),
            over: AtomicBool::new(false),
        });
        Box::pin(Timer { alarm, set: false })
    }
}

/// A timer in the heap.
#[derive(Debug)]
pub struct Alarm {
    core: Arc<Core>,
    place: Place,
    drifting: Arc<Drifting>,
    at: Mono,
    waker: Mutex<Option<Waker>>,
    /// Its future is gone.
    over: AtomicBool,
}

impl Alarm {
    /// Whether anybody still waits for it.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The heap says that it is time; the host's clock may differ by now.
    pub(crate) fn ring(self: &Arc<Alarm>) {
        if self.is_due() {
            if let Some(waker) = self.waker().take() {
                waker.wake();
            }
        } else {
            self.set();
        }
    }

    fn is_due(&self) -> bool {
        self.drifting.read(self.core.now()).0 >= self.at
    }

    fn set(self: &Arc<Alarm>) {
        let at = self.drifting.instant_of(self.at).max(self.core.now().after(1));
        self.core.push(at, Some(self.place), "timer", Act::Ring(self.clone()));
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Timer {
    alarm: Arc<Alarm>,
    set: bool,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.alarm.is_due() {
            return Poll::Ready(());
        }
        *self.alarm.waker() = Some(cx.waker().clone());
        if !self.set {
            self.set = true;
            self.alarm.set();
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.alarm.over.store(true, Ordering::Relaxed);
    }
}
