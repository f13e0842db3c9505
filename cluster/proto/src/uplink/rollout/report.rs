//! What the nodes of a site said, and what follows from it for the site.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::uplink::orders::{Outcome, PROBLEMS_MAX, Shadow, State};

/// A site, as the rollouts know it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Site {
    pub tenant: String,
    /// By their origins.
    pub nodes: BTreeMap<String, Node>,
}

/// What one node said last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Streams that are open.
    #[serde(skip)]
    pub connected: u32,
    pub number: u64,
    pub head: String,
    /// `None` before it has said anything.
    pub state: Option<State>,
    pub problems: Vec<String>,
    pub replaced: Vec<String>,
    pub shadow: Vec<Shadow>,
    pub heard_ms: i64,
    /// When it began to be in this state with this order.
    pub since_ms: i64,
    /// When it first said something of this order.
    #[serde(default)]
    pub told_ms: i64,
    /// Starts, and alerts that began to fire, since it was told.
    pub starts: u64,
    pub alerts: u64,
    /// The head that it said last that it works with, and since when.
    pub runs: String,
    pub runs_since_ms: i64,
    boot: u64,
    /// Of the alerts under these definitions those that are counted, or that do not count.
    counted: u64,
    #[serde(default)]
    definitions: u64,
}

/// How a site stands with one rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct At {
    /// Nodes that are connected.
    pub connected: usize,
    /// `None` when nobody of the site has said anything of it.
    pub state: Option<State>,
    pub since_ms: i64,
    pub heard_ms: i64,
    /// When the first of its nodes had the order; 0 when none has.
    pub told_ms: i64,
    pub problems: Vec<String>,
    pub replaced: Vec<String>,
    pub shadow: Vec<Shadow>,
    /// The most that a node of it has started.
    pub starts: u64,
    pub alerts: u64,
}

impl Node {
    /// Takes in what the node says. Whether it is worth being kept.
    pub(super) fn said(&mut self, now_ms: i64, outcome: Outcome) -> bool {
        let is_other = self.state.is_none() || (self.number, &self.head) != (outcome.number, &outcome.head);
        let (state, problems) = (Some(outcome.state), cut(outcome.problems));
        let news = is_other
            || self.state != state
            || self.problems != problems
            || (self.boot, self.definitions) != (outcome.boot, outcome.definitions);
        // Texts may come from another node before the order does, and what fires all the time does so before the node can say that it works
        // with them: what fired under definitions that are new counts, whenever that was.
        if self.state.is_some() && self.definitions < outcome.definitions {
            self.counted = 0;
        } else if is_other || outcome.definitions < self.definitions {
            self.counted = outcome.alerts;
        }
        self.definitions = outcome.definitions;
        if is_other {
            (self.number, self.head, self.starts, self.alerts) = (outcome.number, outcome.head, 0, 0);
            (self.boot, self.told_ms) = (outcome.boot, now_ms);
            self.replaced.clear();
        } else if self.boot != outcome.boot {
            self.starts += 1;
            self.boot = outcome.boot;
        }
        self.alerts = self.alerts.saturating_add(outcome.alerts.saturating_sub(self.counted));
        self.counted = self.counted.max(outcome.alerts);
        if is_other || self.state != state {
            self.since_ms = now_ms;
        }
        if !outcome.replaced.is_empty() {
            self.replaced = cut(outcome.replaced);
        }
        if outcome.state == State::Applied && self.runs != self.head {
            (self.runs, self.runs_since_ms) = (self.head.clone(), now_ms);
        }
        (self.state, self.problems, self.heard_ms) = (state, problems, now_ms);
        self.shadow = outcome.shadow.into_iter().take(PROBLEMS_MAX).collect();
        news
    }

    /// In words, for the story of the rollout.
    pub(super) fn told(&self, site: &str, state: Option<State>) -> String {
        match state {
            Some(State::Applied) if !self.replaced.is_empty() => {
                format!("{site} works with it, in the place of its own {}", self.replaced.join(", "))
            }
            Some(State::Applied) => format!("{site} works with it"),
            Some(State::Rejected) => format!("{site} rejected {}", self.problems.join("; ")),
            Some(State::Received) | None => format!("{site} has got it"),
        }
    }
}

impl Site {
    /// A site works with a rollout when all of its nodes that are connected do, and has rejected it when one of its nodes has.
    pub(super) fn at(&self, number: u64) -> At {
        let told = self.nodes.values().filter(|node| node.number == number && node.state.is_some());
        let mut at = At { connected: self.connected(), ..At::default() };
        for node in told {
            at.since_ms = at.since_ms.max(node.since_ms);
            at.heard_ms = at.heard_ms.max(node.heard_ms);
            at.told_ms = if at.told_ms == 0 { node.told_ms } else { at.told_ms.min(node.told_ms) };
            at.starts = at.starts.max(node.starts);
            at.alerts = at.alerts.saturating_add(node.alerts);
            at.problems
                .extend(node.problems.iter().filter(|one| !at.problems.contains(one)).cloned().collect::<Vec<_>>());
            at.replaced.extend(node.replaced.iter().cloned());
            node.shadow.iter().for_each(|shadow| at.add(shadow));
        }
        let has_rejected = |node: &&Node| node.number == number && node.state == Some(State::Rejected);
        // Who is not there is not waited for, unless nobody is.
        let mut counted =
            self.nodes.values().filter(|node| node.connected > 0 || (at.connected == 0 && node.number == number));
        at.state = match self.nodes.values().find(has_rejected) {
            Some(_) => Some(State::Rejected),
            None if counted.clone().any(|node| node.number == number && node.state.is_some()) => {
                let works = counted.all(|node| node.number == number && node.state == Some(State::Applied));
                Some(if works { State::Applied } else { State::Received })
            }
            None => None,
        };
        at
    }

    pub fn connected(&self) -> usize {
        self.nodes.values().filter(|node| node.connected > 0).count()
    }

    /// The number and head of which a node of it was heard last, and when it began to work with it.
    pub fn newest(&self) -> Option<&Node> {
        let said = self.nodes.values().filter(|node| node.state.is_some());
        said.max_by_key(|node| (node.connected > 0, node.heard_ms))
    }
}

impl At {
    fn add(&mut self, more: &Shadow) {
        match self.shadow.iter_mut().find(|known| known.rule == more.rule) {
            Some(known) => {
                known.fired_old = known.fired_old.saturating_add(more.fired_old);
                known.fired_new = known.fired_new.saturating_add(more.fired_new);
                known.only_old = known.only_old.saturating_add(more.only_old);
                known.only_new = known.only_new.saturating_add(more.only_new);
            }
            None => self.shadow.push(more.clone()),
        }
    }
}

/// A stranger's words are kept only so far.
fn cut(mut lines: Vec<String>) -> Vec<String> {
    const BYTES_MAX: usize = 512;
    lines.truncate(PROBLEMS_MAX);
    for line in &mut lines {
        let end = (0..=BYTES_MAX.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
        line.truncate(end.unwrap_or(0));
    }
    lines
}
