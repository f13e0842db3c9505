//! Mutual TLS 1.3: both sides show a certificate of the same authority, which says what node they are.

use std::sync::Arc;

use millpond_core::{
    ids::Origin,
    planted::{self, Bug},
};
use millpond_env::Env;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use super::keys::WallClock;
use crate::identity::Subject;

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

/// Believes the certificates of some authorities, whatever the address or the name by which a node was reached: who it is stands in
/// its certificate alone.
#[derive(Debug)]
pub struct Peers {
    roots: Arc<RootCertStore>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Whether a client without a certificate is turned away by TLS.
    demanded: bool,
}

impl Peers {
    pub fn new(roots: Arc<RootCertStore>, provider: &CryptoProvider, demanded: bool) -> Peers {
        Peers { hints: roots.subjects(), roots, algorithms: provider.signature_verification_algorithms, demanded }
    }

    /// Believes the certificates of more authorities, without telling strangers which.
    pub fn with_more<'a>(
        roots: &RootCertStore,
        more: impl IntoIterator<Item = &'a CertificateDer<'static>>,
        provider: &CryptoProvider,
        demanded: bool,
    ) -> Result<Peers, Error> {
        let mut all = roots.clone();
        for authority in more {
            all.add(authority.clone())?;
        }
        Ok(Peers { hints: roots.subjects(), ..Peers::new(Arc::new(all), provider, demanded) })
    }

    /// Whose certificate it is. The first is its own.
    ///
    /// # Errors
    /// When it is not valid now, not issued by an authority that is believed, or not that of a node.
    pub fn check(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Origin, Error> {
        let (own, others) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        if !planted::is(Bug::SkipIdentityCheck) {
            let parsed = ParsedCertificate::try_from(own)?;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, others, now, self.algorithms.all)?;
        }
        let subject = Subject::read(own);
        subject.map(|subject| subject.origin).map_err(|_| CertificateError::ApplicationVerificationFailure.into())
    }

    fn check_parts(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Origin, Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(own).chain(others).cloned().collect();
        self.check(&chain, now)
    }
}

pub(crate) const NO_TLS12: Error = Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic);

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_parts(own, others, now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, own, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Peers {
    fn client_auth_mandatory(&self) -> bool {
        self.demanded
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_parts(own, others, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, own, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// # Errors
/// When the identity's key does not fit its certificate.
pub fn server_tls(
    env: &Env,
    provider: Arc<CryptoProvider>,
    identity: &Identity,
    peers: Arc<Peers>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(WallClock(env.clone())))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(peers)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// # Errors
/// See [`server_tls`].
pub fn client_tls(
    env: &Env,
    provider: Arc<CryptoProvider>,
    identity: &Identity,
    peers: Arc<Peers>,
    alpn: &[u8],
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallClock(env.clone())))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(peers)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}
