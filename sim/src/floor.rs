//! The floor: devices that measure and publish, receivers that take notifications, and someone who asks nodes how they are.
//!
//! Everything here is a task on the world's own hosts, and speaks to nodes through the network only, with the protocols that devices
//! speak. What it sees it writes down for the checkers.

mod census;
mod costume;
mod line;
mod operator;
mod probe;
mod receiver;
mod rollout;
mod supply;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use millpond_actors::config::Config;
use millpond_env::Env;
use tokio::sync::Notify;

use self::costume::Costume;
pub use self::operator::{read_rule, rule};

use crate::{
    fleet::Reading,
    promise::Promise,
    scenario::{FleetSpec, Scenario},
    witness::Witness,
    world::core::Instant,
};

/// Nodes of clouds are asked for all readings so long before the end, when it is quiet for so long.
const COUNTED_BEFORE_NS: u64 = 20_000_000_000;

/// How a node is reached.
#[derive(Clone, Debug)]
pub struct Doors {
    pub host: String,
    pub config: Arc<Config>,
    pub mqtt: u16,
    pub http: u16,
    pub token: String,
}

/// The handle of the floor. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    witness: Witness,
    fleets: BTreeMap<String, Arc<Controls>>,
    failing_receivers: BTreeSet<String>,
    /// Devices measure no more, and nobody changes anything.
    quiet: bool,
    /// Nodes are being stopped: nobody asks them anything any more.
    closed: bool,
}

/// What faults do to a fleet.
#[derive(Debug, Default)]
struct Controls {
    mood: Mutex<Mood>,
    /// The mood has changed.
    changed: Notify,
    lines: Vec<Arc<Queue>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mood {
    /// Devices below this share (by their number) send nothing.
    silenced: f64,
    /// Devices measure no more.
    stopped: bool,
}

/// What one connection is to send.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Item>>,
    more: Notify,
    costume: OnceLock<Arc<Costume>>,
    /// The connection is to break.
    storm: Notify,
}

/// A reading on its way, with the number of its device in the witness, or something that looks like one.
#[derive(Clone, Debug)]
enum Item {
    Reading { device: u32, reading: Reading },
    Malformed { topic: String, payload: Vec<u8> },
}

impl Floor {
    /// Starts everything that lives on the floor; `doors` has an entry for each node.
    pub fn start(&self, env: &Env, scenario: &Scenario, doors: &BTreeMap<String, Doors>, seed: u64) {
        for fleet in &scenario.fleets {
            let to: Vec<Doors> =
                [&fleet.node].into_iter().chain(&fleet.others).filter_map(|node| doors.get(node)).cloned().collect();
            if !to.is_empty() {
                self.start_fleet(env, fleet, &to, seed);
            }
        }
        for operator in &scenario.operators {
            let to = operator.nodes.iter().filter_map(|node| doors.get(node)).cloned().collect();
            env.spawn(operator::operate(env.clone(), self.clone(), operator.clone(), to));
        }
        let end = scenario.duration.0.saturating_add(scenario.settle.0).max(0) as u64;
        let count_at = Instant(end.saturating_sub((scenario.settle.0.max(0) as u64 / 4).min(COUNTED_BEFORE_NS)));
        for spec in scenario.nodes.iter().filter(|spec| spec.cloud && scenario.checks(Promise::OnceInTheLake)) {
            let Some(doors) = doors.get(&spec.name).cloned() else { continue };
            let tenants: BTreeMap<String, String> = scenario
                .delivering_to(spec)
                .map(|(node, site)| (node.to_owned(), doors.config.cloud.site(site).tenant))
                .collect();
            // Devices that are dressed up have other metrics.
            let plain = scenario.fleets.iter().filter(|fleet| fleet.device_type.is_none());
            let plain: BTreeSet<String> = plain.map(|fleet| fleet.name.clone()).collect();
            let tenant_of = move |node: &str, fleet: &str| tenants.get(node).filter(|_| plain.contains(fleet)).cloned();
            env.spawn(census::count(env.clone(), self.clone(), (spec.name.clone(), doors), count_at, tenant_of));
        }
        for (number, spec) in scenario.rollouts.iter().enumerate() {
            let Some(doors) = doors.get(&spec.node).cloned() else { continue };
            env.spawn(rollout::roll_out(env.clone(), self.clone(), number, spec.clone(), doors));
        }
        for spec in scenario.nodes.iter().filter(|_| !scenario.rollouts.is_empty()) {
            let Some(doors) = doors.get(&spec.name).cloned() else { continue };
            env.spawn(rollout::look(env.clone(), self.clone(), (spec.name.clone(), doors), spec.cloud, count_at));
        }
        for (node, doors) in doors {
            env.spawn(probe::ask(env.clone(), self.clone(), node.clone(), doors.clone(), scenario.watch));
        }
    }

    fn start_fleet(&self, env: &Env, spec: &FleetSpec, doors: &[Doors], seed: u64) {
        let lines = if spec.connections == 0 { spec.devices } else { spec.connections.min(spec.devices) };
        let queues: Vec<Arc<Queue>> = (0..lines).map(|_| Arc::default()).collect();
        for (number, queue) in queues.iter().enumerate() {
            let line = line::Line {
                env: env.clone(),
                floor: self.clone(),
                spec: spec.clone(),
                doors: doors.to_vec(),
                number,
                queue: queue.clone(),
            };
            env.spawn(line.run());
        }
        let controls = Arc::new(Controls { lines: queues, ..Controls::default() });
        self.lock().fleets.insert(spec.name.clone(), controls.clone());
        env.spawn(supply::supply(env.clone(), self.clone(), spec.clone(), doors[0].config.clone(), seed, controls));
    }

    /// Starts a receiver of notifications on a host of its own.
    pub fn start_receiver(&self, env: &Env, name: &str) {
        env.spawn(receiver::receive(env.clone(), self.clone(), name.to_owned()));
    }

    /// Devices measure no more, and operators change nothing more; what was measured is still sent.
    pub fn stop_measuring(&self) {
        self.lock().quiet = true;
        for controls in self.lock().fleets.values() {
            controls.set(|mood| *mood = Mood { silenced: 0.0, stopped: true });
        }
    }

    /// Nodes are asked no more how they are.
    pub fn stop_asking(&self) {
        self.lock().closed = true;
    }

    /// From now on this share of a fleet's devices keeps what it measures to itself.
    pub fn silence(&self, fleet: &str, share: f64) {
        if let Some(controls) = self.lock().fleets.get(fleet) {
            controls.set(|mood| mood.silenced = share);
        }
    }

    pub fn storm(&self, fleet: &str) {
        if let Some(controls) = self.lock().fleets.get(fleet) {
            controls.lines.iter().for_each(|line| line.storm.notify_one());
        }
    }

    pub fn fail_receiver(&self, receiver: &str, fails: bool) {
        let mut shared = self.lock();
        if fails {
            shared.failing_receivers.insert(receiver.to_owned());
        } else {
            shared.failing_receivers.remove(receiver);
        }
    }

    /// What was seen so far.
    pub fn with_witness<T>(&self, f: impl FnOnce(&mut Witness) -> T) -> T {
        f(&mut self.lock().witness)
    }

    pub fn take_witness(&self) -> Witness {
        std::mem::take(&mut self.lock().witness)
    }

    fn is_quiet(&self) -> bool {
        self.lock().quiet
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn is_failing(&self, receiver: &str) -> bool {
        self.lock().failing_receivers.contains(receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Controls {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.mood.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

impl Item {
    fn is_reading(&self) -> bool {
        matches!(self, Item::Reading { .. })
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True time: the floor's own clock does not lie.
fn true_time(env: &Env) -> Instant {
    Instant(env.now().0)
}
