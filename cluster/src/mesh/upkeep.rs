//! What a membership needs from time to time: who is not believed any more, and a certificate for the time to come.
//!
//! An operator revokes a node where the site was founded. That node signs the list with the authority's key, and everybody passes it on:
//! the signature counts, not who says it. What is in another node's own list counts there only.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use millpond_core::{ids::Origin, record::Class, time::Span};
use millpond_env::{Disk, Env, Mono};
use millpond_proto::wire::Message;
use rustls::crypto::CryptoProvider;

use super::{MeshMsg, state::State};
use crate::{
    identity::{self, EnrolError, IdentityError, NodeIdentity, Refusal, Revocations, Trusted, files},
    sites,
};

/// How often the operator's list is read.
const LOOK_EVERY: Span = Span::from_secs(2);
/// How long after a certificate was not renewed it is tried again.
const TRY_AGAIN: Span = Span::from_secs(60);

#[derive(Default)]
pub(super) struct Upkeep {
    looked_at: Mono,
    looking: bool,
    /// Nobody talks to these.
    pub revoked: BTreeSet<Origin>,
    /// The longest list that the authority has signed, as far as it came here.
    signed: Revocations,
    /// All who stood in such lists in this life.
    heard: BTreeSet<Origin>,
    tried_at: Option<Mono>,
    tries: u64,
    renewing: bool,
    /// How long the certificates are valid that this node issues.
    life: Span,
}

impl Upkeep {
    pub fn new(revoked: BTreeSet<Origin>, life: Span) -> Upkeep {
        Upkeep { revoked, life, ..Upkeep::default() }
    }
}

/// What the files say.
pub(crate) struct Looked {
    revoked: BTreeSet<Origin>,
    signed: Revocations,
    others: Result<Vec<(Trusted, Revocations)>, String>,
}

impl State {
    pub(super) fn upkeep(&mut self) {
        let now = self.env.now();
        if self.upkeep.looking || now.since(self.upkeep.looked_at) < LOOK_EVERY {
            return;
        }
        (self.upkeep.looked_at, self.upkeep.looking) = (now, true);
        let (env, actor, heard) = (self.env.clone(), self.actor.clone(), self.upkeep.heard.clone());
        self.env.spawn(async move {
            let disk = env.disk.clone();
            let looked = env.unblock(move || look(disk.as_ref(), &heard)).await;
            let looked = looked.and_then(|looked| {
                looked.inspect_err(|error| tracing::warn!(%error, "who is revoked could not be read")).ok()
            });
            let _ = actor.cast(MeshMsg::Looked(looked));
        });
        self.renew();
    }

    pub(super) fn looked(&mut self, looked: Option<Looked>) {
        self.upkeep.looking = false;
        let Some(Looked { revoked, signed, others }) = looked else { return };
        self.sites.looked(sites::Looked { trusted: others, revoked: signed.clone() });
        if signed.len() > self.upkeep.signed.len() {
            self.upkeep.heard.extend(signed.origins());
            self.upkeep.signed = signed;
            self.spread_revocations(None);
        }
        self.believe_no_more(revoked);
    }

    /// A peer passes on whom the authority has revoked.
    pub(super) fn told_of_revocations(&mut self, from: Origin, bytes: &Bytes) {
        let list = self.identity.authority_certificate().and_then(|authority| Revocations::read(bytes, authority));
        let Some(list) = list else {
            self.metrics.malformed.inc();
            return tracing::warn!(peer = %from.short(), "a list of revoked nodes is not signed by the site's authority");
        };
        let before = self.upkeep.heard.len();
        self.upkeep.heard.extend(list.origins());
        if self.upkeep.heard.len() == before {
            return;
        }
        if list.len() > self.upkeep.signed.len() {
            self.upkeep.signed = list.clone();
            self.spread_revocations(Some(from));
            // Where the site was founded they are signed anew with the operator's own.
            if !self.identity.founder {
                let env = self.env.clone();
                self.env.spawn(async move {
                    let disk = env.disk.clone();
                    let saved = env.unblock(move || files::save_signed_revocations(disk.as_ref(), &list)).await;
                    if let Some(Err(error)) = saved {
                        tracing::warn!(%error, "who is revoked could not be kept");
                    }
                });
            }
        }
        self.believe_no_more(self.upkeep.revoked.clone());
    }

    /// Says the list to one who has just come.
    pub(super) fn say_revocations(&self, to: Origin) {
        if !self.upkeep.signed.is_empty() {
            self.say(to, Class::State, &Message::Revoked(self.upkeep.signed.encode()));
        }
    }

    fn spread_revocations(&self, but: Option<Origin>) {
        self.peers.keys().filter(|peer| Some(**peer) != but).for_each(|peer| self.say_revocations(*peer));
    }

    fn believe_no_more(&mut self, mut revoked: BTreeSet<Origin>) {
        revoked.extend(&self.upkeep.heard);
        if revoked == self.upkeep.revoked {
            return;
        }
        for origin in revoked.difference(&self.upkeep.revoked) {
            if *origin == self.me {
                tracing::error!("this node was revoked: the others do not talk to it any more");
            } else {
                tracing::warn!(%origin, "is revoked");
            }
        }
        self.transport.set_revoked(revoked.clone());
        self.upkeep.revoked = revoked;
    }

    /// Asks for another certificate in the last third of this one's life, and after it.
    fn renew(&mut self) {
        let now = self.env.now();
        let waits = self.upkeep.tried_at.is_some_and(|tried| now.since(tried) < TRY_AGAIN);
        if self.upkeep.renewing || waits || self.env.wall() < self.identity.renew_at() {
            return;
        }
        (self.upkeep.renewing, self.upkeep.tried_at) = (true, Some(now));
        self.upkeep.tries += 1;
        let purpose = format!("renew/{}", self.upkeep.tries);
        let linked = self.peers.values().map(|peer| peer.link.remote());
        let addrs: BTreeSet<SocketAddr> =
            linked.chain(self.addrs.values().copied()).chain(self.seeds.iter().copied()).collect();
        let (env, provider, identity) = (self.env.clone(), self.provider.clone(), self.identity.clone());
        let (actor, life) = (self.actor.clone(), self.upkeep.life);
        self.env.spawn(async move {
            let renewed = match renewed(&env, &purpose, (&provider, life), addrs, &identity).await {
                Ok(renewed) => renewed,
                Err(error) => {
                    let expires = identity.expires;
                    tracing::warn!(%error, %expires, "the node's certificate could not be renewed");
                    None
                }
            };
            let _ = actor.cast(MeshMsg::Renewed(renewed.map(Arc::new)));
        });
    }

    pub(super) fn renewed(&mut self, identity: Option<Arc<NodeIdentity>>) {
        self.upkeep.renewing = false;
        let Some(identity) = identity else { return };
        match self.transport.replace_identity(&identity) {
            Ok(()) => {
                tracing::info!(expires = %identity.expires, "the node's certificate was renewed");
                self.identity = identity;
            }
            Err(error) => tracing::error!(%error, "the renewed certificate cannot be used"),
        }
    }
}

fn look(disk: &dyn Disk, heard: &BTreeSet<Origin>) -> Result<Looked, IdentityError> {
    files::sign_revocations(disk, heard)?;
    let others = identity::load_trusted(disk).map_err(|error| error.to_string());
    let with_revoked = |trusted: Trusted| {
        let revoked = identity::load_revoked_of(disk, &trusted);
        (trusted, revoked)
    };
    let others = others.map(|others| others.into_iter().map(with_revoked).collect());
    Ok(Looked { revoked: files::all_revoked(disk)?, signed: files::signed_revocations(disk)?, others })
}

/// Another certificate; `None` when nobody was there who can give one.
async fn renewed(
    env: &Env,
    purpose: &str,
    (provider, life): (&Arc<CryptoProvider>, Span),
    addrs: BTreeSet<SocketAddr>,
    identity: &NodeIdentity,
) -> Result<Option<NodeIdentity>, EnrolError> {
    if identity.founder {
        let inside = env.clone();
        let done = env.unblock(move || identity::renew_founder(&inside, life)).await;
        return Ok(done.transpose()?);
    }
    for (n, addr) in addrs.into_iter().enumerate() {
        match identity::renew(env, &format!("{purpose}/{n}"), provider, &[addr], identity).await {
            Ok(renewed) => return Ok(Some(renewed)),
            // It is another member, or nobody.
            Err(EnrolError::Refused(Refusal::Failed { .. }) | EnrolError::Reach(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
