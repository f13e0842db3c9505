//! TLS whose randomness comes from the seed: a crypto provider for rustls, and an authority that issues certificates.
//!
//! All of it is real cryptography; only the numbers that nobody should be able to guess can be repeated. Signatures are Ed25519,
//! since those of ECDSA differ each time, even in their length.

mod authority;
mod random;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use millpond_env::Env;
use rustls::crypto::{CryptoProvider, ring};

use self::random::{Random, SeededX25519};

pub use self::authority::{Authority, Papers};

/// A crypto provider for one boot of a node, with TLS 1.3 only. A second one on the same node needs a `purpose` of its own.
///
/// rustls wants its parts to live as long as the process, so each provider leaves a few hundred bytes behind.
pub fn provider(env: &Env, purpose: &str) -> Arc<CryptoProvider> {
    let random = |part: &str| Random::new(env.rng(&format!("{purpose}/{part}")));
    Arc::new(CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![Box::leak(Box::new(SeededX25519(random("x25519"))))],
        secure_random: Box::leak(Box::new(random("tls"))),
        ..ring::default_provider()
    })
}
