//! The fleets: simulated machines of each site that publish over MQTT at QoS 1, as fast as they measure. A third of a site's machines is connected
//! to each of its nodes, and turns to the next one when theirs does not answer.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use millpond_core::{
    time::{Span, Timestamp},
    value::ValueType,
};
use millpond_env::{Env, Mono};
use millpond_gateway::client::mqtt::{self, Connection, MqttError};
use millpond_sim::fleet::{FaultKind, Fleet, FleetSpec, PlannedFault, Reading};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Options, Shared, config,
    mesh::{NAMES, OF_SITE, REMOTE, SITES, nodes_of, site_of},
    status::Machine,
};

/// Publishes in flight, of one node's machines.
const IN_FLIGHT: u16 = 2048;
/// While so many readings wait, the machines keep theirs: they come later, with their own time stamps.
const WAITING_MAX: usize = 50_000;
const STEP: Span = Span::from_millis(5);
const RETRY: Span = Span::from_millis(100);
/// A node that is back has so long to find the others before its machines return.
const SETTLED: Span = Span::from_secs(3);
/// How long the end waits for acknowledgements.
const DRAIN_TIMEOUT: Span = Span::from_secs(20);
/// The machine that breaks.
pub const BREAKS: &str = "press-0001";
const BREAKS_AT: Span = Span::from_secs(10);
const REPAIRED_AT: Span = Span::from_secs(30);

/// The machines of a site, and where their readings go.
#[derive(Debug)]
pub struct Machines {
    site: usize,
    fleet: Fleet,
    begun: (Mono, Timestamp),
    lines: Vec<mpsc::UnboundedSender<Vec<Reading>>>,
    status: Shared,
}

/// The machines that are at home at one node, and their connection.
#[derive(Debug)]
pub struct Line {
    connection: Connection,
    home: usize,
    /// The node that they are connected to now.
    at: usize,
    doors: Vec<(String, u16)>,
    /// The number of the site's first machine.
    first: usize,
    /// Topics of the site's machines, by their number there.
    topics: Arc<[Arc<str>]>,
    source: mpsc::UnboundedReceiver<Vec<Reading>>,
    waiting: VecDeque<Reading>,
    status: Shared,
}

/// Connects the machines of all sites with the nodes behind these doors.
///
/// # Errors
/// When a node does not let them in.
pub async fn open(
    env: &Env,
    options: &Options,
    doors: &[(String, u16)],
    token: &str,
    status: &Shared,
) -> Result<(Vec<Machines>, Vec<Line>), MqttError> {
    let begun = (env.now(), env.wall());
    let (mut machines, mut lines) = (Vec::new(), Vec::new());
    for site in 0..SITES.len() {
        let fleet = Fleet::new(options.seed.wrapping_add(site as u64), spec(options, site, begun.1));
        let first = status.lock().machines.len();
        status.lock().machines.extend(fleet.machines().map(|(name, kind, _)| {
            let metric = kind.metrics().iter().find(|metric| metric.value_type == ValueType::F64);
            Machine { site, name: name.to_owned(), metric: metric.map_or("", |metric| metric.name), acked: 0 }
        }));
        let topics: Arc<[Arc<str>]> =
            fleet.machines().map(|(name, _, _)| Arc::from(format!("devices/{name}/telemetry"))).collect();
        let mut senders = Vec::new();
        for home in nodes_of(site) {
            let (host, port) = doors[home].clone();
            let login = mqtt::Options {
                host,
                port,
                client_id: format!("{}-{}", config::FLEET_USER, NAMES[home]),
                login: Some((config::FLEET_USER.to_owned(), token.to_owned())),
                in_flight: IN_FLIGHT,
            };
            let connection = Connection::open(env, login).await?;
            let (sender, source) = mpsc::unbounded_channel();
            senders.push(sender);
            let (doors, topics, status) = (doors.to_vec(), topics.clone(), status.clone());
            let waiting = VecDeque::new();
            lines.push(Line { connection, home, at: home, doors, first, topics, source, waiting, status });
        }
        machines.push(Machines { site, fleet, begun, lines: senders, status: status.clone() });
    }
    Ok((machines, lines))
}

impl Machines {
    /// Measures until `stopping`.
    pub async fn run(mut self, env: Env, stopping: CancellationToken) {
        // What breaks is in the first site.
        let mut told = (self.site > 0, self.site > 0);
        let mut stepped = Vec::new();
        while !stopping.is_cancelled() {
            let now = env.now();
            self.tell_of_fault(now, &mut told);
            if self.status.lock().waiting[nodes_of(self.site)].iter().sum::<usize>() < WAITING_MAX {
                // By the time of the wall clock at the start and the monotonic clock since.
                self.fleet.step(self.begun.1.saturating_add(now.since(self.begun.0)), &mut stepped);
                let mut of: [Vec<Reading>; OF_SITE] = Default::default();
                for reading in stepped.drain(..) {
                    of[reading.machine as usize % OF_SITE].push(reading);
                }
                for (line, readings) in self.lines.iter().zip(of).filter(|(_, readings)| !readings.is_empty()) {
                    let _ = line.send(readings);
                }
            }
            env.sleep(STEP).await;
        }
    }

    fn tell_of_fault(&self, now: Mono, told: &mut (bool, bool)) {
        let since = now.since(self.begun.0);
        if !told.0 && since >= BREAKS_AT {
            told.0 = true;
            self.status.lock().say(now, format!("machine {BREAKS}: a bearing begins to fail"));
        }
        if !told.1 && since >= REPAIRED_AT {
            told.1 = true;
            self.status.lock().say(now, format!("machine {BREAKS}: the bearing is replaced"));
        }
    }
}

impl Line {
    /// Publishes until the machines have ended and everything is acknowledged, or the time for that is over.
    pub async fn run(mut self, env: Env) {
        let mut give_up = None;
        loop {
            let now = env.now();
            let ended = self.take_readings();
            if ended {
                let until = *give_up.get_or_insert(now.after(DRAIN_TIMEOUT));
                let done = self.waiting.is_empty() && self.connection.session().in_flight() == 0;
                if done || now >= until {
                    return;
                }
            }
            let returns = !ended && self.may_return(now);
            if !returns {
                self.publish(now);
            } else if self.connection.session().in_flight() == 0 {
                self.turn_to(&env, self.home, "return to").await;
            }
            let outcome = tokio::select! {
                biased;
                outcome = self.connection.pump() => outcome,
                () = env.sleep(STEP) => Ok(()),
            };
            self.count_acks(env.now());
            if let Err(error) = outcome {
                self.fail_over(&env, error).await;
            }
        }
    }

    /// `true` when no more will come.
    fn take_readings(&mut self) -> bool {
        loop {
            match self.source.try_recv() {
                Ok(readings) => self.waiting.extend(readings),
                Err(mpsc::error::TryRecvError::Empty) => return false,
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Whether the machines' own node has been back for a while.
    fn may_return(&self, now: Mono) -> bool {
        let up_since = self.status.lock().nodes[self.home].up_since;
        self.at != self.home && up_since.is_some_and(|since| now.since(since) >= SETTLED)
    }

    fn publish(&mut self, now: Mono) {
        let mut published = 0;
        let mut text = String::with_capacity(256);
        while self.connection.session().has_room() {
            let Some(reading) = self.waiting.pop_front() else { break };
            text.clear();
            reading.write_json(None, &mut text);
            let topic = &self.topics[reading.machine as usize];
            let payload = Bytes::copy_from_slice(text.as_bytes());
            self.connection.session().publish(topic, payload, u64::from(reading.machine), now);
            published += 1;
        }
        let mut status = self.status.lock();
        status.published += published;
        status.waiting[self.home] = self.waiting.len();
    }

    fn count_acks(&mut self, now: Mono) {
        let mut status = self.status.lock();
        for ack in self.connection.session().acks() {
            status.acked(now, ack.published, self.first + ack.tag as usize, self.at);
        }
        status.tick(now);
    }

    /// One try at the next node; the caller's loop makes more.
    async fn fail_over(&mut self, env: &Env, error: MqttError) {
        {
            let (home, at) = (NAMES[self.home], NAMES[self.at]);
            let mut status = self.status.lock();
            if status.lines[self.home].take().is_some() {
                status.say(
                    env.now(),
                    format!("the machines of {home} lost {at} ({error}); they keep what is not acknowledged"),
                );
            }
        }
        env.sleep(RETRY).await;
        let nodes = nodes_of(site_of(self.home));
        self.turn_to(env, nodes.start + (self.at + 1 - nodes.start) % OF_SITE, "went on to").await;
    }

    async fn turn_to(&mut self, env: &Env, to: usize, how: &str) {
        self.at = to;
        let (host, port) = &self.doors[to];
        self.connection.turn_to(host, *port);
        if self.connection.reopen(env).await.is_ok() {
            let again = self.connection.session().in_flight();
            let mut status = self.status.lock();
            status.lines[self.home] = Some(to);
            status.reconnects += 1;
            let (home, at) = (NAMES[self.home], NAMES[to]);
            status.say(env.now(), format!("the machines of {home} {how} {at} and send {again} readings a second time"));
        }
    }
}

/// The machines of a site: all sites' machines measure equally often.
fn spec(options: &Options, site: usize, start: Timestamp) -> FleetSpec {
    let machines = options.machines_of(site);
    let all: u32 = (0..SITES.len()).map(|site| options.machines_of(site)).sum();
    let period = 1e9 * f64::from(all) / f64::from(options.rate.max(1));
    let worn = PlannedFault {
        device: BREAKS.to_owned(),
        kind: FaultKind::BearingWear,
        at: BREAKS_AT,
        repaired: REPAIRED_AT,
        ramp: Span::from_secs(4),
    };
    FleetSpec {
        prefix: if site == REMOTE { format!("{}-", SITES[site]) } else { String::new() },
        start,
        period: Span((period as i64).max(1)),
        jitter: 0.02,
        planned: if site == REMOTE { Vec::new() } else { vec![worn] },
        ..FleetSpec::mixed(machines)
    }
}
