//! How two nodes talk: one UDP port, one QUIC connection per pair of nodes, mutual TLS 1.3.
//!
//! A connection has three lanes. *Datagrams* carry membership. *Pushes* go over one long unidirectional stream per class, by priority,
//! from bounded queues: who pushes does not wait, and a repair brings what did not fit. *Requests* have a bidirectional stream each.
//! The transport does not look into what it carries.
//!
//! What must stay true:
//! 1. A peer is who its certificate says, by the authority of this node's site, and is not revoked. Nobody else's bytes become events,
//!    but for the one frame of who wants to join, and questions of nodes of other sites that are trusted ([`sites`]).
//! 2. Both nodes of a pair settle on the same connection ([`meet`]).
//! 3. Memory per peer is bounded: queues by class out, credit by class in.
//! 4. What breaks the protocol ends that connection and nothing else.

mod config;
mod dial;
mod dialect;
mod frame;
mod join;
mod lanes;
mod link;
mod meet;
mod receive;
mod request;
mod sites;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use millpond_core::{
    ids::Origin,
    planted::{self, Bug},
    record::Class,
    time::Span,
};
use millpond_env::Env;
use millpond_proto::wire;
use quinn::{ClientConfig, ConnectError, Connecting, Connection, Endpoint, Incoming, VarInt};
use rand::RngExt;
use rustls::{crypto::CryptoProvider, pki_types::CertificateDer, time_provider::TimeProvider};
use tokio::sync::mpsc;

use self::{config::Configs, lanes::Lanes, meet::Mark};
pub use self::{
    dialect::Dialect,
    frame::LinkError,
    join::{JoinError, join},
    link::{Link, LinkId},
    receive::Credit,
    request::{Replies, ReplyFrames},
    sites::{OtherSite, SiteLink},
};
use crate::{
    identity::NodeIdentity,
    quic::{self, Peers, WallClock},
};

/// Application protocol of who wants to become a member of the site, or renews its certificate.
pub const JOIN_ALPN: &[u8] = b"millpond-join/1";
/// Bytes of a datagram.
pub const DATAGRAM_BYTES_MAX: usize = 1100;
/// Events that the node has not taken yet.
const EVENTS_MAX: usize = 256;
/// A handshake, and what follows until both sides count on the connection, take no longer.
const MEETING: Span = Span::from_secs(10);
/// A connection that another one has replaced stays for what is on its way.
const LINGER: Span = Span::from_secs(2);
/// Strangers beyond this number show first that they receive at the address that they send from.
const STRANGERS: usize = 16;

/// Why a connection or a stream was closed, on the wire.
const GOODBYE: u32 = 0;
const REFUSED: u32 = 1;
const DUPLICATE: u32 = 2;
const MALFORMED: u32 = 3;
const ABANDONED: u32 = 4;

#[derive(Clone, Debug)]
pub struct Options {
    pub listen: SocketAddr,
    pub identity: Arc<NodeIdentity>,
    pub provider: Arc<CryptoProvider>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot listen on {1}")]
    Listen(#[source] io::Error, SocketAddr),
    #[error("the certificate, its key or the crypto provider cannot be used")]
    Identity(#[from] rustls::Error),
    #[error("the crypto provider lacks what QUIC starts with")]
    Provider(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// What has happened. A `link` is told before anything that came over it; what came over a link may be told after its end.
#[derive(Debug)]
pub enum Event {
    /// The peer's certificate was checked, and both sides count on the connection. When there was another one to the same peer, this one
    /// takes its place and its queues; the other one's end is told when it is over.
    Connected(Link),
    Closed {
        peer: Origin,
        link: LinkId,
        why: String,
    },
    /// No address led to a peer, or the peer was connected already.
    DialFailed {
        addrs: Vec<SocketAddr>,
        why: String,
    },
    Datagram {
        from: Origin,
        bytes: Bytes,
    },
    /// Keep the credit until the frame is dealt with: the peer sends no more than fits.
    Message {
        from: Origin,
        link: LinkId,
        class: Class,
        frame: Bytes,
        credit: Credit,
    },
    Request {
        from: Origin,
        link: LinkId,
        class: Class,
        frame: Bytes,
        replies: Replies,
    },
    /// A node of another site, which is trusted, asks for something.
    OtherSite {
        site: String,
        from: Origin,
        frame: Bytes,
        /// What follows the question, for those that more follows.
        more: ReplyFrames,
        replies: Replies,
    },
    /// Somebody without a certificate that counts wants one.
    Enrol {
        from: SocketAddr,
        frame: Bytes,
        replies: Replies,
    },
}

/// A node's port. When it is dropped without [`Transport::close`] peers learn of it by the silence.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    env: Env,
    endpoint: Endpoint,
    provider: Arc<CryptoProvider>,
    events: mpsc::Sender<Event>,
    boot: u64,
    dials: AtomicU64,
    links: AtomicU64,
    identities: AtomicU64,
    state: Mutex<State>,
}

struct State {
    origin: Origin,
    identity: Arc<NodeIdentity>,
    others: Vec<sites::Other>,
    client: ClientConfig,
    peers: Arc<Peers>,
    revoked: BTreeSet<Origin>,
    dialect: Dialect,
    links: BTreeMap<Origin, Link>,
    strangers: usize,
    closed: bool,
}

impl Transport {
    /// Opens the port. The transport ends when [`Transport::close`] is called or the receiver is dropped.
    ///
    /// # Errors
    /// When the address is taken, or the identity is of no use.
    pub async fn open(env: &Env, options: Options) -> Result<(Transport, mpsc::Receiver<Event>), OpenError> {
        let Options { listen, identity, provider } = options;
        let Configs { server, client, peers } = config::configs(env, "link", &provider, &identity, &[])?;
        let socket = env.net.bind(listen).await.map_err(|error| OpenError::Listen(error, listen))?;
        let endpoint = quic::endpoint(env, "link", socket, Some(server));
        let endpoint = endpoint.map_err(|error| OpenError::Listen(error, listen))?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let state = State {
            origin: identity.origin,
            client,
            peers,
            others: Vec::new(),
            revoked: identity.revoked.clone(),
            dialect: Dialect::Own,
            identity,
            links: BTreeMap::new(),
            strangers: 0,
            closed: false,
        };
        let shared = Arc::new(Shared {
            env: env.clone(),
            endpoint,
            provider,
            events,
            boot: env.rng("link/boot").random(),
            dials: AtomicU64::new(0),
            links: AtomicU64::new(0),
            identities: AtomicU64::new(1),
            state: Mutex::new(state),
        });
        env.spawn(accept(shared.clone()));
        Ok((Transport { shared }, receiver))
    }

    /// # Panics
    /// Never: a bound socket has an address.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.endpoint.local_addr().expect("the socket told its address when it was bound")
    }

    /// Connects to a peer that has these addresses, tried one after the other and together. Ends as [`Event::Connected`] or
    /// [`Event::DialFailed`].
    pub fn dial(&self, addrs: Vec<SocketAddr>) {
        self.shared.env.spawn(dial::dial(self.shared.clone(), addrs));
    }

    /// Whom not to talk to any more.
    pub fn set_revoked(&self, revoked: BTreeSet<Origin>) {
        let mut state = self.shared.state();
        for link in state.links.values().filter(|link| revoked.contains(&link.peer())) {
            link.end(REFUSED, "revoked");
        }
        state.revoked = revoked;
    }

    /// From the next connection on it speaks so: for rehearsals.
    pub fn set_dialect(&self, dialect: Dialect) {
        self.shared.state().dialect = dialect;
    }

    /// Shows another certificate from the next handshake on. The origin is the same. An identity that is of no use is not taken.
    ///
    /// # Errors
    /// When the identity is of no use.
    pub fn replace_identity(&self, identity: &Arc<NodeIdentity>) -> Result<(), OpenError> {
        let others = self.shared.state().others.iter().map(sites::Other::trusted).collect();
        self.shared.begin_anew(identity, others)
    }

    /// Whose nodes may ask for records besides, and be asked for theirs. The connections to a site that is left out, and to one that has another
    /// authority now, end.
    ///
    /// # Errors
    /// When an authority is of no use. Then nothing has changed.
    pub fn set_others(&self, others: Vec<OtherSite>) -> Result<(), OpenError> {
        let identity = self.shared.state().identity.clone();
        self.shared.begin_anew(&identity, others)
    }

    /// Connects to a node of another site at the first of these addresses that leads to one.
    ///
    /// # Errors
    /// When none does, in words.
    pub async fn call(&self, site: &str, addrs: &[SocketAddr]) -> Result<SiteLink, String> {
        sites::call(&self.shared, site, addrs).await
    }

    /// Says goodbye to all peers and ends everything.
    pub async fn close(&self) {
        self.shared.state().closed = true;
        self.shared.endpoint.close(VarInt::from_u32(GOODBYE), b"goodbye");
        let _ = self.shared.env.timeout(LINGER, self.shared.endpoint.wait_idle()).await;
    }
}

async fn accept(shared: Arc<Shared>) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = shared.events.closed() => return shared.endpoint.close(VarInt::from_u32(GOODBYE), b"goodbye"),
            incoming = shared.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let strangers = shared.state().strangers;
        if strangers >= STRANGERS && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
        } else if strangers >= 4 * STRANGERS {
            incoming.refuse();
        } else {
            shared.state().strangers += 1;
            shared.env.spawn(handshake(shared.clone(), incoming));
        }
    }
}

async fn handshake(shared: Arc<Shared>, incoming: Incoming) {
    let connected = match incoming.accept() {
        Ok(connecting) => shared.env.timeout(MEETING, connecting).await,
        Err(error) => Ok(Err(error)),
    };
    let Ok(Ok(connection)) = connected else {
        shared.state().strangers -= 1;
        return;
    };
    if protocol_of(&connection).as_deref() == Some(JOIN_ALPN) {
        join::serve(&shared, connection).await;
        shared.state().strangers -= 1;
        return;
    }
    if protocol_of(&connection).as_deref() == Some(millpond_proto::sites::ALPN) {
        let admitted = sites::welcome(&shared, &connection);
        shared.state().strangers -= 1;
        return match admitted {
            Ok(visitor) => sites::serve(&shared, connection, visitor).await,
            Err(why) => connection.close(VarInt::from_u32(REFUSED), why.as_bytes()),
        };
    }
    let admitted = meet::welcome(&shared, connection).await;
    shared.state().strangers -= 1;
    if let Some(link) = admitted {
        shared.run(link).await;
    }
}

fn protocol_of(connection: &Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.protocol
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_anew(&self, identity: &Arc<NodeIdentity>, others: Vec<OtherSite>) -> Result<(), OpenError> {
        let purpose = format!("link/{}", self.identities.fetch_add(1, Ordering::Relaxed));
        let authorities: Vec<CertificateDer<'static>> = others.iter().map(|other| other.authority.clone()).collect();
        let configs = config::configs(&self.env, &purpose, &self.provider, identity, &authorities)?;
        let new = sites::others(self, &purpose, identity, others)?;
        self.endpoint.set_server_config(Some(configs.server));
        let mut state = self.state();
        let before = std::mem::take(&mut state.others);
        state.others = sites::replaced(before, new);
        (state.client, state.peers, state.identity) = (configs.client, configs.peers, identity.clone());
        Ok(())
    }

    /// # Errors
    /// When nobody takes events any more.
    async fn tell(&self, event: Event) -> Result<(), LinkError> {
        self.events.send(event).await.map_err(|_| LinkError::Closed("the node ends".to_owned()))
    }

    fn connect(&self, addr: SocketAddr) -> Result<Connecting, ConnectError> {
        let client = self.state().client.clone();
        self.endpoint.connect_with(client, addr, &meet::name_of(addr))
    }

    fn next_mark(&self) -> Mark {
        let dialler = self.state().origin;
        // Who answers says its boot.
        Mark { dialler, boot: self.boot, dial: self.dials.fetch_add(1, Ordering::Relaxed), answered: 0 }
    }

    /// Who is at the other end. A session that TLS has resumed shows the certificate of the first time, so it is looked at again here.
    fn peer_of(&self, connection: &Connection) -> Result<Origin, &'static str> {
        if protocol_of(connection).as_deref() != Some(wire::ALPN) {
            return Err("another protocol");
        }
        let identity = connection.peer_identity().ok_or("no certificate")?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| "no certificate")?;
        let now = WallClock(self.env.clone()).current_time().ok_or("no time")?;
        let state = self.state();
        let peer = state.peers.check(&chain, now).map_err(|_| "the certificate is not valid here")?;
        if peer == state.origin {
            return Err("this is the node itself");
        }
        if state.revoked.contains(&peer) && !planted::is(Bug::SkipIdentityCheck) {
            return Err("revoked");
        }
        Ok(peer)
    }

    /// Counts on a connection from now on, in the place of the one that there was; `None` when that one is to be kept.
    fn admit(&self, peer: Origin, mark: Mark, connection: &Connection) -> Option<Link> {
        let mut state = self.state();
        if state.closed || (state.revoked.contains(&peer) && !planted::is(Bug::SkipIdentityCheck)) {
            return None;
        }
        let before = state.links.get(&peer);
        if before.is_some_and(|before| !mark.replaces(before.mark(), peer)) {
            return None;
        }
        let lanes = before.map_or_else(|| Arc::new(Lanes::new()), |before| before.lanes().clone());
        let id = LinkId(self.links.fetch_add(1, Ordering::Relaxed));
        let link = Link::new(peer, id, mark, connection.clone(), (lanes, state.dialect));
        if let Some(before) = state.links.insert(peer, link.clone()) {
            before.retired().cancel();
        }
        Some(link)
    }

    /// Carries a connection until its end.
    async fn run(self: &Arc<Self>, link: Link) {
        if self.tell(Event::Connected(link.clone())).await.is_err() {
            return link.end(GOODBYE, "goodbye");
        }
        receive::start(self, &link);
        for class in Class::ALL {
            let (shared, link) = (self.clone(), link.clone());
            self.env.spawn(async move {
                link.lanes().write(&shared.env, link.connection(), class, link.retired()).await;
            });
        }
        let closed = tokio::select! {
            biased;
            closed = link.connection().closed() => closed.to_string(),
            () = link.retired().cancelled() => {
                let closed = self.env.timeout(LINGER, link.connection().closed()).await;
                link.end(DUPLICATE, "another connection took over");
                closed.map_or_else(|_| "another connection took over".to_owned(), |closed| closed.to_string())
            }
        };
        {
            let mut state = self.state();
            if state.links.get(&link.peer()).is_some_and(|current| current.id() == link.id()) {
                state.links.remove(&link.peer());
                link.lanes().close();
            }
        }
        let _ = self.tell(Event::Closed { peer: link.peer(), link: link.id(), why: closed }).await;
    }
}
