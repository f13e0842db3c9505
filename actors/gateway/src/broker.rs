//! Messages between clients: subscriptions, retained messages and the sessions of clients.
//!
//! The broker is a plain structure behind locks, without tasks or clock: whoever publishes delivers, into the bounded outbox of each
//! subscriber; the subscriber's connection takes from it. Messages reach subscribers in the order of [`SessionKey`]s, which is the order
//! their sessions began in. Sessions live in memory: they survive connections, not the node.
//!
//! Locks are taken in the order sessions → tree → outbox → retained messages, leaving out what is not needed.

mod retained;
mod session;
#[cfg(test)]
mod tests;
pub mod topic;
mod tree;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use millpond_core::{
    limits::{MQTT_SESSIONS_MAX, MQTT_SUBSCRIPTIONS_MAX},
    time::Span,
};
use millpond_env::Mono;
use prometheus::{IntCounter, IntGauge};

use crate::mqtt::codec::{Properties, SubscribeOptions};
use retained::Retained;
pub use session::{End, Outgoing, Sending, Session, SessionKey};
use session::{Pushed, Replay};
use tree::{Level, Subscriber};

/// Retained messages fetched for a new subscription at a time.
const REPLAY_PAGE: usize = 64;

/// Something published.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: Arc<str>,
    pub payload: Bytes,
    /// 0 or 1.
    pub qos: u8,
    pub retain: bool,
    /// What subscribers of 5.0 see of the publisher's properties.
    pub properties: Properties,
    /// Not delivered from then on.
    pub expires: Option<Mono>,
}

impl Message {
    pub fn is_expired(&self, now: Mono) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    fn weight(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.as_bytes().len()
    }
}

/// What is published for a client that went without saying good-bye.
#[derive(Clone, Debug)]
pub struct Will {
    pub message: Message,
    pub delay_s: u32,
    pub login: Arc<str>,
}

/// A connection's request for the session of its client.
#[derive(Debug)]
pub struct Attach {
    pub client_id: Arc<str>,
    pub clean: bool,
    pub expiry_s: u32,
    pub receive_max: u16,
    pub will: Option<Will>,
}

#[derive(Debug)]
pub struct Attached {
    pub session: Arc<Session>,
    pub epoch: u64,
    /// The client had a session, and goes on with it.
    pub present: bool,
    /// Wills that are due because an older connection or session ended.
    pub wills: Vec<Will>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    #[error("the client has as many subscriptions as it may")]
    TooMany,
    #[error("the session belongs to another connection")]
    Lost,
}

#[derive(Debug)]
pub struct Broker {
    sessions: Mutex<Sessions>,
    tree: RwLock<Level>,
    retained: Mutex<Retained>,
    /// Subscriptions of all sessions: with none, nothing is looked up.
    subscriptions: AtomicUsize,
    /// Changes with every change of the tree.
    generation: AtomicU64,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Sessions {
    by_client: BTreeMap<Arc<str>, Arc<Session>>,
    began: u64,
}

#[derive(Debug)]
struct Counts {
    delivered: IntCounter,
    dropped: IntCounter,
    overflows: IntCounter,
    not_retained: IntCounter,
    sessions: IntGauge,
    retained: IntGauge,
    subscriptions: IntGauge,
}

impl Default for Broker {
    fn default() -> Broker {
        Broker::new()
    }
}

impl Broker {
    pub fn new() -> Broker {
        Broker {
            sessions: Mutex::default(),
            tree: RwLock::default(),
            retained: Mutex::default(),
            subscriptions: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            counts: Counts::new(),
        }
    }

    /// Makes the broker's counters part of `registry`.
    ///
    /// # Errors
    /// When names are taken.
    pub fn register(&self, registry: &prometheus::Registry) -> prometheus::Result<()> {
        let counts = &self.counts;
        for counter in [&counts.delivered, &counts.dropped, &counts.overflows, &counts.not_retained] {
            registry.register(Box::new(counter.clone()))?;
        }
        for gauge in [&counts.sessions, &counts.retained, &counts.subscriptions] {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(())
    }

    /// Takes over retained messages (topic, payload, QoS) from the store; returns how many found no room.
    pub fn load_retained(&self, messages: impl IntoIterator<Item = (String, Bytes, u8)>) -> usize {
        let mut retained = lock(&self.retained);
        let mut left_out = 0;
        for (topic, payload, qos) in messages {
            left_out += usize::from(!retained.put(Arc::new(Message::new(&topic, payload, qos, true))));
        }
        self.counts.retained.set(retained.len() as i64);
        self.counts.not_retained.inc_by(left_out as u64);
        left_out
    }

    /// Publishes for the node itself. Keeping a retained message on disk is the caller's business. Wildcards in `topic`, which may come
    /// from the name of a device, become `_`.
    pub fn publish(&self, topic: &str, payload: Bytes, qos: u8, retain: bool) {
        let plain =
            if topic.contains(['+', '#']) { Cow::Owned(topic.replace(['+', '#'], "_")) } else { Cow::Borrowed(topic) };
        self.deliver(Message::new(&plain, payload, qos, retain), None);
    }

    /// Whether somebody subscribed to what would be published on `topic`. Costs next to nothing when nobody subscribed to anything.
    pub fn wanted(&self, topic: &str) -> bool {
        self.subscriptions.load(Ordering::Acquire) > 0
            && !self.tree.read().unwrap_or_else(PoisonError::into_inner).visit(topic, &mut |_| false)
    }

    /// Changes whenever an answer of [`wanted`](Self::wanted) may change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether a retained message of `bytes` on `topic` finds room.
    pub fn may_retain(&self, topic: &str, bytes: usize) -> bool {
        bytes == 0 || lock(&self.retained).has_room(topic, bytes)
    }

    /// Retains the message if it says so, and gives it to all who subscribed; to the publisher `from` unless it subscribed to others'
    /// messages only.
    pub fn deliver(&self, message: Message, from: Option<SessionKey>) {
        let message = Arc::new(message);
        if message.retain {
            let mut retained = lock(&self.retained);
            if !retained.put(message.clone()) {
                self.counts.not_retained.inc();
            }
            self.counts.retained.set(retained.len() as i64);
        }
        if self.subscriptions.load(Ordering::Acquire) == 0 {
            return;
        }
        for session in self.spread(&message, from) {
            self.end(&session, End::Overflow);
        }
    }

    /// Queues the message for each subscriber, once; returns the sessions that had no room.
    fn spread(&self, message: &Arc<Message>, from: Option<SessionKey>) -> Vec<Arc<Session>> {
        let mut receivers: BTreeMap<SessionKey, (&Arc<Session>, Outgoing)> = BTreeMap::new();
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        tree.visit(&message.topic, &mut |subscriber| {
            if subscriber.options.no_local && from == Some(subscriber.session.key) {
                return true;
            }
            let qos = message.qos.min(subscriber.options.qos);
            let (_, outgoing) = receivers.entry(subscriber.session.key).or_insert_with(|| {
                let outgoing = Outgoing { message: message.clone(), qos, retain: false, subscription_ids: Vec::new() };
                (&subscriber.session, outgoing)
            });
            outgoing.qos = outgoing.qos.max(qos);
            outgoing.retain |= message.retain && subscriber.options.retain_as_published;
            if subscriber.id != 0 {
                outgoing.subscription_ids.push(subscriber.id);
            }
            true
        });
        let mut overflowed = Vec::new();
        for (session, outgoing) in receivers.into_values() {
            match session.push(outgoing) {
                Pushed::Queued => self.counts.delivered.inc(),
                Pushed::Dropped => self.counts.dropped.inc(),
                Pushed::Overflow => overflowed.push(session.clone()),
            }
        }
        overflowed
    }

    /// Gives the client its session, old or new, and takes it from the connection that had it. `None` when there are too many.
    pub fn attach(&self, request: Attach) -> Option<Attached> {
        let mut wills = Vec::new();
        let mut sessions = lock(&self.sessions);
        let mut old = sessions.by_client.get(&request.client_id).cloned();
        if let Some(session) = old.take_if(|_| request.clean) {
            wills.extend(session.outbox().will.take());
            self.remove(&mut sessions, &session, End::TakenOver);
        }
        let present = old.is_some();
        let session = match old {
            Some(session) => session,
            None => self.begin(&mut sessions, request.client_id, &mut wills)?,
        };
        let mut outbox = session.outbox();
        // The will of a connection that is taken over is due unless it has a delay: then the client came back in time.
        let was_connected = outbox.connected;
        wills.extend(outbox.will.take_if(|will| was_connected && will.delay_s == 0));
        outbox.epoch += 1;
        outbox.connected = true;
        outbox.expiry_s = request.expiry_s;
        outbox.will = request.will;
        (outbox.ends_at, outbox.will_at) = (None, None);
        outbox.resume(request.receive_max);
        let epoch = outbox.epoch;
        drop(outbox);
        session.stir();
        Some(Attached { session, epoch, present, wills })
    }

    /// A connection ended; `expiry_s` is what it said last about how long its session shall stay. With `good_bye` the will is not
    /// published. Returns whether the connection still had the session, and a will that is due now.
    pub fn detach(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        good_bye: bool,
        expiry_s: Option<u32>,
        now: Mono,
    ) -> (bool, Option<Will>) {
        let mut sessions = lock(&self.sessions);
        let mut outbox = session.outbox();
        if outbox.epoch != epoch || outbox.ended == Some(End::TakenOver) {
            return (false, None);
        }
        outbox.connected = false;
        let expiry_s = expiry_s.unwrap_or(outbox.expiry_s);
        if good_bye {
            outbox.will = None;
        }
        let ends_now = expiry_s == 0 || outbox.ended.is_some();
        let due = outbox.will.take_if(|will| ends_now || will.delay_s == 0);
        outbox.will_at = outbox.will.as_ref().map(|will| seconds_after(now, will.delay_s.min(expiry_s)));
        outbox.ends_at = (expiry_s != u32::MAX).then(|| seconds_after(now, expiry_s));
        drop(outbox);
        if ends_now {
            self.remove(&mut sessions, session, End::TakenOver);
        }
        (true, due)
    }

    /// Ends sessions whose clients stayed away too long; returns wills that are due. To be called about every second.
    pub fn sweep(&self, now: Mono) -> Vec<Will> {
        let mut wills = Vec::new();
        let mut expired = Vec::new();
        let mut sessions = lock(&self.sessions);
        for session in sessions.by_client.values() {
            let mut outbox = session.outbox();
            let over = !outbox.connected && outbox.ends_at.is_some_and(|at| at <= now);
            if over || (!outbox.connected && outbox.will_at.is_some_and(|at| at <= now)) {
                outbox.will_at = None;
                wills.extend(outbox.will.take());
            }
            if over {
                expired.push(session.clone());
            }
        }
        for session in expired {
            self.remove(&mut sessions, &session, End::TakenOver);
        }
        wills
    }

    /// Subscribes a session; `filter` has been checked. Returns the granted QoS.
    ///
    /// # Errors
    /// When the client has too many subscriptions, or the connection has lost its session.
    pub fn subscribe(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        filter: &str,
        options: SubscribeOptions,
        id: u32,
    ) -> Result<u8, SubscribeError> {
        let qos = options.qos.min(1);
        let options = SubscribeOptions { qos, ..options };
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let mut outbox = session.outbox();
        if outbox.epoch != epoch || outbox.ended.is_some() {
            return Err(SubscribeError::Lost);
        }
        let is_new = !outbox.filters.contains_key(filter);
        if is_new && outbox.filters.len() >= MQTT_SUBSCRIPTIONS_MAX {
            return Err(SubscribeError::TooMany);
        }
        outbox.filters.insert(filter.into(), options);
        tree.insert(filter, Subscriber { session: session.clone(), options, id });
        if is_new {
            self.count_subscriptions(1);
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        if options.retain_handling == 0 || (options.retain_handling == 1 && is_new) {
            outbox.replays.retain(|replay| *replay.filter != *filter);
            let until = lock(&self.retained).changes();
            outbox.replays.push_back(Replay { filter: filter.into(), qos, id, after: None, until });
        }
        drop(outbox);
        drop(tree);
        session.stir();
        Ok(qos)
    }

    /// What a session is subscribed to.
    pub fn filters(&self, session: &Session) -> Vec<Box<str>> {
        session.outbox().filters.keys().cloned().collect()
    }

    /// `false` when the session had no such subscription.
    pub fn unsubscribe(&self, session: &Arc<Session>, epoch: u64, filter: &str) -> bool {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let mut outbox = session.outbox();
        if outbox.epoch != epoch || outbox.filters.remove(filter).is_none() {
            return false;
        }
        outbox.replays.retain(|replay| *replay.filter != *filter);
        tree.remove(filter, session.key);
        self.count_subscriptions(-1);
        self.generation.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Takes what may be sent to the client now, about `bytes` of it. Nothing when the connection has lost the session.
    pub fn take(&self, session: &Session, epoch: u64, now: Mono, bytes: usize, out: &mut Vec<Sending>) {
        self.replay(session, now);
        let mut outbox = session.outbox();
        if outbox.epoch == epoch && outbox.ended.is_none() {
            outbox.take(now, bytes, out);
            if !outbox.replays.is_empty() && !out.is_empty() {
                session.stir();
            }
        }
    }

    /// Queues the next retained messages of new subscriptions while there is room for them.
    fn replay(&self, session: &Session, now: Mono) {
        loop {
            let next = {
                let mut outbox = session.outbox();
                if outbox.has_room_for_replay(REPLAY_PAGE) { outbox.replays.pop_front() } else { None }
            };
            let Some(replay) = next else { return };
            let (page, after) =
                lock(&self.retained).page(&replay.filter, replay.after.as_ref(), replay.until, REPLAY_PAGE, now);
            let mut outbox = session.outbox();
            for message in page {
                let qos = message.qos.min(replay.qos);
                let subscription_ids = if replay.id == 0 { Vec::new() } else { vec![replay.id] };
                let outgoing = Outgoing { message, qos, retain: true, subscription_ids };
                match outbox.push(outgoing) {
                    Pushed::Queued => self.counts.delivered.inc(),
                    Pushed::Dropped | Pushed::Overflow => self.counts.dropped.inc(),
                }
            }
            if after.is_some() {
                outbox.replays.push_front(Replay { after, ..replay });
            }
        }
    }

    fn begin(&self, sessions: &mut Sessions, client_id: Arc<str>, wills: &mut Vec<Will>) -> Option<Arc<Session>> {
        if sessions.by_client.len() >= MQTT_SESSIONS_MAX {
            // The session that would end soonest gives way; connected ones never do.
            let waiting = sessions.by_client.values().filter(|session| !session.outbox().connected);
            let victim = waiting.min_by_key(|session| session.outbox().ends_at.unwrap_or(Mono(u64::MAX))).cloned()?;
            wills.extend(victim.outbox().will.take());
            self.counts.overflows.inc();
            self.remove(sessions, &victim, End::TakenOver);
        }
        sessions.began += 1;
        let session = Arc::new(Session::new(SessionKey(sessions.began), client_id.clone()));
        sessions.by_client.insert(client_id, session.clone());
        self.counts.sessions.set(sessions.by_client.len() as i64);
        Some(session)
    }

    fn end(&self, session: &Arc<Session>, end: End) {
        self.counts.overflows.inc();
        tracing::warn!(client = %session.client_id, "messages for the client pile up: its session ends");
        self.remove(&mut lock(&self.sessions), session, end);
    }

    /// Takes a session out of the broker; its connection, if any, is told.
    fn remove(&self, sessions: &mut Sessions, session: &Arc<Session>, end: End) {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let mut outbox = session.outbox();
        outbox.ended = outbox.ended.or(Some(end));
        let filters = std::mem::take(&mut outbox.filters);
        for filter in filters.keys() {
            tree.remove(filter, session.key);
        }
        self.count_subscriptions(-(filters.len() as isize));
        self.generation.fetch_add(1, Ordering::AcqRel);
        drop(outbox);
        drop(tree);
        if sessions.by_client.get(&session.client_id).is_some_and(|held| Arc::ptr_eq(held, session)) {
            sessions.by_client.remove(&session.client_id);
        }
        self.counts.sessions.set(sessions.by_client.len() as i64);
        session.stir();
    }

    fn count_subscriptions(&self, change: isize) {
        let before = self.subscriptions.fetch_add(change as usize, Ordering::AcqRel);
        self.counts.subscriptions.set(before.wrapping_add(change as usize) as i64);
    }
}

impl Message {
    fn new(topic: &str, payload: Bytes, qos: u8, retain: bool) -> Message {
        Message {
            topic: topic.into(),
            payload,
            qos: qos.min(1),
            retain,
            properties: Properties::default(),
            expires: None,
        }
    }
}

impl Counts {
    fn new() -> Counts {
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("the name is well-formed");
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect("the name is well-formed");
        Counts {
            delivered: counter("millpond_mqtt_messages_delivered_total", "Messages queued for a subscriber"),
            dropped: counter(
                "millpond_mqtt_messages_dropped_total",
                "QoS 0 messages dropped because the subscriber was away or too much waited for it",
            ),
            overflows: counter(
                "millpond_mqtt_sessions_overflowed_total",
                "Sessions ended because too much waited for them",
            ),
            not_retained: counter("millpond_mqtt_not_retained_total", "Retained messages for which there was no room"),
            sessions: gauge("millpond_mqtt_sessions", "Sessions of MQTT clients, connected or waiting"),
            retained: gauge("millpond_mqtt_retained_messages", "Retained MQTT messages"),
            subscriptions: gauge("millpond_mqtt_subscriptions", "Subscriptions of MQTT clients"),
        }
    }
}

fn seconds_after(now: Mono, seconds: u32) -> Mono {
    now.after(Span::from_secs(seconds.into()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
