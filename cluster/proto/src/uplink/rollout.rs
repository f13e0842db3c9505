//! Which definitions which sites are to run: rollouts, one after the other.
//!
//! A rollout brings a *head*, that is a set of definitions, to the sites of a tenant whose names match. It decides when which site gets it, and
//! when it is taken back:
//!
//! ```text
//!                a site is there          all canaries work with it,
//!                                         and `watch` has passed            whoever is connected has it
//!   staged ────────────────────► canary ───────────────────► everywhere ───────────────────────────────► done
//!     │                            │ rejected, starts again and again,          │                         │
//!     │                            │ silent, too many alerts                    │ by hand                 │ by hand
//!     │ replaced by a newer one    ▼                                            ▼                         ▼
//!     └───► replaced ◄───────── returned ◄──────────────────────────────────────┴─────────────────────────┘
//! ```
//!
//! What a site is to run is a function of all rollouts: the head of the newest one that reaches the site. To take one back is to let it reach
//! nobody, so that what was there before counts again, also for sites that were not there meanwhile.
//!
//! Invariants
//! 1. Before a rollout is `everywhere` no site but its canaries has its head from it.
//! 2. Everywhere comes after each canary has said that it works with the head, and `watch` after the last of them did.
//! 3. What was returned or replaced reaches no site ever again.
//! 4. Of a rollout that was returned it is known why, in words.
//!
//! Clock: the wall clock of the cloud's node. When it steps back, everything takes longer by as much. After a start everybody has `patience` anew.
//!
//! Limits: [`ROLLOUTS_MAX`] rollouts are known, [`SITES_MAX`] sites, [`NODES_MAX`] nodes of one, [`SAID_MAX`] lines of a rollout's story.

mod evidence;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{
    planted::{self, Bug},
    schema::Pattern,
};
use serde::{Deserialize, Serialize};

pub use self::report::{At, Node, Site};
use super::orders::Outcome;

pub const ROLLOUTS_MAX: usize = 256;
pub const SITES_MAX: usize = 4096;
pub const NODES_MAX: usize = 64;
pub const SAID_MAX: usize = 64;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub tenant: String,
    /// Names of sites, with `*` for any run of characters.
    pub sites: Vec<String>,
    pub head: String,
    pub canary: Canary,
    /// How long the canaries are watched once they work with it.
    pub watch_ms: i64,
    /// How long a canary may say nothing.
    pub patience_ms: i64,
    /// Alerts that one canary may raise in a minute.
    pub alerts_per_minute: Option<f64>,
}

/// Who gets it first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Canary {
    One,
    Site(String),
    /// Percent of the sites that are connected, one at least.
    Share(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// No site that could be the first is there.
    Staged,
    Canary,
    Everywhere,
    Done,
    /// Taken back.
    Returned,
    /// A newer one for the same sites came before it was everywhere.
    Replaced,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub number: u64,
    pub plan: Plan,
    pub step: Step,
    pub begun_ms: i64,
    /// When the step began.
    pub since_ms: i64,
    pub canaries: BTreeSet<String>,
    /// When all canaries worked with it.
    pub watched_ms: Option<i64>,
    /// Why it was taken back.
    pub why: String,
    /// What happened, with its time.
    pub said: Vec<(i64, String)>,
}

/// All rollouts of a cloud and what its sites said, as kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollouts {
    last: u64,
    rollouts: BTreeMap<u64, Rollout>,
    sites: BTreeMap<String, Site>,
    /// Nobody can have said anything before.
    #[serde(skip)]
    awake_ms: i64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The state on disk is to be this one, before anybody is told of it.
    Keep,
    /// An operator wants to know.
    Tell { number: u64, words: String },
}

/// What became of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    Rollout(u64),
    /// The rollout of this number has brought the same already.
    Known(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UndoError {
    #[error("there is no rollout {0}")]
    Unknown(u64),
    #[error("rollout {0} was taken back or replaced before")]
    Over(u64),
}

impl Step {
    pub fn name(self) -> &'static str {
        ["staged", "canary", "everywhere", "done", "returned", "replaced"][self as usize]
    }

    fn is_over(self) -> bool {
        matches!(self, Step::Returned | Step::Replaced)
    }
}

impl Plan {
    fn names(&self, site: &str, tenant: &str) -> bool {
        self.tenant == tenant && self.sites.iter().any(|pattern| Pattern::new(pattern).matches(site))
    }

    fn is_for_the_same(&self, other: &Plan) -> bool {
        self.tenant == other.tenant && self.sites == other.sites
    }
}

impl Rollout {
    fn step_to(&mut self, now_ms: i64, step: Step) {
        (self.step, self.since_ms) = (step, now_ms);
    }

    fn say(&mut self, now_ms: i64, words: String, out: &mut Vec<Effect>) {
        if self.said.len() >= SAID_MAX {
            self.said.remove(0);
        }
        self.said.push((now_ms, words.clone()));
        out.extend([Effect::Keep, Effect::Tell { number: self.number, words }]);
    }

    fn take_back(&mut self, now_ms: i64, why: String, out: &mut Vec<Effect>) {
        self.step_to(now_ms, Step::Returned);
        self.why.clone_from(&why);
        self.say(now_ms, format!("taken back: {why}"), out);
    }
}

impl Rollouts {
    /// After a start: what was kept goes on.
    pub fn wake(&mut self, now_ms: i64) {
        self.awake_ms = now_ms;
    }

    /// A site belongs to a tenant.
    pub fn site(&mut self, site: &str, tenant: &str) {
        if self.sites.contains_key(site) || self.sites.len() < SITES_MAX {
            tenant.clone_into(&mut self.sites.entry(site.to_owned()).or_default().tenant);
        }
    }

    /// Begins a rollout, unless what it would bring is there.
    pub fn begin(&mut self, now_ms: i64, plan: Plan, out: &mut Vec<Effect>) -> Begun {
        if let Some(known) = self.known(&plan) {
            return Begun::Known(known);
        }
        self.last += 1;
        let number = self.last;
        let unfinished = |rollout: &&mut Rollout| {
            matches!(rollout.step, Step::Staged | Step::Canary) && rollout.plan.is_for_the_same(&plan)
        };
        for older in self.rollouts.values_mut().filter(unfinished) {
            older.step_to(now_ms, Step::Replaced);
            older.say(now_ms, format!("replaced by rollout {number}"), out);
        }
        let mut rollout = Rollout {
            number,
            plan,
            step: Step::Staged,
            begun_ms: now_ms,
            since_ms: now_ms,
            canaries: BTreeSet::new(),
            watched_ms: None,
            why: String::new(),
            said: Vec::new(),
        };
        rollout.say(now_ms, format!("head {} is staged", rollout.plan.head), out);
        self.rollouts.insert(number, rollout);
        self.forget_old();
        self.tick(now_ms, out);
        Begun::Rollout(number)
    }

    /// The rollout that has brought the same to the same sites, when none came after it.
    pub fn known(&self, plan: &Plan) -> Option<u64> {
        let of_tenant = |one: &&Rollout| !one.step.is_over() && one.plan.tenant == plan.tenant;
        let newest = self.rollouts.values().rev().find(of_tenant)?;
        (newest.plan.is_for_the_same(plan) && newest.plan.head == plan.head).then_some(newest.number)
    }

    /// Takes a rollout back by hand.
    ///
    /// # Errors
    /// When it reaches nobody anyhow.
    pub fn undo(&mut self, now_ms: i64, number: u64, out: &mut Vec<Effect>) -> Result<(), UndoError> {
        let rollout = self.rollouts.get_mut(&number).ok_or(UndoError::Unknown(number))?;
        if rollout.step.is_over() {
            return Err(UndoError::Over(number));
        }
        rollout.take_back(now_ms, "by hand".to_owned(), out);
        Ok(())
    }

    /// A node of a site has come and can be told what to run.
    pub fn came(&mut self, now_ms: i64, site: &str, node: &str, out: &mut Vec<Effect>) {
        if let Some(known) = self.sites.get_mut(site)
            && (known.nodes.contains_key(node) || known.nodes.len() < NODES_MAX)
        {
            known.nodes.entry(node.to_owned()).or_default().connected += 1;
            self.tick(now_ms, out);
        }
    }

    pub fn went(&mut self, site: &str, node: &str) {
        if let Some(known) = self.sites.get_mut(site).and_then(|site| site.nodes.get_mut(node)) {
            known.connected = known.connected.saturating_sub(1);
        }
    }

    /// A node says what became of what it was told.
    pub fn said(&mut self, now_ms: i64, site: &str, node: &str, outcome: Outcome, out: &mut Vec<Effect>) {
        let Some(known) = self.sites.get_mut(site).and_then(|site| site.nodes.get_mut(node)) else { return };
        let (number, before) = (outcome.number, known.state);
        let news = known.said(now_ms, outcome);
        if news {
            out.push(Effect::Keep);
        }
        let after = known.state;
        if let Some(rollout) = self.rollouts.get_mut(&number).filter(|_| news && before != after) {
            let words = known.told(site, after);
            rollout.say(now_ms, words, out);
        }
        self.tick(now_ms, out);
    }

    /// What a site is to run now: the number of the rollout and its head, 0 and nothing when it is to run nothing.
    pub fn wanted(&self, site: &str) -> (u64, &str) {
        let Some(known) = self.sites.get(site) else { return (0, "") };
        let reaches = |rollout: &&Rollout| match rollout.step {
            Step::Staged | Step::Returned | Step::Replaced => false,
            Step::Canary if planted::is(Bug::EverybodyIsCanary) => rollout.plan.names(site, &known.tenant),
            Step::Canary => rollout.canaries.contains(site),
            Step::Everywhere | Step::Done => rollout.plan.names(site, &known.tenant),
        };
        self.rollouts.values().rev().find(reaches).map_or((0, ""), |rollout| (rollout.number, &rollout.plan.head))
    }

    /// The node of a site that is to write what it is told: the first of those that are connected.
    pub fn writer(&self, site: &str) -> Option<&str> {
        let nodes = &self.sites.get(site)?.nodes;
        nodes.iter().find(|(_, node)| node.connected > 0).map(|(name, _)| name.as_str())
    }

    /// What a new head for these sites would be compared with.
    pub fn base(&self, tenant: &str, sites: &[String]) -> Option<&Rollout> {
        let live = || self.rollouts.values().rev().filter(|one| !one.step.is_over() && one.plan.tenant == tenant);
        let same = live().find(|one| one.plan.sites == sites);
        same.or_else(|| live().find(|one| one.plan.sites.iter().any(|pattern| pattern == "*")))
    }

    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Rollout> {
        self.rollouts.values()
    }

    pub fn sites(&self) -> impl Iterator<Item = (&str, &Site)> {
        self.sites.iter().map(|(name, site)| (name.as_str(), site))
    }

    /// How a site stands with the rollout of this number.
    pub fn at(&self, site: &str, number: u64) -> Option<At> {
        Some(self.sites.get(site)?.at(number))
    }

    /// The sites that a rollout is meant for, as far as they are known.
    pub fn meant<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = &'a str> {
        let named = |(name, site): &(&String, &Site)| plan.names(name, &site.tenant);
        self.sites.iter().filter(named).map(|(name, _)| name.as_str())
    }

    fn forget_old(&mut self) {
        while self.rollouts.len() > ROLLOUTS_MAX {
            let outlived = |one: &&Rollout| {
                let newer = |other: &Rollout| {
                    other.number > one.number && other.step == Step::Done && other.plan.is_for_the_same(&one.plan)
                };
                one.step.is_over() || self.rollouts.values().any(newer)
            };
            let oldest = self.rollouts.values().find(outlived).or_else(|| self.rollouts.values().next());
            let Some(number) = oldest.map(|oldest| oldest.number) else { return };
            self.rollouts.remove(&number);
        }
    }
}
