//! What the broker keeps for a client: its subscriptions, what waits for it, what it has not acknowledged, its will.
//!
//! A session outlives connections. Each connection holds it under an *epoch*; whoever comes with an older one has been taken over and
//! gets nothing any more. Invariants:
//! 1. Messages leave in the order they came in; after a reconnect those not acknowledged go first, marked as duplicates.
//! 2. A session has no holes: when a QoS 1 message finds no room, the session ends (its client sees that at its next connection) and
//!    nothing is left out silently. QoS 0 messages are dropped and counted.
//! 3. Identifiers of messages in flight are distinct and not 0.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use millpond_core::limits::{MQTT_INFLIGHT_OUT_MAX, MQTT_QUEUE_BYTES_MAX, MQTT_QUEUE_MAX};
use millpond_env::Mono;

use super::{Message, Will};
use crate::mqtt::codec::SubscribeOptions;

/// Numbers sessions in the order they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// Why a connection lost its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A newer connection of the same client has it.
    TakenOver,
    /// More waited for the client than is kept.
    Overflow,
}

#[derive(Debug)]
pub struct Session {
    pub key: SessionKey,
    pub client_id: Arc<str>,
    outbox: Mutex<Outbox>,
    stirred: AtomicBool,
    waker: AtomicWaker,
}

/// A message on its way to one client.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub message: Arc<Message>,
    pub qos: u8,
    pub retain: bool,
    pub subscription_ids: Vec<u32>,
}

/// A message that goes out now.
#[derive(Debug)]
pub struct Sending {
    /// `None` for QoS 0.
    pub id: Option<u16>,
    pub dup: bool,
    pub outgoing: Outgoing,
}

/// Retained messages still to be sent for a new subscription.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    pub filter: Box<str>,
    pub qos: u8,
    pub id: u32,
    pub after: Option<Arc<str>>,
    /// The last change of the retained messages before the subscription.
    pub until: u64,
}

#[derive(Debug)]
pub(super) struct Outbox {
    pub epoch: u64,
    pub connected: bool,
    /// Set once; the session is not in the broker any more.
    pub ended: Option<End>,
    pub filters: BTreeMap<Box<str>, SubscribeOptions>,
    pub replays: VecDeque<Replay>,
    pub will: Option<Will>,
    /// Seconds that the session outlives its connection; `u32::MAX` is for ever.
    pub expiry_s: u32,
    /// When the session ends, and when its will is due, while no connection holds it.
    pub ends_at: Option<Mono>,
    pub will_at: Option<Mono>,
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
    inflight: VecDeque<Inflight>,
    /// Messages at the end of `inflight` that the present connection has not sent yet.
    unsent: usize,
    receive_max: usize,
    last_id: u16,
}

#[derive(Debug)]
struct Inflight {
    id: u16,
    outgoing: Outgoing,
}

/// What became of a message that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// QoS 0 without room, or without a connection.
    Dropped,
    /// QoS 1 without room: the session must end.
    Overflow,
}

impl Session {
    pub(super) fn new(key: SessionKey, client_id: Arc<str>) -> Session {
        let outbox = Outbox {
            epoch: 0,
            connected: false,
            ended: None,
            filters: BTreeMap::new(),
            replays: VecDeque::new(),
            will: None,
            expiry_s: 0,
            ends_at: None,
            will_at: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            inflight: VecDeque::new(),
            unsent: 0,
            receive_max: MQTT_INFLIGHT_OUT_MAX,
            last_id: 0,
        };
        Session {
            key,
            client_id,
            outbox: Mutex::new(outbox),
            stirred: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Resolves when there may be something to send, or the session was lost. One task at a time may wait.
    pub fn poll_stirred(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.stirred.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Why the connection of `epoch` must not use the session any more.
    pub fn lost(&self, epoch: u64) -> Option<End> {
        let outbox = self.outbox();
        if outbox.epoch != epoch { Some(End::TakenOver) } else { outbox.ended }
    }

    /// The client acknowledged a message; makes room for the next.
    pub fn acknowledged(&self, epoch: u64, id: u16) {
        let mut outbox = self.outbox();
        if outbox.epoch != epoch {
            return;
        }
        if let Some(at) = outbox.inflight.iter().position(|inflight| inflight.id == id) {
            // After a reconnect a client may acknowledge what it got before, and is not sent it again.
            if at >= outbox.inflight.len() - outbox.unsent {
                outbox.unsent -= 1;
            }
            outbox.inflight.remove(at);
            drop(outbox);
            self.stir();
        }
    }

    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stir(&self) {
        if !self.stirred.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    pub(super) fn push(&self, outgoing: Outgoing) -> Pushed {
        let pushed = self.outbox().push(outgoing);
        if pushed != Pushed::Dropped {
            self.stir();
        }
        pushed
    }
}

impl Outbox {
    /// A new connection takes the session: what is in flight will be sent again.
    pub(super) fn resume(&mut self, receive_max: u16) {
        self.unsent = self.inflight.len();
        self.receive_max = usize::from(receive_max).min(MQTT_INFLIGHT_OUT_MAX);
    }

    pub(super) fn push(&mut self, outgoing: Outgoing) -> Pushed {
        let weight = outgoing.message.weight();
        let full = self.queue.len() >= MQTT_QUEUE_MAX || self.queued_bytes + weight > MQTT_QUEUE_BYTES_MAX;
        if self.ended.is_some() || (outgoing.qos == 0 && (full || !self.connected)) {
            return Pushed::Dropped;
        }
        if full {
            return Pushed::Overflow;
        }
        self.queued_bytes += weight;
        self.queue.push_back(outgoing);
        Pushed::Queued
    }

    /// Whether retained messages may be queued without pressing on live ones.
    pub(super) fn has_room_for_replay(&self, page: usize) -> bool {
        self.queue.len() < page && self.queued_bytes < MQTT_QUEUE_BYTES_MAX / 4
    }

    /// Takes messages of up to about `bytes` that may go out now.
    pub(super) fn take(&mut self, now: Mono, mut bytes: usize, out: &mut Vec<Sending>) {
        while bytes > 0 && self.unsent > 0 {
            let at = self.inflight.len() - self.unsent;
            if at >= self.receive_max {
                return;
            }
            // Invariant 1: what was sent before, in its order.
            let Some(Inflight { id, outgoing }) = self.inflight.get(at) else { break };
            bytes = bytes.saturating_sub(outgoing.message.weight());
            out.push(Sending { id: Some(*id), dup: true, outgoing: outgoing.clone() });
            self.unsent -= 1;
        }
        while bytes > 0 {
            let Some(next) = self.queue.front() else { break };
            if next.qos > 0 && self.inflight.len() >= self.receive_max {
                break;
            }
            let Some(outgoing) = self.queue.pop_front() else { break };
            self.queued_bytes -= outgoing.message.weight();
            if outgoing.message.is_expired(now) {
                continue;
            }
            bytes = bytes.saturating_sub(outgoing.message.weight());
            let id = (outgoing.qos > 0).then(|| self.next_id());
            if let Some(id) = id {
                self.inflight.push_back(Inflight { id, outgoing: outgoing.clone() });
            }
            out.push(Sending { id, dup: false, outgoing });
        }
    }

    /// Invariant 3. There are far fewer messages in flight than identifiers.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.inflight.iter().any(|inflight| inflight.id == self.last_id) {
                return self.last_id;
            }
        }
    }
}
