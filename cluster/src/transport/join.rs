//! One question by somebody who has no certificate that counts, and its answer.
//!
//! Who joins knows the fingerprint of the site's authority and nothing else; it says nothing before the other side has shown a
//! certificate by that authority. The question itself must prove what it asks for: the transport only carries it.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use millpond_core::time::Span;
use millpond_env::Env;
use quinn::{Connection, Endpoint, VarInt};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};

use super::{
    Dialect, Event, GOODBYE, JOIN_ALPN, MALFORMED, MEETING, Shared, config, frame, meet,
    request::{Replies, ReplyFrames},
};
use crate::{
    identity::fingerprint,
    quic::{self, Peers, WallClock},
};

/// Bytes of the question, and of the answer.
const JOIN_BYTES_MAX: usize = 16 << 10;
/// The node writes to its disk before it answers.
const ANSWER: Span = Span::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("no socket can be opened")]
    Socket(#[from] std::io::Error),
    #[error("the crypto provider cannot be used")]
    Provider(#[from] Error),
    #[error("the crypto provider lacks what QUIC starts with")]
    NoInitial(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    #[error("no address leads to the node: {0}")]
    Unreachable(String),
    #[error("the node did not answer: {0}")]
    NoAnswer(String),
}

/// Asks the first of the addresses at which a node of the authority with this fingerprint answers. A node that asks more than once in a
/// boot gives each time another `purpose`.
///
/// # Errors
/// When none answers.
pub async fn join(
    env: &Env,
    purpose: &str,
    provider: &Arc<CryptoProvider>,
    addrs: &[SocketAddr],
    authority: [u8; 32],
    frame: Bytes,
) -> Result<Bytes, JoinError> {
    let mut whys = Vec::new();
    for (n, addr) in addrs.iter().enumerate() {
        let endpoint = endpoint(env, &format!("{purpose}/{n}"), provider, *addr, authority).await?;
        match connect(env, &endpoint, *addr).await {
            Ok(connection) => {
                let answer = env.timeout(ANSWER, ask(&connection, frame)).await;
                connection.close(VarInt::from_u32(GOODBYE), b"thank you");
                let _ = env.timeout(Span::from_secs(1), endpoint.wait_idle()).await;
                return answer.unwrap_or_else(|_| Err(JoinError::NoAnswer("it takes too long".to_owned())));
            }
            Err(why) => whys.push(format!("{addr}: {why}")),
        }
    }
    Err(JoinError::Unreachable(if whys.is_empty() { "there is none".to_owned() } else { whys.join("; ") }))
}

async fn endpoint(
    env: &Env,
    purpose: &str,
    provider: &Arc<CryptoProvider>,
    addr: SocketAddr,
    authority: [u8; 32],
) -> Result<Endpoint, JoinError> {
    let verifier = Arc::new(ByFingerprint { authority, provider: provider.clone() });
    let mut tls = ClientConfig::builder_with_details(provider.clone(), Arc::new(WallClock(env.clone())))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    tls.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = env.net.bind(any.parse().expect("it is an address")).await?;
    let mut endpoint = quic::endpoint(env, purpose, socket, None)?;
    endpoint.set_default_client_config(quic::client_config(env, purpose, tls, config::transport())?);
    Ok(endpoint)
}

async fn connect(env: &Env, endpoint: &Endpoint, addr: SocketAddr) -> Result<Connection, String> {
    let connecting = endpoint.connect(addr, &meet::name_of(addr)).map_err(|error| error.to_string())?;
    let connected = env.timeout(MEETING, connecting).await.map_err(|_| "no answer".to_owned())?;
    connected.map_err(|error| error.to_string())
}

async fn ask(connection: &Connection, frame: Bytes) -> Result<Bytes, JoinError> {
    let no_answer = |error: String| JoinError::NoAnswer(error);
    let (mut send, receive) = connection.open_bi().await.map_err(|error| no_answer(error.to_string()))?;
    frame::write(&mut send, frame).await.map_err(|error| no_answer(error.to_string()))?;
    let _ = send.finish();
    let answer = ReplyFrames::new(connection.clone(), receive, JOIN_BYTES_MAX).next().await;
    answer.map_err(|error| no_answer(error.to_string()))?.ok_or_else(|| no_answer("it said nothing".to_owned()))
}

/// Takes one question.
pub(super) async fn serve(shared: &Shared, connection: Connection) {
    let question = shared.env.timeout(MEETING, async {
        let (send, mut receive) = connection.accept_bi().await.ok()?;
        let frame = frame::read(&mut receive, JOIN_BYTES_MAX).await.ok()??;
        Some((send, frame))
    });
    let Ok(Some((send, frame))) = question.await else {
        return connection.close(VarInt::from_u32(MALFORMED), b"no question");
    };
    let replies = Replies::new(send, Dialect::Own, None);
    if shared.tell(Event::Enrol { from: connection.remote_address(), frame, replies }).await.is_ok() {
        let _ = shared.env.timeout(ANSWER, connection.closed()).await;
    }
    connection.close(VarInt::from_u32(GOODBYE), b"goodbye");
}

/// Believes the authority whose certificate has this fingerprint, and comes along with that of the server.
#[derive(Debug)]
struct ByFingerprint {
    authority: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = others.iter().find(|certificate| fingerprint(certificate) == self.authority);
        let root = root.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let peers = Peers::new(Arc::new(roots), &self.provider, true);
        peers.check(std::slice::from_ref(own), now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(quic::NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, own, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
