//! What a machine has bound: listeners, sockets for datagrams, local ports of streams.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    task::Waker,
};

/// Connections that wait for a listener to accept them; further ones are not answered.
pub const BACKLOG_MAX: usize = 1024;
/// The first of the ports that are taken when nobody asks for one.
const EPHEMERAL: u16 = 49_152;

/// A host's side of the network.
pub(super) struct Machine {
    pub name: String,
    pub address: IpAddr,
    boot: Option<u32>,
    pub listeners: BTreeMap<u16, Listening>,
    pub sockets: BTreeMap<u16, Socket>,
    /// Local ports of streams that this host has opened.
    dialled: BTreeSet<u16>,
    next_port: u16,
    /// The port at which it says on the local network that it takes datagrams.
    pub says: Option<u16>,
}

pub(super) struct Listening {
    pub id: u64,
    pub address: IpAddr,
    pub backlog: VecDeque<u64>,
    pub waker: Option<Waker>,
}

pub(super) struct Socket {
    pub id: u64,
    pub address: IpAddr,
    pub inbox: VecDeque<(SocketAddr, Vec<u8>)>,
    pub inbox_bytes: usize,
    pub reader: Option<Waker>,
}

impl Machine {
    pub fn new(name: &str, address: IpAddr) -> Machine {
        Machine {
            name: name.to_owned(),
            address,
            boot: None,
            listeners: BTreeMap::new(),
            sockets: BTreeMap::new(),
            dialled: BTreeSet::new(),
            next_port: EPHEMERAL,
            says: None,
        }
    }

    pub fn attach(&mut self, boot: u32) {
        self.boot = Some(boot);
    }

    /// All ports are free; returns what held them, for the caller to drop when nothing is locked.
    pub fn detach(&mut self) -> (BTreeMap<u16, Listening>, BTreeMap<u16, Socket>) {
        self.boot = None;
        self.dialled.clear();
        self.says = None;
        (std::mem::take(&mut self.listeners), std::mem::take(&mut self.sockets))
    }

    pub fn boot(&self) -> Option<u32> {
        self.boot
    }

    pub fn is_on(&self, boot: u32) -> bool {
        self.boot == Some(boot)
    }

    pub fn unread_datagram_bytes(&self) -> u64 {
        self.sockets.values().map(|socket| socket.inbox_bytes as u64).sum()
    }

    pub fn listen(&mut self, id: u64, addr: SocketAddr) -> io::Result<SocketAddr> {
        self.owns(addr.ip())?;
        let port = self.port(addr.port(), |machine, port| {
            machine.listeners.contains_key(&port) || machine.dialled.contains(&port)
        })?;
        let listening = Listening { id, address: addr.ip(), backlog: VecDeque::new(), waker: None };
        self.listeners.insert(port, listening);
        Ok(SocketAddr::new(addr.ip(), port))
    }

    pub fn bind(&mut self, id: u64, addr: SocketAddr) -> io::Result<SocketAddr> {
        self.owns(addr.ip())?;
        let port = self.port(addr.port(), |machine, port| machine.sockets.contains_key(&port))?;
        let socket = Socket { id, address: addr.ip(), inbox: VecDeque::new(), inbox_bytes: 0, reader: None };
        self.sockets.insert(port, socket);
        Ok(SocketAddr::new(addr.ip(), port))
    }

    /// A local port for a stream to somewhere else.
    pub fn dial(&mut self) -> io::Result<u16> {
        let port =
            self.port(0, |machine, port| machine.listeners.contains_key(&port) || machine.dialled.contains(&port))?;
        self.dialled.insert(port);
        Ok(port)
    }

    pub fn hang_up(&mut self, port: u16) {
        self.dialled.remove(&port);
    }

    fn owns(&self, address: IpAddr) -> io::Result<()> {
        let own = address.is_unspecified() || address.is_loopback() || address == self.address;
        if own { Ok(()) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
    }

    /// The port that was asked for, or for 0 the next one that is free.
    fn port(&mut self, wanted: u16, taken: impl Fn(&Machine, u16) -> bool) -> io::Result<u16> {
        if wanted != 0 {
            return if taken(self, wanted) { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(wanted) };
        }
        for _ in EPHEMERAL..=u16::MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(EPHEMERAL);
            if !taken(self, port) {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

/// Whether something bound to `address` hears what was sent by the machine itself (`inside`) or by another.
pub(super) fn hears(address: IpAddr, inside: bool) -> bool {
    inside || !address.is_loopback()
}
