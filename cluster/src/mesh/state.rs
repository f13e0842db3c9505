//! What the mesh's actor holds, and how inputs go in and effects out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use millpond_actors::{DevicesAsked, Found, Running, Settings, Writer, config::Config, settings::Current, site::Site};
use millpond_core::{
    admission::Known,
    ids::{Incarnation, Origin, Seq},
    problem::SpecProblem,
    record::{Class, Track},
    schema::Pattern,
    time::Span,
};
use millpond_env::{Env, Mono, StdRng};
use millpond_gateway::broker::Broker;
use millpond_proto::{
    Now, documents,
    membership::{self, Member, Membership},
    replication::{self, Copied, Life, Replication},
    wire::{self, Hello, Message},
};
use millpond_store::Reader;
use prometheus::Registry;
use ractor::ActorRef;
use rustls::crypto::CryptoProvider;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    Arguments, Arrival, MeshError, MeshMsg, Shared,
    adoption::Adoptions,
    copies::Copies,
    copying::heads,
    documents::Shelf,
    homes::Homes,
    orders::Orders,
    peers::{advertised, peers_on_disk},
    pen,
    push::Push,
    report::MeshMetrics,
    serve,
    settling::Settling,
    texts::Definitions,
    twins::Twins,
    upkeep::Upkeep,
};
use crate::{
    identity::{Desk, NodeIdentity},
    sites::Sites,
    transport::{Dialect, Event, Link, Transport},
};

/// How often somebody who is known, and to whom there is no link, is called.
/// Addresses to ask for the others: what is said on a local network has no end.
const SEEDS_MAX: usize = 256;
const DIAL_EVERY: Span = Span::from_secs(1);
const PING_EVERY: Span = Span::from_secs(5);

/// Goes on with other definitions, or says what is wrong with them.
type Reconfigure = Arc<dyn Fn(Settings) -> oneshot::Receiver<Result<(), Vec<SpecProblem>>> + Send + Sync>;

/// The node's data plane, as the mesh needs it.
pub(crate) struct Plane {
    pub reader: Reader,
    pub writer: Writer,
    pub site: Arc<Site>,
    pub known: Arc<dyn Fn(Vec<String>) -> oneshot::Receiver<Vec<Known>> + Send + Sync>,
    pub release: Arc<dyn Fn(&[String]) + Send + Sync>,
    pub rebuild: Arc<dyn Fn() -> oneshot::Receiver<()> + Send + Sync>,
    pub reconfigure: Reconfigure,
    pub devices: Arc<dyn Fn(DevicesAsked) -> Found + Send + Sync>,
    pub broker: Arc<Broker>,
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
            rebuild: Arc::new(running.rebuild()),
            reconfigure: Arc::new(running.reconfigure()),
            devices: Arc::new(running.devices()),
            broker: running.broker.clone(),
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
    pub push: mpsc::UnboundedSender<Push>,
    /// How far its wall clock is ahead of ours, in ms, by the last ping.
    pub clock_ahead_ms: Option<i64>,
}

pub(crate) struct State {
    pub(super) env: Env,
    pub(super) config: Arc<Config>,
    pub(super) settings: Current,
    pub(super) identity: Arc<NodeIdentity>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) node: Plane,
    pub(super) actor: ActorRef<MeshMsg>,
    pub(super) transport: Transport,
    pub(super) me: Origin,
    pub(super) membership: Membership<StdRng>,
    pub(super) replication: Replication,
    pub(super) peers: BTreeMap<Origin, Peer>,
    /// Where peers were reached, also in earlier lives.
    pub(super) addrs: BTreeMap<Origin, SocketAddr>,
    pub(super) seeds: BTreeSet<SocketAddr>,
    pub(super) copies: Copies,
    pub(super) shared: Shared,
    /// What is held of each copy, on disk.
    pub(super) held: BTreeMap<(Life, Track), Seq>,
    pub(super) homes: Homes,
    /// The last record of a copy that leaves events out of its node's windows.
    pub(super) left_out: BTreeMap<Life, Seq>,
    /// Own records up to here were looked through for homes.
    pub(super) own_homes_to: Seq,
    /// Devices that are to be entered into the registry.
    pub(super) newcomers: BTreeSet<String>,
    pub(super) device_types: Vec<(String, Vec<Pattern>)>,
    pub(super) shelf: Shelf,
    pub(super) twins: Twins,
    pub(super) orders: Orders,
    /// What must be written, and reports, which may be refused.
    pub(super) files: mpsc::UnboundedSender<pen::Job>,
    pub(super) reports: mpsc::UnboundedSender<pen::Job>,
    pub(super) adoptions: Adoptions,
    pub(super) permits: Arc<Semaphore>,
    /// Where somebody answered with whom there is no common version, and when.
    pub(super) unlike: BTreeMap<SocketAddr, Mono>,
    pub(super) dialled_at: Mono,
    pinged_at: Mono,
    pub(super) checkpoint: Seq,
    pub(super) desk: Arc<Desk>,
    pub(super) settling: Settling,
    pub(super) definitions: Definitions,
    /// Devices that come, to be answered for when the others' news have arrived.
    arriving: Vec<(Vec<String>, bool, oneshot::Sender<Arrival>)>,
    pub(super) metrics: MeshMetrics,
    pub(super) upkeep: Upkeep,
    pub(super) dialect: Dialect,
    pub(super) sites: Sites,
}

impl State {
    pub fn new(args: Arguments, actor: ActorRef<MeshMsg>) -> Result<State, MeshError> {
        let Arguments {
            env,
            config,
            settings,
            identity,
            provider,
            node,
            transport,
            habits,
            found,
            copies: shared,
            sites,
        } = args;
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
        let shelf = Shelf::load(&node.reader, me, (node.incarnation, node.boots), habits)?;
        let (twins, orders) = (Twins::load(&node.reader)?, Orders::load(&node.reader)?);
        let (files, reports) = (writes(&env, &node.writer, &actor, true), writes(&env, &node.writer, &actor, false));
        let types = config.device_types.iter();
        let patterns = |names: &[String]| names.iter().map(|name| Pattern::new(name)).collect();
        let device_types = types.map(|kind| (kind.name.clone(), patterns(&kind.devices))).collect();
        let mut state = State {
            checkpoint: node.site.checkpoint(),
            desk: Arc::new(Desk::new(env.clone(), habits.certificate_life)),
            settling: Settling::new(env.now()),
            definitions: Definitions::at_start(),
            arriving: Vec::new(),
            unlike: BTreeMap::new(),
            dialled_at: Mono(0),
            pinged_at: env.now(),
            permits: Arc::new(Semaphore::new(serve::PERMITS)),
            env,
            config,
            settings,
            upkeep: Upkeep::new(identity.revoked.clone(), habits.certificate_life),
            identity,
            provider,
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
            left_out: BTreeMap::new(),
            own_homes_to: Seq(0),
            newcomers: BTreeSet::new(),
            device_types,
            shelf,
            twins,
            orders,
            files,
            reports,
            adoptions: Adoptions::default(),
            metrics,
            dialect: habits.dialect,
            sites,
        };
        state.resolve_seeds();
        state.look_around();
        state.own_homes(last[Track::Results as usize])?;
        readers.iter().for_each(|(life, reader)| {
            state.homes_of(*life, reader);
            state.twins_of(*life, reader);
        });
        let known = state.shelf.documents.with_desired();
        state.twins.due.extend(known);
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
            MeshMsg::DocumentsDue => self.documents_due(),
            MeshMsg::Copy(done) => self.copy(done),
            MeshMsg::Resolved(addrs) => {
                let room = SEEDS_MAX.saturating_sub(self.seeds.len());
                self.seeds.extend(addrs.into_iter().take(room));
                self.dial();
            }
            MeshMsg::PushFailed { to, track } => self.replicate(replication::Input::PushFailed { to, track }),
            MeshMsg::Fetched { from, run } => self.arrived(from, run, false),
            MeshMsg::FetchEnded { id, how } => self.replicate(replication::Input::FetchEnded { id, how }),
            MeshMsg::Adopted { life, events, adopted } => self.adopted(life, events, adopted),
            MeshMsg::ToldOfHomes { told, reply } => self.told_of_homes(told, reply),
            MeshMsg::Settled { through, rebuilds } => self.settled(through, rebuilds),
            MeshMsg::Defined { heads, problems } => self.defined(heads, problems),
            MeshMsg::Arrive { devices, again, reply } => self.arriving.push((devices, again, reply)),
            MeshMsg::Elsewhere { parts, silent, reply } => {
                let _ = reply.send(self.plan(parts, &silent));
            }
            MeshMsg::OnOffer(reply) => drop(reply.send(self.on_offer())),
            MeshMsg::Links(reply) => drop(reply.send(self.peers.values().map(|peer| peer.link.clone()).collect())),
            MeshMsg::Ordered { cloud, order, reply } => drop(reply.send(self.ordered(&cloud, &order))),
            MeshMsg::Obey { cloud, order, reply } => self.obey(&cloud, &order, reply),
            MeshMsg::Operate { what, body, reply } => self.operate(&what, &body, reply),
            MeshMsg::Written { then, stored } => self.written(then, stored),
            MeshMsg::Listens { device, on } => self.listens(&device, on),
            MeshMsg::Handed { id, taken } => self.handed(id, taken),
            MeshMsg::Devices { registry, lists, limit, reply } => self.list_devices(registry, lists, limit, reply),
            MeshMsg::Looked(looked) => self.looked(looked),
            MeshMsg::Renewed(identity) => self.renewed(identity),
            MeshMsg::Stop(reply) => self.stop(reply),
        }
        if self.is_settled() {
            for (devices, again, reply) in std::mem::take(&mut self.arriving) {
                let _ = reply.send(self.arrive(&devices, again));
            }
        }
    }

    /// Something panicked half-way. What peers were told and have said may not fit any more: all links begin anew.
    pub fn recover(&mut self) {
        tracing::error!("the mesh failed at a message; its links begin anew");
        self.metrics.panics.inc();
        self.peers.values().for_each(|peer| peer.link.close("it begins anew"));
    }

    pub(super) fn now(&self) -> Now {
        Now(self.env.now().0)
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected(link) => self.connected(link),
            Event::Closed { peer, link, why } => self.closed(peer, link, &why),
            Event::DialFailed { addrs, why } => tracing::debug!(?addrs, why, "a peer was not reached"),
            // With whom there is no common version is no member.
            Event::Datagram { from, bytes } => {
                let addr = self.peers.get(&from).map(|peer| peer.link.remote());
                if addr.is_none_or(|addr| !self.unlike.contains_key(&addr)) {
                    self.member(membership::Input::Datagram { from, bytes: &bytes });
                }
            }
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
            // These do not come here.
            Event::OtherSite { .. } => {}
        }
    }

    pub(super) fn life(&self) -> Life {
        Life { origin: self.me, incarnation: self.node.incarnation }
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
            self.say_unknown();
        }
        self.define();
        self.settle();
        self.upkeep();
        self.adopt();
        self.tick_documents();
        self.tick_twins();
        self.tick_orders();
        self.show_copies();
        self.measure();
    }

    fn written(&mut self, then: Vec<pen::Then>, stored: bool) {
        for then in then {
            match then {
                pen::Then::Document(id) => self.document(documents::Input::Saved(id)),
                pen::Then::Command(id) => self.order_saved(id),
                pen::Then::Report { device, change, reply } => self.reported(&device, &change, stored, reply),
            }
        }
        self.answer_settled();
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

/// A queue to the node's own journal and tables.
fn writes(env: &Env, writer: &Writer, actor: &ActorRef<MeshMsg>, insists: bool) -> mpsc::UnboundedSender<pen::Job> {
    let (queue, jobs) = mpsc::unbounded_channel();
    let actor = actor.clone();
    let tell = move |then, stored| {
        let _ = actor.cast(MeshMsg::Written { then, stored });
    };
    env.spawn(pen::write(env.clone(), writer.clone(), jobs, insists, tell));
    queue
}
