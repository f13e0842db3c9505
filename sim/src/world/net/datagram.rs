//! Datagrams: each arrives whole, or not at all, or twice, or after its successors.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use millpond_env::Datagrams;

use super::{
    Shared,
    flow::{remember, summary},
    link::Fate,
    ports::hears,
};
use crate::world::core::{HostId, Instant, Place};

/// What fits into an Ethernet frame beside the headers of IP and UDP.
pub const DATAGRAM_BYTES_MAX: usize = 1472;
/// Bytes that wait in a socket to be received; what comes then is lost.
pub const INBOX_BYTES_MAX: usize = 1024 * 1024;

pub(super) struct HostSocket {
    shared: Arc<Shared>,
    place: Place,
    id: u64,
    addr: SocketAddr,
}

pub(super) fn bind(shared: &Arc<Shared>, place: Place, addr: SocketAddr) -> io::Result<HostSocket> {
    let mut state = shared.state();
    let id = state.next_id();
    let addr = state.live(place)?.bind(id, addr)?;
    Ok(HostSocket { shared: shared.clone(), place, id, addr })
}

impl fmt::Debug for HostSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostSocket").field(&self.addr).finish()
    }
}

impl Datagrams for HostSocket {
    fn poll_send(&self, cx: &mut Context<'_>, to: SocketAddr, datagram: &[u8]) -> Poll<io::Result<()>> {
        let now = self.shared.now();
        let mut state = self.shared.state();
        let own = state.live(self.place)?.address;
        let from = self.place.host;
        let Some(host) = state.host_at(from, to.ip()) else {
            state.stats.lost += 1;
            return Poll::Ready(Ok(()));
        };
        let too_long = datagram.len() > state.datagram_bytes_max && from != host;
        let fate = if too_long { Fate::Lost } else { state.links.datagram(from, host, now, datagram.len()) };
        let (arrive, again) = match fate {
            Fate::Arrives(arrive, again) => (arrive, again),
            Fate::Lost => {
                state.stats.lost += 1;
                return Poll::Ready(Ok(()));
            }
            Fate::Busy(until) => {
                let waker = cx.waker().clone();
                self.shared.core.schedule(until, Some(self.place), "room", move || waker.wake());
                return Poll::Pending;
            }
        };
        let Some(boot) = state.machine(host).boot() else {
            state.stats.lost += 1;
            return Poll::Ready(Ok(()));
        };
        let source = if to.ip().is_loopback() { to.ip() } else { own };
        let parcel =
            Parcel { from, to: Place { host, boot }, source: (source, self.addr.port()).into(), port: to.port() };
        if let Some(again) = again {
            state.stats.duplicated += 1;
            self.shared.post(again, parcel, datagram.to_vec());
        }
        self.shared.post(arrive, parcel, datagram.to_vec());
        Poll::Ready(Ok(()))
    }

    fn poll_receive(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut state = self.shared.state();
        let machine = state.live(self.place)?;
        let Some(socket) = machine.sockets.get_mut(&self.addr.port()).filter(|socket| socket.id == self.id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let Some((from, datagram)) = socket.inbox.pop_front() else {
            remember(&mut socket.reader, cx);
            return Poll::Pending;
        };
        socket.inbox_bytes -= datagram.len();
        let n = datagram.len().min(into.len());
        into[..n].copy_from_slice(&datagram[..n]);
        Poll::Ready(Ok((n, from)))
    }

    fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let port = self.addr.port();
        let socket = match state.live(self.place) {
            Ok(machine) if machine.sockets.get(&port).is_some_and(|socket| socket.id == self.id) => {
                machine.sockets.remove(&port)
            }
            _ => None,
        };
        drop(state);
        drop(socket);
    }
}

/// Where a datagram goes.
#[derive(Clone, Copy)]
struct Parcel {
    from: HostId,
    to: Place,
    source: SocketAddr,
    port: u16,
}

impl Shared {
    fn post(self: &Arc<Self>, at: Instant, parcel: Parcel, datagram: Vec<u8>) {
        let shared = self.clone();
        self.core.schedule(at, Some(parcel.to), "datagram", move || shared.deliver(parcel, datagram));
    }

    fn deliver(&self, parcel: Parcel, datagram: Vec<u8>) {
        let mut state = self.state();
        let host = parcel.to.host;
        let passes = state.links.is_open(parcel.from, host);
        let socket = state.machine(host).sockets.get_mut(&parcel.port).filter(|socket| {
            passes
                && hears(socket.address, parcel.from == host)
                && socket.inbox_bytes + datagram.len() <= INBOX_BYTES_MAX
        });
        let Some(socket) = socket else {
            state.stats.lost += 1;
            return;
        };
        let (bytes, detail) = (datagram.len(), summary(socket.id, &datagram));
        socket.inbox_bytes += bytes;
        socket.inbox.push_back((parcel.source, datagram));
        let reader = socket.reader.take();
        state.stats.datagrams += 1;
        state.stats.bytes += bytes as u64;
        drop(state);
        self.core.note(host, "datagram", &detail);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}
