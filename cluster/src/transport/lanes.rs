//! What waits to be pushed to a peer, by class, and the tasks that write it.
//!
//! The queues belong to the pair of nodes, not to a connection: when two nodes have dialled each other and one of the connections is
//! given up, the other goes on with the same queues. One writer at a time has a lane.
//!
//! Streams of a higher class go first, strictly. So that the lower ones are not starved, a writer of a higher class waits a moment when
//! a lower one could not write for a while; it waits once for each piece that is stuck, since the peer may be what it is stuck on.
//! What was handed to QUIC is bounded, and what waits of the lower class stays in it: it is sent at the latest when it fills that bound.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use millpond_core::{record::Class, time::Span};
use millpond_env::{Env, Mono};
use quinn::{Connection, SendStream, VarInt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    ABANDONED,
    frame::{LinkError, length_of, priority},
};

/// Bytes that may wait, by class. A longer frame waits alone.
const QUEUE_BYTES_MAX: [usize; 4] = [1 << 20, 4 << 20, 4 << 20, 8 << 20];
/// Written to QUIC at once.
const PIECE_BYTES: usize = 64 << 10;
/// After this a lower class counts as starved.
const STARVED_AFTER: Span = Span::from_millis(250);
/// How long the higher classes let a starved one go first.
const COURTESY: Span = Span::from_millis(500);

pub(super) struct Lanes {
    lanes: [Lane; 4],
    /// Something was written.
    moved: Notify,
}

#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    filled: Notify,
    /// Whoever writes holds it.
    writing: tokio::sync::Mutex<()>,
    /// Since when a piece is stuck, plus one; zero when none is.
    stuck: AtomicU64,
    /// The higher classes have waited for that piece.
    helped: AtomicBool,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

impl Lanes {
    pub fn new() -> Lanes {
        Lanes { lanes: Default::default(), moved: Notify::new() }
    }

    /// Whether there was room.
    pub fn push(&self, class: Class, frame: Bytes) -> bool {
        let lane = &self.lanes[class as usize];
        let mut queue = lane.queue();
        let fits = queue.bytes == 0 || queue.bytes + frame.len() <= QUEUE_BYTES_MAX[class as usize];
        if queue.closed || !fits || length_of(&frame).is_err() {
            return false;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        lane.filled.notify_one();
        true
    }

    /// Nothing is sent any more.
    pub fn close(&self) {
        for lane in &self.lanes {
            *lane.queue() = Queue { closed: true, ..Queue::default() };
        }
    }

    /// Writes a lane to a connection until that connection retires or breaks.
    pub async fn write(&self, env: &Env, connection: &Connection, class: Class, retired: &CancellationToken) {
        let lane = &self.lanes[class as usize];
        let _writing = lane.writing.lock().await;
        let mut stream = None;
        loop {
            let frame = tokio::select! {
                biased;
                () = retired.cancelled() => break,
                _ = connection.closed() => return,
                frame = lane.next() => frame,
            };
            let written = tokio::select! {
                biased;
                () = retired.cancelled() => None,
                written = self.write_frame(env, connection, class, &mut stream, frame.clone()) => Some(written),
            };
            lane.unstick();
            match written {
                Some(Ok(())) => lane.written(&frame),
                Some(Err(_)) => return lane.put_back(frame),
                None => {
                    // A part of a frame may be out; the connection that comes after sends it whole.
                    if let Some(mut stream) = stream {
                        let _ = stream.reset(VarInt::from_u32(ABANDONED));
                    }
                    return lane.put_back(frame);
                }
            }
        }
        if let Some(mut stream) = stream {
            let _ = stream.finish();
        }
    }

    async fn write_frame(
        &self,
        env: &Env,
        connection: &Connection,
        class: Class,
        stream: &mut Option<SendStream>,
        mut frame: Bytes,
    ) -> Result<(), LinkError> {
        let length = length_of(&frame)?;
        if stream.is_none() {
            let mut opened = connection.open_uni().await.map_err(|error| LinkError::Closed(error.to_string()))?;
            let _ = opened.set_priority(priority(class));
            opened.write_all(&[class as u8]).await?;
            *stream = Some(opened);
        }
        let Some(stream) = stream else { return Ok(()) };
        let lane = &self.lanes[class as usize];
        let mut first = Some(Bytes::copy_from_slice(&length));
        while first.is_some() || !frame.is_empty() {
            self.let_starved_go_first(env, class).await;
            lane.stuck.store(env.now().0.saturating_add(1), Ordering::Relaxed);
            if let Some(length) = first.take() {
                stream.write_chunk(length).await?;
            }
            stream.write_chunk(frame.split_to(frame.len().min(PIECE_BYTES))).await?;
            lane.unstick();
            self.moved.notify_waiters();
        }
        Ok(())
    }

    async fn let_starved_go_first(&self, env: &Env, class: Class) {
        let now = env.now();
        let starved = |lane: &&Lane| {
            let stuck = lane.stuck.load(Ordering::Relaxed);
            stuck > 0 && now.since(Mono(stuck - 1)) >= STARVED_AFTER && !lane.helped.load(Ordering::Relaxed)
        };
        if let Some(lane) = self.lanes[class as usize + 1..].iter().find(starved) {
            lane.helped.store(true, Ordering::Relaxed);
            let _ = env.timeout(COURTESY, self.moved.notified()).await;
        }
    }
}

impl Lane {
    async fn next(&self) -> Bytes {
        loop {
            if let Some(frame) = self.queue().frames.pop_front() {
                return frame;
            }
            self.filled.notified().await;
        }
    }

    /// The frame's bytes count until here, so that a queue is not twice as long as it may be.
    fn written(&self, frame: &Bytes) {
        let mut queue = self.queue();
        queue.bytes = queue.bytes.saturating_sub(frame.len());
    }

    fn put_back(&self, frame: Bytes) {
        let mut queue = self.queue();
        if !queue.closed {
            queue.frames.push_front(frame);
            self.filled.notify_one();
        }
    }

    fn unstick(&self) {
        self.stuck.store(0, Ordering::Relaxed);
        self.helped.store(false, Ordering::Relaxed);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
