//! Connections to nodes of other sites.
//!
//! Such a connection carries questions one way and answers the other, on bidirectional streams, and nothing else: no datagrams, no
//! pushes, no events of the mesh. Its node is believed by the authority of its own site, which somebody has entered here by hand; what
//! protocol it came for was said in the handshake, and an authority counts for its protocol alone. Who is asked does not ask back over the
//! same connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use millpond_core::{ids::Origin, record::Class, time::Span};
use millpond_proto::{sites, wire::FRAME_BYTES_MAX};
use quinn::{ClientConfig, Connection, RecvStream, SendStream, VarInt};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    time_provider::TimeProvider,
};
use tokio_util::sync::CancellationToken;

use super::{
    Dialect, Event, GOODBYE, MALFORMED, MEETING, OpenError, REFUSED, Shared, config,
    frame::{self, LinkError},
    meet, protocol_of,
    request::{Replies, ReplyFrames},
};
use crate::{
    identity::NodeIdentity,
    quic::{self, Peers, WallClock},
};

/// Of UDP and IP before each datagram.
const HEADER_BYTES: u64 = 28;
/// Connections of one site at a time.
const VISITORS_MAX: usize = 16;
/// A question may be on its way for so long, over a thin line with other things on it.
const ASKING: Span = Span::from_secs(60);
/// Questions of one connection at a time.
const QUESTIONS_MAX: u32 = 16;

/// A site whose nodes are believed for the requests between sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherSite {
    pub site: String,
    pub authority: CertificateDer<'static>,
    /// Nodes of it that are not believed any more.
    pub revoked: std::collections::BTreeSet<Origin>,
}

/// The same with what is needed to talk to it.
pub(super) struct Other {
    trusted: OtherSite,
    peers: Arc<Peers>,
    client: ClientConfig,
    visitors: Arc<AtomicUsize>,
    /// It is not trusted any more.
    ended: CancellationToken,
}

impl Other {
    pub fn trusted(&self) -> OtherSite {
        self.trusted.clone()
    }
}

/// A node of another site that has connected.
pub(super) struct Visitor {
    site: String,
    origin: Origin,
    count: Arc<AtomicUsize>,
    ended: CancellationToken,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection to a node of another site. It ends when it is dropped.
#[derive(Debug)]
pub struct SiteLink {
    connection: Connection,
    pub peer: Origin,
}

impl SiteLink {
    /// A question that more frames follow. The caller sets the limit of time.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn open(&self, class: Class, frame: Bytes) -> Result<(Replies, ReplyFrames), LinkError> {
        ReplyFrames::open(&self.connection, class, frame).await
    }

    /// The caller sets the limit of time.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn ask(&self, frame: Bytes) -> Result<ReplyFrames, LinkError> {
        // Questions are short, and what waits for the answer is not.
        ReplyFrames::ask(&self.connection, Class::Alert, frame).await
    }

    pub fn is_over(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Datagrams that have come over it.
    pub fn received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Bytes that went over the line either way, with the headers of UDP and IP.
    pub fn carried(&self) -> u64 {
        let stats = self.connection.stats();
        let bytes = |udp: quinn::UdpStats| udp.bytes + udp.datagrams * HEADER_BYTES;
        bytes(stats.udp_tx) + bytes(stats.udp_rx)
    }

    /// Resolves, with the reason, when the connection is over.
    pub async fn closed(&self) -> String {
        self.connection.closed().await.to_string()
    }
}

impl Drop for SiteLink {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(GOODBYE), b"goodbye");
    }
}

/// # Errors
/// When an authority, or this node's certificate, is of no use.
pub(super) fn others(
    shared: &Shared,
    purpose: &str,
    identity: &NodeIdentity,
    others: Vec<OtherSite>,
) -> Result<Vec<Other>, OpenError> {
    let provider = &shared.provider;
    let other = |trusted: OtherSite| {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.authority.clone())?;
        let peers = Arc::new(Peers::new(Arc::new(roots), provider, true));
        let client = quic::client_tls(&shared.env, provider.clone(), &identity.tls(), peers.clone(), sites::ALPN)?;
        let purpose = format!("{purpose}/site/{}", trusted.site);
        let client = quic::client_config(&shared.env, &purpose, client, config::transport())?;
        Ok(Other { trusted, peers, client, visitors: Arc::default(), ended: CancellationToken::new() })
    };
    others.into_iter().map(other).collect()
}

/// The new list; connections to sites that are in both, with the same authority, go on.
pub(super) fn replaced(before: Vec<Other>, mut new: Vec<Other>) -> Vec<Other> {
    for old in before {
        match new.iter_mut().find(|other| other.trusted == old.trusted) {
            Some(other) => (other.visitors, other.ended) = (old.visitors, old.ended),
            None => old.ended.cancel(),
        }
    }
    new
}

/// Which site's node is at the other end, as far as it counts here.
fn who(shared: &Shared, connection: &Connection, only: Option<&str>) -> Result<(usize, Origin), &'static str> {
    if protocol_of(connection).as_deref() != Some(sites::ALPN) {
        return Err("another protocol");
    }
    let identity = connection.peer_identity().ok_or("no certificate")?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| "no certificate")?;
    let now: UnixTime = WallClock(shared.env.clone()).current_time().ok_or("no time")?;
    let state = shared.state();
    let named = |other: &&(usize, &Other)| only.is_none_or(|site| other.1.trusted.site == site);
    let mut believed = state.others.iter().enumerate().filter(|other| named(&other));
    let found = believed.find_map(|(at, other)| Some((at, other.peers.check(&chain, now).ok()?)));
    let (at, peer) = found.ok_or("the certificate is not one of a site that is trusted here")?;
    let is_revoked = state.revoked.contains(&peer) || state.others[at].trusted.revoked.contains(&peer);
    if is_revoked { Err("revoked") } else { Ok((at, peer)) }
}

/// Lets a node in that has come to ask.
///
/// # Errors
/// When it may not, or there are too many of its site.
pub(super) fn welcome(shared: &Shared, connection: &Connection) -> Result<Visitor, &'static str> {
    let (at, origin) = who(shared, connection, None)?;
    let state = shared.state();
    let other = state.others.get(at).filter(|_| !state.closed).ok_or("goodbye")?;
    if other.visitors.fetch_add(1, Ordering::Relaxed) >= VISITORS_MAX {
        other.visitors.fetch_sub(1, Ordering::Relaxed);
        return Err("too many connections of this site");
    }
    let (count, ended) = (other.visitors.clone(), other.ended.clone());
    Ok(Visitor { site: other.trusted.site.clone(), origin, count, ended })
}

/// Takes the questions of a connection until its end.
pub(super) async fn serve(shared: &Arc<Shared>, connection: Connection, visitor: Visitor) {
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(QUESTIONS_MAX));
    loop {
        let stream = tokio::select! {
            biased;
            () = visitor.ended.cancelled() => {
                return connection.close(VarInt::from_u32(REFUSED), b"not trusted any more");
            }
            stream = connection.accept_bi() => stream,
        };
        let Ok((send, receive)) = stream else { return };
        let (shared, connection) = (shared.clone(), connection.clone());
        let (site, from) = (visitor.site.clone(), visitor.origin);
        shared.env.clone().spawn(async move {
            let question =
                shared.env.timeout(ASKING, question(&shared, site, from, connection.clone(), (send, receive))).await;
            if let Ok(Err(LinkError::Malformed(why))) = question {
                connection.close(VarInt::from_u32(MALFORMED), why.as_bytes());
            }
        });
    }
}

async fn question(
    shared: &Shared,
    site: String,
    from: Origin,
    connection: Connection,
    (send, mut receive): (SendStream, RecvStream),
) -> Result<(), LinkError> {
    let Some(kind) = frame::read_kind(&mut receive).await? else { return Ok(()) };
    let _ = send.set_priority(frame::priority(frame::class_of(kind)?));
    let Some(frame) = frame::read(&mut receive, sites::QUESTION_BYTES_MAX).await? else { return Ok(()) };
    let more = ReplyFrames::new(connection, receive, FRAME_BYTES_MAX);
    shared.tell(Event::OtherSite { site, from, frame, more, replies: Replies::new(send, Dialect::Own, None) }).await
}

pub(super) async fn call(shared: &Shared, site: &str, addrs: &[SocketAddr]) -> Result<SiteLink, String> {
    let mut whys = Vec::new();
    for addr in addrs {
        match call_at(shared, site, *addr).await {
            Ok(link) => return Ok(link),
            Err(why) => whys.push(format!("{addr}: {why}")),
        }
    }
    Err(if whys.is_empty() { "there is no address".to_owned() } else { whys.join("; ") })
}

async fn call_at(shared: &Shared, site: &str, addr: SocketAddr) -> Result<SiteLink, String> {
    let other = shared.state().others.iter().find(|other| other.trusted.site == site).map(|other| other.client.clone());
    let client = other.ok_or("the site is not trusted")?;
    let connecting = shared.endpoint.connect_with(client, addr, &meet::name_of(addr));
    let connecting = connecting.map_err(|error| error.to_string())?;
    let connected = shared.env.timeout(MEETING, connecting).await.map_err(|_| "no answer".to_owned())?;
    let connection = connected.map_err(|error| error.to_string())?;
    match who(shared, &connection, Some(site)) {
        Ok((_, peer)) => Ok(SiteLink { connection, peer }),
        Err(why) => {
            connection.close(VarInt::from_u32(REFUSED), why.as_bytes());
            Err(why.to_owned())
        }
    }
}
