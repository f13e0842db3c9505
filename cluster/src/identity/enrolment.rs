//! Who gets a certificate: decided where the authority's key is.
//!
//! What must stay true:
//! 1. An invitation lets in one node, once, before it expires: it is gone from the disk before the certificate leaves.
//! 2. An origin belongs to one key for ever. Who asks again with the same key (its answer was lost, say) is the same node.
//! 3. Who is revoked gets nothing.
//!
//! A renewal is proven by the key of the certificate, even when that has expired meanwhile. It can be sent again by whoever has seen it
//! and brings nothing new then: a certificate is of use only to who has its key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millpond_core::{
    ids::Origin,
    record,
    time::{Span, Timestamp},
};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{
    authority::{Authority, Order},
    certificate::Subject,
    key::Key,
    token::hash_secret,
};

/// Bytes of a node's or a site's name.
pub const NAME_BYTES_MAX: usize = 64;
/// An invitation that has expired is remembered for so long, to say so.
const REMEMBERED: Span = Span::from_secs(7 * 86_400);
const RENEWAL: &[u8] = b"millpond renewal\0";

/// What is asked over the join protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Join { secret: [u8; 16], public_key: [u8; 32], origin: Origin, node: String },
    Renew { certificate: Bytes, signature: Bytes },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Welcome { certificate: Bytes, authority: Bytes, revoked: Vec<Origin> },
    Refused(Refusal),
}

/// Why somebody gets no certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("the invitation expired at {}", Timestamp::from_millis(*.expired_ms))]
    Expired { expired_ms: i64 },
    #[error("the invitation is not known: it was used already, or withdrawn")]
    UnknownInvitation,
    #[error("origin {origin} belongs to another node of the site")]
    OriginTaken { origin: Origin },
    #[error("the node is revoked")]
    Revoked,
    #[error("the certificate is not one of this site")]
    NotAMember,
    #[error("a node's name has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    BadName,
    #[error("the question could not be read")]
    Malformed,
    /// It may work later.
    #[error("the inviting node could not do it: {why}")]
    Failed { why: String },
}

/// What the authority knows of a node that it has certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub public_key: [u8; 32],
    pub node: String,
}

/// To be made durable, in this order, before the answer leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The invitation with this hash is used, or long expired.
    RemoveInvitation([u8; 32]),
    SaveMembers,
}

pub struct Enrolment {
    pub authority: Authority,
    pub members: BTreeMap<Origin, Member>,
    /// When those expire whose secrets have these hashes.
    pub invitations: BTreeMap<[u8; 32], Timestamp>,
    pub revoked: BTreeSet<Origin>,
}

impl Enrolment {
    pub fn handle(&mut self, now: Timestamp, frame: &[u8]) -> (Answer, Vec<Effect>) {
        let mut effects = Vec::new();
        let answer = match record::decode::<Ask>(frame) {
            Ok(Ask::Join { secret, public_key, origin, node }) => {
                self.join(now, &secret, public_key, origin, node, &mut effects)
            }
            Ok(Ask::Renew { certificate, signature }) => self.renew(now, certificate, &signature),
            Err(_) => Err(Refusal::Malformed),
        };
        self.forget_expired(now, &mut effects);
        (answer.unwrap_or_else(Answer::Refused), effects)
    }

    fn join(
        &mut self,
        now: Timestamp,
        secret: &[u8; 16],
        public_key: [u8; 32],
        origin: Origin,
        node: String,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Refusal> {
        let hash = hash_secret(secret);
        let expires = *self.invitations.get(&hash).ok_or(Refusal::UnknownInvitation)?;
        if now >= expires {
            return Err(Refusal::Expired { expired_ms: expires.as_millis() });
        }
        if !is_name(&node) {
            return Err(Refusal::BadName);
        }
        if self.revoked.contains(&origin) {
            return Err(Refusal::Revoked);
        }
        if self.members.get(&origin).is_some_and(|member| member.public_key != public_key) {
            return Err(Refusal::OriginTaken { origin });
        }
        self.invitations.remove(&hash);
        effects.push(Effect::RemoveInvitation(hash));
        self.members.insert(origin, Member { public_key, node: node.clone() });
        effects.push(Effect::SaveMembers);
        Ok(self.certify(now, origin, &node, public_key))
    }

    fn renew(&self, now: Timestamp, certificate: Bytes, signature: &[u8]) -> Result<Answer, Refusal> {
        let subject = Subject::read(&CertificateDer::from(certificate.to_vec())).map_err(|_| Refusal::Malformed)?;
        if self.revoked.contains(&subject.origin) {
            return Err(Refusal::Revoked);
        }
        let member = self.members.get(&subject.origin).ok_or(Refusal::NotAMember)?;
        // What counts is the key that was certified, whatever the certificate in the question says.
        let key = UnparsedPublicKey::new(&ED25519, &member.public_key);
        key.verify(&[RENEWAL, &certificate].concat(), signature).map_err(|_| Refusal::NotAMember)?;
        Ok(self.certify(now, subject.origin, &member.node, member.public_key))
    }

    fn certify(&self, now: Timestamp, origin: Origin, node: &str, public_key: [u8; 32]) -> Answer {
        let certificate = self.authority.issue(&Order { origin, node, public_key, now });
        Answer::Welcome {
            certificate: Bytes::copy_from_slice(&certificate),
            authority: Bytes::copy_from_slice(self.authority.certificate()),
            revoked: self.revoked.iter().copied().collect(),
        }
    }

    fn forget_expired(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let gone = |expires: Timestamp| expires.saturating_add(REMEMBERED) < now;
        let old: Vec<_> = self.invitations.iter().filter(|(_, at)| gone(**at)).map(|(hash, _)| *hash).collect();
        for hash in old {
            self.invitations.remove(&hash);
            effects.push(Effect::RemoveInvitation(hash));
        }
    }
}

/// The question of a node whose certificate ends soon or has ended.
pub fn ask_renewal(certificate: &[u8], key: &Key) -> Ask {
    let signature = key.sign(&[RENEWAL, certificate].concat());
    Ask::Renew { certificate: Bytes::copy_from_slice(certificate), signature: Bytes::copy_from_slice(&signature) }
}

/// Whether it can be the name of a node or a site.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}
