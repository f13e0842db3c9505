//! Invitations as an operator carries them from one node to another: one line of letters, digits, `-` and `_`.
//!
//! ```text
//! mpj1-  base64url of:  MessagePack {addrs, authority, secret, expires_ms}, then 4 bytes of its SHA-256
//! ```
//!
//! The secret lets one node in, once, until the invitation expires. The fingerprint of the authority lets that node know whom it talks
//! to. The hash tells a token that was not copied whole from one that is refused.

use std::{fmt, net::SocketAddr, str::FromStr};

use base64ct::{Base64UrlUnpadded, Encoding};
use millpond_core::{record, time::Timestamp};
use serde::{Deserialize, Serialize};

use super::certificate::fingerprint;

const PREFIX: &str = "mpj1-";
const CHECK_BYTES: usize = 4;
const TOKEN_BYTES_MAX: usize = 4096;
/// Addresses of one node.
pub const ADDRESSES_MAX: usize = 16;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Where the inviting node listens.
    pub addrs: Vec<SocketAddr>,
    /// SHA-256 of the certificate of the site's authority.
    pub authority: [u8; 32],
    pub secret: [u8; 16],
    pub expires_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("an invitation starts with {PREFIX}")]
    NotOne,
    #[error("the invitation is not whole")]
    Damaged,
    #[error("the invitation names no address")]
    NoAddress,
}

impl Token {
    pub fn expires(&self) -> Timestamp {
        Timestamp::from_millis(self.expires_ms)
    }
}

/// What is kept of a secret.
pub fn hash_secret(secret: &[u8; 16]) -> [u8; 32] {
    fingerprint(secret)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = record::encode(self);
        let check = fingerprint(&bytes);
        bytes.extend_from_slice(&check[..CHECK_BYTES]);
        write!(f, "{PREFIX}{}", Base64UrlUnpadded::encode_string(&bytes))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Token, BadToken> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(BadToken::NotOne)?;
        if text.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::Damaged);
        }
        let bytes = Base64UrlUnpadded::decode_vec(text).map_err(|_| BadToken::Damaged)?;
        let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(BadToken::Damaged)?;
        if fingerprint(body)[..CHECK_BYTES] != check[..] {
            return Err(BadToken::Damaged);
        }
        let token: Token = record::decode(body).map_err(|_| BadToken::Damaged)?;
        match token.addrs.len() {
            0 => Err(BadToken::NoAddress),
            1..=ADDRESSES_MAX => Ok(token),
            _ => Err(BadToken::Damaged),
        }
    }
}

/// Secrets are not shown.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("addrs", &self.addrs)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}
