//! QUIC by quinn, on an [`Env`]: its sockets, timers, tasks and randomness come from there and from nowhere else, so that in a
//! simulated world a connection is a function of the seed.
//!
//! quinn draws random numbers in more places than one would think: connection ids of both sides, keys of reset and handshake
//! tokens, packet numbers that it skips. [`endpoint`], [`server_config`] and [`client_config`] replace all of them. A `purpose` names
//! the streams of randomness; every endpoint that starts on a node needs one of its own, or a simulation would give two endpoints
//! the same connection ids.

mod keys;
mod runtime;
mod socket;
#[cfg(test)]
mod tests;
mod trust;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use millpond_env::{Datagrams, Env};
use quinn::{
    ClientConfig, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig, TransportConfig,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};

use self::keys::Cids;

pub(crate) use self::trust::NO_TLS12;
pub use self::{
    keys::WallClock,
    runtime::QuinnRuntime,
    socket::QuinnSocket,
    trust::{Identity, Peers, client_tls, server_tls},
};

/// Length of the connection id that a client makes up for a server that it does not know yet; at least 8 and unpredictable by
/// RFC 9000, section 7.2.
const FIRST_CID_BYTES: usize = 16;

/// An endpoint on a socket; it accepts connections when it has a `server`.
///
/// # Errors
/// When the socket has no address.
pub fn endpoint(
    env: &Env,
    purpose: &str,
    socket: Arc<dyn Datagrams>,
    server: Option<ServerConfig>,
) -> io::Result<Endpoint> {
    let (socket, runtime) = (Arc::new(QuinnSocket::new(socket)), Arc::new(QuinnRuntime::new(env.clone())));
    Endpoint::new_with_abstract_socket(endpoint_config(env, purpose), server, socket, runtime)
}

pub fn endpoint_config(env: &Env, purpose: &str) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(keys::reset_key(env, purpose)));
    config.rng_seed(Some(env.entropy.seed(&format!("{purpose}/quinn"))));
    let (env, purpose) = (env.clone(), format!("{purpose}/cid"));
    config.cid_generator(move || Box::new(Cids::new(env.rng(&purpose))));
    config
}

/// # Errors
/// When the crypto provider of `tls` has no AES-128-GCM, which every first packet of QUIC is sealed with.
pub fn server_config(
    env: &Env,
    purpose: &str,
    tls: rustls::ServerConfig,
    transport: Arc<TransportConfig>,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    let crypto = Arc::new(QuicServerConfig::try_from(tls)?);
    let mut config = ServerConfig::new(crypto, Arc::new(keys::token_key(env, purpose)));
    config.time_source(Arc::new(WallClock(env.clone()))).transport_config(transport);
    Ok(config)
}

/// # Errors
/// See [`server_config`].
pub fn client_config(
    env: &Env,
    purpose: &str,
    tls: rustls::ClientConfig,
    transport: Arc<TransportConfig>,
) -> Result<ClientConfig, NoInitialCipherSuite> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let cids = Mutex::new(Cids::of_length(env.rng(&format!("{purpose}/first-cid")), FIRST_CID_BYTES));
    config
        .transport_config(transport)
        .initial_dst_cid_provider(Arc::new(move || cids.lock().unwrap_or_else(PoisonError::into_inner).generate_cid()));
    Ok(config)
}
