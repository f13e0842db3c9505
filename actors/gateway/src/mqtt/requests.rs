//! What clients ask for, packet by packet.

use bytes::Bytes;
use millpond_core::{block::is_block, limits, time::Span};

use super::{
    codec::{
        Disconnect, Packet, Properties, Publish, Reason, Split, SubAck, Subscribe, SubscribeOptions, Text, Unsubscribe,
        decode, encode, id, split,
    },
    connect::RECEIVE_MAX,
    connection::{Connection, Ended, compact},
    ingest::{Held, Route, route},
    pending::{Entry, Fate, Item},
};
use crate::broker::{Message, SubscribeError, topic};

/// The publishes of one read.
pub(super) struct Chunk {
    pub held: Vec<Held>,
    /// What the held payloads may take in memory.
    pub credit_bytes: usize,
    /// The client keeps all that is held until it is acknowledged.
    pub comes_again: bool,
    items: Vec<Item>,
    keeping: Vec<std::pin::Pin<Box<dyn Future<Output = bool> + Send>>>,
    publishes: usize,
    bytes: usize,
    spare: Vec<Item>,
}

impl Default for Chunk {
    fn default() -> Chunk {
        Chunk {
            held: Vec::new(),
            credit_bytes: 0,
            comes_again: true,
            items: Vec::new(),
            keeping: Vec::new(),
            publishes: 0,
            bytes: 0,
            spare: Vec::new(),
        }
    }
}

impl Chunk {
    /// The chunk as an entry of the pending ones; `None` when nothing was published.
    pub(super) fn entry(&mut self) -> Option<Entry> {
        if self.publishes == 0 {
            return None;
        }
        let items = std::mem::replace(&mut self.items, std::mem::take(&mut self.spare));
        let (publishes, bytes) = (std::mem::take(&mut self.publishes), std::mem::take(&mut self.bytes));
        (self.credit_bytes, self.comes_again) = (0, true);
        Some(Entry::new(items, publishes, bytes, std::mem::take(&mut self.keeping)))
    }

    /// Takes the memory of settled items for the next read.
    pub(super) fn recycle(&mut self, items: Vec<Item>) {
        if items.capacity() > self.spare.capacity() && items.capacity() <= 4096 {
            self.spare = items;
        }
    }
}

/// What is known of the topic that was published on last: clients rarely change it.
#[derive(Default)]
pub(super) struct KnownTopic {
    name: String,
    telemetry: bool,
    /// The site is told of it.
    told: bool,
    allowed: bool,
    wanted: bool,
    generation: u64,
}

/// What a payload may take in memory once it is decoded. Blocks grow about eightfold, text shrinks.
fn credit_bytes(payload: &[u8]) -> usize {
    if is_block(payload) { (payload.len() * 8).min(limits::MQTT_PENDING_BYTES_MAX) } else { payload.len() }
}

impl Connection {
    /// Handles the packets that stand one after another in `packets`.
    pub(super) fn handle_all(&mut self, packets: &Bytes) -> Result<(), Ended> {
        let (mut at, mut publishes) = (0, 0);
        let mut handled = Ok(());
        while let Ok(Split::Packet { first, body, len }) = split(&packets[at..], usize::MAX) {
            let decoded = decode(self.version, first, packets.slice(at + body..at + len));
            at += len;
            handled = match decoded {
                Ok(Packet::Publish(publish)) => {
                    publishes += 1;
                    self.published(publish, packets.len())
                }
                Ok(packet) => self.handle(packet),
                Err(error) => Err(self.malformed(error)),
            };
            if handled.is_err() {
                break;
            }
        }
        self.door.metrics.publishes.inc_by(publishes);
        handled
    }

    fn handle(&mut self, packet: Packet) -> Result<(), Ended> {
        match packet {
            Packet::PubAck(ack) => {
                self.session.acknowledged(self.epoch, ack.id);
                Ok(())
            }
            Packet::Subscribe(packet) => self.subscribe(packet),
            Packet::Unsubscribe(packet) => self.unsubscribe(&packet),
            Packet::PingReq => {
                encode(self.version, &Packet::PingResp, &mut self.out);
                Ok(())
            }
            Packet::Disconnect(packet) => Err(self.disconnect(&packet)),
            _ => Err(Ended::told(Reason::ProtocolError)),
        }
    }

    fn published(&mut self, mut publish: Publish, chunk_bytes: usize) -> Result<(), Ended> {
        if publish.qos == 2 {
            tracing::warn!(client = %self.client_id, topic = &*publish.topic, "QoS 2 is not supported: the connection is closed");
            return Err(Ended { pause: true, ..Ended::told(Reason::QosNotSupported) });
        }
        if self.version.is_5() {
            self.resolve_alias(&mut publish)?;
            if self.pending.publishes + self.chunk.publishes >= usize::from(RECEIVE_MAX) && publish.qos > 0 {
                return Err(Ended::told(Reason::ReceiveMaximumExceeded));
            }
        }
        self.know(&publish.topic)?;
        self.chunk.publishes += 1;
        self.chunk.bytes += publish.payload.len() + publish.topic.len();
        let packet_id = publish.id.unwrap_or(0);
        let bytes = publish.payload.len();
        if !self.known.allowed {
            self.chunk.items.push(Item::denied(packet_id, Reason::NotAuthorized));
        } else if self.known.telemetry {
            let message = self.known.wanted.then(|| Box::new(self.message(&publish, chunk_bytes, false)));
            if packet_id != 0 || message.is_some() {
                self.chunk.items.push(Item { id: packet_id, fate: Fate::Submitted, message });
            }
            self.chunk.credit_bytes += credit_bytes(&publish.payload);
            self.chunk.comes_again &= packet_id != 0;
            self.chunk.held.push(Held { topic: publish.topic, payload: publish.payload });
        } else if self.known.told {
            let message = self.message(&publish, chunk_bytes, false);
            let (door, login) = (self.door.clone(), self.login.name.clone());
            let (topic, payload) = (message.topic.clone(), message.payload.clone());
            self.chunk.keeping.push(Box::pin(async move { door.tell_site(topic, payload, login).await }));
            self.chunk.items.push(Item { id: packet_id, fate: Fate::Retained, message: Some(Box::new(message)) });
        } else if publish.retain && !self.door.broker.may_retain(&publish.topic, bytes) {
            self.chunk.items.push(Item::denied(packet_id, Reason::QuotaExceeded));
        } else {
            let message = self.message(&publish, chunk_bytes, publish.retain);
            let fate = if publish.retain { Fate::Retained } else { Fate::Passed };
            if publish.retain {
                let (node, payload, qos) = (self.door.node.clone(), message.payload.clone(), message.qos);
                let topic = message.topic.to_string();
                self.chunk.keeping.push(Box::pin(async move { node.retain(topic, payload, qos).await }));
            }
            self.chunk.items.push(Item { id: packet_id, fate, message: Some(Box::new(message)) });
        }
        Ok(())
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Ended> {
        if publish.properties.is_empty() {
            return Ok(());
        }
        if publish.properties.has(id::SUBSCRIPTION_ID) {
            return Err(Ended::told(Reason::ProtocolError));
        }
        let Some(alias) = publish.properties.number(id::TOPIC_ALIAS) else { return Ok(()) };
        let at = alias as usize - 1;
        if at >= limits::MQTT_ALIASES_MAX {
            return Err(Ended::told(Reason::TopicAliasInvalid));
        }
        if publish.topic.is_empty() {
            let known = self.aliases.get(at).cloned().flatten();
            publish.topic = known.ok_or(Ended::told(Reason::ProtocolError))?;
        } else {
            if self.aliases.len() <= at {
                self.aliases.resize(at + 1, None);
            }
            self.aliases[at] = Some(Text::from(&*publish.topic));
        }
        Ok(())
    }

    /// Looks up what is to be known of a topic, unless it is the one of the last publish.
    fn know(&mut self, name: &str) -> Result<(), Ended> {
        let generation = self.door.broker.generation();
        if self.known.name == name && !name.is_empty() {
            if self.known.generation != generation && self.known.telemetry {
                self.known.wanted = self.door.broker.wanted(name);
                self.known.generation = generation;
            }
            return Ok(());
        }
        if !topic::is_topic(name) {
            return Err(Ended::told(Reason::TopicNameInvalid));
        }
        let known = &mut self.known;
        known.name.clear();
        known.name.push_str(name);
        known.telemetry = route(name).is_telemetry();
        known.told = matches!(route(name), Route::Reported(_) | Route::Answered(..));
        known.allowed = self.login.may_publish(&self.client_id, name);
        known.wanted = known.telemetry && self.door.broker.wanted(name);
        known.generation = generation;
        Ok(())
    }

    fn message(&self, publish: &Publish, chunk_bytes: usize, retain: bool) -> Message {
        let expires = publish.properties.number(id::MESSAGE_EXPIRY);
        Message {
            topic: (&*publish.topic).into(),
            payload: compact(&publish.payload, chunk_bytes),
            qos: publish.qos,
            retain,
            properties: publish.properties.of_message(),
            expires: expires.map(|seconds| self.door.env.now().after(Span::from_secs(seconds.into()))),
        }
    }

    fn subscribe(&mut self, packet: Subscribe) -> Result<(), Ended> {
        let subscription = packet.properties.number(id::SUBSCRIPTION_ID).unwrap_or(0);
        let mut codes = Vec::with_capacity(packet.filters.len());
        for (filter, options) in &packet.filters {
            let granted = self.grant(filter, *options, subscription)?;
            codes.push(match granted {
                Ok(qos) => qos,
                Err(reason) => {
                    tracing::info!(client = %self.client_id, filter = &**filter, reason = reason.text(), "subscription refused");
                    if self.version.is_5() { reason as u8 } else { Reason::Unspecified as u8 }
                }
            });
        }
        let answer = SubAck { id: packet.id, properties: Properties::default(), codes };
        encode(self.version, &Packet::SubAck(answer), &mut self.out);
        Ok(())
    }

    fn grant(&self, filter: &Text, options: SubscribeOptions, subscription: u32) -> Result<Result<u8, Reason>, Ended> {
        if filter.starts_with("$share/") {
            return Ok(Err(Reason::SharedSubscriptionsNotSupported));
        }
        if !topic::is_filter(filter) {
            return Ok(Err(Reason::TopicFilterInvalid));
        }
        if !self.login.may_subscribe(&self.client_id, filter) {
            return Ok(Err(Reason::NotAuthorized));
        }
        match self.door.broker.subscribe(&self.session, self.epoch, filter, options, subscription) {
            Ok(qos) => {
                self.door.listens(&self.login, &self.client_id, &[(&**filter).into()], true);
                Ok(Ok(qos))
            }
            Err(SubscribeError::TooMany) => Ok(Err(Reason::QuotaExceeded)),
            Err(SubscribeError::Lost) => Err(Ended::told(Reason::SessionTakenOver)),
        }
    }

    fn unsubscribe(&mut self, packet: &Unsubscribe) -> Result<(), Ended> {
        let mut codes = Vec::with_capacity(packet.filters.len());
        for filter in &packet.filters {
            let had = self.door.broker.unsubscribe(&self.session, self.epoch, filter);
            codes.push(if had { Reason::Success as u8 } else { Reason::NoSubscriptionExisted as u8 });
        }
        let answer = SubAck { id: packet.id, properties: Properties::default(), codes };
        encode(self.version, &Packet::UnsubAck(answer), &mut self.out);
        Ok(())
    }

    /// The client goes. With any reason but 0 it wants its will published all the same.
    fn disconnect(&self, packet: &Disconnect) -> Ended {
        let expiry_s = packet.properties.number(id::SESSION_EXPIRY);
        if self.expiry_s == 0 && expiry_s.is_some_and(|seconds| seconds > 0) {
            return Ended::told(Reason::ProtocolError);
        }
        let expiry_s = expiry_s.map(|seconds| seconds.min(self.door.settings.session_expiry_s_max()));
        Ended { good_bye: packet.reason == 0, expiry_s, ..Ended::gone("disconnected") }
    }
}
