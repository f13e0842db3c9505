//! What the line to a cloud may be used for, by the trust file: bytes wait here until they may leave.
//!
//! What is delivered is counted before it leaves. What else goes over the line, either way, is counted after it went: headers, receipts,
//! repetitions, handshakes, questions and their answers. What is said every now and then is said less often where little may leave.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millpond_core::{
    budget::BudgetSpec,
    planted::{self, Bug},
    record::{self, Class},
    time::Span,
};
use millpond_proto::{
    Now,
    uplink::{
        Lane, Sent,
        budget::{self, Budget},
    },
};

use super::Inner;
use crate::{identity::Trusted, transport::SiteLink};

/// Where the day's counts lie on the node's disk.
const FOLDER: &str = "uplink";
/// A frame is asked for in no larger parts: what it is longer is owed, and waited for by the next one.
const ASKED_MAX: u64 = 16 << 10;
const LOOK_AGAIN: Span = Span::from_secs(1);
/// What a call takes that nobody answers.
const CALL_BYTES: u64 = 5_000;
/// What something that is said every now and then takes of the line, with its answer and all headers.
const SAID_BYTES: f64 = 400.0;
/// What share of the line it may take, and how seldom it is said at most.
const SAID_SHARE: f64 = 0.02;
const SAID_EVERY_MAX: Span = Span::from_secs(300);

/// What leaves at once: so many seconds of the rate, and of what leaves on average; no less than this, in bytes.
const AT_ONCE_MAX_S: f64 = 2.0;
const AT_ONCE_AVERAGE_S: f64 = 60.0;
const AT_ONCE_MIN: f64 = 2048.0;

/// A line with bounds.
pub(super) struct Line {
    spec: BudgetSpec,
    budget: Budget,
    /// Bytes that were counted and were not seen on the line since.
    ahead: u64,
}

impl Line {
    pub fn new(spec: BudgetSpec) -> Line {
        Line { budget: Budget::new(spec.clone()), spec, ahead: 0 }
    }
}

/// Counts what goes over a connection, to its end.
pub(super) struct Meter {
    sites: Arc<Inner>,
    trusted: Arc<Trusted>,
    link: Arc<SiteLink>,
    /// Bytes that are counted.
    counted: Mutex<u64>,
}

impl Meter {
    pub fn new(sites: Arc<Inner>, trusted: Arc<Trusted>, link: Arc<SiteLink>) -> Meter {
        Meter { sites, trusted, link, counted: Mutex::default() }
    }

    /// Counts what went over it since this was called last.
    pub fn count(&self) {
        if self.trusted.budget.is_none() {
            return;
        }
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.link.carried();
        self.sites.carried(&self.trusted, bytes.saturating_sub(*counted));
        *counted = bytes;
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.count();
        self.sites.hung_up(&self.trusted.site);
    }
}

/// Bytes of one delivery: nothing else leaves while it is paid for.
pub(super) fn at_once(trusted: &Trusted) -> usize {
    let Some(budget) = &trusted.budget else { return usize::MAX };
    let Some(average) = budget.bytes_per_second() else { return usize::MAX };
    let rate = budget.rate.map_or(f64::INFINITY, |rate| rate as f64 / budget.metered.max(1.0));
    (AT_ONCE_MAX_S * rate).min(AT_ONCE_AVERAGE_S * average).max(AT_ONCE_MIN) as usize
}

/// How often something is said over a line of which it must not take much; `every` where there are no bounds.
pub(super) fn unhurried(trusted: &Trusted, every: Span) -> Span {
    let Some(rate) = trusted.budget.as_ref().and_then(BudgetSpec::bytes_per_second) else { return every };
    let pause = Span((SAID_BYTES / (rate * SAID_SHARE) * 1e9).min(SAID_EVERY_MAX.0 as f64) as i64);
    pause.max(every)
}

/// Among what a run of results goes: its most urgent record decides.
pub(super) fn lane_of(lane: Lane, sent: &Sent) -> budget::Lane {
    let has = |class: Class| sent.run.records.iter().any(|record| record.kind.class() == class);
    match lane {
        Lane::Live => budget::Lane::Live,
        Lane::Backlog => budget::Lane::Backlog,
        Lane::Results if has(Class::Alert) => budget::Lane::Alert,
        Lane::Results if has(Class::State) => budget::Lane::State,
        Lane::Results => budget::Lane::Pane,
    }
}

impl Inner {
    /// Waits until so many bytes may leave, and counts them.
    pub(super) async fn afford(&self, trusted: &Trusted, lane: budget::Lane, bytes: usize) {
        let Some(spec) = &trusted.budget else { return };
        loop {
            let (now, wall) = (Now(self.env.now().0), self.env.wall());
            let again_at = {
                let mut lines = self.lines();
                let line = lines.entry(trusted.site.clone()).or_insert_with(|| Line::new(spec.clone()));
                if line.spec != *spec {
                    let saved = line.budget.saved();
                    *line = Line::new(spec.clone());
                    saved.into_iter().for_each(|saved| line.budget.restore(saved));
                }
                let asked = (bytes as u64).clamp(1, line.budget.sure(lane).min(ASKED_MAX));
                let allowed = line.budget.allow(now, wall, lane, asked);
                if allowed.bytes >= asked {
                    line.budget.spent(lane, bytes as u64);
                    line.ahead += bytes as u64;
                    return;
                }
                allowed.again_at
            };
            let wait = again_at.map_or(LOOK_AGAIN, |at| at.since(now));
            self.env.sleep(wait.max(Span::from_millis(1))).await;
        }
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes have gone over the line, either way, since this was last said; of what was counted before it left the rest is counted.
    fn carried(&self, trusted: &Trusted, bytes: u64) {
        let Some(spec) = trusted.budget.as_ref().filter(|_| !planted::is(Bug::ForgetWhatIsCarried)) else { return };
        let (now, wall) = (Now(self.env.now().0), self.env.wall());
        let mut lines = self.lines();
        let line = lines.entry(trusted.site.clone()).or_insert_with(|| Line::new(spec.clone()));
        let counted = line.ahead.min(bytes);
        line.ahead -= counted;
        line.budget.carried(now, wall, bytes - counted);
    }

    /// A call that nobody answered.
    pub(super) fn called_in_vain(&self, trusted: &Trusted) {
        self.carried(trusted, CALL_BYTES);
    }

    /// A connection has ended: what did not leave over it will leave again, and is counted then.
    fn hung_up(&self, cloud: &str) {
        self.lines().get_mut(cloud).into_iter().for_each(|line| line.ahead = 0);
    }

    /// Goes on with the day's count of an earlier life.
    pub(super) async fn restore_budget(&self, trusted: &Trusted) {
        let Some(spec) = trusted.budget.clone() else { return };
        let (disk, path) = (self.env.disk.clone(), path_of(trusted));
        let Some(Ok(Some(bytes))) = self.env.unblock(move || disk.read(&path)).await else { return };
        let Ok(saved) = record::decode::<budget::Saved>(&bytes) else { return };
        let mut lines = self.lines();
        lines.entry(trusted.site.clone()).or_insert_with(|| Line::new(spec)).budget.restore(saved);
    }

    /// Keeps the day's count.
    pub(super) async fn save_budget(&self, trusted: &Trusted) {
        let saved = self.lines().get(&trusted.site).and_then(|line| line.budget.saved());
        let Some(saved) = saved.filter(|_| trusted.budget.as_ref().is_some_and(|spec| spec.per_day.is_some())) else {
            return;
        };
        let (disk, path) = (self.env.disk.clone(), path_of(trusted));
        let written = self.env.unblock(move || disk.write(&path, &record::encode(&saved))).await;
        if let Some(Err(error)) = written {
            tracing::warn!(cloud = trusted.site, %error, "what the line was used for today could not be kept");
        }
    }
}

fn path_of(trusted: &Trusted) -> String {
    format!("{FOLDER}/{}", trusted.site)
}
