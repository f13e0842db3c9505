//! What the mesh's actor holds, and how inputs go in and effects out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use millpond_actors::{Running, Writer, config::Config, site::Site};
use millpond_core::{
    admission::Known,
    ids::{Incarnation, Origin, Seq},
    record::{self, Class, Home, RecordKind, Track},
    time::Span,
};
use millpond_env::{Env, Mono, StdRng};
use millpond_proto::{
    Now,
    membership::{self, Health, Member, Membership},
    replication::{self, Copied, FetchEnd, FetchId, Life, Moment, Replication, RunKey},
    wire::{self, Hello, Message, Run},
};
use millpond_store::{ReadError, Reader, Table};
use prometheus::Registry;
use ractor::ActorRef;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    Arguments, Arrival, MeshError, MeshMsg, Shared,
    adoption::{self, Adoptions},
    copies::{self, Copies, Done},
    fetch,
    homes::Homes,
    push::{self, Push},
    report::MeshMetrics,
    runs::Source,
    serve,
};
use crate::{
    identity::{Desk, NodeIdentity},
    transport::{Event, Link, LinkId, Transport},
};

/// How often somebody who is known, and to whom there is no link, is called.
const DIAL_EVERY: Span = Span::from_secs(1);
const PING_EVERY: Span = Span::from_secs(5);
/// Rows of [`Table::Meta`] with where peers were reached last: this prefix and the origin.
const PEER_PREFIX: &[u8] = b"peer/";

/// The node's data plane, as the mesh needs it.
pub(crate) struct Plane {
    pub reader: Reader,
    pub writer: Writer,
    pub site: Arc<Site>,
    pub known: Arc<dyn Fn(Vec<String>) -> oneshot::Receiver<Vec<Known>> + Send + Sync>,
    pub release: Arc<dyn Fn(&[String]) + Send + Sync>,
    pub incarnation: Incarnation,
    pub boots: u32,
    pub registry: Registry,
}

impl Plane {
    pub fn of(running: &Running) -> Plane {
        Plane {
            reader: running.reader.clone(),
            writer: running.writer.clone(),
            site: running.site.clone(),
            known: Arc::new(running.known()),
            release: Arc::new(running.release()),
            incarnation: running.opened.incarnation,
            boots: running.opened.boots,
            registry: running.registry.clone(),
        }
    }
}

/// A peer with a link.
pub(super) struct Peer {
    pub link: Link,
    /// What it said of itself; nothing else of it counts before.
    pub hello: Option<Hello>,
    push: mpsc::UnboundedSender<Push>,
    /// How far its wall clock is ahead of ours, in ms, by the last ping.
    pub clock_ahead_ms: Option<i64>,
}

pub(crate) struct State {
    pub(super) env: Env,
    pub(super) config: Arc<Config>,
    pub(super) settings: Arc<millpond_actors::Settings>,
    pub(super) identity: Arc<NodeIdentity>,
    pub(super) node: Plane,
    pub(super) actor: ActorRef<MeshMsg>,
    pub(super) transport: Transport,
    pub(super) me: Origin,
    pub(super) membership: Membership<StdRng>,
    pub(super) replication: Replication,
    pub(super) peers: BTreeMap<Origin, Peer>,
    /// Where peers were reached, also in earlier lives.
    addrs: BTreeMap<Origin, SocketAddr>,
    seeds: BTreeSet<SocketAddr>,
    pub(super) copies: Copies,
    shared: Shared,
    /// What is held of each copy, on disk.
    pub(super) held: BTreeMap<(Life, Track), Seq>,
    pub(super) homes: Homes,
    pub(super) adoptions: Adoptions,
    pub(super) permits: Arc<Semaphore>,
    dialled_at: Mono,
    pinged_at: Mono,
    checkpoint: Seq,
    pub(super) desk: Arc<Desk>,
    pub(super) metrics: MeshMetrics,
    started: Mono,
}

impl State {
    pub fn new(args: Arguments, actor: ActorRef<MeshMsg>) -> Result<State, MeshError> {
        let Arguments { env, config, settings, identity, node, transport, found, copies: shared } = args;
        let me = identity.origin;
        let to = actor.clone();
        let tell = Arc::new(move |done| {
            let _ = to.cast(MeshMsg::Copy(done));
        });
        let retention = millpond_actors::retention_of_copies(&config);
        let mut copies = Copies::new(env.clone(), retention, tell);
        let (mut copied, mut held): (Vec<Copied>, BTreeMap<(Life, Track), Seq>) = Default::default();
        let mut readers = Vec::new();
        for (life, open) in found.into_iter().filter(|(life, _)| life.origin != me) {
            held.extend(open.copied.iter().map(|copied| ((life, copied.track), Seq(copied.covered.last()))));
            copied.extend(open.copied.iter().cloned());
            readers.push((life, open.reader.clone()));
            copies.take(life, open);
        }
        let boot = (u64::from(node.incarnation.0) << 32) | u64::from(node.boots);
        let listen = advertised(&config, transport.local_addr());
        let member = Member::new(me, listen, boot, &config.node.name);
        let membership = Membership::new(member, env.rng("membership"), membership::Config::default());
        let replicas = config.site.replicas as usize;
        let life = Life { origin: me, incarnation: node.incarnation };
        let (head, last) = heads(&node.reader)?;
        let replication = Replication::new(replication::Settings { me: life, replicas }, head, last, copied);
        let metrics = MeshMetrics::new(&node.registry)?;
        let addrs = peers_on_disk(&node.reader)?;
        let mut state = State {
            checkpoint: node.site.checkpoint(),
            desk: Arc::new(Desk::new(env.clone())),
            started: env.now(),
            dialled_at: Mono(0),
            pinged_at: env.now(),
            permits: Arc::new(Semaphore::new(serve::PERMITS)),
            env,
            config,
            settings,
            identity,
            node,
            actor,
            transport,
            me,
            membership,
            replication,
            peers: BTreeMap::new(),
            addrs,
            seeds: BTreeSet::new(),
            copies,
            shared,
            held,
            homes: Homes::default(),
            adoptions: Adoptions::default(),
            metrics,
        };
        state.resolve_seeds();
        state.own_homes()?;
        readers.iter().for_each(|(life, reader)| state.homes_of(*life, reader));
        state.show_copies();
        state.members_changed();
        Ok(state)
    }

    pub fn env(&self) -> Env {
        self.env.clone()
    }

    pub fn handle(&mut self, msg: MeshMsg) {
        match msg {
            MeshMsg::Event(event) => self.event(event),
            MeshMsg::Moved => self.moved(),
            MeshMsg::Timer(token) => self.member(membership::Input::Timer(token)),
            MeshMsg::Tick => self.tick(),
            MeshMsg::Copy(done) => self.copy(done),
            MeshMsg::Resolved(addrs) => {
                self.seeds.extend(addrs);
                self.dial();
            }
            MeshMsg::PushFailed { to, track } => self.replicate(replication::Input::PushFailed { to, track }),
            MeshMsg::Fetched { from, run } => self.arrived(from, run, false),
            MeshMsg::FetchEnded { id, how } => self.replicate(replication::Input::FetchEnded { id, how }),
            MeshMsg::Adopted { life, head, adopted } => self.adopted(life, head, adopted),
            MeshMsg::Arrive { devices, reply } => {
                let _ = reply.send(self.arrive(&devices));
            }
            MeshMsg::Elsewhere(reply) => {
                let _ = reply.send(self.elsewhere());
            }
            MeshMsg::Operate { what, body, reply } => self.operate(&what, &body, reply),
            MeshMsg::Stop(reply) => self.stop(reply),
        }
    }

    fn now(&self) -> Now {
        Now(self.env.now().0)
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected(link) => self.connected(link),
            Event::Closed { peer, link, why } => self.closed(peer, link, &why),
            Event::DialFailed { addrs, why } => tracing::debug!(?addrs, why, "a peer was not reached"),
            Event::Datagram { from, bytes } => self.member(membership::Input::Datagram { from, bytes: &bytes }),
            Event::Message { from, link, frame, credit, .. } => {
                if self.peers.get(&from).is_none_or(|peer| peer.link.id() != link) {
                    return;
                }
                match wire::decode::<Message>(&frame) {
                    Ok(message) => self.message(from, message),
                    Err(error) => {
                        self.metrics.malformed.inc();
                        tracing::debug!(%from, %error, "a message could not be read");
                    }
                }
                drop(credit);
            }
            Event::Request { from, frame, replies, .. } => self.request(from, &frame, replies),
            Event::Enrol { from, frame, replies } => self.enrol(from, frame, replies),
        }
    }

    fn connected(&mut self, link: Link) {
        let (peer, remote) = (link.peer(), link.remote());
        tracing::info!(peer = %peer.short(), %remote, "linked");
        let (queue, pushes) = mpsc::unbounded_channel();
        let (life, actor) = (self.life(), self.actor.clone());
        self.env.spawn(push::pusher(
            self.env.clone(),
            self.node.reader.clone(),
            move |track| Source { life, track },
            link.clone(),
            pushes,
            move |track| {
                let _ = actor.cast(MeshMsg::PushFailed { to: peer, track });
            },
        ));
        let before = self.peers.insert(peer, Peer { link: link.clone(), hello: None, push: queue, clock_ahead_ms: None });
        if before.is_some_and(|peer| peer.hello.is_some()) {
            self.replicate(replication::Input::PeerDown(peer));
        }
        let hello = Hello {
            version: wire::VERSION,
            oldest: wire::OLDEST,
            incarnation: self.node.incarnation,
            name: self.config.node.name.clone(),
            wall_ms: self.env.wall().as_millis(),
        };
        self.say(peer, Class::Alert, &Message::Hello(hello));
        self.member(membership::Input::Join { origin: peer, addr: remote });
        self.metrics.links.set(self.peers.len() as i64);
    }

    fn closed(&mut self, peer: Origin, link: LinkId, why: &str) {
        if self.peers.get(&peer).is_none_or(|known| known.link.id() != link) {
            return;
        }
        tracing::info!(peer = %peer.short(), why, "the link is over");
        if self.peers.remove(&peer).is_some_and(|peer| peer.hello.is_some()) {
            self.replicate(replication::Input::PeerDown(peer));
        }
        self.metrics.links.set(self.peers.len() as i64);
    }

    fn message(&mut self, from: Origin, message: Message) {
        if let Message::Hello(hello) = message {
            return self.hello(from, hello);
        }
        if self.peers.get(&from).is_none_or(|peer| peer.hello.is_none()) {
            return;
        }
        match message {
            Message::Hello(_) => {}
            Message::Held(held) => self.replicate(replication::Input::Heard { from, held }),
            Message::Run(run) => self.arrived(from, run, true),
            Message::Stored(stored) => self.replicate(replication::Input::PeerStored { from, stored }),
            Message::Checkpoint(checkpoint) => {
                if checkpoint.origin == from {
                    self.copies.keep_checkpoint(checkpoint);
                }
            }
            Message::Document(_) => {}
            Message::Ping { sent_ns } => {
                let pong = Message::Pong { sent_ns, wall_ms: self.env.wall().as_millis() };
                self.say(from, Class::Alert, &pong);
            }
            Message::Pong { sent_ns, wall_ms } => self.pong(from, sent_ns, wall_ms),
            Message::Bye => {
                self.member(membership::Input::Left(from));
            }
        }
    }

    fn hello(&mut self, from: Origin, hello: Hello) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if hello.oldest > wire::VERSION || hello.version < wire::OLDEST {
            tracing::warn!(peer = %from.short(), theirs = hello.version, ours = wire::VERSION, "a peer speaks another version");
            return peer.link.close("no common version");
        }
        peer.hello = Some(hello);
        let addr = peer.link.remote();
        self.replicate(replication::Input::PeerUp(from));
        self.remember(from, addr);
    }

    /// Records that a peer sent, by itself or because it was asked.
    fn arrived(&mut self, from: Origin, run: Run, live: bool) {
        if !run.is_sound() {
            self.metrics.malformed.inc();
            return;
        }
        let key = RunKey::of(&run);
        let mut effects = Vec::new();
        let input = replication::Input::Arrived { from, run: key, live };
        self.replication.handle(Moment(self.env.now().0), input, &mut effects);
        let mut run = Some(run);
        for effect in effects {
            match effect {
                replication::Effect::Keep(kept) if kept == key => {
                    if let Some(run) = run.take() {
                        self.metrics.kept(&run);
                        self.learn_homes(&run);
                        self.copies.keep(run);
                    }
                }
                replication::Effect::Ignore(_, _) => self.metrics.ignored.inc(),
                effect => self.carry_out(effect),
            }
        }
    }

    pub(super) fn replicate(&mut self, input: replication::Input) {
        let mut effects = Vec::new();
        self.replication.handle(Moment(self.env.now().0), input, &mut effects);
        effects.into_iter().for_each(|effect| self.carry_out(effect));
    }

    fn carry_out(&mut self, effect: replication::Effect) {
        match effect {
            replication::Effect::Announce { to, held } => self.say(to, Class::State, &Message::Held(held)),
            replication::Effect::Push { to, track, first, last } => {
                if let Some(peer) = self.peers.get(&to) {
                    let _ = peer.push.send(Push { track, first, last });
                }
            }
            replication::Effect::Fetch { id, from, run, bytes_max } => self.fetch(id, from, run, bytes_max),
            replication::Effect::Acknowledge { to, stored } => self.say(to, Class::State, &Message::Stored(stored)),
            replication::Effect::Confirmed { head } => self.node.site.confirm(head),
            replication::Effect::Superseded { incarnation, head } => {
                tracing::error!(incarnation = incarnation.0, head = head.0, "the site knows a later life of this node");
            }
            replication::Effect::Keep(_) | replication::Effect::Ignore(..) => {}
        }
    }

    fn fetch(&self, id: FetchId, from: Origin, wanted: RunKey, bytes_max: u64) {
        let (env, actor) = (self.env.clone(), self.actor.clone());
        let link = self.peers.get(&from).map(|peer| peer.link.clone());
        self.env.spawn(async move {
            let how = match link {
                Some(link) => {
                    let each = |run| {
                        let _ = actor.cast(MeshMsg::Fetched { from, run });
                    };
                    fetch::fetch(&env, &link, wanted, bytes_max, each).await
                }
                None => FetchEnd::Failed,
            };
            let _ = actor.cast(MeshMsg::FetchEnded { id, how });
        });
    }

    fn copy(&mut self, done: Done) {
        match done {
            Done::Opened { life, result: Ok(open) } => {
                for copied in &open.copied {
                    self.note_held(life, copied.track, Seq(copied.covered.last()));
                }
                self.copies.opened(life, open);
                self.show_copies();
            }
            Done::Opened { life, result: Err(error) } => {
                tracing::error!(origin = %life.origin, %error, "the copy of a node's journal could not be opened");
                for run in self.copies.failed(life) {
                    self.replicate(replication::Input::NotPersisted(run));
                }
            }
            Done::Stored { life, runs, result } => {
                match result {
                    Ok(committed) => {
                        for run in runs {
                            self.note_held(life, run.track, run.last);
                            self.replicate(replication::Input::Persisted(run));
                        }
                        for range in committed.dropped {
                            let (track, floor) = (range.class.track(), Seq(range.last));
                            self.replicate(replication::Input::Dropped { life, track, floor });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(origin = %life.origin, %error, "records of another node could not be stored");
                        for run in runs {
                            self.replicate(replication::Input::NotPersisted(run));
                        }
                    }
                }
                self.copies.done(life);
            }
        }
    }

    fn note_held(&mut self, life: Life, track: Track, last: Seq) {
        let held = self.held.entry((life, track)).or_default();
        *held = (*held).max(last);
    }

    pub(super) fn life(&self) -> Life {
        Life { origin: self.me, incarnation: self.node.incarnation }
    }

    fn show_copies(&self) {
        let copies = self.copies.readers().map(|(life, reader)| millpond_actors::site::Copy {
            origin: life.origin,
            incarnation: life.incarnation,
            reader: reader.clone(),
            raw: self.held.get(&(life, Track::Raw)).is_some_and(|held| held.0 > 0),
        });
        *self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = copies.collect();
    }

    fn moved(&mut self) {
        match heads(&self.node.reader) {
            Ok((head, last)) => self.replicate(replication::Input::Committed { head, last }),
            Err(error) => tracing::debug!(%error, "the journal could not be read for a moment"),
        }
        let checkpoint = self.node.site.checkpoint();
        if checkpoint > self.checkpoint {
            self.checkpoint = checkpoint;
            self.send_checkpoint();
        }
    }

    /// The holders of this node's events get what its windows were at the last checkpoint, so that they need not begin with its first record.
    fn send_checkpoint(&self) {
        let holders = self.replication.holders(self.me);
        let links: Vec<Link> = holders.iter().filter_map(|peer| Some(self.peers.get(peer)?.link.clone())).collect();
        if links.is_empty() {
            return;
        }
        let (env, reader, site) = (self.env.clone(), self.node.reader.clone(), self.node.site.clone());
        let (origin, incarnation) = (self.me, self.node.incarnation);
        self.env.spawn(async move {
            let Some(Ok(rows)) = env.unblock(move || copies::checkpoint_rows(&reader)).await else { return };
            // The rows may be newer than the checkpoint that was told, never newer than this.
            let cursor = site.head();
            let frame = wire::encode(&Message::Checkpoint(wire::Checkpoint { origin, incarnation, cursor, rows }));
            if frame.len() <= wire::FRAME_BYTES_MAX {
                links.iter().for_each(|link| {
                    link.send(Class::Raw, frame.clone());
                });
            }
        });
    }

    pub(super) fn say(&self, to: Origin, class: Class, message: &Message) {
        if let Some(peer) = self.peers.get(&to) {
            peer.link.send(class, wire::encode(message));
        }
    }

    fn tick(&mut self) {
        self.member(membership::Input::Tick);
        self.replicate(replication::Input::Tick);
        let now = self.env.now();
        if now.since(self.dialled_at) >= DIAL_EVERY {
            self.dial();
        }
        if now.since(self.pinged_at) >= PING_EVERY {
            self.pinged_at = now;
            let sent_ns = now.0;
            self.peers.keys().for_each(|peer| self.say(*peer, Class::Alert, &Message::Ping { sent_ns }));
        }
        self.adopt();
        self.show_copies();
        self.measure();
    }

    fn pong(&mut self, from: Origin, sent_ns: u64, wall_ms: i64) {
        let now = self.env.now();
        let there = now.since(Mono(sent_ns)).0 / 2 / 1_000_000;
        let ahead = wall_ms - (self.env.wall().as_millis() - there);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.clock_ahead_ms = Some(ahead);
        }
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
                    self.addrs.insert(member.origin, member.addr);
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

    fn members_changed(&mut self) {
        let up = self.membership.members().filter(|(_, health)| *health != Health::Down);
        let mut up: Vec<Origin> = up.map(|(member, _)| member.origin).chain([self.me]).collect();
        up.sort_unstable();
        self.metrics.members.set(up.len() as i64);
        self.replicate(replication::Input::Members(up));
    }

    fn resolve_seeds(&self) {
        let (env, actor, seeds) = (self.env.clone(), self.actor.clone(), self.config.site.seeds.clone());
        self.env.spawn(async move {
            let mut found = Vec::new();
            for seed in seeds {
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

    /// Calls everybody who is known and not linked.
    fn dial(&mut self) {
        self.dialled_at = self.env.now();
        let mut known: BTreeSet<SocketAddr> = BTreeSet::new();
        for (origin, addr) in &self.addrs {
            if *origin != self.me && !self.peers.contains_key(origin) {
                known.insert(*addr);
            }
        }
        let linked: BTreeSet<SocketAddr> = self.peers.values().map(|peer| peer.link.remote()).collect();
        // A seed may stand for somebody whose own address is another one: it is called as long as somebody is missing.
        if self.peers.is_empty() || !known.is_empty() || self.peers.len() < self.seeds.len() {
            known.extend(self.seeds.iter().copied());
        }
        let own = advertised(&self.config, self.transport.local_addr());
        for addr in known.difference(&linked).filter(|addr| **addr != own) {
            self.transport.dial(vec![*addr]);
        }
    }

    fn remember(&mut self, peer: Origin, addr: SocketAddr) {
        let known = self.membership.members().find(|(member, _)| member.origin == peer).map(|(member, _)| member.addr);
        let addr = known.unwrap_or(addr);
        if self.addrs.insert(peer, addr) == Some(addr) {
            return;
        }
        let put = millpond_store::Put {
            table: Table::Meta,
            key: [PEER_PREFIX, &peer.0].concat(),
            value: Some(record::encode(&addr).into()),
        };
        let writer = self.node.writer.clone();
        self.env.spawn(async move {
            writer.write(Class::State, Vec::new(), vec![put]).await;
        });
    }

    fn stop(&mut self, reply: oneshot::Sender<()>) {
        self.member(membership::Input::LeftInGoodOrder);
        let peers: Vec<Origin> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.say(peer, Class::Alert, &Message::Bye));
        let env = self.env.clone();
        self.env.spawn(async move {
            // Long enough for what was said to leave.
            env.sleep(Span::from_millis(20)).await;
            let _ = reply.send(());
        });
    }
}

/// Homes and adoption.
impl State {
    fn own_homes(&mut self) -> Result<(), ReadError> {
        let mut found = Vec::new();
        self.node.reader.scan(Class::State, Seq(1), |row| {
            found.extend(homes_in(row.kind, row.payload));
            std::ops::ControlFlow::Continue(())
        })?;
        for home in found {
            self.homes.learn(self.me, home);
        }
        Ok(())
    }

    fn homes_of(&mut self, life: Life, reader: &Reader) {
        let origin = life.origin;
        let mut found = Vec::new();
        let read = reader.scan(Class::State, Seq(1), |row| {
            found.extend(homes_in(row.kind, row.payload));
            std::ops::ControlFlow::Continue(())
        });
        if let Err(error) = read {
            tracing::warn!(%origin, %error, "the homes of devices could not be read");
        }
        self.move_homes(origin, found);
    }

    fn learn_homes(&mut self, run: &Run) {
        let found: Vec<Home> =
            run.records.iter().flat_map(|record| homes_in(record.kind, &record.payload)).collect();
        self.move_homes(run.origin, found);
    }

    fn move_homes(&mut self, origin: Origin, homes: Vec<Home>) {
        let mut moved = Vec::new();
        for home in homes {
            moved.extend(self.homes.learn(origin, home).map(str::to_owned));
        }
        if !moved.is_empty() && origin != self.me {
            (self.node.release)(&moved);
        }
    }

    fn arrive(&mut self, devices: &[String]) -> Arrival {
        let mut arrival = Arrival { homes: Vec::new(), known: Vec::new(), ask: Vec::new() };
        let mut elsewhere: BTreeMap<Origin, Vec<String>> = BTreeMap::new();
        for device in devices {
            arrival.homes.push(self.homes.arrive(device, self.me));
            if let Some(home) = self.homes.of(device).filter(|home| *home != self.me) {
                elsewhere.entry(home).or_default().push(device.clone());
            }
        }
        for (origin, devices) in elsewhere {
            if let Some(peer) = self.peers.get(&origin).filter(|_| !self.is_gone(origin)) {
                arrival.ask.push((origin, devices, Some(peer.link.clone())));
                continue;
            }
            let adopted: Vec<_> = self.lives_of(origin).iter().filter_map(|life| self.adoptions.of(*life)).cloned().collect();
            if adopted.is_empty() {
                let holder = self.replication.holders(origin).into_iter().find_map(|peer| self.peers.get(&peer));
                arrival.ask.push((origin, devices, holder.map(|peer| peer.link.clone())));
                continue;
            }
            for device in &devices {
                arrival.known.extend(adopted.iter().filter_map(|adopted| adopted.devices.get(device)).cloned());
            }
        }
        arrival
    }

    /// The lives of an origin of which there are events here, the last one last.
    pub(super) fn lives_of(&self, origin: Origin) -> Vec<Life> {
        let held = self.held.iter().filter(|((life, track), held)| {
            life.origin == origin && *track == Track::Raw && held.0 > 0
        });
        held.map(|((life, _), _)| *life).collect()
    }

    /// Recovers the windows of nodes that are gone, from the copies that are held here, and again when more of their records come.
    fn adopt(&mut self) {
        let gone: Vec<Origin> = self.membership.members().map(|(member, _)| member.origin).collect();
        let gone = gone.into_iter().filter(|origin| self.is_gone(*origin));
        let lives: Vec<Life> = gone.flat_map(|origin| self.lives_of(origin)).collect();
        for life in lives {
            let head = self.held.get(&(life, Track::Raw)).copied().unwrap_or_default();
            let Some(reader) = self.copies.reader(life).cloned() else { continue };
            if !self.adoptions.begin(life, head) {
                continue;
            }
            let (env, settings, actor) = (self.env.clone(), self.settings.clone(), self.actor.clone());
            self.env.spawn(async move {
                let adopted = adoption::recover(&env, settings, reader, life).await;
                let _ = actor.cast(MeshMsg::Adopted { life, head, adopted });
            });
        }
    }

    fn adopted(&mut self, life: Life, head: Seq, adopted: Option<Arc<millpond_actors::adopt::Adopted>>) {
        self.adoptions.done(life, head, adopted);
        // All holders know the devices; the first one speaks.
        let speaks = self.replication.holders(life.origin).first() == Some(&self.me);
        if !speaks || !self.is_gone(life.origin) {
            return;
        }
        let panes = self.adoptions.unsaid(life);
        if panes.is_empty() {
            return;
        }
        tracing::info!(of = %life.origin.short(), panes = panes.len(), "the windows of a node that is gone go on here");
        self.metrics.adopted_panes.inc_by(panes.len() as u64);
        let (writer, records) = (self.node.writer.clone(), millpond_actors::adopt::records(&panes));
        self.env.spawn(async move {
            writer.write(Class::Pane, records, Vec::new()).await;
        });
    }

    fn returned(&mut self, origin: Origin) {
        for life in self.lives_of(origin) {
            self.adoptions.end(life);
        }
    }
}

fn homes_in(kind: RecordKind, payload: &[u8]) -> Vec<Home> {
    if kind != RecordKind::Homes {
        return Vec::new();
    }
    record::decode(payload).unwrap_or_default()
}

/// How far the journal goes, and the last record of each track.
fn heads(reader: &Reader) -> Result<(Seq, [Seq; 2]), ReadError> {
    let usage = reader.stats()?;
    let last = |track| {
        let classes = Class::ALL.into_iter().filter(|class| class.track() == track);
        classes.map(|class| usage.classes[class as usize].last_seq).max().unwrap_or_default()
    };
    Ok((Seq(usage.next_seq.0 - 1), [last(Track::Results), last(Track::Raw)]))
}

fn advertised(config: &Config, local: SocketAddr) -> SocketAddr {
    config.site.advertise.as_deref().and_then(|addr| addr.parse().ok()).unwrap_or(local)
}

fn peers_on_disk(reader: &Reader) -> Result<BTreeMap<Origin, SocketAddr>, ReadError> {
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
