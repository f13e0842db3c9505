//! Mutual TLS 1.3: both sides show a certificate of the same authority.

use std::sync::Arc;

use millpond_env::Env;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::WebPkiServerVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};

use super::keys::WallClock;

/// Who a node is, and whom it believes.
#[derive(Debug)]
pub struct Identity {
    /// Its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub roots: Arc<RootCertStore>,
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity { chain: self.chain.clone(), key: self.key.clone_key(), roots: self.roots.clone() }
    }
}

/// Why an identity is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate, its key or the crypto provider cannot be used")]
    Unusable(#[from] rustls::Error),
    #[error("there is no authority to believe")]
    NoAuthority(#[from] VerifierBuilderError),
}

/// # Errors
/// When the identity's key does not fit its certificate, or there are no roots.
pub fn server_tls(
    env: &Env,
    provider: Arc<CryptoProvider>,
    identity: &Identity,
    alpn: &[u8],
) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(WallClock(env.clone())))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// # Errors
/// See [`server_tls`].
pub fn client_tls(
    env: &Env,
    provider: Arc<CryptoProvider>,
    identity: &Identity,
    alpn: &[u8],
) -> Result<ClientConfig, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(identity.roots.clone(), provider.clone()).build()?;
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallClock(env.clone())))
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}
