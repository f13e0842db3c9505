//! A run of a scenario: the site is built, its devices measure, faults befall it, everything heals, and then it is asked what became of
//! the promises.
//!
//! A rehearsal moves by [`step`](Rehearsal::step), so that it can be watched, stopped at any point and shown. What it does is a
//! function of plan, seed and list of faults.

mod agenda;
mod inject;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use millpond_actors::{STORE_FILE, config::Config, settings::SiteSettings};
use millpond_cluster::{identity::Trusted, mesh};
use millpond_core::{ids::Origin, time::Span};
use millpond_lake::{Lake, Options as LakeOptions};
use millpond_proto::sites::terms::Terms;
use millpond_store::{Options as StoreOptions, Replica, Store};

use self::agenda::{Agenda, Todo};
use crate::{
    evidence::{CopyEvidence, Evidence, LakeEvidence, Life, NodeEvidence, OtherCopy, Sample},
    floor::{Doors, Floor},
    report::{self, Report},
    scenario::{Injection, NodeSpec, Scenario, TrustSpec, timeline},
    site::{Node, Phase},
    tls::Authority,
    world::{
        HostSpec, World,
        bucket::{self, Bucket},
        core::{HostId, Instant},
        disk::DiskSpec,
        mishap::{self, Panic},
        net::LinkSpec,
    },
};

/// How long nodes may take to stop in good order.
const STOP_PATIENCE_NS: u64 = 60_000_000_000;
/// Where nodes of a site listen for each other, unless their configuration says otherwise.
const SITE_PORT: u16 = 7800;
/// What the floor logs in with.
const TOKEN: &str = "a rehearsal's own token";

/// A scenario with the configurations of its nodes, in their order.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub configs: Vec<Config>,
}

/// How to run it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub seed: u64,
    /// The faults, when they are not to be drawn anew.
    pub injections: Option<Vec<Injection>>,
}

/// What came of it.
pub struct Outcome {
    pub report: Report,
    pub evidence: Evidence,
}

pub struct Rehearsal {
    plan: Plan,
    seed: u64,
    world: World,
    floor_host: HostId,
    floor: Floor,
    nodes: Vec<Node>,
    receivers: BTreeMap<String, HostId>,
    injections: Vec<Injection>,
    agenda: Agenda,
    /// Faults under way that last, by node and kind: how many.
    under_way: BTreeMap<(u32, &'static str), u32>,
    /// How long a node stays down when its disk dies, or when it has stopped.
    downtime: BTreeMap<usize, Span>,
    /// Nodes that are to start again by the agenda.
    awaited: BTreeSet<usize>,
    samples: Vec<Vec<Sample>>,
    clock_errors: Vec<Vec<(Instant, i64)>>,
    repairs: Vec<Vec<(Instant, String)>>,
    measured_until: Instant,
    done: bool,
    panics: mishap::Watch,
}

impl Rehearsal {
    pub fn new(plan: Plan, options: Options) -> Rehearsal {
        let panics = mishap::Watch::begin();
        let scenario = &plan.scenario;
        let mut world = World::new(options.seed, scenario.yields);
        world.network().set_default(calm());
        let floor_host = world.add(host("floor", 0, None));
        let mut nodes = Vec::new();
        for (at, (spec, config)) in scenario.nodes.iter().zip(&plan.configs).enumerate() {
            let disk = DiskSpec {
                size: spec.disk.bytes,
                sync: (spec.disk.sync.0, spec.disk.sync.1),
                bytes_per_second: spec.disk.bytes_per_second,
            };
            let id = world.add(HostSpec {
                clock_offset: Span(spec.clock.ahead.0 - spec.clock.behind.0),
                clock_ppm: spec.clock.drift_ppm,
                ..host(&spec.name, at as u8 + 1, Some(disk))
            });
            let mut node = Node::new(spec.name.clone(), id, config.clone(), spec.cores, spec.restart, TOKEN);
            node.habits.dialect = spec.wire;
            if let Some(operations) = spec.document_operations {
                node.habits.document_operations = operations;
            }
            if let Some(site) = &spec.stranger_to {
                node.papers = Some(Authority::new(!site_seed(options.seed, site)).papers(&spec.name));
                let called = scenario.nodes.iter().filter(|other| other.site.as_ref() == Some(site));
                node.config.site.seeds.extend(called.map(|other| format!("{}:{}", other.name, SITE_PORT)));
            }
            if let Some(site) = &spec.site {
                let mut authority = authority(options.seed, site);
                if let Some(life) = spec.certificate_life {
                    node.habits.certificate_life = life;
                    authority = authority.with_validity(life);
                }
                let members = scenario.nodes.iter().filter(|mate| mate.site == spec.site).map(|mate| &*mate.name);
                node.papers = Some(match spec.founder {
                    true => authority.founding_papers(&spec.name, members),
                    false => authority.papers(&spec.name),
                });
                node.cloud = spec.cloud;
                node.trusts = spec.trusts.iter().map(|trust| trusted(options.seed, trust, scenario)).collect();
                node.config.node.name.clone_from(&spec.name);
                // Who looks around on the local network is told nobody.
                let looks = node.config.site.seeds.iter().any(|seed| seed == SiteSettings::MDNS);
                let mates = scenario.nodes.iter().filter(|_| !looks);
                let mates = mates.filter(|mate| mate.site == spec.site && mate.name != spec.name);
                node.config.site.seeds.extend(mates.map(|mate| format!("{}:{}", mate.name, SITE_PORT)));
            }
            nodes.push(node);
        }
        let mut receivers = BTreeMap::new();
        for (at, name) in scenario.receivers.iter().enumerate() {
            receivers.insert(name.clone(), world.add(host(name, at as u8 + 100, None)));
        }
        // A store has a name of its own, so that a node can be cut off from it alone.
        for (at, node) in nodes.iter_mut().enumerate().filter(|(_, node)| node.cloud) {
            let id = world.add(host(&format!("store-of-{}", node.name), at as u8 + 150, None));
            node.store = Some(Bucket::new(world.core().clone(), world.network().clone(), id));
        }
        let injections = options.injections.unwrap_or_else(|| timeline(scenario, &mut world.core().rng("faults")));
        let mut rehearsal = Rehearsal {
            seed: options.seed,
            floor_host,
            floor: Floor::default(),
            receivers,
            agenda: Agenda::default(),
            under_way: BTreeMap::new(),
            downtime: BTreeMap::new(),
            awaited: BTreeSet::new(),
            samples: nodes.iter().map(|_| Vec::new()).collect(),
            clock_errors: nodes.iter().map(|_| Vec::new()).collect(),
            repairs: nodes.iter().map(|_| Vec::new()).collect(),
            measured_until: Instant(scenario.duration.0.max(0) as u64),
            done: false,
            panics,
            nodes,
            injections,
            world,
            plan,
        };
        rehearsal.begin();
        rehearsal
    }

    fn begin(&mut self) {
        let floor_env = self.world.boot(self.floor_host);
        let doors: BTreeMap<String, Doors> =
            self.nodes.iter().map(|node| (node.name.clone(), node.doors(TOKEN))).collect();
        for (name, host) in &self.receivers {
            let env = self.world.boot(*host);
            let floor = self.floor.clone();
            self.world.enter(*host, || floor.start_receiver(&env, name));
        }
        for node in &mut self.nodes {
            node.start(&mut self.world);
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let now = self.world.now();
            self.clock_errors[at].push((now, self.world.clock(node.host).error(now).0));
        }
        let (floor, scenario, seed) = (self.floor.clone(), self.plan.scenario.clone(), self.seed);
        self.world.enter(self.floor_host, || floor.start(&floor_env, &scenario, &doors, seed));
        for at in 0..self.injections.len() {
            self.agenda.add(Instant(self.injections[at].at_ns), Todo::Inject(at));
        }
        self.agenda.add(Instant(0).after(self.plan.scenario.watch.0.max(1) as u64), Todo::Sample);
        self.agenda.add(self.measured_until, Todo::Heal);
        self.agenda.add(self.measured_until.after(self.plan.scenario.settle.0.max(0) as u64), Todo::Stop);
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn floor(&self) -> &Floor {
        &self.floor
    }

    pub fn scenario(&self) -> &Scenario {
        &self.plan.scenario
    }

    pub fn injections(&self) -> &[Injection] {
        &self.injections
    }

    pub fn samples(&self, node: usize) -> &[Sample] {
        &self.samples[node]
    }

    /// Time, and when the run will be over at the latest.
    pub fn progress(&self) -> (Instant, Instant) {
        let settle = self.plan.scenario.settle.0.max(0) as u64;
        (self.world.now(), self.measured_until.after(settle + STOP_PATIENCE_NS))
    }

    /// Lets the next thing happen; `false` when the run is over.
    pub fn step(&mut self) -> bool {
        if self.done {
            return false;
        }
        let until = self.agenda.next().unwrap_or(Instant(u64::MAX));
        match self.world.step(until) {
            Some(Some(host)) => self.look_at(host),
            Some(None) => {}
            None => match self.agenda.pop() {
                Some(todo) => self.carry_out(todo),
                None => self.done = true,
            },
        }
        !self.done
    }

    /// Runs to the end and checks the promises.
    pub fn run(mut self) -> Outcome {
        while self.step() {}
        self.finish()
    }

    /// What a host has come to by what just happened there.
    fn look_at(&mut self, host: HostId) {
        let Some(at) = self.nodes.iter().position(|node| node.host == host) else { return };
        let now = self.world.now();
        if self.world.disk(host).is_some_and(|disk| disk.is_dead()) {
            return self.power_off(at);
        }
        match self.nodes[at].phase() {
            Phase::Up => self.nodes[at].note_up(true, now),
            Phase::Ended(why) => {
                *self.nodes[at].failed_starts.entry(why).or_default() += 1;
                let pause = self.nodes[at].restart;
                self.kill(at, pause);
            }
            Phase::Stopped => {
                let pause = self.downtime.remove(&at);
                self.world.kill(host);
                self.nodes[at].gone(now);
                match pause {
                    Some(pause) => self.start_after(at, pause),
                    None => self.done = self.nodes.iter().all(|node| node.phase() == Phase::Off),
                }
            }
            Phase::Off | Phase::Starting | Phase::Stopping => {}
        }
    }

    fn carry_out(&mut self, todo: Todo) {
        let now = self.world.now();
        match todo {
            Todo::Inject(at) => self.inject(at),
            Todo::Undo(at) => self.undo(at),
            Todo::Start(at) => {
                self.awaited.remove(&at);
                if !self.world.is_up(self.nodes[at].host) {
                    self.nodes[at].start(&mut self.world);
                }
            }
            Todo::Sample => {
                self.sample();
                if now < self.measured_until.after(self.plan.scenario.settle.0.max(0) as u64) {
                    self.agenda.add(now.after(self.plan.scenario.watch.0.max(1) as u64), Todo::Sample);
                }
            }
            Todo::Heal => self.heal(),
            Todo::Stop => {
                self.sample();
                self.floor.stop_asking();
                for at in 0..self.nodes.len() {
                    match self.nodes[at].phase() {
                        Phase::Up => self.nodes[at].stop(&self.world),
                        phase => {
                            let why = format!("at the end of the run it was not up but {phase:?}");
                            *self.nodes[at].failed_starts.entry(why).or_default() += 1;
                        }
                    }
                }
                self.agenda.add(now.after(STOP_PATIENCE_NS), Todo::GiveUp);
                self.done = self.nodes.iter().all(|node| !self.world.is_up(node.host));
            }
            Todo::GiveUp => {
                for node in &mut self.nodes {
                    if self.world.is_up(node.host) {
                        *node.failed_starts.entry("it did not stop in good order".to_owned()).or_default() += 1;
                        self.world.kill(node.host);
                        node.gone(now);
                    }
                }
                self.done = true;
            }
        }
    }

    fn sample(&mut self) {
        for ((node, spec), samples) in self.nodes.iter().zip(&self.plan.scenario.nodes).zip(&mut self.samples) {
            let disk = self.world.disk(node.host).map(|disk| (disk.stats().used, disk.free())).unwrap_or_default();
            samples.push(Sample {
                at: self.world.now(),
                up: node.phase() == Phase::Up,
                disk_used: disk.0,
                disk_free: disk.1,
                buffered: self.world.network().buffered(node.host),
                carried: carried(&self.world, &self.plan.scenario, &self.nodes, node, spec),
                metrics: node.metrics(),
            });
        }
    }

    /// Ends the run where it is, and looks at what is left.
    pub fn finish(mut self) -> Outcome {
        let now = self.world.now();
        for node in &mut self.nodes {
            self.world.kill(node.host);
            node.gone(now);
        }
        let net = self.world.network().stats();
        let panics: Vec<Panic> = self.panics.seen();
        let (hash, noted, divergence) = {
            let tracer = self.world.core().tracer();
            (tracer.hash(), tracer.noted(), tracer.divergence().cloned())
        };
        let samples = std::mem::take(&mut self.samples).into_iter();
        let errors = std::mem::take(&mut self.clock_errors).into_iter();
        let repairs = std::mem::take(&mut self.repairs).into_iter();
        let nodes = std::mem::take(&mut self.nodes).into_iter().zip(samples.zip(errors.zip(repairs))).map(
            |(node, (samples, (errors, repairs)))| {
                let opened = open_journal(&self.world, node.host);
                let life = opened.as_ref().map(|(_, life)| *life).unwrap_or_default();
                NodeEvidence {
                    life,
                    journal: opened.map(|(store, _)| store),
                    copies: open_copies(&self.world, node.host),
                    others: open_others(&self.world, node.host),
                    given: node.listener.take(),
                    lake: node.store.as_ref().map(open_lake),
                    disk: self.world.disk(node.host).map(|disk| disk.stats()).unwrap_or_default(),
                    boots: self.world.boots(node.host),
                    name: node.name,
                    config: node.config,
                    clock_errors: errors,
                    repairs,
                    up: node.up,
                    samples,
                    failed_starts: node.failed_starts,
                }
            },
        );
        let evidence = Evidence {
            nodes: nodes.collect(),
            scenario: self.plan.scenario.clone(),
            seed: self.seed,
            witness: self.floor.take_witness(),
            injections: std::mem::take(&mut self.injections),
            net,
            ended: (self.measured_until, now),
            divergence,
        };
        let report = report::of(&evidence, report::Run { hash, noted, happened: self.world.core().happened(), panics });
        Outcome { report, evidence }
    }
}

/// What went over a node's lines to clouds.
fn carried(world: &World, scenario: &Scenario, nodes: &[Node], node: &Node, spec: &NodeSpec) -> BTreeMap<String, u64> {
    let line = |trust: &TrustSpec| {
        let cloud = scenario.cloud_of(&trust.site)?;
        let there = nodes.iter().find(|other| other.name == cloud.name)?;
        Some((trust.site.clone(), world.network().carried(node.host, there.host)))
    };
    spec.trusts.iter().filter(|trust| trust.uplink).filter_map(line).collect()
}

/// Sites have authorities of their own.
fn site_seed(seed: u64, site: &str) -> u64 {
    seed ^ millpond_core::ids::device_hash(site)
}

/// The journal as it is on the disk after the end.
fn open_journal(world: &World, host: HostId) -> Result<(Store, Life), String> {
    let disk = world.disk(host).ok_or("the node has no disk")?.clone();
    let open = move || disk.snapshot(STORE_FILE).ok_or_else(|| std::io::ErrorKind::NotFound.into());
    match Store::open(Box::new(open), StoreOptions::default(), Origin([0; 16])) {
        Ok((store, opened)) => Ok((store, (opened.origin, opened.incarnation))),
        Err(error) => Err(with_cause(&error)),
    }
}

/// The copies of other nodes' journals, likewise.
fn open_copies(world: &World, host: HostId) -> Vec<CopyEvidence> {
    let Some(disk) = world.disk(host).cloned() else { return Vec::new() };
    let mut names = disk.power_on().list(mesh::FOLDER).unwrap_or_default();
    names.sort_unstable();
    let open = |name: String| {
        let whose = mesh::life_of(&name)?;
        let (disk, path) = (disk.clone(), format!("{}/{name}", mesh::FOLDER));
        let open = move || disk.snapshot(&path).ok_or_else(|| std::io::ErrorKind::NotFound.into());
        let opened = Replica::open(Box::new(open), StoreOptions::default(), whose.origin, whose.incarnation);
        let replica = opened.map(|(replica, _)| replica).map_err(|error| with_cause(&error));
        Some(CopyEvidence { life: (whose.origin, whose.incarnation), replica })
    };
    names.into_iter().filter_map(open).collect()
}

/// The copies of other sites' records, likewise.
fn open_others(world: &World, host: HostId) -> Vec<OtherCopy> {
    let Some(disk) = world.disk(host).cloned() else { return Vec::new() };
    let folder = millpond_cluster::OTHER_SITES_FOLDER;
    let list = |path: &str| disk.power_on().list(path).unwrap_or_default();
    let mut all = Vec::new();
    for site in list(folder) {
        for name in list(&format!("{folder}/{site}")) {
            let Some(whose) = mesh::life_of(&name) else { continue };
            let (disk, path) = (disk.clone(), format!("{folder}/{site}/{name}"));
            let open = move || disk.snapshot(&path).ok_or_else(|| std::io::ErrorKind::NotFound.into());
            let opened = Replica::open(Box::new(open), StoreOptions::default(), whose.origin, whose.incarnation);
            let replica = opened.map(|(replica, _)| replica).map_err(|error| with_cause(&error));
            all.push(OtherCopy { site: site.clone(), life: (whose.origin, whose.incarnation), replica });
        }
    }
    all
}

/// The archive as it is in its store after the end.
fn open_lake(store: &Bucket) -> LakeEvidence {
    let lake = bucket::at_once(Lake::open(store.at_rest(), LakeOptions::default()));
    LakeEvidence { lake: lake.map_err(|error| with_cause(&error)), store: store.stats() }
}

/// Another site as a box trusts it.
fn trusted(seed: u64, trust: &TrustSpec, scenario: &Scenario) -> Trusted {
    let terms = Terms { classes: trust.classes.clone(), devices: trust.devices.clone(), ..Terms::default() };
    let addresses = trust.from.iter().map(|name| format!("{name}:{SITE_PORT}")).collect();
    let cloud = scenario.cloud_of(&trust.site).filter(|_| trust.uplink);
    let uplink = cloud.map(|node| format!("{}:{SITE_PORT}", node.name)).into_iter().collect();
    Trusted { uplink, budget: trust.budget.clone(), ..authority(seed, &trust.site).trusted(terms, addresses) }
}

fn authority(seed: u64, site: &str) -> Authority {
    Authority::named(site_seed(seed, site), site)
}

fn with_cause(error: &dyn std::error::Error) -> String {
    format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
}

fn host(name: &str, number: u8, disk: Option<DiskSpec>) -> HostSpec {
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number.wrapping_add(1)));
    HostSpec { name: name.to_owned(), address, clock_offset: Span::ZERO, clock_ppm: 0.0, disk }
}

/// The network of a factory floor on a good day.
fn calm() -> LinkSpec {
    LinkSpec { latency: (Span(150_000), Span(900_000)), ..LinkSpec::default() }
}
