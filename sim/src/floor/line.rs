//! A line: one connection to a node, and the devices behind it. What was not acknowledged is sent again until it is.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use millpond_core::time::Span;
use millpond_env::{Env, StdRng};
use millpond_gateway::client::{
    http::{HttpClient, HttpError},
    mqtt::{Connection, MqttError, Options, Session},
};
use rand::RngExt;

use super::{Doors, Floor, Item, Queue, true_time};
use crate::scenario::{FleetSpec, Via};

/// Pauses between tries of a connection: the first is drawn below the first, each is at most twice the last, none is longer than the second.
const BACKOFF: (Span, Span) = (Span::from_millis(500), Span::from_secs(10));
/// Readings of one publish or request.
const READINGS_MAX: usize = 500;

pub(super) struct Line {
    pub env: Env,
    pub floor: Floor,
    pub spec: FleetSpec,
    /// Where it goes first, and where it goes when that cannot be reached. Never empty.
    pub doors: Vec<Doors>,
    pub number: usize,
    pub queue: Arc<Queue>,
}

/// Readings of one publish: numbers of devices, and their sequence numbers.
type Content = Vec<(u32, u64)>;

impl Line {
    pub async fn run(self) {
        match self.spec.via {
            Via::Mqtt => self.run_mqtt().await,
            Via::Http => self.run_http().await,
        }
    }

    async fn run_mqtt(self) {
        let mut rng = self.env.rng(&format!("line/{}/{}", self.spec.name, self.number));
        let options = Options {
            host: self.doors[0].host.clone(),
            port: self.doors[0].mqtt,
            client_id: format!("{}-{}", self.spec.name, self.number),
            login: Some(("rehearsal".to_owned(), self.doors[0].token.clone())),
            in_flight: self.spec.in_flight,
        };
        let mut backoff = Backoff::new(&mut rng);
        let mut connection = loop {
            match Connection::open(&self.env, options.clone()).await {
                Ok(connection) => break connection,
                Err(_) => backoff.wait(&self.env, &mut rng).await,
            }
        };
        let mut flying: BTreeMap<u64, Content> = BTreeMap::new();
        let (mut tag, mut at) = (0, 0);
        loop {
            let error = self.publish(&mut connection, &mut flying, &mut tag).await;
            self.floor.with_witness(|witness| {
                witness.reconnects += 1;
                witness.refusals += u64::from(error.is_some() && !flying.is_empty());
                // With one node to go to it does not matter where they are.
                for reading in flying.values().flatten().filter(|_| self.doors.len() > 1) {
                    witness.stranded.entry(*reading).or_default().insert(self.doors[at].host.clone());
                }
            });
            let mut backoff = Backoff::new(&mut rng);
            while connection.reopen(&self.env).await.is_err() {
                at = (at + 1) % self.doors.len();
                connection.turn_to(&self.doors[at].host, self.doors[at].mqtt);
                // Who has tried all waits before it tries them again.
                if at == 0 {
                    backoff.wait(&self.env, &mut rng).await;
                }
            }
        }
    }

    /// Publishes until the connection is lost, or (`None`) a storm takes it.
    async fn publish(
        &self,
        connection: &mut Connection,
        flying: &mut BTreeMap<u64, Content>,
        tag: &mut u64,
    ) -> Option<MqttError> {
        // A gateway waits for company before it publishes.
        let gathers = self.spec.gather.0 > 0;
        let mut due = None;
        loop {
            let now = self.env.now();
            if due.is_none() && !self.queue.lock().is_empty() {
                due = Some(if gathers { now.after(self.spec.gather) } else { now });
            }
            if due.is_some_and(|due| due <= now) {
                while connection.session().has_room() && self.publish_next(connection.session(), flying, tag) {}
                if self.queue.lock().is_empty() {
                    due = None;
                }
            }
            let waiting = due.filter(|due| *due > now);
            let pumped = tokio::select! {
                biased;
                pumped = connection.pump() => pumped,
                () = self.queue.storm.notified() => return None,
                () = self.queue.more.notified(), if due.is_none() => Ok(()),
                () = self.env.clock.timer(waiting.unwrap_or_default()), if waiting.is_some() => Ok(()),
            };
            self.note_acks(connection.session(), flying);
            if let Err(error) = pumped {
                return Some(error);
            }
        }
    }

    fn note_acks(&self, session: &mut Session, flying: &mut BTreeMap<u64, Content>) {
        let at = true_time(&self.env);
        for ack in session.acks() {
            let content = flying.remove(&ack.tag).unwrap_or_default();
            self.floor.with_witness(|witness| {
                witness.malformed_acked += u64::from(content.is_empty());
                content.iter().for_each(|(device, seq)| witness.acked(*device, *seq, at));
            });
        }
    }

    /// Publishes one payload of what waits; whether there was any.
    fn publish_next(&self, session: &mut Session, flying: &mut BTreeMap<u64, Content>, tag: &mut u64) -> bool {
        let Some((topic, payload, content)) = self.next_payload() else { return false };
        *tag += 1;
        flying.insert(*tag, content);
        session.publish(&topic.into(), payload, *tag, self.env.now())
    }

    /// A device with a connection of its own sends each reading by itself; a gateway sends what it has gathered.
    fn next_payload(&self) -> Option<(String, Bytes, Content)> {
        let mut waiting = self.queue.lock();
        let first = waiting.pop_front()?;
        let (device, first) = match first {
            Item::Malformed { topic, payload } => return Some((topic, payload.into(), Content::new())),
            Item::Reading { device, reading } => (device, reading),
        };
        let costume = self.queue.costume.get()?;
        let (mut text, mut content) = (String::with_capacity(256), vec![(device, first.seq)]);
        if self.spec.connections == 0 {
            costume.write_json(false, &first, &mut text);
            let name = &costume.names[first.machine as usize];
            return Some((format!("devices/{name}/telemetry"), text.into(), content));
        }
        text.push('[');
        costume.write_json(true, &first, &mut text);
        while content.len() < READINGS_MAX
            && let Some(Item::Reading { device, reading }) = pop_if(&mut waiting, Item::is_reading)
        {
            text.push(',');
            costume.write_json(true, &reading, &mut text);
            content.push((device, reading.seq));
        }
        text.push(']');
        Some(("telemetry".to_owned(), text.into(), content))
    }

    async fn run_http(self) {
        let mut rng = self.env.rng(&format!("line/{}/{}", self.spec.name, self.number));
        let url = format!("http://{}:{}", self.doors[0].host, self.doors[0].http);
        let Ok(client) = HttpClient::new(self.env.clone(), &url, Some(&self.doors[0].token)) else { return };
        loop {
            self.queue.more.notified().await;
            if self.spec.gather.0 > 0 {
                self.env.sleep(self.spec.gather).await;
            }
            while let Some((body, content)) = self.next_body() {
                self.post(&client, body, &content, &mut rng).await;
            }
        }
    }

    /// Posts until it is taken.
    async fn post(&self, client: &HttpClient, body: Bytes, content: &Content, rng: &mut StdRng) {
        let mut backoff = Backoff::new(rng);
        loop {
            let posted = tokio::select! {
                biased;
                posted = client.post_bytes("/v1/telemetry", "application/x-ndjson", body.clone()) => Some(posted),
                () = self.queue.storm.notified() => None,
            };
            let at = true_time(&self.env);
            match posted {
                // What was rejected or could not be read is kept as dead letters: it is the node's now.
                Some(Ok(_)) => break self.note_taken(content, at),
                Some(Err(HttpError::Refused { status, .. })) if [400, 422].contains(&status.as_u16()) => {
                    break self.note_taken(content, at);
                }
                Some(Err(HttpError::Refused { .. })) => {
                    self.floor.with_witness(|witness| witness.refusals += 1);
                    backoff.wait(&self.env, rng).await;
                }
                Some(Err(_)) => {
                    self.floor.with_witness(|witness| witness.reconnects += 1);
                    backoff.wait(&self.env, rng).await;
                }
                None => {}
            }
        }
    }

    fn note_taken(&self, content: &Content, at: crate::world::core::Instant) {
        self.floor.with_witness(|witness| {
            witness.malformed_acked += u64::from(content.is_empty());
            content.iter().for_each(|(device, seq)| witness.acked(*device, *seq, at));
        });
    }

    /// Lines of JSON; something malformed goes by itself.
    fn next_body(&self) -> Option<(Bytes, Content)> {
        let costume = self.queue.costume.get()?;
        let mut waiting = self.queue.lock();
        let (mut text, mut content) = (String::new(), Content::new());
        while content.len() < READINGS_MAX
            && let Some(item) = pop_if(&mut waiting, |item| item.is_reading() || content.is_empty())
        {
            match item {
                Item::Malformed { payload, .. } => return Some((payload.into(), content)),
                Item::Reading { device, reading } => {
                    costume.write_json(true, &reading, &mut text);
                    text.push('\n');
                    content.push((device, reading.seq));
                }
            }
        }
        (!content.is_empty()).then(|| (text.into(), content))
    }
}

fn pop_if(waiting: &mut VecDeque<Item>, wanted: impl FnOnce(&Item) -> bool) -> Option<Item> {
    if waiting.front().is_some_and(wanted) { waiting.pop_front() } else { None }
}

/// Pauses between tries.
struct Backoff(Span);

impl Backoff {
    fn new(rng: &mut StdRng) -> Backoff {
        Backoff(Span(rng.random_range(1_000_000..BACKOFF.0.0)))
    }

    async fn wait(&mut self, env: &Env, rng: &mut StdRng) {
        env.sleep(self.0).await;
        self.0 = Span((self.0.0 + rng.random_range(0..=self.0.0)).min(BACKOFF.1.0));
    }
}
