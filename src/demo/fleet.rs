//! The fleet: simulated machines that publish over MQTT at QoS 1, as fast as they measure.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use millpond_core::time::{Span, Timestamp};
use millpond_env::{Env, Mono};
use millpond_sim::fleet::{FaultKind, Fleet, FleetSpec, PlannedFault, Reading};
use tokio_util::sync::CancellationToken;

use super::{Options, Shared, config};
use millpond_gateway::client::mqtt::{self, Connection, MqttError};

/// Publishes in flight.
const IN_FLIGHT: u16 = 4096;
/// While so many readings wait, the machines keep theirs: they come later, with their own time stamps.
const WAITING_MAX: usize = 50_000;
const RETRY: Span = Span::from_millis(250);
/// How long the end waits for acknowledgements.
const DRAIN_TIMEOUT: Span = Span::from_secs(20);
/// The machine that breaks.
pub const BREAKS: &str = "press-0001";
const BREAKS_AT: Span = Span::from_secs(10);
const REPAIRED_AT: Span = Span::from_secs(30);

#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    fleet: Fleet,
    /// Topics of the machines, by their number.
    topics: Vec<Arc<str>>,
    begun: (Mono, Timestamp),
    waiting: VecDeque<Reading>,
    stepped: Vec<Reading>,
    status: Shared,
}

impl Publisher {
    /// # Errors
    /// When the node does not let the fleet in.
    pub async fn open(
        env: &Env,
        options: &Options,
        node: (&str, u16),
        token: &str,
        status: Shared,
    ) -> Result<Publisher, MqttError> {
        let login = mqtt::Options {
            host: node.0.to_owned(),
            port: node.1,
            client_id: config::FLEET_USER.to_owned(),
            login: Some((config::FLEET_USER.to_owned(), token.to_owned())),
            in_flight: IN_FLIGHT,
        };
        let connection = Connection::open(env, login).await?;
        let begun = (env.now(), env.wall());
        let fleet = Fleet::new(options.seed, spec(options, begun.1));
        let topics = fleet.machines().map(|(name, _, _)| format!("devices/{name}/telemetry").into()).collect();
        status.lock().devices = fleet.len();
        Ok(Publisher { connection, fleet, topics, begun, waiting: VecDeque::new(), stepped: Vec::new(), status })
    }

    /// Publishes until `stopping`, then until everything is acknowledged or the time for that is over.
    pub async fn run(mut self, env: Env, stopping: CancellationToken) {
        let mut told = (false, false);
        let mut give_up = None;
        loop {
            let now = env.now();
            self.tell_of_fault(now, &mut told);
            if stopping.is_cancelled() {
                let until = *give_up.get_or_insert(now.after(DRAIN_TIMEOUT));
                let done = self.waiting.is_empty() && self.connection.session().in_flight() == 0;
                if done || now >= until {
                    return;
                }
            } else {
                self.measure(now);
            }
            self.publish(now);
            let outcome = tokio::select! {
                biased;
                outcome = self.connection.pump() => outcome,
                () = env.sleep(Span::from_millis(5)) => Ok(()),
            };
            self.count_acks(env.now());
            if let Err(error) = outcome {
                self.reconnect(&env, error).await;
            }
        }
    }

    /// What the machines have measured until now, by the time of the wall clock at the start and the monotonic clock since.
    fn measure(&mut self, now: Mono) {
        if self.waiting.len() >= WAITING_MAX {
            return;
        }
        self.fleet.step(self.begun.1.saturating_add(now.since(self.begun.0)), &mut self.stepped);
        self.waiting.extend(self.stepped.drain(..));
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
            self.connection.session().publish(topic, payload, 0, now);
            published += 1;
        }
        let mut status = self.status.lock();
        status.published += published;
        status.waiting = self.waiting.len();
    }

    fn count_acks(&mut self, now: Mono) {
        let mut status = self.status.lock();
        for ack in self.connection.session().acks() {
            status.acked(now, ack.published);
        }
        status.tick(now);
    }

    /// One try; the caller's loop makes the next.
    async fn reconnect(&mut self, env: &Env, error: MqttError) {
        {
            let mut status = self.status.lock();
            if status.connected {
                status.connected = false;
                status.say(
                    env.now(),
                    format!("the fleet lost its connection ({error}); it keeps what is not acknowledged"),
                );
            }
        }
        env.sleep(RETRY).await;
        if self.connection.reopen(env).await.is_ok() {
            let again = self.connection.session().in_flight();
            let mut status = self.status.lock();
            status.connected = true;
            status.reconnects += 1;
            status.say(env.now(), format!("the fleet is connected again and sends {again} readings a second time"));
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

fn spec(options: &Options, start: Timestamp) -> FleetSpec {
    let period = 1e9 * f64::from(options.machines) / f64::from(options.rate.max(1));
    FleetSpec {
        start,
        period: Span((period as i64).max(1)),
        jitter: 0.02,
        planned: vec![PlannedFault {
            device: BREAKS.to_owned(),
            kind: FaultKind::BearingWear,
            at: BREAKS_AT,
            repaired: REPAIRED_AT,
            ramp: Span::from_secs(4),
        }],
        ..FleetSpec::mixed(options.machines)
    }
}
