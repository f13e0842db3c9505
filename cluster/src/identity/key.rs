//! A key pair of Ed25519.

use std::fmt;

use millpond_env::StdRng;
use rand::Rng;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;

/// PKCS #8 of an Ed25519 key up to the 32 bytes of the key itself (RFC 8410).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// Any 32 bytes are a key.
    pub fn new(secret: [u8; 32]) -> Key {
        Key(secret)
    }

    pub fn random(rng: &mut StdRng) -> Key {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        Key(secret)
    }

    /// The key inside of what [`Key::pkcs8`] made; `None` for other kinds of keys.
    pub fn from_pkcs8(der: &[u8]) -> Option<Key> {
        let secret = der.strip_prefix(&PKCS8)?;
        secret.try_into().ok().map(Key)
    }

    pub fn pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        [&PKCS8[..], &self.0].concat().into()
    }

    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair().public_key().as_ref());
        public
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair().sign(message).as_ref());
        signature
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.0).expect("any 32 bytes are a key of Ed25519")
    }
}

/// Keys are not shown.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}
