//! Issues the certificates of a site.

use std::time::Duration;

use millpond_core::{
    ids::Origin,
    time::{Span, Timestamp},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use ring::digest;
use rustls::pki_types::CertificateDer;

use super::{
    certificate::{self, BadCertificate},
    key::Key,
};

const DAY: Span = Span::from_secs(86_400);
/// How long a node's certificate is valid.
pub const VALID: Span = Span::from_secs(365 * 86_400);
const AUTHORITY_VALID: Span = Span::from_secs(40 * 365 * 86_400);
/// A clock may be behind that of the authority by this much.
pub(super) const BACKDATED: Span = DAY;

/// The key of a site and its certificate.
pub struct Authority {
    certificate: CertificateDer<'static>,
    site: String,
    /// How long the certificates of nodes are valid.
    valid: Span,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom to issue a certificate to.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    pub origin: Origin,
    pub node: &'a str,
    pub public_key: [u8; 32],
    pub now: Timestamp,
}

impl Authority {
    /// A new authority. The same site, key and time make the same certificate.
    ///
    /// # Panics
    /// Never: what is signed leaves no room for mistakes.
    pub fn found(site: &str, key: &Key, now: Timestamp) -> Authority {
        let mut params = params(site, "authority", now, AUTHORITY_VALID, &key.public());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pair = pair(key);
        let certificate = params.self_signed(&pair).expect("an authority signs itself").der().clone();
        Authority { certificate, site: site.to_owned(), valid: VALID, issuer: Issuer::new(params, pair) }
    }

    /// The authority of a certificate and its key.
    ///
    /// # Errors
    /// When the certificate is not that of an authority.
    pub fn load(certificate: CertificateDer<'static>, key: &Key) -> Result<Authority, BadCertificate> {
        let site = certificate::site_of(&certificate)?;
        if certificate::public_key_of(&certificate)? != key.public() {
            return Err(BadCertificate::OtherKey);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, pair(key)).map_err(|_| BadCertificate::NoAuthority)?;
        Ok(Authority { certificate, site, valid: VALID, issuer })
    }

    /// From now on certificates are valid for so long, instead of [`VALID`]: for rehearsals.
    #[must_use]
    pub fn with_validity(self, valid: Span) -> Authority {
        Authority { valid, ..self }
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn site(&self) -> &str {
        &self.site
    }

    /// A certificate for a year, from a day ago on.
    ///
    /// # Panics
    /// Never, see [`Authority::found`].
    pub fn issue(&self, order: &Order<'_>) -> CertificateDer<'static> {
        let mut params = params(&self.site, order.node, order.now, self.valid, &order.public_key);
        let name = certificate::dns_name(order.origin).try_into().expect("hex digits are ASCII");
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&Public(order.public_key), &self.issuer).expect("an authority signs").der().clone()
    }
}

/// The serial number is a hash of what is certified: two certificates share it only when they say the same.
fn params(site: &str, node: &str, now: Timestamp, valid: Span, public_key: &[u8; 32]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let beginning = date_time_ymd(1970, 1, 1);
    params.not_before = beginning + since_1970(now.saturating_sub(BACKDATED));
    params.not_after = beginning + since_1970(now.saturating_add(valid));
    let said = [public_key.as_slice(), &now.0.to_le_bytes(), site.as_bytes(), &[0], node.as_bytes()].concat();
    let mut serial = digest::digest(&digest::SHA256, &said).as_ref()[..16].to_vec();
    // A serial number is positive and as short as it can be.
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::OrganizationName, site);
    params.distinguished_name.push(DnType::CommonName, node);
    params
}

/// Whole seconds, since certificates have no finer time; a clock from before 1970 counts as 1970.
fn since_1970(time: Timestamp) -> Duration {
    Duration::from_secs((time.as_millis() / 1000).max(0) as u64)
}

fn pair(key: &Key) -> KeyPair {
    KeyPair::try_from(&key.pkcs8()).expect("any 32 bytes are a key of Ed25519")
}

struct Public([u8; 32]);

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}
