//! Connection ids, keys and the time of day from the environment.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millpond_env::{Env, StdRng};
use quinn::{ConnectionId, ConnectionIdGenerator, TimeSource};
use rand::Rng;
use ring::{hkdf, hmac};
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

const CID_BYTES: usize = 8;

/// Random connection ids.
pub(super) struct Cids {
    rng: StdRng,
    bytes: usize,
}

impl Cids {
    pub fn new(rng: StdRng) -> Cids {
        Cids::of_length(rng, CID_BYTES)
    }

    /// `bytes` is at most 20.
    pub fn of_length(rng: StdRng, bytes: usize) -> Cids {
        Cids { rng, bytes }
    }
}

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut cid = [0; 20];
        self.rng.fill_bytes(&mut cid);
        ConnectionId::new(&cid[..self.bytes])
    }

    fn cid_len(&self) -> usize {
        self.bytes
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// With it a node tells peers of its earlier connections that they are gone.
pub(super) fn reset_key(env: &Env, purpose: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &env.entropy.seed(&format!("{purpose}/reset")))
}

/// Seals the tokens by which a server recognises the address of a client.
pub(super) fn token_key(env: &Env, purpose: &str) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&env.entropy.seed(&format!("{purpose}/token")))
}

/// The node's wall clock, for the lifetime of tokens and certificates.
#[derive(Clone, Debug)]
pub struct WallClock(pub Env);

impl WallClock {
    fn since_epoch(&self) -> Duration {
        Duration::from_nanos(self.0.wall().0.max(0) as u64)
    }
}

impl TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.since_epoch()
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.since_epoch()))
    }
}
