//! What a node's certificate says.

use millpond_core::{
    ids::Origin,
    time::{Span, Timestamp},
};
use ring::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    oid_registry::OID_SIG_ED25519,
    prelude::{ASN1Time, FromDer, X509Certificate, X509Name},
};

const SUFFIX: &str = ".node.millpond";

/// Whose certificate it is, by its own words: whether they are true is for the authority's signature to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub origin: Origin,
    pub node: String,
    pub site: String,
    pub not_after: Timestamp,
    /// From its beginning to its end.
    pub valid: Span,
    pub public_key: [u8; 32],
}

/// Why a certificate is none of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    #[error("it cannot be read")]
    Unreadable,
    #[error("it names no node")]
    NoNode,
    #[error("its key is not one of Ed25519")]
    NotEd25519,
    #[error("it belongs to another key")]
    OtherKey,
    #[error("the certificate of the authority is none")]
    NoAuthority,
}

/// The name by which a certificate carries an origin.
pub fn dns_name(origin: Origin) -> String {
    format!("{origin}{SUFFIX}")
}

/// SHA-256 of a certificate.
pub fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    hash
}

impl Subject {
    /// # Errors
    /// When it is no certificate, or none of a node.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Subject, BadCertificate> {
        let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| BadCertificate::Unreadable)?;
        if !rest.is_empty() {
            return Err(BadCertificate::Unreadable);
        }
        let names = parsed.subject_alternative_name().map_err(|_| BadCertificate::Unreadable)?;
        let names = names.ok_or(BadCertificate::NoNode)?.value;
        // Exactly one name, or two readers could disagree on whose certificate it is.
        let [GeneralName::DNSName(name)] = names.general_names.as_slice() else { return Err(BadCertificate::NoNode) };
        let origin = name.strip_suffix(SUFFIX).and_then(read_origin).ok_or(BadCertificate::NoNode)?;
        let time = |time: ASN1Time| Timestamp::from_millis(time.timestamp().saturating_mul(1000));
        let (not_before, not_after) = (time(parsed.validity().not_before), time(parsed.validity().not_after));
        Ok(Subject {
            origin,
            node: common_name(parsed.subject()),
            site: organisation(parsed.subject()),
            not_after,
            valid: not_after.since(not_before),
            public_key: public_key(&parsed)?,
        })
    }
}

/// The site's name in the certificate of its authority.
pub fn site_of(authority: &CertificateDer<'_>) -> Result<String, BadCertificate> {
    let (_, parsed) = X509Certificate::from_der(authority).map_err(|_| BadCertificate::Unreadable)?;
    if !parsed.is_ca() {
        return Err(BadCertificate::NoAuthority);
    }
    Ok(organisation(parsed.subject()))
}

pub fn public_key_of(certificate: &CertificateDer<'_>) -> Result<[u8; 32], BadCertificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| BadCertificate::Unreadable)?;
    public_key(&parsed)
}

fn public_key(certificate: &X509Certificate<'_>) -> Result<[u8; 32], BadCertificate> {
    let info = certificate.public_key();
    if info.algorithm.algorithm != OID_SIG_ED25519 {
        return Err(BadCertificate::NotEd25519);
    }
    info.subject_public_key.data.as_ref().try_into().map_err(|_| BadCertificate::NotEd25519)
}

/// 32 lower-case hex digits.
pub fn read_origin(hex: &str) -> Option<Origin> {
    let digits = hex.as_bytes();
    if digits.len() != 32 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(|number| Origin(number.to_be_bytes()))
}

fn common_name(name: &X509Name<'_>) -> String {
    name.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}

fn organisation(name: &X509Name<'_>) -> String {
    name.iter_organization().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}
