//! A session: what is in flight, what waits to be written, what came in. Plain state, no socket and no clock.

use std::sync::Arc;

use bytes::Bytes;
use millpond_env::Mono;

use super::packet::{self, Malformed, Packet};

/// What was written is cut off `outgoing` past this size, when more was written than is left.
const COMPACT_BYTES: usize = 256 << 10;

/// A publish that the server has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// When it was handed to the session.
    pub published: Mono,
    /// What the caller gave with it.
    pub tag: u64,
}

/// A message of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
}

/// Packet identifiers are 1 + the position in `slots`; a subscription uses the one after the last slot.
#[derive(Debug)]
pub struct Session {
    slots: Vec<Option<Publish>>,
    free: Vec<u16>,
    /// Publishes so far, for their order.
    published: u64,
    filters: Vec<(String, u8)>,
    open: bool,
    refusal: Option<&'static str>,
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that are written already.
    written: usize,
    /// The start of a packet whose rest has not come yet.
    partial: Vec<u8>,
    acks: Vec<Ack>,
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Publish {
    order: u64,
    /// Topic and payload, to be sent again after a reconnect.
    kept: Option<(Arc<str>, Bytes)>,
    ack: Ack,
}

impl Session {
    pub fn new(in_flight: u16) -> Session {
        let in_flight = in_flight.clamp(1, u16::MAX - 1);
        Session {
            slots: (0..in_flight).map(|_| None).collect(),
            free: (0..in_flight).rev().collect(),
            published: 0,
            filters: Vec::new(),
            open: false,
            refusal: None,
            outgoing: Vec::new(),
            written: 0,
            partial: Vec::new(),
            acks: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Whether another QoS 1 publish may go out now.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Publishes without an acknowledgement.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Publishes at QoS 1 and keeps the payload until it is acknowledged. `false`, and nothing is sent, when there is no room.
    pub fn publish(&mut self, topic: &Arc<str>, payload: Bytes, tag: u64, now: Mono) -> bool {
        let Some(slot) = self.free.pop() else { return false };
        packet::publish(&mut self.outgoing, topic, &payload, Some(slot + 1), false);
        self.fly(slot, Some((topic.clone(), payload)), Ack { published: now, tag });
        true
    }

    /// Publishes at QoS 1 and forgets the payload: it is lost with the connection. For those who stop at a lost connection anyway.
    pub fn publish_unkept(&mut self, topic: &str, payload: &[u8], tag: u64, now: Mono) -> bool {
        let Some(slot) = self.free.pop() else { return false };
        packet::publish(&mut self.outgoing, topic, payload, Some(slot + 1), false);
        self.fly(slot, None, Ack { published: now, tag });
        true
    }

    fn fly(&mut self, slot: u16, kept: Option<(Arc<str>, Bytes)>, ack: Ack) {
        self.slots[usize::from(slot)] = Some(Publish { order: self.published, kept, ack });
        self.published += 1;
    }

    /// Subscribes now and after each reconnect; `qos` is 0 or 1.
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        let filter = (filter.to_owned(), qos.min(1));
        packet::subscribe(&mut self.outgoing, self.slots.len() as u16 + 1, std::slice::from_ref(&filter));
        self.filters.push(filter);
    }

    /// Acknowledgements since the last call.
    pub fn acks(&mut self) -> std::vec::Drain<'_, Ack> {
        self.acks.drain(..)
    }

    /// Messages since the last call, in their order.
    pub fn messages(&mut self) -> std::vec::Drain<'_, Message> {
        self.messages.drain(..)
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Why the server does not let us in.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        self.refusal
    }

    /// Begins a connection: the login is all that is sent until the server has answered.
    pub(super) fn connect(&mut self, client_id: &str, login: Option<&(String, String)>) {
        self.disconnected();
        packet::connect(&mut self.outgoing, client_id, login);
    }

    pub(super) fn disconnect(&mut self) {
        packet::disconnect(&mut self.outgoing);
    }

    /// The stream is gone, and with it all that was under way on it.
    pub(super) fn disconnected(&mut self) {
        self.open = false;
        self.refusal = None;
        self.outgoing.clear();
        self.written = 0;
        self.partial.clear();
    }

    /// What is to be written next.
    pub(super) fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.written..]
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.written = 0;
        } else if self.written > COMPACT_BYTES && self.written > self.outgoing.len() / 2 {
            self.outgoing.drain(..self.written);
            self.written = 0;
        }
    }

    pub(super) fn received(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut partial = std::mem::take(&mut self.partial);
        let mut rest = bytes;
        if !partial.is_empty() {
            partial.extend_from_slice(bytes);
            rest = &partial;
        }
        while let Some(packet) = packet::split(rest)? {
            rest = &rest[packet.len..];
            self.take(packet)?;
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn take(&mut self, packet: Packet<'_>) -> Result<(), Malformed> {
        match (packet.head & 0xf0, packet.body) {
            (packet::PUBACK, [high, low, ..]) => self.acknowledged(u16::from_be_bytes([*high, *low])),
            (packet::PUBLISH, body) => self.message(packet.head, body),
            (packet::CONNACK, [_, 0, ..]) => {
                self.opened();
                Ok(())
            }
            (packet::CONNACK, [_, code, ..]) => {
                self.refusal = Some(reason(*code));
                Ok(())
            }
            (packet::SUBACK, body) => {
                if body.get(2..).is_none_or(|codes| codes.contains(&0x80)) {
                    Err(Malformed::Subscription)
                } else {
                    Ok(())
                }
            }
            (packet::PINGRESP, _) => Ok(()),
            (packet::PUBACK | packet::CONNACK, _) => Err(Malformed::Short),
            (other, _) => Err(Malformed::Type(other >> 4)),
        }
    }

    fn opened(&mut self) {
        self.open = true;
        if !self.filters.is_empty() {
            packet::subscribe(&mut self.outgoing, self.slots.len() as u16 + 1, &self.filters);
        }
        let mut again: Vec<(u64, u16)> =
            (1..).zip(&self.slots).filter_map(|(id, slot)| Some((slot.as_ref()?.order, id))).collect();
        again.sort_unstable();
        for (_, id) in again {
            let slot = &mut self.slots[usize::from(id) - 1];
            match slot.as_ref().and_then(|publish| publish.kept.as_ref()) {
                Some((topic, payload)) => packet::publish(&mut self.outgoing, topic, payload, Some(id), true),
                None => {
                    *slot = None;
                    self.free.push(id - 1);
                }
            }
        }
    }

    fn acknowledged(&mut self, id: u16) -> Result<(), Malformed> {
        let slot = usize::from(id).checked_sub(1).and_then(|at| self.slots.get_mut(at)).and_then(Option::take);
        let publish = slot.ok_or(Malformed::Unasked(id))?;
        self.free.push(id - 1);
        self.acks.push(publish.ack);
        Ok(())
    }

    fn message(&mut self, head: u8, body: &[u8]) -> Result<(), Malformed> {
        let [high, low, rest @ ..] = body else { return Err(Malformed::Short) };
        let (topic, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))).ok_or(Malformed::Short)?;
        let payload = match (head >> 1) & 0b11 {
            0 => rest,
            1 => {
                let (id, payload) = rest.split_first_chunk::<2>().ok_or(Malformed::Short)?;
                packet::puback(&mut self.outgoing, *id);
                payload
            }
            _ => return Err(Malformed::Qos),
        };
        let topic = std::str::from_utf8(topic).map_err(|_| Malformed::Topic)?.to_owned();
        self.messages.push(Message { topic, payload: Bytes::copy_from_slice(payload) });
        Ok(())
    }
}

fn reason(code: u8) -> &'static str {
    match code {
        1 => "it does not speak MQTT 3.1.1",
        2 => "it does not like the client identifier",
        3 => "it is not available",
        4 => "wrong user or password",
        5 => "not authorized",
        _ => "it does not say why",
    }
}
