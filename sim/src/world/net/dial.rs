//! How streams begin: a host dials, another one listens.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::Poll,
};

use async_trait::async_trait;
use millpond_env::{Listener, Stream};
use tokio::sync::oneshot;

use super::{
    Shared,
    connection::{Connection, End},
    flow::{HostStream, remember},
    ports::{BACKLOG_MAX, hears},
};
use crate::world::core::{HostId, Instant, Place};

/// Who does not answer is given up after a time drawn from here.
const SILENT_NS: std::ops::Range<u64> = 19_000_000_000..21_000_000_000;
/// The pause before a host knocks again; it doubles each time.
const KNOCK_AGAIN_NS: u64 = 1_000_000_000;
/// How long it takes to learn that nobody has a name.
const LOOK_UP_NS: u64 = 5_000_000;

/// A host that wants a connection.
struct Dial {
    from: Place,
    to: HostId,
    local: SocketAddr,
    remote: SocketAddr,
    give_up: Instant,
    tries: u32,
    answer: oneshot::Sender<io::Result<HostStream>>,
}

pub(super) async fn connect(shared: &Arc<Shared>, place: Place, host: &str, port: u16) -> io::Result<HostStream> {
    let (answer, answered) = oneshot::channel();
    shared.dial(place, host, port, answer);
    answered.await.unwrap_or_else(|_| Err(io::ErrorKind::NetworkDown.into()))
}

impl Shared {
    fn dial(self: &Arc<Self>, from: Place, host: &str, port: u16, answer: oneshot::Sender<io::Result<HostStream>>) {
        let now = self.now();
        let mut state = self.state();
        let textual: Option<IpAddr> = host.parse().ok();
        let to = match textual {
            Some(address) => state.host_at(from.host, address),
            None => state.host_named(from.host, host),
        };
        let give_up = now.after(state.links.draw(from.host, SILENT_NS));
        let Some(to) = to else {
            let (at, error) = match textual {
                Some(_) => (give_up, io::ErrorKind::TimedOut),
                None => (now.after(LOOK_UP_NS), io::ErrorKind::NotFound),
            };
            return self.answer(at, from, answer, Err(error.into()));
        };
        let local_port = match state.live(from).and_then(|machine| machine.dial()) {
            Ok(port) => port,
            Err(error) => return self.answer(now, from, answer, Err(error)),
        };
        let (own, theirs) = (state.machine(from.host).address, state.machine(to).address);
        let theirs = textual.filter(|address| !address.is_unspecified()).unwrap_or(theirs);
        let own = if theirs.is_loopback() { theirs } else { own };
        let (local, remote) = (SocketAddr::new(own, local_port), SocketAddr::new(theirs, port));
        let at = now.after(state.links.latency(from.host, to));
        self.knock_at(at, Dial { from, to, local, remote, give_up, tries: 0, answer });
    }

    fn knock_at(self: &Arc<Self>, at: Instant, dial: Dial) {
        let shared = self.clone();
        self.core.schedule(at, None, "knock", move || shared.knock(dial));
    }

    fn answer(
        &self,
        at: Instant,
        to: Place,
        answer: oneshot::Sender<io::Result<HostStream>>,
        result: io::Result<HostStream>,
    ) {
        self.core.schedule(at, Some(to), "connect", move || {
            let _ = answer.send(result);
        });
    }

    /// A host's first word reaches another one.
    fn knock(self: &Arc<Self>, dial: Dial) {
        let now = self.now();
        let mut state = self.state();
        if state.live(dial.from).is_err() {
            return;
        }
        let (from, to, port) = (dial.from.host, dial.to, dial.remote.port());
        let boot = state.machine(to).boot();
        let passes = state.links.is_open(from, to)
            && state.links.is_open(to, from)
            && !state.links.loses(from, to)
            && !state.links.loses(to, from);
        let back = now.after(state.links.latency(to, from));
        let Some(boot) = boot.filter(|_| passes) else {
            drop(state);
            return self.knock_again(dial);
        };
        let listening = state.machine(to).listeners.get(&port).filter(|door| hears(door.address, from == to));
        let Some(waiting) = listening.map(|door| door.backlog.len()) else {
            state.machine(from).hang_up(dial.local.port());
            state.stats.refused += 1;
            drop(state);
            self.core.note(to, "connect", b"refused");
            return self.answer(back, dial.from, dial.answer, Err(io::ErrorKind::ConnectionRefused.into()));
        };
        if waiting >= BACKLOG_MAX {
            drop(state);
            return self.knock_again(dial);
        }
        let place = Place { host: to, boot };
        let id = state.next_id();
        let ends = [End::new(dial.from, dial.local, dial.remote), End::new(place, dial.remote, dial.local)];
        state.connections.insert(id, Connection::new(ends));
        let door = state.machine(to).listeners.get_mut(&port);
        let waker = door.and_then(|door| {
            door.backlog.push_back(id);
            door.waker.take()
        });
        drop(state);
        self.core.note(to, "connect", &id.to_le_bytes());
        if let Some(waker) = waker {
            self.core.schedule(now, Some(place), "accept", move || waker.wake());
        }
        self.answer(back, dial.from, dial.answer, Ok(HostStream::new(self.clone(), id, 0)));
    }

    fn knock_again(self: &Arc<Self>, mut dial: Dial) {
        let at = self.now().after(KNOCK_AGAIN_NS << dial.tries);
        dial.tries += 1;
        if at < dial.give_up {
            return self.knock_at(at, dial);
        }
        let mut state = self.state();
        state.stats.timed_out += 1;
        let shared = self.clone();
        self.core.schedule(dial.give_up, Some(dial.from), "connect", move || {
            shared.state().machine(dial.from.host).hang_up(dial.local.port());
            let _ = dial.answer.send(Err(io::ErrorKind::TimedOut.into()));
        });
    }
}

/// A program that waits for others to connect.
pub(super) struct HostListener {
    shared: Arc<Shared>,
    place: Place,
    id: u64,
    addr: SocketAddr,
}

pub(super) fn listen(shared: &Arc<Shared>, place: Place, addr: SocketAddr) -> io::Result<HostListener> {
    let mut state = shared.state();
    let id = state.next_id();
    let addr = state.live(place)?.listen(id, addr)?;
    Ok(HostListener { shared: shared.clone(), place, id, addr })
}

impl fmt::Debug for HostListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostListener").field(&self.addr).finish()
    }
}

#[async_trait]
impl Listener for HostListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (id, peer) = std::future::poll_fn(|cx| {
            let mut state = self.shared.state();
            let machine = state.live(self.place)?;
            let Some(door) = machine.listeners.get_mut(&self.addr.port()).filter(|door| door.id == self.id) else {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::NotConnected)));
            };
            let Some(id) = door.backlog.pop_front() else {
                remember(&mut door.waker, cx);
                return Poll::Pending;
            };
            let peer = state.connections.get(&id).map(|connection| connection.ends[1].peer);
            Poll::Ready(peer.map(|peer| (id, peer)).ok_or_else(|| io::ErrorKind::ConnectionAborted.into()))
        })
        .await?;
        Ok((Box::new(HostStream::new(self.shared.clone(), id, 1)), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for HostListener {
    /// Who still waits in the backlog finds its stream ended.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let Ok(machine) = state.live(self.place) else { return };
        let port = self.addr.port();
        if machine.listeners.get(&port).is_none_or(|door| door.id != self.id) {
            return;
        }
        let door = machine.listeners.remove(&port);
        drop(state);
        for id in door.into_iter().flat_map(|door| door.backlog) {
            self.shared.close(id, 1);
        }
    }
}
