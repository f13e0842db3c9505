//! The windows and devices of nodes that are gone, recovered from the copies of their journals.

use std::{collections::BTreeMap, sync::Arc};

use millpond_actors::{
    Settings,
    adopt::{self, Adopted},
};
use millpond_core::{
    ids::Seq,
    time::Span,
    window::{Pane, Whose},
};
use millpond_env::{Env, Mono};
use millpond_proto::replication::Life;
use millpond_store::Reader;

/// A copy that could not be read is left alone for so long.
const TRY_AGAIN: Span = Span::from_secs(10);

/// What is known of the journals of nodes that are gone.
#[derive(Default)]
pub struct Adoptions {
    all: BTreeMap<Life, Adoption>,
}

#[derive(Default)]
struct Adoption {
    /// A recovery is under way.
    busy: bool,
    /// Which records of events the copy held when it was read last.
    events: Vec<(u64, u64)>,
    adopted: Option<Arc<Adopted>>,
    /// It could not be read; not before this it is tried again.
    rests_until: Mono,
    /// What was said in its place already, so that it is not said again.
    said: BTreeMap<(String, String, i64, i64), Pane>,
}

impl Adoptions {
    /// Whether the copy is to be read (again), as it holds these records of events.
    pub fn wants(&self, now: Mono, life: Life, events: &[(u64, u64)]) -> bool {
        let rests = |known: &Adoption| known.busy || now < known.rests_until;
        self.of(life, events).is_none() && !self.all.get(&life).is_some_and(rests)
    }

    /// A recovery begins. Answer with [`done`](Self::done).
    pub fn begin(&mut self, life: Life) {
        self.all.entry(life).or_default().busy = true;
    }

    pub fn done(&mut self, now: Mono, life: Life, events: Vec<(u64, u64)>, adopted: Option<Arc<Adopted>>) {
        let adoption = self.all.entry(life).or_default();
        adoption.busy = false;
        match adopted {
            Some(adopted) => (adoption.events, adoption.adopted) = (events, Some(adopted)),
            None => adoption.rests_until = now.after(TRY_AGAIN),
        }
    }

    /// What was recovered from a copy that holds these records of events; `None` when they were not all read.
    pub fn of(&self, life: Life, events: &[(u64, u64)]) -> Option<&Arc<Adopted>> {
        let known = self.all.get(&life)?;
        known.adopted.as_ref().filter(|_| known.events == events)
    }

    /// The shares that are to be said, each once.
    pub fn unsaid(&mut self, life: Life) -> Vec<Pane> {
        let Some(adoption) = self.all.get_mut(&life) else { return Vec::new() };
        let Some(adopted) = &adoption.adopted else { return Vec::new() };
        let mut unsaid = Vec::new();
        for pane in &adopted.panes {
            let name = (pane.window.clone(), pane.key.clone(), pane.start.0, pane.end.0);
            if adoption.said.get(&name) != Some(pane) {
                adoption.said.insert(name, pane.clone());
                unsaid.push(pane.clone());
            }
        }
        unsaid
    }

    /// The node is back and speaks for itself.
    pub fn end(&mut self, life: Life) {
        self.all.remove(&life);
    }
}

/// How far a copy tells what its node would say: of these results, and events up to `events`. Who is not to hold a node's events still has all
/// of its results, also those that leave events out; it must not be believed beyond the events that it once held.
pub fn read_through(results: &[(u64, u64)], events: Seq) -> Seq {
    results.first().map_or(Seq(0), |(_, last)| Seq(*last)).min(events)
}

/// Recovers from a copy that holds these records of events and results, off the executor.
pub async fn recover(
    env: &Env,
    settings: Arc<Settings>,
    copy: Reader,
    life: Life,
    events: &[(u64, u64)],
    results: &[(u64, u64)],
) -> Option<Arc<Adopted>> {
    let head = Seq(events.last().map_or(0, |(_, last)| *last));
    let first = events.last().map(|(first, _)| Seq(*first));
    let of = Whose { origin: life.origin, incarnation: life.incarnation, through: read_through(results, head) };
    let recovered = env.unblock(move || adopt::adopt(&settings, &copy, of, first)).await;
    match recovered? {
        Ok(adopted) => Some(Arc::new(adopted)),
        Err(error) => {
            tracing::warn!(origin = %life.origin, %error, "the windows of a node that is gone could not be continued");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_not_read_further_than_its_events() {
        assert_eq!(read_through(&[(1, 495)], Seq(495)), Seq(495));
        assert_eq!(read_through(&[(1, 495)], Seq(18)), Seq(18), "results go to all nodes, events to some");
        assert_eq!(read_through(&[(1, 12), (20, 495)], Seq(30)), Seq(12));
        assert_eq!(read_through(&[], Seq(30)), Seq(0));
    }
}
