//! Who a node is: an origin, and a certificate of its site's authority that says so.
//!
//! A site has one authority: a key that is kept where the site was founded, and a certificate that every node knows. The authority issues
//! each node one certificate for its own key. The certificate carries the node's origin as the name `<32 hex digits>.node.millpond`, its
//! name for people as common name and the site's name as organisation. Nothing but that certificate says who a peer is.
//!
//! Everything is Ed25519: its signatures are a function of key and message, so that a simulated run can be repeated.

mod authority;
mod certificate;
mod desk;
mod enrolment;
pub mod files;
mod key;
mod pem;
mod revocation;
#[cfg(test)]
mod tests;
mod token;
mod trusted;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use millpond_core::{
    ids::{Incarnation, Origin},
    time::{Span, Timestamp},
};
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
};

use self::authority::BACKDATED;
pub(crate) use self::trusted::{load_revoked_of, save_revoked_of};
pub use self::{
    authority::{Authority, Order, VALID},
    certificate::{BadCertificate, Subject, fingerprint, read_origin},
    desk::{Desk, EnrolError, Newcomer, accept, found, invite, renew, renew_founder},
    enrolment::{Answer, Ask, Effect, Enrolment, Member, NAME_BYTES_MAX, Refusal, is_name},
    files::IdentityError,
    key::Key,
    revocation::{REVOKED_MAX, Revocations},
    token::{ADDRESSES_MAX, BadToken, Token},
    trusted::{Trusted, draw_secret, is_address, is_file_name, load_trusted, remove_trusted, save_trusted},
};
use crate::quic::Identity;
pub use millpond_proto::sites::{
    mask::{How, Mask, Masks},
    terms::Terms,
};

/// The cryptography of the real world. A simulation brings one whose random numbers come from its seed.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Who this node is, whom it believes and whom no more.
#[derive(Debug)]
pub struct NodeIdentity {
    pub origin: Origin,
    /// Raised before a new store is founded, so that no sequence number of a lost one is used again.
    pub incarnation: Incarnation,
    /// The node's and the site's names, for people.
    pub node: String,
    pub site: String,
    /// The node's certificate, then that of the authority.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub roots: Arc<RootCertStore>,
    pub revoked: BTreeSet<Origin>,
    /// Where the node was reached that let this one in.
    pub first_seeds: Vec<SocketAddr>,
    pub expires: Timestamp,
    /// How long the certificate is valid, from the day on which it was made.
    pub valid: Span,
    /// Whether the key of the authority is here, so that others join through this node.
    pub founder: bool,
}

impl NodeIdentity {
    /// From a node's certificate, its key, and the certificate of the authority.
    ///
    /// # Errors
    /// When the certificate does not name a node, or the authority's cannot be one.
    pub fn new(
        certificate: CertificateDer<'static>,
        key: &Key,
        authority: CertificateDer<'static>,
        incarnation: Incarnation,
    ) -> Result<NodeIdentity, BadCertificate> {
        let subject = Subject::read(&certificate)?;
        if subject.public_key != key.public() {
            return Err(BadCertificate::OtherKey);
        }
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(|_| BadCertificate::NoAuthority)?;
        Ok(NodeIdentity {
            origin: subject.origin,
            incarnation,
            node: subject.node,
            site: subject.site,
            expires: subject.not_after,
            valid: Span((subject.valid.0 - BACKDATED.0).max(0)),
            chain: vec![certificate, authority],
            key: key.pkcs8().into(),
            roots: Arc::new(roots),
            revoked: BTreeSet::new(),
            first_seeds: Vec::new(),
            founder: false,
        })
    }

    /// From when on it is time for another certificate: the last third of this one's life.
    pub fn renew_at(&self) -> Timestamp {
        self.expires.saturating_sub(Span(self.valid.0 / 3))
    }

    /// The certificate of the site's authority.
    pub fn authority_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.chain.last()
    }

    /// SHA-256 of the certificate of the site's authority.
    pub fn authority(&self) -> [u8; 32] {
        self.chain.last().map(|authority| fingerprint(authority)).unwrap_or_default()
    }

    pub fn tls(&self) -> Identity {
        Identity { chain: self.chain.clone(), key: self.key.clone_key(), roots: self.roots.clone() }
    }
}
