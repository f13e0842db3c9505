//! Randomness: one independent stream for each purpose.

use std::fmt::Debug;

use rand::{SeedableRng, rngs::StdRng};

use crate::Env;

pub trait Entropy: Debug + Send + Sync + 'static {
    /// A seed for `purpose`. The real world draws it from the system; a simulation derives it from (seed, node, boot, purpose), so
    /// that a new consumer of randomness does not shift the streams of the others.
    fn seed(&self, purpose: &str) -> [u8; 32];
}

impl Env {
    pub fn rng(&self, purpose: &str) -> StdRng {
        StdRng::from_seed(self.entropy.seed(purpose))
    }
}
