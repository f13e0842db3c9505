//! Certificates that are the same in every run of a seed.

use std::sync::Arc;

use millpond_cluster::quic::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber, date_time_ymd,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::world::core::seed_of;

/// PKCS #8 of an Ed25519 key up to the 32 bytes of the key itself (RFC 8410).
const ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Issues the certificates of a simulated installation.
pub struct Authority {
    seed: u64,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// # Panics
    /// Never: what it signs has no room for mistakes.
    pub fn new(seed: u64) -> Authority {
        let mut params = params(seed, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = key_pair(&key(seed, "authority"));
        let certificate = params.self_signed(&key).expect("an authority signs itself").der().clone();
        Authority { seed, issuer: Issuer::new(params, key), certificate }
    }

    /// Who `name` is, by this authority. The same name gets the same key and certificate each time.
    ///
    /// # Panics
    /// When `name` is not ASCII.
    pub fn issue(&self, name: &str) -> Identity {
        let mut params = params(self.seed, name);
        let dns = name.try_into().expect("names of nodes are ASCII");
        params.subject_alt_names = vec![rcgen::SanType::DnsName(dns)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = key(self.seed, name);
        let certificate = params.signed_by(&key_pair(&key), &self.issuer).expect("an authority signs").der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("its own certificate is sound");
        Identity { chain: vec![certificate], key: PrivateKeyDer::Pkcs8(key), roots: Arc::new(roots) }
    }
}

fn params(seed: u64, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2060, 1, 1));
    let mut serial = seed_of(seed, &format!("serial/{name}"))[..16].to_vec();
    // A serial number is positive and as short as it can be.
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn key(seed: u64, name: &str) -> PrivatePkcs8KeyDer<'static> {
    PrivatePkcs8KeyDer::from([&ED25519[..], &seed_of(seed, &format!("certificate/{name}"))].concat())
}

fn key_pair(key: &PrivatePkcs8KeyDer<'_>) -> KeyPair {
    KeyPair::try_from(key).expect("any 32 bytes are a key of Ed25519")
}
