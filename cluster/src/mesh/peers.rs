//! Links to peers, what is said over them, and who is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use millpond_actors::{config::Config, settings::SiteSettings};
use millpond_core::{
    ids::Origin,
    record::{self, Class},
    time::Span,
};
use millpond_env::Mono;
use millpond_proto::{
    documents,
    membership::{self, Health},
    replication,
    wire::{self, Hello, Message, Reply},
};
use millpond_store::{Put, ReadError, Reader, Table};
use tokio::sync::mpsc;

use super::{
    MeshMsg, push,
    state::{Peer, State},
};
use crate::transport::{Link, LinkId};

/// How long somebody is not called with whom there is no common version. It calls itself when it has another one.
const UNLIKE: Span = Span::from_secs(60);
/// How long an answer may take to a question that is asked only to see how it is passed over.
const PATIENCE: Span = Span::from_secs(5);
/// Rows of [`Table::Meta`] with where peers were reached last: this prefix and the origin.
const PEER_PREFIX: &[u8] = b"peer/";

impl State {
    pub(super) fn connected(&mut self, link: Link) {
        let (peer, remote) = (link.peer(), link.remote());
        tracing::info!(peer = %peer.short(), %remote, "linked");
        let (queue, pushes) = mpsc::unbounded_channel();
        let (life, actor) = (self.life(), self.actor.clone());
        self.env.spawn(push::pusher(
            self.env.clone(),
            self.node.reader.clone(),
            life,
            link.clone(),
            pushes,
            move |track| {
                let _ = actor.cast(MeshMsg::PushFailed { to: peer, track });
            },
        ));
        let before =
            self.peers.insert(peer, Peer { link: link.clone(), hello: None, push: queue, clock_ahead_ms: None });
        if before.is_some_and(|peer| peer.hello.is_some()) {
            self.replicate(replication::Input::PeerDown(peer));
            self.document(documents::Input::PeerDown(peer));
        }
        let (version, oldest) = self.dialect.versions();
        let hello = Hello {
            version,
            oldest,
            incarnation: self.node.incarnation,
            name: self.config.node.name.clone(),
            wall_ms: self.env.wall().as_millis(),
        };
        self.say(peer, Class::Alert, &Message::Hello(hello));
        if !self.unlike.contains_key(&remote) {
            self.member(membership::Input::Join { origin: peer, addr: remote });
        }
        self.metrics.links.set(self.peers.len() as i64);
    }

    pub(super) fn closed(&mut self, peer: Origin, link: LinkId, why: &str) {
        if self.peers.get(&peer).is_none_or(|known| known.link.id() != link) {
            return;
        }
        tracing::info!(peer = %peer.short(), why, "the link is over");
        if self.peers.remove(&peer).is_some_and(|peer| peer.hello.is_some()) {
            self.replicate(replication::Input::PeerDown(peer));
            self.document(documents::Input::PeerDown(peer));
        }
        self.metrics.links.set(self.peers.len() as i64);
    }

    pub(super) fn message(&mut self, from: Origin, message: Message) {
        if let Message::Hello(hello) = message {
            return self.hello(from, hello);
        }
        if self.peers.get(&from).is_none_or(|peer| peer.hello.is_none()) {
            return;
        }
        match message {
            Message::Hello(_) => {}
            Message::Held(held) => {
                self.replicate(replication::Input::Heard { from, held });
            }
            Message::Run(run) => self.arrived(from, run, true),
            Message::Stored(stored) => self.replicate(replication::Input::PeerStored { from, stored }),
            Message::Checkpoint(checkpoint) => {
                if checkpoint.origin == from {
                    self.copies.keep_checkpoint(checkpoint);
                }
            }
            Message::Document(bytes) => self.heard_document(from, &bytes),
            Message::Peers(peers) => self.told_of_peers(peers),
            Message::Ping { sent_ns } => {
                let pong = Message::Pong { sent_ns, wall_ms: self.env.wall().as_millis() };
                self.say(from, Class::Alert, &pong);
            }
            Message::Pong { sent_ns, wall_ms } => self.pong(from, sent_ns, wall_ms),
            Message::Revoked(list) => self.told_of_revocations(from, &list),
            Message::Bye => {
                self.member(membership::Input::Left(from));
            }
        }
    }

    pub(super) fn hello(&mut self, from: Origin, hello: Hello) {
        let (version, oldest) = self.dialect.versions();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if hello.oldest > version || hello.version < oldest {
            tracing::warn!(peer = %from.short(), theirs = hello.version, ours = version, "a peer speaks another version");
            self.unlike.insert(peer.link.remote(), self.env.now());
            peer.link.close("no common version");
            return self.member(membership::Input::Left(from));
        }
        peer.hello = Some(hello);
        let addr = peer.link.remote();
        if self.unlike.remove(&addr).is_some() {
            self.member(membership::Input::Join { origin: from, addr });
        }
        self.ask_homes(from);
        self.replicate(replication::Input::PeerUp(from));
        self.document(documents::Input::PeerUp(from));
        self.remember(from, addr);
        // A node that listens everywhere does not know where others reach it; they do.
        let others = self.peers.iter().filter(|(peer, _)| **peer != from);
        let others: Vec<(Origin, SocketAddr)> = others.map(|(peer, link)| (*peer, link.link.remote())).collect();
        others.iter().for_each(|(peer, _)| self.say(*peer, Class::State, &Message::Peers(vec![(from, addr)])));
        self.say(from, Class::State, &Message::Peers(others));
        self.say_revocations(from);
    }

    fn told_of_peers(&mut self, peers: Vec<(Origin, SocketAddr)>) {
        for (peer, addr) in peers.into_iter().take(membership::MEMBERS_MAX) {
            let is_wanted = peer != self.me && !self.peers.contains_key(&peer) && !self.upkeep.revoked.contains(&peer);
            if is_wanted && self.addrs.len() < membership::MEMBERS_MAX {
                self.addrs.insert(peer, addr);
                self.transport.dial(vec![addr]);
            }
        }
    }

    /// What only a node of a later version says, to each peer: as a message, about documents, and as a question. See [`crate::transport::Dialect`].
    pub(super) fn say_unknown(&self) {
        let Some(unknown) = self.dialect.unknown() else { return };
        for peer in self.peers.values() {
            let link = peer.link.clone();
            link.send(Class::State, unknown.clone());
            link.send(Class::State, wire::encode(&Message::Document(unknown.clone())));
            let (env, unknown) = (self.env.clone(), unknown.clone());
            self.env.spawn(async move {
                let answer = async { link.request(Class::State, unknown).await.ok()?.next().await.ok()? };
                let answer = env.timeout(PATIENCE, answer).await.ok().flatten();
                let known = answer
                    .is_some_and(|frame| wire::decode::<Reply>(&frame).is_ok_and(|reply| reply == Reply::Unknown));
                tracing::debug!(peer = %link.peer().short(), known, "a question of a later version was answered");
            });
        }
    }

    pub(super) fn say(&self, to: Origin, class: Class, message: &Message) {
        if let Some(peer) = self.peers.get(&to) {
            peer.link.send(class, wire::encode(message));
        }
    }

    pub(super) fn pong(&mut self, from: Origin, sent_ns: u64, wall_ms: i64) {
        let now = self.env.now();
        let there = now.since(Mono(sent_ns)).0 / 2 / 1_000_000;
        let ahead = wall_ms.saturating_sub(self.env.wall().as_millis() - there);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.clock_ahead_ms = Some(ahead);
        }
    }

    pub(super) fn remember(&mut self, peer: Origin, addr: SocketAddr) {
        let known = self.membership.members().find(|(member, _)| member.origin == peer).map(|(member, _)| member.addr);
        let addr = known.filter(|addr| !addr.ip().is_unspecified()).unwrap_or(addr);
        if self.addrs.insert(peer, addr) == Some(addr) {
            return;
        }
        let put =
            Put { table: Table::Meta, key: [PEER_PREFIX, &peer.0].concat(), value: Some(record::encode(&addr).into()) };
        let writer = self.node.writer.clone();
        self.env.spawn(async move {
            writer.write(Class::State, Vec::new(), vec![put]).await;
        });
    }

    /// Calls everybody who is known and not linked.
    pub(super) fn dial(&mut self) {
        self.dialled_at = self.env.now();
        let mut known: BTreeSet<SocketAddr> = BTreeSet::new();
        for (origin, addr) in &self.addrs {
            if *origin != self.me && !self.peers.contains_key(origin) && !self.upkeep.revoked.contains(origin) {
                known.insert(*addr);
            }
        }
        let linked: BTreeSet<SocketAddr> = self.peers.values().map(|peer| peer.link.remote()).collect();
        // A seed may stand for somebody whose own address is another one: it is called as long as somebody is missing.
        if self.peers.is_empty() || !known.is_empty() || self.peers.len() < self.seeds.len() {
            known.extend(self.seeds.iter().copied());
        }
        if self.peers.is_empty() {
            known.extend(&self.identity.first_seeds);
        }
        let own = advertised(&self.config, self.transport.local_addr());
        let unlike =
            |addr: &SocketAddr| self.unlike.get(addr).is_some_and(|since| self.dialled_at.since(*since) < UNLIKE);
        for addr in known.difference(&linked).filter(|addr| **addr != own && !unlike(addr)) {
            self.transport.dial(vec![*addr]);
        }
    }

    pub(super) fn resolve_seeds(&self) {
        let (env, actor, seeds) = (self.env.clone(), self.actor.clone(), self.config.site.seeds.clone());
        self.env.spawn(async move {
            let mut found = Vec::new();
            for seed in seeds.into_iter().filter(|seed| seed != SiteSettings::MDNS) {
                let Some((host, port)) = seed.rsplit_once(':') else { continue };
                let Ok(port) = port.parse() else { continue };
                match env.net.resolve(host, port).await {
                    Ok(addrs) => found.extend(addrs),
                    Err(error) => tracing::warn!(seed, %error, "a seed could not be resolved"),
                }
            }
            let _ = actor.cast(MeshMsg::Resolved(found));
        });
    }

    /// Finds whoever says on the local network that it is there. Who is of this site their certificates say.
    pub(super) fn look_around(&self) {
        if !self.config.site.seeds.iter().any(|seed| seed == SiteSettings::MDNS) {
            return;
        }
        let (env, actor) = (self.env.clone(), self.actor.clone());
        let (name, at) = (self.me.short().to_string(), advertised(&self.config, self.transport.local_addr()));
        self.env.spawn(async move {
            match env.net.neighbours(&name, at).await {
                Ok(mut neighbours) => {
                    while let Some(found) = neighbours.next().await
                        && actor.cast(MeshMsg::Resolved(found)).is_ok()
                    {}
                }
                Err(error) => tracing::warn!(%error, "nobody can be looked for on the local network"),
            }
        });
    }

    pub(super) fn member(&mut self, input: membership::Input<'_>) {
        let mut effects = Vec::new();
        self.membership.handle(self.now(), input, &mut effects);
        let mut changed = false;
        for effect in effects {
            match effect {
                membership::Effect::Send { to, bytes } => {
                    if let Some(peer) = self.peers.get(&to.origin) {
                        peer.link.datagram(bytes.into());
                    }
                }
                membership::Effect::Timer { after, token } => {
                    let (timer, actor) = (self.env.sleep(after), self.actor.clone());
                    self.env.spawn(async move {
                        timer.await;
                        let _ = actor.cast(MeshMsg::Timer(token));
                    });
                }
                membership::Effect::Up(member) => {
                    tracing::info!(peer = %member.origin.short(), name = member.name, "is up");
                    self.env.trace.event("member up", &member.origin.0);
                    if !member.addr.ip().is_unspecified() {
                        self.addrs.insert(member.origin, member.addr);
                    }
                    self.returned(member.origin);
                    changed = true;
                }
                membership::Effect::Suspected(member) => {
                    tracing::info!(peer = %member.origin.short(), name = member.name, "is suspected");
                }
                membership::Effect::Down(member) => {
                    tracing::warn!(peer = %member.origin.short(), name = member.name, "is down");
                    self.env.trace.event("member down", &member.origin.0);
                    // A connection that has waited for long comes back late; a new one comes back at once.
                    if let Some(peer) = self.peers.get(&member.origin) {
                        peer.link.close("it does not answer");
                    }
                    changed = true;
                }
            }
        }
        if changed {
            self.members_changed();
        }
    }

    pub(super) fn is_gone(&self, origin: Origin) -> bool {
        origin != self.me && self.membership.health(origin) == Some(Health::Down)
    }

    pub(super) fn members_changed(&mut self) {
        let up = self.membership.members().filter(|(_, health)| *health != Health::Down);
        let mut up: Vec<Origin> = up.map(|(member, _)| member.origin).chain([self.me]).collect();
        up.sort_unstable();
        self.metrics.members.set(up.len() as i64);
        self.replicate(replication::Input::Members(up));
    }
}

pub(super) fn advertised(config: &Config, local: SocketAddr) -> SocketAddr {
    config.site.advertise.as_deref().and_then(|addr| addr.parse().ok()).unwrap_or(local)
}

pub(super) fn peers_on_disk(reader: &Reader) -> Result<BTreeMap<Origin, SocketAddr>, ReadError> {
    let mut found = BTreeMap::new();
    reader.range(Table::Meta, PEER_PREFIX, |key, value| {
        let Some(origin) = key.strip_prefix(PEER_PREFIX).and_then(|key| <[u8; 16]>::try_from(key).ok()) else {
            return std::ops::ControlFlow::Break(());
        };
        if let Ok(addr) = record::decode(&value) {
            found.insert(Origin(origin), addr);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(found)
}
