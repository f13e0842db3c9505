//! Nodes that talk through transports: what arrives, who gets in, and what ends.

use std::{collections::BTreeSet, net::SocketAddr, sync::MutexGuard};

use bytes::Bytes;
use millpond_cluster::{
    identity::NodeIdentity,
    transport::{Event, Link, Options, Transport},
};
use millpond_core::{
    ids::Origin,
    planted::{Bug, plant},
    record::Class,
};
use tokio::sync::mpsc;

use super::*;

const PORT: u16 = 7400;
const MS: u64 = 1_000_000;

/// A network of a site with a radio link in it.
const LOSSY: LinkSpec = LinkSpec { loss: 0.05, ..LinkSpec::LOCAL };

/// What a node has seen, and how it is asked to do something.
#[derive(Default)]
struct Node {
    transport: Option<Transport>,
    links: Vec<Link>,
    /// In words, in their order.
    seen: Vec<String>,
    messages: Vec<(Class, Bytes)>,
    datagrams: usize,
    /// Events are not taken while it is set.
    asleep: bool,
}

#[derive(Clone)]
struct Handle {
    host: HostId,
    origin: Origin,
    env: Env,
    node: Arc<Mutex<Node>>,
}

impl Handle {
    fn node(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap()
    }

    fn transport(&self) -> Transport {
        self.node().transport.clone().expect("it is open")
    }

    fn revoke(&self, stage: &Stage, who: Origin) {
        stage.world.enter(self.host, || self.transport().set_revoked(BTreeSet::from([who])));
    }

    fn send(&self, stage: &Stage, class: Class, frame: impl Into<Bytes>) -> bool {
        let mut sent = false;
        stage.world.enter(self.host, || sent = self.link().send(class, frame.into()));
        sent
    }

    fn datagram(&self, stage: &Stage, bytes: usize) -> bool {
        let mut sent = false;
        stage.world.enter(self.host, || sent = self.link().datagram(vec![1; bytes].into()));
        sent
    }

    fn link(&self) -> Link {
        self.node().links.last().expect("it is connected").clone()
    }

    fn saw(&self, words: &str) -> bool {
        self.node().seen.iter().any(|seen| seen.contains(words))
    }
}

struct Stage {
    world: World,
    authority: Authority,
}

fn address(host: HostId) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, host.0 as u8 + 1).into(), PORT)
}

impl Stage {
    fn new(seed: u64, link: LinkSpec) -> Stage {
        let world = world(seed);
        world.network().set_default(link);
        Stage { world, authority: Authority::new(seed) }
    }

    fn run(&mut self, ns: u64) {
        run(&mut self.world, ns);
    }

    fn open(&mut self, host: HostId, identity: Arc<NodeIdentity>) -> Handle {
        let env = self.world.boot(host);
        let handle = Handle { host, origin: identity.origin, env: env.clone(), node: Arc::default() };
        let opened = handle.clone();
        self.world.enter(host, || {
            env.clone().spawn(async move {
                let provider = provider(&env, "link");
                let options = Options { listen: address(host), identity, provider };
                let (transport, events) = Transport::open(&env, options).await.unwrap();
                opened.node().transport = Some(transport);
                live(opened, events).await;
            });
        });
        handle
    }

    /// Two nodes of the authority, and the one with the smaller origin first.
    fn pair(&mut self) -> (Handle, Handle) {
        let (a, b) = (self.authority.node("server"), self.authority.node("client"));
        let (small, large) = if a.origin < b.origin { (a, b) } else { (b, a) };
        (self.open(SERVER, small), self.open(CLIENT, large))
    }

    fn dial(&self, from: &Handle, to: &Handle) {
        self.world.enter(from.host, || from.transport().dial(vec![address(to.host)]));
    }

    fn connected(&mut self) -> (Handle, Handle) {
        let (a, b) = self.pair();
        self.dial(&a, &b);
        self.run(2 * SECOND);
        (a, b)
    }
}

async fn live(handle: Handle, mut events: mpsc::Receiver<Event>) {
    loop {
        while handle.node().asleep {
            handle.env.sleep(Span::from_millis(100)).await;
        }
        let Some(event) = events.recv().await else { return };
        let mut node = handle.node();
        match event {
            Event::Connected(link) => {
                node.seen.push(format!("connected {}", link.peer()));
                node.links.push(link);
            }
            Event::Closed { peer, why, .. } => node.seen.push(format!("closed {peer}: {why}")),
            Event::DialFailed { why, .. } => node.seen.push(format!("failed {why}")),
            Event::Datagram { .. } => node.datagrams += 1,
            Event::Message { class, frame, .. } => node.messages.push((class, frame)),
            Event::Request { frame, mut replies, .. } => {
                handle.env.spawn(async move {
                    for part in frame.chunks(100_000) {
                        replies.send(Bytes::copy_from_slice(part)).await.unwrap();
                    }
                    if frame.as_ref() != b"forget me" {
                        replies.finish();
                    }
                });
            }
            Event::Enrol { .. } => node.seen.push("enrol".to_owned()),
            Event::OtherSite { .. } => node.seen.push("another site".to_owned()),
        }
    }
}

/// Asks the other node for an echo.
fn ask(stage: &Stage, from: &Handle, question: &'static [u8]) -> Arc<Mutex<Option<Result<Vec<u8>, String>>>> {
    let answer = Arc::new(Mutex::new(None));
    let (tell, link) = (answer.clone(), from.link());
    stage.world.enter(from.host, || {
        from.env.spawn(async move {
            let all = async {
                let mut all = Vec::new();
                let mut replies = link.request(Class::State, Bytes::from_static(question)).await?;
                while let Some(part) = replies.next().await? {
                    all.extend_from_slice(&part);
                }
                Ok(all)
            };
            let all: Result<_, millpond_cluster::transport::LinkError> = all.await;
            *tell.lock().unwrap() = Some(all.map_err(|error| error.to_string()));
        });
    });
    answer
}

static LONG: [u8; 450_000] = [7; 450_000];

fn lanes(seed: u64) -> u64 {
    let mut stage = Stage::new(seed, LOSSY);
    let (a, b) = stage.connected();
    for n in 0..200_u32 {
        let class = Class::ALL[n as usize % 4];
        assert!(a.send(&stage, class, vec![n as u8; 1_500]));
        assert!(a.datagram(&stage, 1100));
        stage.run(50 * MS);
    }
    let (long, forgotten) = (ask(&stage, &a, &LONG), ask(&stage, &b, b"forget me"));
    stage.run(20 * SECOND);
    for class in Class::ALL {
        let came: Vec<u8> =
            b.node().messages.iter().filter(|message| message.0 == class).map(|message| message.1[0]).collect();
        let sent: Vec<u8> = (0..200_u32).filter(|n| n % 4 == class as u32).map(|n| n as u8).collect();
        assert_eq!(came, sent, "{class:?}");
    }
    assert!((170..200).contains(&b.node().datagrams), "{}", b.node().datagrams);
    assert_eq!(long.lock().unwrap().take(), Some(Ok(LONG.to_vec())));
    assert_eq!(forgotten.lock().unwrap().take(), Some(Err("the other side gave up".to_owned())));
    assert!(!a.datagram(&stage, 1101));
    assert_eq!((a.node().seen.len(), b.node().seen.len()), (1, 1));
    stage.world.core().tracer().hash()
}

#[test]
fn two_nodes_talk_over_all_lanes_though_datagrams_are_lost() {
    let hash = lanes(11);
    assert_eq!(lanes(11), hash);
    assert_ne!(lanes(12), hash);
}

#[test]
fn nodes_that_dial_each_other_at_once_keep_the_same_connection() {
    for seed in 0..30 {
        let mut stage = Stage::new(seed, LOSSY);
        let (small, large) = stage.pair();
        stage.dial(&small, &large);
        // From together to one after the other.
        stage.run(seed * 100_000);
        stage.dial(&large, &small);
        stage.run(10 * SECOND);
        // The one that the smaller origin has dialled, from its port to the other's.
        for (handle, peer) in [(&small, &large), (&large, &small)] {
            let node = handle.node();
            let closed = node.seen.iter().filter(|seen| seen.starts_with("closed")).count();
            assert_eq!(closed + 1, node.links.len(), "seed {seed}: {:?}", node.seen);
            assert_eq!(node.links.last().unwrap().peer(), peer.origin);
        }
        assert!(small.send(&stage, Class::Alert, &b"to the large"[..]));
        assert!(large.send(&stage, Class::Alert, &b"to the small"[..]));
        stage.run(SECOND);
        assert_eq!((small.node().messages.len(), large.node().messages.len()), (1, 1), "seed {seed}");
    }
}

/// What becomes of somebody who dials a node of the site: what the dialler saw last, and whether the node counts on it.
fn intrude(seed: u64, intruder: impl FnOnce(&Authority) -> Arc<NodeIdentity>) -> (String, bool) {
    let mut stage = Stage::new(seed, LinkSpec::LOCAL);
    let node = stage.open(SERVER, stage.authority.node("server"));
    let identity = intruder(&stage.authority);
    let dialler = stage.open(CLIENT, identity);
    node.revoke(&stage, stage.authority.origin("revoked"));
    stage.dial(&dialler, &node);
    stage.run(30 * SECOND);
    let seen = dialler.node().seen.last().cloned().unwrap_or_default();
    let connected = node.saw("connected");
    (seen, connected)
}

#[test]
fn who_is_not_of_the_site_gets_nowhere() {
    let other_site = |seed: u64| Authority::new(seed + 1000);
    let (seen, connected) = intrude(1, |_| other_site(1).node("client"));
    assert!(seen.starts_with("failed") && !connected, "{seen}");
    // It believes this site, but is of another.
    let (seen, connected) = intrude(2, |ours| {
        let theirs = other_site(2).node("client");
        Arc::new(identity_with_roots(&theirs, ours))
    });
    assert!(seen.starts_with("failed") && !connected, "{seen}");
    let (seen, connected) = intrude(3, |ours| ours.node("revoked"));
    assert!(seen.contains("revoked") && !connected, "{seen}");
    let (seen, connected) = intrude(4, |ours| ours.node("client"));
    assert!(seen.starts_with("connected") && connected, "{seen}");
}

fn identity_with_roots(of: &NodeIdentity, ours: &Authority) -> NodeIdentity {
    NodeIdentity {
        origin: of.origin,
        incarnation: of.incarnation,
        node: of.node.clone(),
        site: of.site.clone(),
        chain: of.chain.clone(),
        key: of.key.clone_key(),
        roots: ours.node("x").roots.clone(),
        revoked: BTreeSet::new(),
        first_seeds: Vec::new(),
        expires: of.expires,
        valid: of.valid,
        founder: false,
    }
}

#[test]
fn without_the_check_an_impostor_is_believed() {
    let intruder = |ours: &Authority| {
        let theirs = Authority::new(1001).node_as(ours.origin("victim"), "client");
        Arc::new(identity_with_roots(&theirs, ours))
    };
    assert!(!intrude(1, intruder).1);
    plant(Some(Bug::SkipIdentityCheck));
    let believed = intrude(1, intruder).1;
    plant(None);
    assert!(believed);
}

#[test]
fn a_certificate_that_has_expired_is_not_believed() {
    let mut stage = Stage::new(5, LinkSpec::LOCAL);
    let (a, b) = stage.pair();
    stage.world.clock(CLIENT).step(stage.world.now(), Span::from_secs(400 * 86_400));
    stage.dial(&a, &b);
    stage.run(30 * SECOND);
    assert!(a.saw("failed") && !b.saw("connected"), "{:?}", a.node().seen);
}

#[test]
fn who_is_revoked_is_disconnected() {
    let mut stage = Stage::new(6, LinkSpec::LOCAL);
    let (a, b) = stage.connected();
    a.revoke(&stage, b.origin);
    stage.run(SECOND);
    assert!(a.saw("closed") && b.saw("revoked"), "{:?}", b.node().seen);
    stage.dial(&a, &b);
    stage.dial(&b, &a);
    stage.run(20 * SECOND);
    assert_eq!(a.node().links.len(), 1);
    assert_eq!(a.node().seen.iter().filter(|seen| seen.starts_with("failed")).count(), 1);
}

#[test]
fn a_link_that_is_full_says_so_and_others_go_on() {
    let mut stage = Stage::new(7, LinkSpec::LOCAL);
    let (a, b) = stage.connected();
    b.node().asleep = true;
    // It takes the next event before it falls asleep.
    assert!(a.send(&stage, Class::Pane, &b"wake"[..]));
    stage.run(SECOND);
    let mut sent = 0;
    while a.send(&stage, Class::Raw, vec![3; 500_000]) {
        sent += 1;
        stage.run(100 * MS);
        assert!(sent < 100, "the peer takes nothing, and nothing is ever full");
    }
    assert!(a.send(&stage, Class::Alert, &b"fire"[..]));
    stage.run(SECOND);
    assert!(a.send(&stage, Class::Raw, &b"short"[..]) || sent > 10);
    b.node().asleep = false;
    stage.run(30 * SECOND);
    let messages = &b.node().messages;
    assert_eq!(messages.iter().filter(|message| message.1.len() == 500_000).count(), sent);
    let place = |bytes: &[u8]| messages.iter().position(|message| message.1.as_ref() == bytes);
    assert!(place(b"fire").unwrap() < messages.len() - 2, "the alert waited for what the peer could not take");
    assert!(a.send(&stage, Class::Raw, &b"room again"[..]));
}

/// A peer that dials as the protocol wants, and then sends these bytes on a stream.
fn break_protocol(seed: u64, bidirectional: bool, bytes: &'static [u8]) -> (Vec<String>, String) {
    let mut stage = Stage::new(seed, LinkSpec::LOCAL);
    let node = stage.open(SERVER, stage.authority.node("server"));
    let (identity, env) = (stage.authority.issue("client"), stage.world.boot(CLIENT));
    let closed = Arc::new(Mutex::new(String::new()));
    let tell = closed.clone();
    stage.world.enter(CLIENT, || {
        env.clone().spawn(async move {
            let provider = provider(&env, "raw");
            let peers = Arc::new(quic::Peers::new(identity.roots.clone(), &provider, true));
            let socket = env.net.bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)).await.unwrap();
            let tls = quic::client_tls(&env, provider, &identity, peers, b"millpond/1").unwrap();
            let mut endpoint = quic::endpoint(&env, "raw", socket, None).unwrap();
            endpoint.set_default_client_config(quic::client_config(&env, "raw", tls, transport()).unwrap());
            let connection = endpoint.connect(address(SERVER), "server").unwrap().await.unwrap();
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            send.write_all(&[0xf0; 17]).await.unwrap();
            let _ = receive.read_exact(&mut [0]).await;
            let mut send = match bidirectional {
                true => connection.open_bi().await.unwrap().0,
                false => connection.open_uni().await.unwrap(),
            };
            send.write_all(bytes).await.unwrap();
            send.finish().unwrap();
            *tell.lock().unwrap() = connection.closed().await.to_string();
        });
    });
    stage.run(5 * SECOND);
    // Others are not concerned.
    stage.world.power_off(CLIENT);
    let good = stage.open(CLIENT, stage.authority.node("other"));
    stage.dial(&good, &node);
    stage.run(5 * SECOND);
    assert!(good.saw("connected"));
    let seen = node.node().seen.clone();
    let closed = closed.lock().unwrap().clone();
    (seen, closed)
}

#[test]
fn what_breaks_the_protocol_ends_the_connection_and_nothing_else() {
    let too_long: &[u8] = &[3, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
    for (seed, bytes) in [&[9_u8, 1, 0, 0, 0, 7][..], too_long, &[3, 10, 0, 0, 0, 1, 2], &[3, 10, 0]].iter().enumerate()
    {
        for bidirectional in [false, true] {
            let (seen, closed) = break_protocol(seed as u64, bidirectional, bytes);
            assert!(seen[0].starts_with("connected") && seen[1].starts_with("closed"), "{bytes:?}: {seen:?}");
            assert!(closed.contains("stream") || closed.contains("frame"), "{bytes:?}: {closed}");
        }
    }
}

#[test]
fn alerts_go_first_and_raw_events_are_not_starved() {
    let slow = LinkSpec { bytes_per_second: Some(200_000), ..LinkSpec::LOCAL };
    let mut stage = Stage::new(8, slow);
    let (a, b) = stage.connected();
    for _ in 0..400 {
        // More of either than the link carries.
        let _ = (0..10).all(|_| a.send(&stage, Class::Raw, vec![0; 2_000]));
        let _ = (0..15).all(|_| a.send(&stage, Class::Alert, vec![0; 2_000]));
        stage.run(100 * MS);
    }
    let count = |class| b.node().messages.iter().filter(|message| message.0 == class).count();
    let (alerts, raw) = (count(Class::Alert), count(Class::Raw));
    assert!(alerts > raw && raw > alerts / 50, "{alerts} alerts, {raw} raw");
}

#[test]
fn a_node_that_comes_back_is_connected_again_before_its_old_connection_has_timed_out() {
    let mut stage = Stage::new(9, LinkSpec::LOCAL);
    let (a, b) = stage.connected();
    stage.world.power_off(SERVER);
    stage.run(SECOND);
    let again = stage.open(
        SERVER,
        if a.origin == stage.authority.origin("server") {
            stage.authority.node("server")
        } else {
            stage.authority.node("client")
        },
    );
    stage.dial(&again, &b);
    stage.run(SECOND);
    assert!(again.saw("connected"));
    stage.run(5 * SECOND);
    assert_eq!(b.node().seen.iter().map(|seen| &seen[..6]).collect::<Vec<_>>(), ["connec", "connec", "closed"]);
    assert!(b.send(&stage, Class::Alert, &b"hello again"[..]));
    stage.run(SECOND);
    assert_eq!(again.node().messages.len(), 1);
}

#[test]
fn a_link_that_nobody_uses_costs_little_and_lives_on() {
    let mut stage = Stage::new(10, LinkSpec::LOCAL);
    let (a, b) = stage.connected();
    let before = stage.world.network().stats().bytes;
    stage.run(3600 * SECOND);
    let bytes = stage.world.network().stats().bytes - before;
    assert!(bytes < 3600 * 100, "{bytes} bytes in an hour");
    assert!(!a.saw("closed") && !b.saw("closed"));
}

#[test]
fn a_dial_tries_all_addresses_and_says_why_none_would_do() {
    let mut stage = Stage::new(13, LinkSpec::LOCAL);
    let (a, b) = stage.pair();
    let nobody: Vec<SocketAddr> = vec!["10.0.0.9:7400".parse().unwrap(), "10.0.0.2:9".parse().unwrap()];
    let both = [&nobody[..], &[address(b.host)]].concat();
    stage.world.enter(a.host, || a.transport().dial(nobody));
    stage.run(20 * SECOND);
    assert!(a.saw("failed 10.0.0.9:7400"), "{:?}", a.node().seen);
    stage.world.enter(a.host, || a.transport().dial(both));
    stage.run(SECOND);
    assert!(a.saw("connected") && b.saw("connected"));
    stage.world.enter(a.host, || a.transport().dial(vec![address(a.host)]));
    stage.run(SECOND);
    assert!(a.saw("the node itself"), "{:?}", a.node().seen);
}

#[test]
fn who_closes_says_goodbye() {
    let mut stage = Stage::new(14, LinkSpec::LOCAL);
    let (a, b) = stage.connected();
    let transport = a.transport();
    stage.world.enter(a.host, || a.env.spawn(async move { transport.close().await }));
    stage.run(SECOND);
    assert!(b.saw("goodbye"), "{:?}", b.node().seen);
    stage.dial(&b, &a);
    stage.run(20 * SECOND);
    assert!(b.saw("failed"));
}
