//! The state of a connection: two ends, and a pipe each way.

use std::{collections::VecDeque, io, net::SocketAddr, task::Waker};

use tokio::io::ReadBuf;

use crate::world::core::{HostId, Instant, Place};

/// Bytes that a writer may be ahead of its reader.
pub const WINDOW: usize = 256 * 1024;
/// Bytes of one segment at most.
pub const SEGMENT_BYTES_MAX: usize = 64 * 1024;
/// A writer that waits is told of room when there is this much: not of each byte.
pub(super) const ROOM_WORTH_TELLING: usize = WINDOW / 4;

pub(super) struct Connection {
    pub ends: [End; 2],
    /// `pipes[i]` carries what end `i` writes.
    pub pipes: [Pipe; 2],
}

/// One end: a program's side and what its operating system knows.
pub(super) struct End {
    pub place: Place,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// It takes what arrives. Otherwise its program has closed it, or it has failed, or its power is gone.
    pub open: bool,
    /// A program has it, or will when it accepts.
    pub held: bool,
    /// Its power is gone: not even its operating system sends any more.
    pub dark: bool,
    /// How it failed.
    pub error: Option<io::ErrorKind>,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
}

/// Bytes on their way: waiting for the link, travelling, arrived.
#[derive(Default)]
pub(super) struct Pipe {
    pub wire: VecDeque<Segment>,
    /// How many segments at the head of `wire` travel; the others wait for the link to be open.
    pub travelling: usize,
    /// When the last that travels arrives: no later one arrives before.
    pub last_arrival: Instant,
    /// The arrival of the first that travels is in the heap.
    pub armed: bool,
    pub arrived: VecDeque<Vec<u8>>,
    /// Bytes of the first of `arrived` that were read.
    pub read: usize,
    /// Bytes that count against the window.
    pub ahead: usize,
    /// Bytes that were read, but the writer's side does not know.
    pub untold: usize,
    /// The writer has said that it is done.
    pub finished: bool,
    /// The reader knows.
    pub ended: bool,
    /// Nothing comes through at present.
    pub stall: Option<Stall>,
}

pub(super) struct Segment {
    pub bytes: Vec<u8>,
    pub depart: Instant,
    pub arrive: Instant,
    /// Nothing follows.
    pub last: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    pub since: Instant,
    pub tries: u32,
}

impl End {
    pub fn new(place: Place, local: SocketAddr, peer: SocketAddr) -> End {
        End { place, local, peer, open: true, held: true, dark: false, error: None, reader: None, writer: None }
    }

    pub fn take_wakers(&mut self) -> Vec<Waker> {
        self.reader.take().into_iter().chain(self.writer.take()).collect()
    }
}

impl Connection {
    pub fn new(ends: [End; 2]) -> Connection {
        Connection { ends, pipes: [Pipe::default(), Pipe::default()] }
    }

    /// From which host to which the pipe goes.
    pub fn way(&self, pipe: usize) -> (HostId, HostId) {
        (self.ends[pipe].place.host, self.ends[1 - pipe].place.host)
    }

    /// Nobody has it, and nothing of it can arrive anywhere.
    pub fn is_over(&self) -> bool {
        self.ends.iter().all(|end| !end.open && !end.held)
    }

    /// Bytes on their way to programs of `host`, or there.
    pub fn buffered(&self, host: HostId) -> u64 {
        (0..2).filter(|pipe| self.ends[1 - pipe].place.host == host).map(|pipe| self.pipes[pipe].ahead as u64).sum()
    }
}

impl Pipe {
    pub fn room(&self) -> usize {
        WINDOW.saturating_sub(self.ahead)
    }

    /// Takes bytes from the writer as a segment of their own.
    pub fn push(&mut self, bytes: Vec<u8>, last: bool) {
        self.ahead += bytes.len();
        self.wire.push_back(Segment { bytes, depart: Instant(0), arrive: Instant(0), last });
    }

    /// The first segment, when it has arrived.
    pub fn pop_arrived(&mut self, now: Instant) -> Option<Segment> {
        if self.travelling == 0 || self.wire.front()?.arrive > now {
            return None;
        }
        self.travelling -= 1;
        self.wire.pop_front()
    }

    /// Copies what has arrived into `into`; returns how much.
    pub fn read(&mut self, into: &mut ReadBuf<'_>) -> usize {
        let before = into.remaining();
        while let Some(first) = self.arrived.front() {
            let part = &first[self.read..];
            let n = part.len().min(into.remaining());
            into.put_slice(&part[..n]);
            self.read += n;
            if self.read < first.len() {
                break;
            }
            self.read = 0;
            self.arrived.pop_front();
        }
        before - into.remaining()
    }

    /// Bytes that have arrived and nobody will read.
    pub fn forget_arrived(&mut self) -> usize {
        let bytes = self.arrived.iter().map(Vec::len).sum::<usize>() - self.read;
        self.read = 0;
        self.arrived.clear();
        bytes
    }

    /// What was on its way is lost, and has to be sent again.
    pub fn lose(&mut self) {
        self.travelling = 0;
    }

    /// Nobody will read any of it.
    pub fn discard(&mut self) {
        self.ahead = 0;
        self.travelling = 0;
        self.untold = 0;
        self.read = 0;
        self.wire.clear();
        self.arrived.clear();
        self.stall = None;
    }

    /// Nothing but the end is left to send.
    pub fn only_the_end(&self) -> bool {
        self.wire.iter().all(|segment| segment.last)
    }

    /// What has not left yet never will.
    pub fn cut_off(&mut self, now: Instant) {
        let left = self.wire.iter().take(self.travelling).take_while(|segment| segment.depart <= now).count();
        self.wire.truncate(left);
        self.travelling = left;
        self.stall = None;
    }
}
