//! What peers ask this node for.

use std::net::SocketAddr;

use bytes::Bytes;
use millpond_actors::settings::Ack;
use millpond_core::{admission::Known, ids::Origin, record, time::Span};
use millpond_env::Env;
use millpond_proto::{
    replication::Life,
    wire::{self, Reply, Request},
};
use millpond_store::Reader;

use super::{runs::Source, serve, state::State};
use crate::transport::{Link, Replies};

/// How long an answer waits until the site has the records that it speaks of.
const SETTLE: Span = Span::from_secs(3);
const POLL: Span = Span::from_millis(5);

impl State {
    pub(super) fn request(&mut self, from: Origin, frame: &[u8], replies: Replies) {
        let request = match wire::decode::<Request>(frame) {
            Ok(request) => request,
            Err(error) => {
                self.metrics.malformed.inc();
                tracing::debug!(%from, %error, "a request could not be read");
                return self.answer(replies, Reply::Unknown);
            }
        };
        match request {
            Request::Repair { origin, incarnation, track, first, last, bytes_max } => {
                let hello = self.peers.get(&from).and_then(|peer| peer.hello.as_ref());
                let version = hello.map_or(wire::OLDEST, |hello| hello.version);
                let source = Source { life: Life { origin, incarnation }, track, version };
                let ranges = self.replication.offered(source.life, track, first, last);
                let reader = self.reader_of(source.life);
                let (env, permits) = (self.env.clone(), self.permits.clone());
                self.env.spawn(serve::repair(env, permits, reader, source, ranges, bytes_max, replies));
            }
            Request::Seen { origin, devices } => self.seen(from, origin, devices, replies),
            Request::Accepted { .. } => self.answer(replies, Reply::Seen(Vec::new())),
            Request::Homes { after } => self.tell_homes(after, replies),
            Request::Known { claims } => self.tell_known_claims(claims, replies),
            Request::Doubles { device, events } => self.tell_doubles(device, events, replies),
            Request::Ask { what, body } if what == millpond_actors::QUERY => self.ask_journals(&body, replies),
            Request::Ask { what, body } => self.asked(&what, &body, replies),
        }
    }

    /// Somebody wants a certificate.
    pub(super) fn enrol(&mut self, from: SocketAddr, frame: Bytes, mut replies: Replies) {
        tracing::info!(%from, "somebody asks for a certificate");
        let desk = self.desk.clone();
        self.env.spawn(async move {
            let _ = replies.send(desk.answer(frame).await).await;
            replies.finish();
        });
    }

    pub(super) fn answer(&self, mut replies: Replies, reply: Reply) {
        self.env.spawn(async move {
            let _ = replies.send(wire::encode(&reply)).await;
            replies.finish();
        });
    }

    fn reader_of(&self, life: Life) -> Option<Reader> {
        if life == self.life() { Some(self.node.reader.clone()) } else { self.copies.reader(life).cloned() }
    }

    /// What is known of devices that go to `from`'s node: here, at a node that is linked with this one and not with that one, or in the copy
    /// of a node that is gone.
    fn seen(&mut self, from: Origin, origin: Origin, devices: Vec<String>, replies: Replies) {
        if origin == self.me {
            // From now on they are asked for again when they come back, or when something of them is still on its way here.
            (self.node.release)(&devices);
            devices.iter().for_each(|device| self.homes.leave(device, self.me, from));
            let asked = (self.node.known)(devices);
            let (env, site, ack) = (self.env.clone(), self.node.site.clone(), self.config.site.ack);
            self.env.spawn(async move {
                let known = asked.await.unwrap_or_default();
                if ack == Ack::Site {
                    // The other node will acknowledge what it takes for known: then it must be where acknowledged records are.
                    let head = site.head();
                    let begun = env.now();
                    while site.confirmed() < head && env.now().since(begun) < SETTLE {
                        env.sleep(POLL).await;
                    }
                }
                tell_known(replies, known).await;
            });
            return;
        }
        let Some(mut known) = self.known_of_gone(origin, &devices) else {
            return self.answer(replies, Reply::Busy { retry_ms: 100 });
        };
        if !self.is_gone(origin)
            && let Some(peer) = self.peers.get(&origin).filter(|_| from != origin)
        {
            // Whoever asks has no link to it.
            let (env, link) = (self.env.clone(), peer.link.clone());
            self.env.spawn(async move {
                if let Some(more) = ask_seen(&env, &link, origin, devices, SETTLE).await {
                    known.extend(more);
                    tell_known(replies, known).await;
                }
            });
        } else if self.gone_lives_of(origin).is_empty() {
            self.answer(replies, Reply::Busy { retry_ms: 100 });
        } else {
            self.env.spawn(tell_known(replies, known));
        }
    }
}

async fn tell_known(mut replies: Replies, known: Vec<Known>) {
    let known = known.iter().map(|known| Bytes::from(record::encode(known))).collect();
    let _ = replies.send(wire::encode(&Reply::Seen(known))).await;
    replies.finish();
}

/// Asks a peer for what it knows of devices; `None` when it does not answer, or does not know yet.
pub(super) async fn ask_seen(
    env: &Env,
    link: &Link,
    origin: Origin,
    devices: Vec<String>,
    patience: Span,
) -> Option<Vec<Known>> {
    let request = Request::Seen { origin, devices };
    match super::fetch::ask(env, link, SETTLE.min(patience), &request).await? {
        Reply::Seen(known) => Some(known.iter().filter_map(|bytes| record::decode(bytes).ok()).collect()),
        _ => None,
    }
}
