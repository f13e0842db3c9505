//! The data plane: the actors between the doors and the journal that share one fate. Their state is a function of the journal's records,
//! so when one of them fails all are replaced by ones rebuilt from the last checkpoint and the records after it.

use ractor::ActorRef;

use crate::{alert::AlertMsg, journal::Verdict, shard::ShardMsg, window::WindowMsg};

/// Who wants something on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Shard(usize),
    Window(usize),
    Alerts,
    Checkpoint,
    /// Anybody else; hears by the unit's own channel, if at all.
    Other,
}

impl Party {
    pub fn hears_verdicts(self) -> bool {
        matches!(self, Party::Shard(_) | Party::Window(_) | Party::Alerts)
    }
}

/// Who is who in one life of the data plane.
#[derive(Debug)]
pub struct Plane {
    /// Counts the lives, so that words from an earlier one are recognised.
    pub generation: u64,
    pub shards: Vec<ActorRef<ShardMsg>>,
    pub windows: Vec<ActorRef<WindowMsg>>,
    pub window_names: Vec<String>,
    pub alerts: ActorRef<AlertMsg>,
}

impl Plane {
    pub fn tell(&self, party: Party, verdict: Verdict) {
        // A party that does not hear any more is being replaced.
        let _ = match party {
            Party::Shard(index) => self.shards[index].cast(ShardMsg::Verdict(verdict)).is_ok(),
            Party::Window(index) => self.windows[index].cast(WindowMsg::Verdict(verdict)).is_ok(),
            Party::Alerts => self.alerts.cast(AlertMsg::Verdict(verdict)).is_ok(),
            Party::Checkpoint | Party::Other => false,
        };
    }

    /// Starts a checkpoint; the barrier travels from the shards through the windows to the alerts.
    pub fn barrier(&self, checkpoint: u64) {
        for shard in &self.shards {
            let _ = shard.cast(ShardMsg::Barrier(checkpoint));
        }
    }

    /// The parts that make a checkpoint whole.
    pub fn part_names(&self) -> Vec<String> {
        let shards = (0..self.shards.len()).map(shard_part);
        let windows = self.window_names.iter().map(|name| window_part(name));
        shards.chain(windows).chain([ALERTS_PART.to_string()]).collect()
    }
}

pub const ALERTS_PART: &str = "alerts";

pub fn shard_part(index: usize) -> String {
    format!("shard/{index}")
}

pub fn window_part(name: &str) -> String {
    format!("window/{name}")
}

/// Holds back what comes from senders that have already passed a barrier until all have (aligned checkpoints, as in Flink).
#[derive(Debug)]
pub struct Alignment<M> {
    senders: usize,
    /// The barrier that is being waited for, and who has passed it.
    waiting: Option<(u64, Vec<bool>)>,
    held: Vec<M>,
}

impl<M> Alignment<M> {
    pub fn new(senders: usize) -> Alignment<M> {
        Alignment { senders, waiting: None, held: Vec::new() }
    }

    /// The message back when it may be handled now.
    pub fn admit(&mut self, sender: usize, message: M) -> Option<M> {
        match &self.waiting {
            Some((_, passed)) if passed[sender] => {
                self.held.push(message);
                None
            }
            _ => Some(message),
        }
    }

    /// A sender passed a barrier. When it was the last one: what was held back, to be handled after the state is saved.
    pub fn barrier(&mut self, sender: usize, id: u64) -> Option<Vec<M>> {
        let (current, passed) = self.waiting.get_or_insert_with(|| (id, vec![false; self.senders]));
        if *current != id {
            // The earlier checkpoint was given up; this one takes its place.
            *current = id;
            passed.fill(false);
        }
        passed[sender] = true;
        if !passed.iter().all(|passed| *passed) {
            return None;
        }
        self.waiting = None;
        Some(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_behind_a_barrier_wait_for_the_other_senders() {
        let mut alignment = Alignment::new(2);
        assert_eq!(alignment.admit(0, "a"), Some("a"));
        assert_eq!(alignment.barrier(0, 7), None);
        assert_eq!(alignment.admit(0, "b"), None);
        assert_eq!(alignment.admit(1, "c"), Some("c"));
        assert_eq!(alignment.barrier(1, 7), Some(vec!["b"]));
        assert_eq!(alignment.admit(0, "d"), Some("d"));
    }

    #[test]
    fn a_newer_barrier_replaces_one_that_was_given_up() {
        let mut alignment: Alignment<()> = Alignment::new(2);
        assert_eq!(alignment.barrier(0, 1), None);
        assert_eq!(alignment.barrier(0, 2), None);
        assert_eq!(alignment.barrier(1, 2), Some(vec![]));
    }
}
