//! How QUIC is set up between nodes.

use std::{sync::Arc, time::Duration};

use millpond_env::Env;
use millpond_proto::{sites, wire};
use quinn::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::{crypto::CryptoProvider, pki_types::CertificateDer};

use super::{JOIN_ALPN, OpenError};
use crate::{
    identity::NodeIdentity,
    quic::{self, Peers},
};

/// Streams of each kind that a peer may have open at a time: each costs memory.
const STREAMS_MAX: u32 = 16;
const STREAM_WINDOW: u32 = 512 << 10;
/// All streams of a peer together never wait for this one.
const WINDOW: u32 = 3 * STREAMS_MAX * STREAM_WINDOW;
/// Handed to QUIC and not acknowledged yet.
const SEND_WINDOW: u64 = 1 << 20;
const DATAGRAM_BUFFER: usize = 64 << 10;
/// Membership notices sooner that a peer is gone; what is worth keeping is a connection over a short outage.
const IDLE: Duration = Duration::from_secs(120);
/// Below the half minute after which routers forget who talks to whom.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Fits with its headers into the 1,280 bytes that every path of IPv6 carries.
const MTU: u16 = 1200;
/// Strangers that are let wait for their handshake, and bytes that they may have sent by then.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 1 << 20;

pub(super) struct Configs {
    pub server: ServerConfig,
    pub client: ClientConfig,
    pub peers: Arc<Peers>,
}

/// `purpose` names the streams of randomness; each identity has its own. `others` are the authorities of sites whose nodes may ask for
/// records.
pub(super) fn configs(
    env: &Env,
    purpose: &str,
    provider: &Arc<CryptoProvider>,
    identity: &NodeIdentity,
    others: &[CertificateDer<'static>],
) -> Result<Configs, OpenError> {
    let tls = identity.tls();
    // Who joins has no certificate yet, and comes to the founder only.
    let peers = Arc::new(Peers::new(identity.roots.clone(), provider, !identity.founder));
    // TLS cannot tell what a client comes for: what an authority counts for is decided when the protocol is known.
    let callers = match others {
        [] => peers.clone(),
        others => Arc::new(Peers::with_more(&identity.roots, others, provider, !identity.founder)?),
    };
    let mut alpn: Vec<&[u8]> = vec![wire::ALPN];
    alpn.extend(identity.founder.then_some(JOIN_ALPN));
    alpn.extend((!others.is_empty()).then_some(sites::ALPN));
    let server = quic::server_tls(env, provider.clone(), &tls, callers, &alpn)?;
    let client = quic::client_tls(env, provider.clone(), &tls, peers.clone(), wire::ALPN)?;
    let mut server = quic::server_config(env, purpose, server, transport())?;
    server.max_incoming(INCOMING_MAX).incoming_buffer_size_total(INCOMING_BYTES_MAX);
    let client = quic::client_config(env, purpose, client, transport())?;
    Ok(Configs { server, client, peers })
}

pub(super) fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(STREAMS_MAX.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE.as_millis() as u32))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_mtu(MTU);
    Arc::new(transport)
}
