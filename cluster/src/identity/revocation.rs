//! Who is not believed any more, in a form that any node can pass on: signed by the site's authority.
//!
//! The list only grows: who was revoked comes back with another origin. So lists can be told in any order, again and by anybody, and
//! their union is what counts; a node that was away while somebody was revoked learns it from whoever it meets first.

use std::collections::BTreeSet;

use bytes::Bytes;
use millpond_core::{ids::Origin, record};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{certificate::public_key_of, key::Key};

/// Origins of one list: more nodes than a site ever has.
pub const REVOKED_MAX: usize = 4096;
const REVOKED: &[u8] = b"millpond revoked\0";

/// The origins, ascending, and the authority's signature of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    origins: Vec<Origin>,
    signature: Bytes,
}

impl Revocations {
    /// Signs a list. What is beyond [`REVOKED_MAX`] is left out.
    pub fn sign(origins: &BTreeSet<Origin>, authority: &Key) -> Revocations {
        let origins: Vec<Origin> = origins.iter().copied().take(REVOKED_MAX).collect();
        let signature = Bytes::copy_from_slice(&authority.sign(&said(&origins)));
        Revocations { origins, signature }
    }

    /// Reads a list that came from somebody else; `None` when it is not one of this authority.
    pub fn read(bytes: &[u8], authority: &CertificateDer<'_>) -> Option<Revocations> {
        let list: Revocations = record::decode(bytes).ok()?;
        let ascending = list.origins.windows(2).all(|pair| pair[0] < pair[1]);
        if list.origins.len() > REVOKED_MAX || !ascending {
            return None;
        }
        let key = UnparsedPublicKey::new(&ED25519, public_key_of(authority).ok()?);
        key.verify(&said(&list.origins), &list.signature).ok()?;
        Some(list)
    }

    pub fn encode(&self) -> Bytes {
        record::encode(self).into()
    }

    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.origins.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.origins.len()
    }

    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }
}

fn said(origins: &[Origin]) -> Vec<u8> {
    let mut said = REVOKED.to_vec();
    origins.iter().for_each(|origin| said.extend_from_slice(&origin.0));
    said
}
