//! Random bytes and ephemeral keys from a stream of the seed.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use rand::{Rng, rngs::StdRng};
use rustls::{
    Error, NamedGroup, PeerMisbehaved,
    crypto::{ActiveKeyExchange, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup},
};
use x25519_dalek::{PublicKey, StaticSecret};

pub(super) struct Random(Mutex<StdRng>);

impl Random {
    pub fn new(rng: StdRng) -> Random {
        Random(Mutex::new(rng))
    }

    fn draw(&self, into: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(into);
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

impl SecureRandom for Random {
    fn fill(&self, into: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.draw(into);
        Ok(())
    }
}

/// X25519 as everywhere, with keys from the stream.
#[derive(Debug)]
pub(super) struct SeededX25519(pub Random);

impl SupportedKxGroup for SeededX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut bytes = [0; 32];
        self.0.draw(&mut bytes);
        let secret = StaticSecret::from(bytes);
        Ok(Box::new(Exchange { public: PublicKey::from(&secret), secret }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(&shared.as_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
