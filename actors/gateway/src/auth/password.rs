//! Hashes of passwords and tokens, and the memory of passwords that were right.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash};
use millpond_core::limits;
use millpond_env::Env;

/// Memory that a configured hash may ask for at each check, in KiB.
const MEMORY_KIB_MAX: u32 = 256 << 10;
/// Passes over the memory that a configured hash may ask for.
const PASSES_MAX: u32 = 16;

/// The password could not be hashed: it, or the salt, is too short or too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the password cannot be hashed: {0}")]
pub struct HashError(String);

/// An argon2id PHC string (19 MiB, 2 passes, 1 lane) for the configuration. Takes some 20 ms. `salt` must be fresh random bytes.
///
/// # Errors
/// When the password is empty or longer than [`limits::PASSWORD_BYTES_MAX`].
pub fn hash_password(password: &[u8], salt: [u8; 16]) -> Result<String, HashError> {
    if password.is_empty() || password.len() > limits::PASSWORD_BYTES_MAX {
        return Err(HashError(format!("it must have 1 to {} bytes", limits::PASSWORD_BYTES_MAX)));
    }
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default());
    let hash = argon2.hash_password_with_salt(password, &salt).map_err(|error| HashError(error.to_string()))?;
    Ok(hash.to_string())
}

/// blake3 of a token in hexadecimal, for the configuration.
pub fn hash_token(token: &str) -> String {
    blake3::hash(token.as_bytes()).to_hex().to_string()
}

/// What a user is checked by.
#[derive(Clone, Debug)]
pub(super) enum Verifier {
    /// An argon2id PHC string that was found well-formed.
    Password(Arc<str>),
    Token(blake3::Hash),
}

impl Verifier {
    pub(super) fn of_password(phc: &str) -> Result<Verifier, String> {
        let hash = PasswordHash::new(phc).map_err(|error| format!("not a PHC string: {error}"))?;
        if hash.algorithm.as_str() != "argon2id" {
            return Err(format!("only argon2id is supported, not {}", hash.algorithm.as_str()));
        }
        let params = Params::try_from(&hash).map_err(|error| format!("not a PHC string of argon2id: {error}"))?;
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
            return Err(format!("asks for more than {MEMORY_KIB_MAX} KiB or {PASSES_MAX} passes"));
        }
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err("the PHC string lacks its salt or its hash".to_owned());
        }
        Ok(Verifier::Password(phc.into()))
    }

    pub(super) fn of_token(hex: &str) -> Result<Verifier, String> {
        blake3::Hash::from_hex(hex).map(Verifier::Token).map_err(|_| "not 64 hexadecimal digits".to_owned())
    }
}

/// Blocks for as long as argon2 takes.
pub(super) fn verify(password: &[u8], phc: &str) -> bool {
    let Ok(hash) = PasswordHash::new(phc) else { return false };
    Argon2::default().verify_password(password, &hash).is_ok()
}

/// Marks of passwords that were right, oldest forgotten first.
#[derive(Debug)]
pub(super) struct Remembered {
    key: [u8; 32],
    known: BTreeSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Remembered {
    pub(super) fn new(key: [u8; 32]) -> Remembered {
        Remembered { key, known: BTreeSet::new(), order: VecDeque::new() }
    }

    pub(super) fn mark(&self, user: &str, password: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(user.len() as u64).to_le_bytes());
        hasher.update(user.as_bytes());
        hasher.update(password);
        *hasher.finalize().as_bytes()
    }

    pub(super) fn knows(&self, mark: &[u8; 32]) -> bool {
        self.known.contains(mark)
    }

    pub(super) fn insert(&mut self, mark: [u8; 32]) {
        if !self.known.insert(mark) {
            return;
        }
        self.order.push_back(mark);
        if self.order.len() > limits::REMEMBERED_PASSWORDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}
/// A token to log in with: 256 random bits in hexadecimal.
pub fn new_token(env: &Env) -> String {
    env.entropy.seed("token").iter().map(|byte| format!("{byte:02x}")).collect()
}
