//! What waits to be pushed to a peer, by class, and the tasks that write it.
//!
//! The queues belong to the pair of nodes, not to a connection: when two nodes have dialled each other and one of the connections is
//! given up, the other goes on with the same queues. One writer at a time has a lane.
//!
//! Streams of a higher class go first, strictly; so that the lower ones are not starved, all classes take turns for one slice of time in
//! eight. Where nothing lower waits that costs nothing; where all wait, the lowest has at least one part in 32 of the way.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
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
/// Slices of time, and in which of so many all classes are equal.
const SLICE: Span = Span::from_millis(25);
const EQUAL_ONE_IN: u64 = 8;

pub(super) struct Lanes {
    lanes: [Lane; 4],
}

#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    filled: Notify,
    /// Whoever writes holds it.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

impl Lanes {
    pub fn new() -> Lanes {
        Lanes { lanes: Default::default() }
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
            let mut opened = connection.open_uni().await?;
            let _ = opened.set_priority(priority(class));
            opened.write_all(&[class as u8]).await?;
            *stream = Some(opened);
        }
        let Some(stream) = stream else { return Ok(()) };
        stream.write_all(&length).await?;
        while !frame.is_empty() {
            let _ = stream.set_priority(priority_at(env.now(), class));
            stream.write_chunk(frame.split_to(frame.len().min(PIECE_BYTES))).await?;
        }
        Ok(())
    }
}

fn priority_at(now: Mono, class: Class) -> i32 {
    let equal = (now.0 / SLICE.0 as u64).is_multiple_of(EQUAL_ONE_IN);
    if equal { 0 } else { priority(class) }
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

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
