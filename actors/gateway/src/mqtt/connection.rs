//! One connection after its CONNACK.
//!
//! A single task owns the socket. [`Connection::poll`] looks, always in the same order, for what can go on: the oldest publishes are
//! settled, messages wait for the client, bytes can be written, credit was given, bytes can be read, time is over. Handlers then change
//! the state and append to `out`; nothing else writes to the socket.
//!
//! When the connection has to end it *drains*: it reads no more, but sees through what was read; then it says why and closes.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use millpond_core::{limits, time::Span};
use millpond_env::{Mono, Stream};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::OwnedSemaphorePermit,
};

use super::{
    codec::{Disconnect, Packet, Properties, Publish, Reason, Text, Version, encode, puback, publish},
    connect::Admitted,
    door::{Door, NAME},
    ingest::Ingest,
    input::Input,
    pending::{Entry, Fate, Item, Pending},
    requests::{Chunk, KnownTopic},
};
use crate::{
    auth::Login,
    broker::{End, Sending, Session},
    port::{Keeper, Line, Receipt, Refusal, Source},
};

/// How long a connection may go on after it has to end.
const DRAIN_MAX: Span = Span::from_secs(10);
/// How long a refused client before 5.0 waits for its connection to be closed, so that it does not come again at once.
const REFUSAL_PAUSE: Span = Span::from_secs(1);
/// Time for the last bytes to leave.
const FAREWELL_WAIT: Span = Span::from_secs(1);

/// Why a connection ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// For the log and the metrics.
    pub why: &'static str,
    /// What a client of 5.0 is told; nothing when it ended the connection itself.
    pub reason: Option<Reason>,
    /// The client said that it goes, and its will is void.
    pub good_bye: bool,
    pub expiry_s: Option<u32>,
    /// The client was refused something without being told: it is not to come again at once.
    pub pause: bool,
    /// The client is not there any more, and did not say that it goes.
    pub lost: bool,
}

impl Ended {
    pub(super) fn told(reason: Reason) -> Ended {
        Ended { reason: Some(reason), ..Ended::gone(reason.text()) }
    }

    pub(super) fn gone(why: &'static str) -> Ended {
        Ended { why, reason: None, good_bye: false, expiry_s: None, pause: false, lost: false }
    }

    fn lost(why: &'static str) -> Ended {
        Ended { lost: true, ..Ended::gone(why) }
    }
}

type Credit = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;
type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct Connection {
    pub door: Arc<Door>,
    stream: Box<dyn Stream>,
    pub version: Version,
    pub client_id: Arc<str>,
    pub login: Login,
    source: Source,
    pub session: Arc<Session>,
    pub epoch: u64,
    pub expiry_s: u32,
    client_packet_bytes_max: usize,

    input: Input,
    pub out: BytesMut,
    /// The session has more to send than fitted into `out`.
    more: bool,
    sendings: Vec<Sending>,

    pub known: KnownTopic,
    pub aliases: Vec<Option<Text>>,
    /// What the last read brought, while it waits for credit.
    pub chunk: Chunk,
    credit: Option<Credit>,
    ingest: Ingest,
    pub pending: Pending,

    keep_alive: Option<Span>,
    last_heard: Mono,
    timer: Option<Timer>,
    stopped: Timer,
    draining: Option<Ended>,
    /// As long as the client can be told that its publishes are kept, or has said itself that it goes.
    line: Option<Line>,
    keeper: Keeper,
    /// The socket takes no more bytes.
    deaf: bool,
    /// Publishes after a refused one are not acknowledged any more.
    mute: bool,
}

enum Event {
    Stopped,
    Settled(Entry),
    Stirred,
    Wrote,
    Credit(Option<OwnedSemaphorePermit>),
    Read(io::Result<usize>),
    Timer,
    Drained,
}

impl Connection {
    pub(super) fn new(
        door: Arc<Door>,
        stream: Box<dyn Stream>,
        buffer: BytesMut,
        out: BytesMut,
        admitted: Admitted,
        session: Arc<Session>,
        epoch: u64,
    ) -> Connection {
        let Admitted { version, client_id, login, keep_alive, packet_bytes_max, expiry_s } = admitted;
        // Half as much again as the client promised; 0 is for ever.
        let keep_alive = (keep_alive > 0).then(|| Span::from_millis(i64::from(keep_alive) * 1500));
        let (now, line) = (door.env.now(), Line::default());
        Connection {
            stream,
            version,
            client_id,
            source: Source { login: login.name.clone(), door: NAME },
            login,
            session,
            epoch,
            expiry_s,
            client_packet_bytes_max: packet_bytes_max,
            input: Input::new(buffer),
            out,
            more: false,
            sendings: Vec::new(),
            known: KnownTopic::default(),
            aliases: Vec::new(),
            chunk: Chunk::default(),
            credit: None,
            ingest: Ingest::default(),
            pending: Pending::default(),
            keep_alive,
            last_heard: now,
            timer: keep_alive.map(|span| door.env.clock.timer(now.after(span))),
            stopped: door.stopped(),
            draining: None,
            keeper: line.keeper(),
            line: Some(line),
            deaf: false,
            mute: false,
            door,
        }
    }

    pub(super) async fn run(mut self) -> Ended {
        // Packets may have come right behind CONNECT.
        let mut handled = self.packets();
        let ended = loop {
            if let Err(ended) = handled {
                self.drain(ended);
            }
            let event = poll_fn(|cx| self.poll(cx)).await;
            handled = match event {
                Event::Drained => break self.draining.unwrap_or_else(|| Ended::gone("drained")),
                Event::Stopped => Err(Ended::told(Reason::ServerShuttingDown)),
                Event::Settled(entry) => self.settle(entry),
                Event::Stirred => self.send(),
                Event::Wrote if self.more => self.send(),
                Event::Wrote => Ok(()),
                Event::Credit(credit) => self.submit(credit),
                Event::Read(read) => self.read(read),
                Event::Timer => self.time_is_over(),
            };
        };
        self.farewell(&ended).await;
        ended
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.draining.is_none() && self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Stopped);
        }
        if let Poll::Ready(entry) = self.pending.poll_front(cx) {
            return Poll::Ready(Event::Settled(entry));
        }
        let out_is_full = self.out.len() >= limits::MQTT_OUT_BYTES_MAX;
        if self.draining.is_none() && !out_is_full && self.session.poll_stirred(cx).is_ready() {
            return Poll::Ready(Event::Stirred);
        }
        if !self.out.is_empty() && self.poll_write(cx).is_ready() {
            return Poll::Ready(Event::Wrote);
        }
        if let Some(credit) = &mut self.credit {
            if let Poll::Ready(credit) = credit.as_mut().poll(cx) {
                self.credit = None;
                return Poll::Ready(Event::Credit(credit));
            }
        } else if self.draining.is_some() && self.pending.is_empty() {
            return Poll::Ready(Event::Drained);
        }
        if self.may_read()
            && let Poll::Ready(read) = self.input.poll_read(&mut self.stream, cx)
        {
            return Poll::Ready(Event::Read(read));
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            self.timer = None;
            return Poll::Ready(Event::Timer);
        }
        Poll::Pending
    }

    /// Back-pressure: what was read must have gone on before more is read.
    fn may_read(&self) -> bool {
        self.draining.is_none() && !self.is_held_up() && self.out.len() < limits::MQTT_OUT_BYTES_MAX
    }

    /// The node, not the client, is the reason for reading nothing.
    fn is_held_up(&self) -> bool {
        self.credit.is_some()
            || self.pending.publishes >= limits::MQTT_PENDING_MAX
            || self.pending.bytes >= limits::MQTT_PENDING_BYTES_MAX
    }

    /// Ready when everything is written. A socket that fails is noticed by reading; until then nothing more is written to it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.out.is_empty() && !self.deaf {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.door.metrics.sent_bytes.inc_by(written as u64);
                    self.out.advance(written);
                }
                Poll::Ready(_) => self.deaf = true,
            }
        }
        if self.deaf || self.out.capacity() > limits::MQTT_OUT_BYTES_MAX {
            self.out = BytesMut::new();
        }
        Poll::Ready(())
    }

    fn drain(&mut self, ended: Ended) {
        if self.draining.is_none() {
            self.draining = Some(ended);
            if ended.lost {
                self.line = None;
            }
            self.timer = Some(self.door.env.sleep(DRAIN_MAX));
        }
    }

    fn time_is_over(&mut self) -> Result<(), Ended> {
        if self.draining.is_some() {
            // What is still unsettled stays unacknowledged; the client will send it again.
            self.pending = Pending::default();
            self.credit = None;
            return Ok(());
        }
        let Some(keep_alive) = self.keep_alive else { return Ok(()) };
        let now = self.door.env.now();
        let held_up = self.is_held_up();
        if !held_up && now.since(self.last_heard) >= keep_alive {
            return Err(Ended::told(Reason::KeepAliveTimeout));
        }
        // While nothing is read nobody can know whether the client is silent.
        let since = if held_up { now } else { self.last_heard };
        self.timer = Some(self.door.env.clock.timer(since.after(keep_alive)));
        Ok(())
    }

    fn read(&mut self, read: io::Result<usize>) -> Result<(), Ended> {
        match read {
            Ok(0) => Err(Ended::lost("closed by the client")),
            Err(_) => Err(Ended::lost("connection lost")),
            Ok(bytes) => {
                self.door.metrics.received_bytes.inc_by(bytes as u64);
                if self.keep_alive.is_some() {
                    self.last_heard = self.door.env.now();
                }
                self.packets()
            }
        }
    }

    /// Handles all complete packets, then asks for credit for their telemetry.
    fn packets(&mut self) -> Result<(), Ended> {
        let (packets, rest) = self.input.packets(self.door.settings.packet_bytes_max);
        let handled = self.handle_all(&packets);
        self.forward();
        handled?;
        rest.map_err(|error| self.malformed(error))
    }

    /// Sends the chunk on its way: to the node when it holds telemetry, else straight to the publishes that wait for their turn.
    fn forward(&mut self) {
        if self.chunk.held.is_empty() {
            if let Some(entry) = self.chunk.entry() {
                self.pending.push(entry);
            }
            return;
        }
        let (node, bytes) = (self.door.node.clone(), self.chunk.credit_bytes);
        self.credit = Some(Box::pin(async move { node.credit(bytes).await }));
    }

    fn submit(&mut self, credit: Option<OwnedSemaphorePermit>) -> Result<(), Ended> {
        let held = self.chunk.held.len();
        let submission = credit.is_some().then(|| {
            let received = self.door.env.wall();
            let keeper = self.chunk.comes_again.then(|| self.keeper.clone());
            self.ingest.submission(&mut self.chunk.held, (&self.source, keeper), received, credit)
        });
        self.chunk.held.clear();
        let Some(mut entry) = self.chunk.entry() else { return Ok(()) };
        match submission {
            Some((submission, receipt)) => {
                self.door.node.submit(submission);
                entry.await_receipt(receipt);
            }
            // No credit comes any more: the node is going down.
            None => entry.refuse(Refusal::Stopping),
        }
        self.door.metrics.batch.observe(held as f64);
        self.door.metrics.malformed.inc_by(std::mem::take(&mut self.ingest.malformed));
        self.pending.push(entry);
        Ok(())
    }

    /// Acknowledges publishes whose fate is known, and lets subscribers see them.
    fn settle(&mut self, mut entry: Entry) -> Result<(), Ended> {
        let (mut acknowledged, mut outcome) = (0, Ok(()));
        for item in entry.items.drain(..) {
            let reason = match item.fate {
                Fate::Submitted => reason_of(&entry.verdict),
                Fate::Retained if entry.kept.pop_front() == Some(true) => Reason::Success,
                Fate::Retained => Reason::QuotaExceeded,
                Fate::Passed => Reason::Success,
                Fate::Denied(reason) => reason,
            };
            if reason == Reason::Success {
                if let Some(message) = item.message {
                    self.door.broker.deliver(*message, Some(self.session.key));
                }
                acknowledged += self.acknowledge(item.id, reason);
            } else if let Err(ended) = self.reject(item.id, reason) {
                outcome = Err(ended);
            }
        }
        self.door.metrics.acknowledged.inc_by(acknowledged);
        self.chunk.recycle(entry.items);
        outcome
    }

    fn acknowledge(&mut self, id: u16, reason: Reason) -> u64 {
        if id == 0 || self.mute || self.deaf {
            return 0;
        }
        puback(self.version, id, reason as u8, &mut self.out);
        1
    }

    /// Says no to a publish. A client before 5.0 cannot be told: it gets no acknowledgements any more, and its connection is closed.
    fn reject(&mut self, id: u16, reason: Reason) -> Result<(), Ended> {
        self.door.metrics.rejected.with_label_values(&[reason.text()]).inc();
        if id == 0 {
            return Ok(());
        }
        if self.version.is_5() && reason != Reason::ServerShuttingDown {
            self.acknowledge(id, reason);
            return Ok(());
        }
        if !self.mute && self.draining.is_none() {
            tracing::warn!(client = %self.client_id, reason = reason.text(), "a publish is refused: the connection is closed");
        }
        self.mute = true;
        Err(Ended { pause: true, ..Ended::told(reason) })
    }

    /// Moves messages of the session into `out`.
    fn send(&mut self) -> Result<(), Ended> {
        match self.session.lost(self.epoch) {
            Some(End::TakenOver) => return Err(Ended::told(Reason::SessionTakenOver)),
            Some(End::Overflow) => return Err(Ended::told(Reason::QuotaExceeded)),
            None => {}
        }
        let room = limits::MQTT_OUT_BYTES_MAX.saturating_sub(self.out.len());
        let now = self.door.env.now();
        let mut sendings = std::mem::take(&mut self.sendings);
        self.door.broker.take(&self.session, self.epoch, now, room, &mut sendings);
        self.more = !sendings.is_empty();
        for sending in sendings.drain(..) {
            self.send_one(sending, now);
        }
        self.sendings = sendings;
        Ok(())
    }

    fn send_one(&mut self, sending: Sending, now: Mono) {
        let Sending { id, dup, outgoing } = sending;
        let message = &outgoing.message;
        let packet = Publish {
            dup,
            qos: u8::from(id.is_some()),
            retain: outgoing.retain,
            topic: Text::from(&*message.topic),
            id,
            properties: message.properties.clone(),
            payload: message.payload.clone(),
        };
        let expires_s = message.expires.map(|at| (at.since(now).0 / 1_000_000_000).clamp(1, u32::MAX.into()) as u32);
        let before = self.out.len();
        publish(self.version, &packet, expires_s, &outgoing.subscription_ids, &mut self.out);
        if self.out.len() - before > self.client_packet_bytes_max {
            // The protocol's way: as if it had been sent.
            self.out.truncate(before);
            self.door.metrics.rejected.with_label_values(&["too large for the subscriber"]).inc();
            if let Some(id) = id {
                self.session.acknowledged(self.epoch, id);
            }
        }
    }

    pub(super) fn malformed(&self, error: super::codec::DecodeError) -> Ended {
        use super::codec::DecodeError;
        tracing::info!(client = %self.client_id, %error, "bad bytes from a client");
        Ended::told(match error {
            DecodeError::TooLarge { .. } => Reason::PacketTooLarge,
            DecodeError::BadProperty | DecodeError::Empty | DecodeError::ZeroId => Reason::ProtocolError,
            _ => Reason::MalformedPacket,
        })
    }

    /// The last words of a connection.
    async fn farewell(&mut self, ended: &Ended) {
        let door = self.door.clone();
        if ended.pause && !self.version.is_5() {
            let _ = door.env.timeout(FAREWELL_WAIT, self.flush()).await;
            let _ = door.env.timeout(REFUSAL_PAUSE, poll_fn(|cx| self.stopped.as_mut().poll(cx))).await;
        }
        if let Some(reason) = ended.reason.filter(|_| self.version.is_5()) {
            let packet = Disconnect { reason: reason as u8, properties: Properties::default() };
            encode(self.version, &Packet::Disconnect(packet), &mut self.out);
        }
        let _ = door
            .env
            .timeout(FAREWELL_WAIT, async {
                self.flush().await;
                let _ = self.stream.shutdown().await;
            })
            .await;
    }

    async fn flush(&mut self) {
        poll_fn(|cx| self.poll_write(cx)).await;
    }
}

fn reason_of(verdict: &Receipt) -> Reason {
    match verdict {
        Receipt::Stored { .. } => Reason::Success,
        Receipt::Refused(Refusal::Full) => Reason::QuotaExceeded,
        Receipt::Refused(Refusal::Stopping) => Reason::ServerShuttingDown,
        Receipt::Refused(Refusal::Failed) => Reason::Unspecified,
    }
}

/// A copy of a slice that would keep a much larger read alive, or the slice itself when it is most of it.
pub(super) fn compact(slice: &Bytes, of: usize) -> Bytes {
    if slice.len() * 2 < of { Bytes::copy_from_slice(slice) } else { slice.clone() }
}

impl Item {
    pub(super) fn denied(id: u16, reason: Reason) -> Item {
        Item { id, fate: Fate::Denied(reason), message: None }
    }
}
