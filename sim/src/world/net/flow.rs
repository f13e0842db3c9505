//! How bytes of streams move: what programs do with their ends, and what becomes of it on the way.
//!
//! The arrival of a pipe's first segment is in the heap, never more of it, so ties cannot change the order. A pipe through which
//! nothing comes (a link is cut, the other end is gone) stalls: it tries again after 200 ms, 400 ms, 800 ms and so on, as TCP
//! retransmits, until it comes through, is told that nobody is there, or gives up.

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use foldhash::fast::FixedState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    NetStats, Shared, State,
    connection::{Connection, End, ROOM_WORTH_TELLING, SEGMENT_BYTES_MAX, Stall},
    link::{Links, RETRANSMIT_NS},
};
use crate::world::core::{HostId, Instant};

/// A stream gives up when the path has been broken for so long.
const BROKEN_NS_MAX: u64 = 60_000_000_000;
/// Or when the other host was silent for so long.
const SILENT_NS_MAX: u64 = 20_000_000_000;

/// A program's end of a stream.
pub(super) struct HostStream {
    shared: Arc<Shared>,
    id: u64,
    end: usize,
}

impl HostStream {
    /// Takes over the end that was held for the program.
    pub fn new(shared: Arc<Shared>, id: u64, end: usize) -> HostStream {
        HostStream { shared, id, end }
    }
}

impl fmt::Debug for HostStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostStream").field("id", &self.id).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        self.shared.close(self.id, self.end);
    }
}

impl AsyncRead for HostStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.shared.read(self.id, self.end, cx, into)
    }
}

impl AsyncWrite for HostStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.write(self.id, self.end, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.shut_down(self.id, self.end))
    }
}

/// A pipe and what it needs to move.
struct Flow<'a> {
    shared: &'a Arc<Shared>,
    links: &'a mut Links,
    stats: &'a mut NetStats,
    connection: &'a mut Connection,
    id: u64,
    pipe: usize,
    now: Instant,
}

impl Shared {
    fn read(
        self: &Arc<Self>,
        id: u64,
        end: usize,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        let Some(mut flow) = self.flow(&mut state, id, 1 - end) else { return Poll::Ready(Err(gone())) };
        let pipe = &mut flow.connection.pipes[1 - end];
        if !pipe.arrived.is_empty() {
            let bytes = pipe.read(into);
            flow.credit(bytes);
            return Poll::Ready(Ok(()));
        }
        if pipe.ended {
            return Poll::Ready(Ok(()));
        }
        let me = &mut flow.connection.ends[end];
        if let Some(error) = me.failure() {
            return Poll::Ready(Err(error));
        }
        remember(&mut me.reader, cx);
        Poll::Pending
    }

    fn write(self: &Arc<Self>, id: u64, end: usize, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let Some(mut flow) = self.flow(&mut state, id, end) else { return Poll::Ready(Err(gone())) };
        let Connection { ends, pipes } = &mut *flow.connection;
        if let Some(error) = ends[end].failure() {
            return Poll::Ready(Err(error));
        }
        if pipes[end].finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = bytes.len().min(pipes[end].room()).min(SEGMENT_BYTES_MAX);
        if n > 0 {
            flow.send(&bytes[..n]);
        } else if !bytes.is_empty() {
            remember(&mut ends[end].writer, cx);
            if !ends[1 - end].open {
                flow.stall();
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(n))
    }

    fn shut_down(self: &Arc<Self>, id: u64, end: usize) -> io::Result<()> {
        let mut state = self.state();
        let mut flow = self.flow(&mut state, id, end).ok_or_else(gone)?;
        if let Some(error) = flow.connection.ends[end].failure() {
            return Err(error);
        }
        flow.finish();
        Ok(())
    }

    /// The program lets its end go: what it has written still arrives, and then the end.
    pub(super) fn close(self: &Arc<Self>, id: u64, end: usize) {
        let mut state = self.state();
        let wakers = state.connections.contains_key(&id).then(|| {
            let wakers = self.let_go(&mut state, id, end);
            state.bury(id);
            wakers
        });
        drop(state);
        drop(wakers);
    }

    fn let_go(self: &Arc<Self>, state: &mut State, id: u64, end: usize) -> Vec<Waker> {
        let Some(mut flow) = self.flow(state, id, 1 - end) else { return Vec::new() };
        let me = &mut flow.connection.ends[end];
        if !std::mem::take(&mut me.held) {
            return Vec::new();
        }
        me.open = false;
        let wakers = me.take_wakers();
        let failed = me.error.is_some();
        let unread = flow.connection.pipes[1 - end].forget_arrived();
        flow.credit(unread);
        flow.pipe = end;
        if !failed {
            flow.finish();
        }
        wakers
    }

    /// See [`super::Network::detach`].
    pub(super) fn detach(self: &Arc<Self>, host: HostId, says_goodbye: bool) {
        let mut state = self.state();
        let bound = state.machine(host).detach();
        let theirs = |end: &End| end.place.host == host && !end.dark;
        let ids: Vec<u64> = state
            .connections
            .iter()
            .filter(|(_, connection)| connection.ends.iter().any(theirs))
            .map(|(id, _)| *id)
            .collect();
        let mut wakers = Vec::new();
        for id in ids {
            for end in 0..2 {
                if !state.connections.get(&id).is_some_and(|connection| theirs(&connection.ends[end])) {
                    continue;
                }
                wakers.extend(if says_goodbye {
                    self.let_go(&mut state, id, end)
                } else {
                    self.darken(&mut state, id, end)
                });
            }
            state.bury(id);
        }
        drop(state);
        drop((bound, wakers));
    }

    /// The power of an end is gone. The other one notices nothing before it sends.
    fn darken(self: &Arc<Self>, state: &mut State, id: u64, end: usize) -> Vec<Waker> {
        let Some(mut flow) = self.flow(state, id, 1 - end) else { return Vec::new() };
        let Connection { ends, pipes } = &mut *flow.connection;
        let me = &mut ends[end];
        (me.dark, me.open, me.held) = (true, false, false);
        let wakers = me.take_wakers();
        pipes[end].cut_off(flow.now);
        let towards = &mut pipes[1 - end];
        towards.forget_arrived();
        towards.lose();
        towards.armed = false;
        if !towards.wire.is_empty() || ends[1 - end].writer.is_some() {
            flow.stall();
        }
        wakers
    }

    /// What was due has arrived, in the runtime of the host that it was meant for.
    fn arrive(self: &Arc<Self>, id: u64, pipe: usize) {
        let mut state = self.state();
        let Some(mut flow) = self.flow(&mut state, id, pipe) else { return };
        let reader = flow.arrive();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// A stalled pipe tries again.
    fn retry(self: &Arc<Self>, id: u64, pipe: usize) {
        let mut state = self.state();
        let Some((_, to)) = state.connections.get(&id).map(|connection| connection.way(pipe)) else { return };
        let is_up = state.machine(to).boot().is_some();
        if let Some(mut flow) = self.flow(&mut state, id, pipe) {
            flow.retry(is_up);
        }
        state.bury(id);
    }

    fn flow<'a>(self: &'a Arc<Self>, state: &'a mut State, id: u64, pipe: usize) -> Option<Flow<'a>> {
        let State { connections, links, stats, .. } = state;
        let connection = connections.get_mut(&id)?;
        Some(Flow { shared: self, links, stats, connection, id, pipe, now: self.now() })
    }
}

impl State {
    /// Forgets a connection that is over.
    fn bury(&mut self, id: u64) {
        if self.connections.get(&id).is_some_and(Connection::is_over)
            && let Some(connection) = self.connections.remove(&id)
        {
            let dialler = &connection.ends[0];
            if let Ok(machine) = self.live(dialler.place) {
                machine.hang_up(dialler.local.port());
            }
        }
    }
}

impl Flow<'_> {
    /// Takes bytes from the writer; they join those that still wait for the link.
    fn send(&mut self, bytes: &[u8]) {
        let (from, to) = self.connection.way(self.pipe);
        let pipe = &mut self.connection.pipes[self.pipe];
        let travels = pipe.travelling == pipe.wire.len();
        if let Some(tail) = pipe.wire.back_mut()
            && !(tail.last || travels && tail.depart <= self.now)
            && tail.bytes.len() + bytes.len() <= SEGMENT_BYTES_MAX
        {
            tail.bytes.extend_from_slice(bytes);
            pipe.ahead += bytes.len();
            if travels {
                let way = tail.arrive.0 - tail.depart.0;
                tail.depart = self.links.lengthen(from, to, self.now, bytes.len());
                tail.arrive = tail.arrive.max(tail.depart.after(way));
                pipe.last_arrival = tail.arrive;
            }
            return;
        }
        pipe.push(bytes.to_vec(), false);
        self.launch();
    }

    fn finish(&mut self) {
        let pipe = &mut self.connection.pipes[self.pipe];
        if !std::mem::replace(&mut pipe.finished, true) {
            pipe.push(Vec::new(), true);
            self.launch();
        }
    }

    /// Sends what waits, if anybody is there.
    fn launch(&mut self) {
        let (from, to) = self.connection.way(self.pipe);
        let Connection { ends, pipes } = &mut *self.connection;
        let receiver = &ends[1 - self.pipe];
        if pipes[self.pipe].stall.is_some() {
            return;
        }
        if receiver.open && self.links.is_open(from, to) {
            return self.travel();
        }
        // Who has closed its end in peace does not mind that the other one does, too.
        let parted = !receiver.open && !receiver.dark && receiver.error.is_none();
        if parted && pipes[self.pipe].only_the_end() {
            return pipes[self.pipe].discard();
        }
        self.stall();
    }

    /// All that waits leaves.
    fn travel(&mut self) {
        let (from, to) = self.connection.way(self.pipe);
        let pipe = &mut self.connection.pipes[self.pipe];
        for segment in pipe.wire.iter_mut().skip(pipe.travelling) {
            let transit = self.links.segment(from, to, self.now, segment.bytes.len());
            segment.depart = transit.depart;
            segment.arrive = transit.arrive.max(pipe.last_arrival);
            pipe.last_arrival = segment.arrive;
            self.stats.lost += u64::from(transit.losses);
        }
        pipe.travelling = pipe.wire.len();
        self.arm();
    }

    fn arm(&mut self) {
        let pipe = &mut self.connection.pipes[self.pipe];
        if pipe.armed || pipe.travelling == 0 {
            return;
        }
        let Some(first) = pipe.wire.front() else { return };
        pipe.armed = true;
        let (shared, id, pipe) = (self.shared.clone(), self.id, self.pipe);
        let place = self.connection.ends[1 - pipe].place;
        self.shared.core.schedule(first.arrive, Some(place), "segment", move || shared.arrive(id, pipe));
    }

    fn arrive(&mut self) -> Option<Waker> {
        let (from, to) = self.connection.way(self.pipe);
        let Connection { ends, pipes } = &mut *self.connection;
        let (pipe, receiver) = (&mut pipes[self.pipe], &mut ends[1 - self.pipe]);
        pipe.armed = false;
        if !self.links.is_open(from, to) {
            self.stats.lost += pipe.travelling as u64;
            pipe.lose();
            self.stall();
            return None;
        }
        let mut unwanted = false;
        while let Some(segment) = pipe.pop_arrived(self.now) {
            if !receiver.open {
                pipe.ahead -= segment.bytes.len();
                unwanted |= !segment.last;
                continue;
            }
            self.stats.segments += 1;
            self.stats.bytes += segment.bytes.len() as u64;
            self.shared.core.note(to, "stream", &summary(self.id, &segment.bytes));
            if segment.last {
                pipe.ended = true;
            } else {
                pipe.arrived.push_back(segment.bytes);
            }
        }
        let reader = receiver.reader.take();
        if unwanted || !self.links.is_open(to, from) {
            self.stall();
        }
        self.arm();
        reader
    }

    /// `bytes` were read (or nobody will): so much may be written again, as soon as the writer's side knows.
    fn credit(&mut self, bytes: usize) {
        let (from, to) = self.connection.way(self.pipe);
        let Connection { ends, pipes } = &mut *self.connection;
        let (pipe, writer) = (&mut pipes[self.pipe], &mut ends[self.pipe]);
        if bytes == 0 {
            return;
        }
        if !self.links.is_open(to, from) {
            pipe.untold += bytes;
            return self.stall();
        }
        pipe.ahead -= bytes;
        if pipe.room() >= ROOM_WORTH_TELLING
            && let Some(waker) = writer.writer.take()
        {
            let at = self.now.after(self.links.latency(to, from));
            self.shared.core.schedule(at, Some(writer.place), "room", move || waker.wake());
        }
    }

    /// Nothing comes through. Who is there without wanting it says so after a round trip; silence takes longer.
    fn stall(&mut self) {
        let (from, to) = self.connection.way(self.pipe);
        if self.connection.pipes[self.pipe].stall.is_some() {
            return;
        }
        let is_open = self.connection.ends[1 - self.pipe].open;
        let first = if is_open { RETRANSMIT_NS } else { self.links.latency(from, to) + self.links.latency(to, from) };
        self.connection.pipes[self.pipe].stall = Some(Stall { since: self.now, tries: 0 });
        self.retry_at(self.now.after(first));
    }

    fn retry_at(&self, at: Instant) {
        let (shared, id, pipe) = (self.shared.clone(), self.id, self.pipe);
        self.shared.core.schedule(at, None, "retransmit", move || shared.retry(id, pipe));
    }

    fn retry(&mut self, is_up: bool) {
        let (from, to) = self.connection.way(self.pipe);
        let Connection { ends, pipes } = &mut *self.connection;
        let Some(stall) = pipes[self.pipe].stall else { return };
        if ends[self.pipe].dark || ends[self.pipe].error.is_some() {
            return pipes[self.pipe].discard();
        }
        let (reaches, is_answered) = (self.links.is_open(from, to), self.links.is_open(to, from));
        let is_open = ends[1 - self.pipe].open;
        if is_open && reaches {
            if is_answered {
                pipes[self.pipe].stall = None;
                let untold = std::mem::take(&mut pipes[self.pipe].untold);
                self.credit(untold);
            }
            self.travel();
            if is_answered {
                return;
            }
        } else if reaches && is_answered && is_up {
            return self.fail(io::ErrorKind::ConnectionReset);
        }
        let limit = if reaches && is_answered { SILENT_NS_MAX } else { BROKEN_NS_MAX };
        let give_up = stall.since.after(limit);
        if self.now >= give_up {
            return self.fail(io::ErrorKind::TimedOut);
        }
        let tries = stall.tries + 1;
        self.connection.pipes[self.pipe].stall = Some(Stall { tries, ..stall });
        self.retry_at(self.now.after(RETRANSMIT_NS << tries).min(give_up));
    }

    /// The writer's end is told that the stream is over.
    fn fail(&mut self, how: io::ErrorKind) {
        let Connection { ends, pipes } = &mut *self.connection;
        let end = &mut ends[self.pipe];
        pipes[self.pipe].discard();
        match how {
            io::ErrorKind::TimedOut => self.stats.timed_out += 1,
            _ => self.stats.refused += 1,
        }
        self.shared.core.note(end.place.host, "close", how.to_string().as_bytes());
        (end.open, end.error) = (false, Some(how));
        let wakers = end.take_wakers();
        if !wakers.is_empty() {
            self.shared.core.schedule(self.now, Some(end.place), "closed", move || {
                wakers.into_iter().for_each(Waker::wake);
            });
        }
    }
}

impl End {
    fn failure(&self) -> Option<io::Error> {
        match self.error {
            Some(kind) => Some(kind.into()),
            None if !self.open => Some(gone()),
            None => None,
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

pub(super) fn remember(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// What the trace keeps of bytes that arrived.
pub(super) fn summary(id: u64, bytes: &[u8]) -> [u8; 20] {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(bytes);
    let mut detail = [0; 20];
    detail[..8].copy_from_slice(&id.to_le_bytes());
    detail[8..12].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    detail[12..].copy_from_slice(&hasher.finish().to_le_bytes());
    detail
}
