//! What the line to a cloud may be used for, by the trust file: bytes wait here until they may leave.

use std::sync::PoisonError;

use millpond_core::{
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
use crate::identity::Trusted;

/// Where the day's counts lie on the node's disk.
const FOLDER: &str = "uplink";
/// A frame is asked for in no larger parts: what it is longer is owed, and waited for by the next one.
const ASKED_MAX: u64 = 16 << 10;
const LOOK_AGAIN: Span = Span::from_secs(1);

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
                let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
                let fresh = || (spec.clone(), Budget::new(spec.clone()));
                let known = budgets.entry(trusted.site.clone()).or_insert_with(fresh);
                if known.0 != *spec {
                    let saved = known.1.saved();
                    *known = fresh();
                    saved.into_iter().for_each(|saved| known.1.restore(saved));
                }
                let asked = (bytes as u64).clamp(1, ASKED_MAX);
                let allowed = known.1.allow(now, wall, lane, asked);
                if allowed.bytes >= asked {
                    known.1.spent(lane, bytes as u64);
                    return;
                }
                allowed.again_at
            };
            let wait = again_at.map_or(LOOK_AGAIN, |at| at.since(now));
            self.env.sleep(wait.max(Span::from_millis(1))).await;
        }
    }

    /// Goes on with the day's count of an earlier life.
    pub(super) async fn restore_budget(&self, trusted: &Trusted) {
        let Some(spec) = trusted.budget.clone() else { return };
        let (disk, path) = (self.env.disk.clone(), path_of(trusted));
        let Some(Ok(Some(bytes))) = self.env.unblock(move || disk.read(&path)).await else { return };
        let Ok(saved) = record::decode::<budget::Saved>(&bytes) else { return };
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = budgets.entry(trusted.site.clone()).or_insert_with(|| (spec.clone(), Budget::new(spec)));
        known.1.restore(saved);
    }

    /// Keeps the day's count.
    pub(super) async fn save_budget(&self, trusted: &Trusted) {
        let saved = {
            let budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
            budgets.get(&trusted.site).and_then(|(_, budget)| budget.saved())
        };
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
