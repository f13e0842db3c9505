//! Nodes as an operating system runs them: started, killed, stopped in good order, and started again when they end.

mod listener;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millpond_actors::config::Config;
use millpond_cluster::{
    cloud::Parts,
    habits::Habits,
    identity::{Trusted, save_trusted},
    node::Node as Program,
};
use millpond_core::time::Span;
use millpond_env::Env;
use prometheus::{Registry, proto::MetricType};
use tokio::sync::oneshot;

pub use self::listener::Listener;
use crate::{
    floor::Doors,
    tls::{self, Papers},
    world::{
        World,
        bucket::Bucket,
        core::{HostId, Instant, Place},
    },
};

/// The user that a rehearsal adds to each node's own, to log in with.
pub const USER: &str = "rehearsal";

/// One node and its present life.
pub struct Node {
    pub name: String,
    pub host: HostId,
    pub config: Config,
    pub cores: usize,
    /// After how long the program is started again when it ended by itself.
    pub restart: Span,
    /// What it is enrolled with, when it belongs to a site.
    pub papers: Option<Arc<Papers>>,
    pub habits: Habits,
    /// It takes what other sites deliver.
    pub cloud: bool,
    /// Where it archives, when it is a node of a cloud.
    pub store: Option<Bucket>,
    /// Writes down what a node of a cloud tells of the results of sites, over all lives of its program.
    pub listener: Listener,
    /// Other sites with which it exchanges records.
    pub trusts: Vec<Trusted>,
    /// Disks that it has lost.
    pub lost_disks: u32,
    life: Life,
    /// When its program was up: begin and end.
    pub up: Vec<(Instant, Instant)>,
    pub failed_starts: BTreeMap<String, u64>,
}

/// One life of the program, shared with the task that lives it.
#[derive(Clone, Default)]
struct Life {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Its metrics.
    registry: Option<Registry>,
    in_flight: Option<Arc<dyn Fn() -> usize + Send + Sync>>,
    stop: Option<oneshot::Sender<()>>,
}

/// Where a node's program stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Off,
    Starting,
    Up,
    Stopping,
    /// It was stopped in good order.
    Stopped,
    /// It could not start, or ended by itself, and why.
    Ended(String),
}

impl Node {
    /// `config` is changed as far as a rehearsal needs it: its doors are open to the floor, and it knows one more user.
    pub fn new(name: String, host: HostId, mut config: Config, cores: usize, restart: Span, token: &str) -> Node {
        for (listen, port) in [(&mut config.mqtt.listen, 1883), (&mut config.http.listen, 8080)] {
            let port = if listen.port() == 0 { port } else { listen.port() };
            *listen = ([0, 0, 0, 0], port).into();
        }
        let admin = millpond_gateway::auth::Role::Admin;
        config.auth.users.push(millpond_gateway::auth::UserSettings::with_token(USER, token, admin));
        let life = Life::default();
        Node {
            name,
            host,
            config,
            cores,
            restart,
            papers: None,
            habits: Habits::default(),
            cloud: false,
            store: None,
            listener: Listener::default(),
            trusts: Vec::new(),
            lost_disks: 0,
            life,
            up: Vec::new(),
            failed_starts: BTreeMap::new(),
        }
    }

    pub fn doors(&self, token: &str) -> Doors {
        Doors {
            host: self.name.clone(),
            config: Arc::new(self.config.clone()),
            mqtt: self.config.mqtt.listen.port(),
            http: self.config.http.listen.port(),
            token: token.to_owned(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.life.lock().phase.clone()
    }

    /// Switches the box on and starts the program.
    pub fn start(&mut self, world: &mut World) {
        let env = world.boot(self.host);
        self.life = Life::default();
        self.life.lock().phase = Phase::Starting;
        let (life, config) = (self.life.clone(), self.config.clone());
        let machine = (self.cores, self.habits);
        let boot = (world.boots(self.host), self.lost_disks);
        let place = Place { host: self.host, boot: boot.0 - 1 };
        let parts = self.cloud.then(|| Parts {
            store: self.store.as_ref().map(|store| store.client(env.clone(), place)),
            consumers: vec![self.listener.of_boot(boot)],
        });
        let papers = self.papers.clone().map(|papers| (papers, self.lost_disks, self.trusts.clone()));
        world.enter(self.host, || env.clone().spawn(live(env, life, config, machine, papers, parts)));
    }

    /// Asks the program to end in good order.
    pub fn stop(&self, world: &World) {
        let stop = self.life.lock().stop.take();
        if let Some(stop) = stop {
            self.life.lock().phase = Phase::Stopping;
            world.enter(self.host, || {
                let _ = stop.send(());
            });
        }
    }

    /// Notes that the program is up, or is not any more.
    pub fn note_up(&mut self, is_up: bool, now: Instant) {
        let open = self.up.last().is_some_and(|(_, end)| *end == Instant(u64::MAX));
        match (open, is_up) {
            (false, true) => self.up.push((now, Instant(u64::MAX))),
            (true, false) => self.up.last_mut().expect("it is open").1 = now,
            _ => {}
        }
    }

    /// The power or the program is gone.
    pub fn gone(&mut self, now: Instant) {
        self.life = Life::default();
        self.note_up(false, now);
    }

    /// What `/metrics` would say now, without asking the node for it: names with labels.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (registry, in_flight) = {
            let state = self.life.lock();
            (state.registry.clone(), state.in_flight.clone())
        };
        let mut metrics = registry.map(|registry| flatten(&registry)).unwrap_or_default();
        if let Some(in_flight) = in_flight {
            metrics.insert("millpond_in_flight_bytes".to_owned(), in_flight() as f64);
        }
        metrics
    }
}

impl Life {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        self.lock().phase = phase;
    }
}

async fn live(
    env: Env,
    life: Life,
    config: Config,
    (cores, habits): (usize, Habits),
    papers: Option<(Arc<Papers>, u32, Vec<Trusted>)>,
    parts: Option<Parts>,
) {
    if let Some((papers, lost_disks, trusts)) = papers {
        let disk = env.disk.as_ref();
        let installed = papers.install(disk, lost_disks);
        let installed = installed.and_then(|()| trusts.iter().try_for_each(|trusted| save_trusted(disk, trusted)));
        if let Err(error) = installed {
            return life.set(Phase::Ended(chain(&error)));
        }
    }
    let provider = tls::provider(&env, "node");
    let opened = match parts {
        Some(parts) => Program::open_cloud(env, &config, cores, provider, habits, parts).await,
        None => Program::open_with(env, &config, cores, provider, habits).await,
    };
    let mut program = match opened {
        Ok(program) => program,
        Err(error) => return life.set(Phase::Ended(chain(&error))),
    };
    let edge = &mut program.edge;
    let (stop, mut stopped) = oneshot::channel();
    {
        let mut state = life.lock();
        state.phase = Phase::Up;
        state.registry = Some(edge.running.registry.clone());
        state.in_flight = Some(Arc::new(edge.running.in_flight()));
        state.stop = Some(stop);
    }
    let why = tokio::select! {
        biased;
        _ = &mut stopped => None,
        why = edge.running.ended() => Some(why),
    };
    match why {
        Some(why) => life.set(Phase::Ended(why)),
        None => {
            program.close().await;
            life.set(Phase::Stopped);
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Counters and gauges by name and labels; of histograms their count and sum.
fn flatten(registry: &Registry) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for family in registry.gather() {
        for metric in family.get_metric() {
            let labels: Vec<String> =
                metric.get_label().iter().map(|label| format!("{}=\"{}\"", label.name(), label.value())).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let name = family.name();
            match family.get_field_type() {
                MetricType::HISTOGRAM => {
                    all.insert(format!("{name}_count{labels}"), metric.get_histogram().get_sample_count() as f64);
                    all.insert(format!("{name}_sum{labels}"), metric.get_histogram().get_sample_sum());
                }
                MetricType::COUNTER => {
                    all.insert(format!("{name}{labels}"), metric.get_counter().get_value());
                }
                _ => {
                    all.insert(format!("{name}{labels}"), metric.get_gauge().get_value());
                }
            }
        }
    }
    all
}
