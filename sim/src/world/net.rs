//! The network between hosts: streams as TCP gives them, datagrams as UDP gives them, and links that are slow, lose, hold back and
//! break.
//!
//! All of it lives outside of the hosts, as wires do. A host's side of it (ports, sockets, open streams) belongs to one boot: when
//! the power goes, it is gone without a word, and only who sends to it finds out; when just the program ends, the operating system
//! still says goodbye for it.
//!
//! What must stay true:
//! 1. Bytes of a stream arrive in their order, each once, or the stream ends with an error. Loss is delay.
//! 2. Nothing passes a link while it is cut, not even what was on its way.
//! 3. Nothing reaches another host sooner than its link's latency. Only the room of a send window is known at once.
//! 4. A writer is at most [`WINDOW`] bytes ahead of its reader, a socket's unread datagrams are at most [`INBOX_BYTES_MAX`] bytes.
//! 5. Fate is drawn from the stream of randomness of the pair of hosts, so that one link's traffic does not shift another's.

mod connection;
mod datagram;
mod dial;
mod flow;
mod link;
mod neighbours;
mod ports;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use millpond_env::{Datagrams, Listener, Neighbours, Net, Stream};

use self::{connection::Connection, link::Links, ports::Machine};
use super::core::{Core, HostId, Instant, Place};

pub use self::{
    connection::{SEGMENT_BYTES_MAX, WINDOW},
    datagram::{DATAGRAM_BYTES_MAX, INBOX_BYTES_MAX},
    link::LinkSpec,
    ports::BACKLOG_MAX,
};

/// The network as its world sees it. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

/// What went over the network so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Pieces of streams that arrived.
    pub segments: u64,
    /// Bytes of streams and datagrams that arrived.
    pub bytes: u64,
    /// Datagrams that arrived.
    pub datagrams: u64,
    /// Datagrams that never arrived, and transmissions of streams that were made again.
    pub lost: u64,
    /// Datagrams that were sent on their way twice.
    pub duplicated: u64,
    /// Streams that were reset, and connections refused.
    pub refused: u64,
    /// Streams and connections that ended because nothing came through.
    pub timed_out: u64,
}

impl Network {
    pub(crate) fn new(core: Arc<Core>) -> Network {
        let state = State {
            machines: Vec::new(),
            links: Links::new(core.clone()),
            connections: BTreeMap::new(),
            next_id: 0,
            datagram_bytes_max: DATAGRAM_BYTES_MAX,
            stats: NetStats::default(),
        };
        Network { shared: Arc::new(Shared { core, state: Mutex::new(state) }) }
    }

    /// Hosts come in the order of their ids.
    pub(crate) fn add_host(&self, id: HostId, name: &str, address: IpAddr) {
        let mut state = self.shared.state();
        assert_eq!(id.0 as usize, state.machines.len(), "hosts are numbered in their order");
        state.machines.push(Machine::new(name, address));
    }

    /// A host is on again: all its ports are free.
    pub(crate) fn attach(&self, place: Place) {
        self.shared.state().machines[place.host.0 as usize].attach(place.boot);
    }

    /// A boot of a host is over. When its program ended (`says_goodbye`), what it wrote still arrives, and then the end of each
    /// stream; when the power went, nothing more leaves it.
    pub(crate) fn detach(&self, host: HostId, says_goodbye: bool) {
        self.shared.detach(host, says_goodbye);
    }

    pub(crate) fn net(&self, place: Place) -> Arc<dyn Net> {
        Arc::new(HostNet { shared: self.shared.clone(), place })
    }

    /// What links are like that nobody has set.
    pub fn set_default(&self, spec: LinkSpec) {
        self.shared.state().links.set_default(spec);
    }

    /// What the way from `from` to `to` is like; the way back is another one.
    pub fn set_link(&self, from: HostId, to: HostId, spec: LinkSpec) {
        self.shared.state().links.set(from, to, spec);
    }

    pub fn set_both(&self, a: HostId, b: HostId, spec: LinkSpec) {
        self.set_link(a, b, spec);
        self.set_link(b, a, spec);
    }

    pub fn link(&self, from: HostId, to: HostId) -> LinkSpec {
        self.shared.state().links.spec(from, to)
    }

    /// From now on nothing passes from `from` to `to`. A host always reaches itself.
    pub fn cut(&self, from: HostId, to: HostId) {
        self.shared.state().links.cut(from, to);
    }

    pub fn cut_both(&self, a: HostId, b: HostId) {
        self.cut(a, b);
        self.cut(b, a);
    }

    pub fn heal(&self, from: HostId, to: HostId) {
        self.shared.state().links.heal(from, to);
    }

    pub fn heal_both(&self, a: HostId, b: HostId) {
        self.heal(a, b);
        self.heal(b, a);
    }

    /// Cuts a host off from every other one, both ways.
    pub fn cut_all_but_self(&self, host: HostId) {
        let hosts = self.shared.state().machines.len() as u32;
        (0..hosts).map(HostId).filter(|other| *other != host).for_each(|other| self.cut_both(host, other));
    }

    pub fn heal_all(&self) {
        self.shared.state().links.heal_all();
    }

    pub fn is_open(&self, from: HostId, to: HostId) -> bool {
        self.shared.state().links.is_open(from, to)
    }

    /// Longer datagrams are lost, as where the path is narrow and fragments do not pass.
    pub fn set_datagram_bytes_max(&self, bytes: usize) {
        self.shared.state().datagram_bytes_max = bytes;
    }

    pub fn stats(&self) -> NetStats {
        self.shared.state().stats
    }

    /// Bytes of datagrams that went over the line between two hosts, either way.
    pub fn carried(&self, one: HostId, other: HostId) -> u64 {
        let mut state = self.shared.state();
        state.links.carried(one, other) + state.links.carried(other, one)
    }

    /// Bytes that wait, on their way or arrived, until programs of `host` read them.
    pub fn buffered(&self, host: HostId) -> u64 {
        let state = self.shared.state();
        let streams = state.connections.values().map(|connection| connection.buffered(host)).sum::<u64>();
        streams + state.machines[host.0 as usize].unread_datagram_bytes()
    }

    /// Streams that at least one end still holds.
    pub fn open_streams(&self) -> usize {
        self.shared.state().connections.len()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

/// One lock for the whole network: a world is one thread, and a lock that nobody holds is cheap. Wakers are called after it is
/// released; they may belong to anybody.
struct Shared {
    core: Arc<Core>,
    state: Mutex<State>,
}

struct State {
    machines: Vec<Machine>,
    links: Links,
    connections: BTreeMap<u64, Connection>,
    next_id: u64,
    datagram_bytes_max: usize,
    stats: NetStats,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        self.core.now()
    }
}

impl State {
    fn machine(&mut self, host: HostId) -> &mut Machine {
        &mut self.machines[host.0 as usize]
    }

    /// The machine of a boot, while that boot lasts.
    fn live(&mut self, place: Place) -> io::Result<&mut Machine> {
        let machine = self.machine(place.host);
        if machine.is_on(place.boot) { Ok(machine) } else { Err(io::ErrorKind::NetworkDown.into()) }
    }

    /// Numbers of connections, listeners and sockets are never used again, so nothing late finds another one in its place.
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Where those say to be that a host can hear.
    fn heard_by(&self, host: HostId) -> Vec<SocketAddr> {
        let ids = (0..self.machines.len() as u32).map(HostId);
        let heard = ids.filter(|from| *from != host && self.links.is_open(*from, host));
        let machines = heard.map(|from| &self.machines[from.0 as usize]);
        machines.filter_map(|machine| Some(SocketAddr::new(machine.address, machine.says?))).collect()
    }

    /// Which host has an address, as `from` sees it.
    fn host_at(&self, from: HostId, address: IpAddr) -> Option<HostId> {
        if address.is_loopback() || address.is_unspecified() {
            return Some(from);
        }
        self.machines.iter().position(|machine| machine.address == address).map(|at| HostId(at as u32))
    }

    fn host_named(&self, from: HostId, name: &str) -> Option<HostId> {
        if name == "localhost" {
            return Some(from);
        }
        self.machines.iter().position(|machine| machine.name == name).map(|at| HostId(at as u32))
    }
}

/// The network as programs of one boot of a host see it.
struct HostNet {
    shared: Arc<Shared>,
    place: Place,
}

impl fmt::Debug for HostNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostNet").field(&self.place).finish()
    }
}

#[async_trait]
impl Net for HostNet {
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(dial::listen(&self.shared, self.place, addr)?))
    }

    async fn bind(&self, addr: SocketAddr) -> io::Result<Arc<dyn Datagrams>> {
        Ok(Arc::new(datagram::bind(&self.shared, self.place, addr)?))
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut state = self.shared.state();
        let named = state.host_named(self.place.host, host).map(|id| state.machine(id).address);
        let address = host.parse().ok().or(named).ok_or(io::ErrorKind::NotFound)?;
        Ok(vec![SocketAddr::new(address, port)])
    }

    async fn neighbours(&self, _name: &str, at: SocketAddr) -> io::Result<Box<dyn Neighbours>> {
        Ok(Box::new(neighbours::look(&self.shared, self.place, at)?))
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(dial::connect(&self.shared, self.place, host, port).await?))
    }
}
