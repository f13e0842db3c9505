//! What the sites are to run: the shell of [`Rollouts`]. It keeps heads and rollouts on this node's disk, tells the nodes of the sites, and takes
//! in what they say.
//!
//! ```text
//!   control/rollouts.json     the state of all rollouts, replaced as a whole
//!   control/head-HEAD.json    the texts of a head, written once before a rollout names it
//! ```
//!
//! Invariants
//! 1. Nobody is told what is not on disk: after a crash the cloud wants what it wanted before.

mod heads;
mod obeying;
mod operate;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use millpond_actors::config::CloudSettings;
use millpond_core::time::Span;
use millpond_env::{Disk, Env};
use millpond_gateway::port::Json;
use millpond_proto::uplink::{
    orders::{Order, Text},
    rollout::{Effect, Rollouts},
};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::measures::Measures;

const ROLLOUTS: &str = "control/rollouts.json";
const FOLDER: &str = "control";
const TICK: Span = Span::from_secs(1);
const RETRY: Span = Span::from_secs(1);

pub(super) struct Control {
    env: Env,
    settings: CloudSettings,
    measures: Measures,
    state: Mutex<State>,
    wake: Notify,
    ended: CancellationToken,
}

struct State {
    rollouts: Rollouts,
    heads: BTreeMap<String, Arc<Vec<Text>>>,
    /// Counts what has changed.
    changed: u64,
    /// The number of the last change that is on disk.
    kept: u64,
    /// Who wants to know when that moves.
    listeners: Vec<Weak<Notify>>,
}

impl Control {
    /// Goes on with what is on disk.
    ///
    /// # Errors
    /// When that cannot be read.
    pub async fn start(env: Env, settings: CloudSettings, measures: Measures) -> io::Result<Arc<Control>> {
        let disk = env.disk.clone();
        let loaded = env.unblock(move || load(disk.as_ref())).await;
        let (mut rollouts, heads) = loaded.unwrap_or_else(|| Err(io::ErrorKind::Interrupted.into()))?;
        rollouts.wake(env.wall().as_millis());
        for site in &settings.sites {
            rollouts.site(&site.site, &site.tenant);
        }
        let control = Arc::new(Control {
            env,
            settings,
            measures,
            state: Mutex::new(State { rollouts, heads, changed: 0, kept: 0, listeners: Vec::new() }),
            wake: Notify::new(),
            ended: CancellationToken::new(),
        });
        control.measure();
        control.env.spawn(control.clone().until_ended(Control::keep));
        control.env.spawn(control.clone().until_ended(Control::pass));
        Ok(control)
    }

    pub fn stop(&self) {
        self.ended.cancel();
    }

    async fn until_ended<F: Future<Output = ()>>(self: Arc<Control>, task: impl FnOnce(Arc<Control>) -> F) {
        let ended = self.ended.clone();
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = task(self) => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the rollouts, and sees to what follows. Also says which change it was.
    fn change<T>(&self, change: impl FnOnce(&mut Rollouts, i64, &mut Vec<Effect>) -> T) -> (T, u64) {
        let (now_ms, mut effects) = (self.env.wall().as_millis(), Vec::new());
        let mut state = self.state();
        let outcome = change(&mut state.rollouts, now_ms, &mut effects);
        if effects.contains(&Effect::Keep) {
            state.changed += 1;
            self.wake.notify_one();
        }
        for effect in effects {
            if let Effect::Tell { number, words } = effect {
                tracing::info!(rollout = number, "{words}");
            }
        }
        (outcome, state.changed)
    }

    /// Puts each change on disk.
    async fn keep(self: Arc<Control>) {
        loop {
            let (changed, unkept) = {
                let state = self.state();
                let unkept =
                    (state.changed > state.kept).then(|| serde_json::to_vec(&state.rollouts).unwrap_or_default());
                (state.changed, unkept)
            };
            if let Some(rollouts) = unkept {
                let disk = self.env.disk.clone();
                match self.env.unblock(move || disk.write(ROLLOUTS, &rollouts)).await {
                    Some(Ok(())) => {
                        self.told_kept(changed);
                        self.measure();
                    }
                    Some(Err(error)) => {
                        tracing::error!(%error, "the state of the rollouts could not be kept; nobody is told of it");
                        self.env.sleep(RETRY).await;
                    }
                    None => return,
                }
                continue;
            }
            self.wake.notified().await;
        }
    }

    async fn pass(self: Arc<Control>) {
        loop {
            self.env.sleep(TICK).await;
            self.change(|rollouts, now_ms, out| rollouts.tick(now_ms, out));
        }
    }

    /// Resolves when the change is on disk.
    async fn is_kept(&self, change: u64) {
        let moved = self.listen();
        while self.state().kept < change {
            moved.notified().await;
        }
    }

    /// Told when a change is on disk.
    fn listen(&self) -> Arc<Notify> {
        let listener = Arc::new(Notify::new());
        self.state().listeners.push(Arc::downgrade(&listener));
        listener
    }

    fn told_kept(&self, change: u64) {
        let mut state = self.state();
        state.kept = change;
        state.listeners.retain(|listener| listener.upgrade().inspect(|listener| listener.notify_one()).is_some());
    }

    /// What a node of a site is to be told; `None` while that is not on disk.
    fn order(&self, site: &str, node: &str) -> Option<Order> {
        let state = self.state();
        if state.changed > state.kept {
            return None;
        }
        let (number, head) = state.rollouts.wanted(site);
        let write = state.rollouts.writer(site) == Some(node);
        let none = (String::new(), 0, Vec::new());
        // Without its texts a head is nothing that could be wanted; it stays as it is.
        let (head, number, texts) = match state.heads.get(head) {
            Some(texts) => (head.to_owned(), number, texts.to_vec()),
            None if head.is_empty() => none,
            None => return None,
        };
        Some(Order { head, number, texts, write })
    }

    /// What a site runs, for the list of sites.
    pub fn row(&self, site: &str) -> Json {
        let state = self.state();
        let (number, head) = state.rollouts.wanted(site);
        let runs = state.rollouts.sites().find(|(name, _)| *name == site).and_then(|(_, site)| site.newest());
        json!({
            "head": runs.map(|node| &node.runs).filter(|head| !head.is_empty()),
            "head_since": runs.filter(|node| !node.runs.is_empty()).map(|node| node.runs_since_ms),
            "wanted": Some(head).filter(|head| !head.is_empty()),
            "rollout": Some(number).filter(|number| *number > 0),
            "state": state_of(&state.rollouts, site),
        })
    }

    /// Sites that have asked what to run.
    pub fn sites(&self) -> Vec<String> {
        let state = self.state();
        state.rollouts.sites().filter(|(_, site)| !site.nodes.is_empty()).map(|(name, _)| name.to_owned()).collect()
    }

    fn measure(&self) {
        let state = self.state();
        for (site, _) in state.rollouts.sites() {
            let is = state_of(&state.rollouts, site);
            for one in STATES {
                self.measures.head.with_label_values(&[site, one]).set(i64::from(one == is));
            }
        }
    }
}

const STATES: [&str; 6] = ["none", "away", "ordered", "received", "applied", "rejected"];

/// How a site stands with what it is to run.
fn state_of(rollouts: &Rollouts, site: &str) -> &'static str {
    let (number, _) = rollouts.wanted(site);
    let at = rollouts.at(site, number).unwrap_or_default();
    match at.state {
        _ if number == 0 => STATES[0],
        Some(state) => state.name(),
        None if at.connected == 0 => STATES[1],
        None => STATES[2],
    }
}

type Loaded = (Rollouts, BTreeMap<String, Arc<Vec<Text>>>);

fn load(disk: &dyn Disk) -> io::Result<Loaded> {
    let rollouts = match disk.read(ROLLOUTS)? {
        Some(bytes) => serde_json::from_slice(&bytes)?,
        None => Rollouts::default(),
    };
    let mut heads = BTreeMap::new();
    for name in disk.list(FOLDER)? {
        let head = name.strip_prefix("head-").and_then(|name| name.strip_suffix(".json"));
        if let Some(head) = head
            && let Some(bytes) = disk.read(&format!("{FOLDER}/{name}"))?
        {
            heads.insert(head.to_owned(), Arc::new(serde_json::from_slice(&bytes)?));
        }
    }
    Ok((rollouts, heads))
}
