//! QUIC over a bad network: what it carries is whole, and the run is a function of the seed.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use millpond_cluster::quic::{self, Identity};
use millpond_core::time::Span;
use millpond_env::Env;
use quinn::{Connection, Endpoint, TransportConfig};

mod joins;
mod links;
mod others;

use super::{Authority, provider};
use crate::world::{HostSpec, World, core::HostId, net::LinkSpec};

const SERVER: HostId = HostId(0);
const CLIENT: HostId = HostId(1);
const SECOND: u64 = 1_000_000_000;
const HOUR: i64 = 3600;
const UNI_STREAMS: usize = 5;
const BYTES: usize = 300_000;

/// A radio link at its worst.
const BAD: LinkSpec = LinkSpec {
    latency: (Span(5_000_000), Span(40_000_000)),
    loss: 0.05,
    duplicate: 0.02,
    reorder: 0.05,
    bytes_per_second: Some(2_000_000),
};

/// What both sides have seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    echoed: bool,
    uni: Vec<usize>,
    datagrams: usize,
    after_an_hour: bool,
    closed: Option<String>,
}

type Shared = Arc<Mutex<Seen>>;

fn world(seed: u64) -> World {
    let mut world = World::new(seed, 0.0);
    for (name, last) in [("server", 1), ("client", 2)] {
        world.add(HostSpec {
            name: name.to_owned(),
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
            clock_offset: Span::ZERO,
            clock_ppm: 40.0,
            disk: None,
        });
    }
    world.network().set_default(BAD);
    world
}

fn run(world: &mut World, ns: u64) {
    let until = world.now().after(ns);
    while world.step(until).is_some() {}
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(Duration::from_secs(60).try_into().unwrap()))
        .keep_alive_interval(Some(Duration::from_secs(10)));
    Arc::new(transport)
}

fn pattern(salt: usize) -> Vec<u8> {
    (0..BYTES as u64).map(|n| ((n + salt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

async fn endpoint(env: &Env, identity: &Identity, port: u16) -> Endpoint {
    let socket = env.net.bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).await.unwrap();
    let provider = provider(env, "tls");
    let peers = Arc::new(quic::Peers::new(identity.roots.clone(), &provider, true));
    let tls = quic::server_tls(env, provider.clone(), identity, peers.clone(), &[b"test"]).unwrap();
    let server = quic::server_config(env, "quic", tls, transport()).unwrap();
    let mut endpoint = quic::endpoint(env, "quic", socket, Some(server)).unwrap();
    let tls = quic::client_tls(env, provider, identity, peers, b"test").unwrap();
    endpoint.set_default_client_config(quic::client_config(env, "quic", tls, transport()).unwrap());
    endpoint
}

/// Echoes streams, and remembers what else comes.
async fn serve(env: Env, identity: Identity, seen: Shared) {
    let endpoint = endpoint(&env, &identity, 4433).await;
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        let (bi, uni, datagrams) = (connection.clone(), connection.clone(), connection);
        env.spawn(async move {
            while let Ok((mut send, mut receive)) = bi.accept_bi().await {
                let Ok(all) = receive.read_to_end(BYTES).await else { return };
                let _ = send.write_all(&all).await;
                let _ = send.finish();
            }
        });
        let (shared, count) = (seen.clone(), seen.clone());
        env.spawn(async move {
            while let Ok(mut receive) = uni.accept_uni().await {
                let all = receive.read_to_end(BYTES).await.unwrap();
                let salt = (0..UNI_STREAMS).find(|salt| all == pattern(*salt)).expect("a stream is whole");
                shared.lock().unwrap().uni.push(salt);
            }
        });
        env.spawn(async move {
            while datagrams.read_datagram().await.is_ok() {
                count.lock().unwrap().datagrams += 1;
            }
        });
    }
}

async fn echo(connection: &Connection, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let write = async {
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
    };
    tokio::join!(biased; write, receive.read_to_end(BYTES)).1.unwrap()
}

async fn call(env: Env, identity: Identity, seen: Shared) {
    let endpoint = endpoint(&env, &identity, 0).await;
    let connection = endpoint.connect("10.0.0.1:4433".parse().unwrap(), "server").unwrap().await.unwrap();
    let (ticking, clock) = (connection.clone(), env.clone());
    env.spawn(async move {
        for _ in 0..100 {
            ticking.send_datagram(vec![7; 200].into()).unwrap();
            clock.sleep(Span::from_millis(100)).await;
        }
    });
    for salt in 0..UNI_STREAMS {
        let connection = connection.clone();
        env.spawn(async move {
            let mut send = connection.open_uni().await.unwrap();
            send.write_all(&pattern(salt)).await.unwrap();
            send.finish().unwrap();
            send.stopped().await.unwrap();
        });
    }
    let whole = echo(&connection, &pattern(9)).await == pattern(9);
    seen.lock().unwrap().echoed = whole;
    env.sleep(Span::from_secs(HOUR)).await;
    let answer = echo(&connection, b"still there?").await;
    seen.lock().unwrap().after_an_hour = answer == b"still there?";
    let closed = connection.closed().await;
    seen.lock().unwrap().closed = Some(closed.to_string());
}

/// Transfers with a partition in the middle, an hour of silence, a question, and the power of the server goes.
fn talk(seed: u64) -> (Seen, u64) {
    let mut world = world(seed);
    let authority = Authority::new(seed);
    let seen = Shared::default();
    let (server, client) = (world.boot(SERVER), world.boot(CLIENT));
    let (identity, shared) = (authority.issue("server"), seen.clone());
    world.enter(SERVER, || server.clone().spawn(serve(server, identity, shared)));
    let (identity, shared) = (authority.issue("client"), seen.clone());
    world.enter(CLIENT, || client.clone().spawn(call(client, identity, shared)));
    run(&mut world, SECOND / 2);
    assert!(!seen.lock().unwrap().echoed, "the partition comes too late");
    world.network().cut_both(SERVER, CLIENT);
    run(&mut world, 20 * SECOND);
    world.network().heal_all();
    run(&mut world, 100 * SECOND);
    assert!(seen.lock().unwrap().echoed);
    run(&mut world, HOUR as u64 * SECOND);
    assert!(seen.lock().unwrap().closed.is_none());
    world.power_off(SERVER);
    run(&mut world, 120 * SECOND);
    let hash = world.core().tracer().hash();
    let seen = seen.lock().unwrap().clone();
    (seen, hash)
}

#[test]
fn quic_carries_everything_over_a_bad_network_and_a_run_is_a_function_of_its_seed() {
    let (mut seen, hash) = talk(1);
    assert!(seen.after_an_hour, "{seen:?}");
    seen.uni.sort_unstable();
    assert_eq!(seen.uni, (0..UNI_STREAMS).collect::<Vec<_>>());
    assert!((20..100).contains(&seen.datagrams), "{}", seen.datagrams);
    assert_eq!(seen.closed.as_deref(), Some("timed out"));
    assert_eq!(talk(1).1, hash);
    assert_ne!(talk(2).1, hash);
}

#[test]
fn who_has_no_certificate_of_the_authority_is_not_let_in() {
    let mut world = world(3);
    let (ours, theirs) = (Authority::new(3), Authority::new(4));
    let result = Arc::new(Mutex::new(None));
    let (server, client) = (world.boot(SERVER), world.boot(CLIENT));
    world.enter(SERVER, || server.clone().spawn(serve(server, ours.issue("server"), Shared::default())));
    // It believes our authority, but shows what another one has issued.
    let identity = Identity { roots: ours.issue("x").roots, ..theirs.issue("client") };
    let tell = result.clone();
    world.enter(CLIENT, || {
        client.clone().spawn(async move {
            let endpoint = endpoint(&client, &identity, 0).await;
            let closed = match endpoint.connect("10.0.0.1:4433".parse().unwrap(), "server").unwrap().await {
                Ok(connection) => connection.closed().await,
                Err(error) => error,
            };
            *tell.lock().unwrap() = Some(closed.to_string());
        });
    });
    run(&mut world, 30 * SECOND);
    let closed = result.lock().unwrap().take().expect("the connection ends");
    assert!(closed.contains("certificate") || closed.contains("UnknownCA"), "{closed}");
}

#[test]
fn a_name_has_the_same_certificate_in_every_run_of_a_seed() {
    let der = |seed: u64, name: &str| Authority::new(seed).issue(name).chain[0].to_vec();
    assert_eq!(der(1, "edge-1"), der(1, "edge-1"));
    assert_ne!(der(1, "edge-1"), der(2, "edge-1"));
    assert_ne!(der(1, "edge-1"), der(1, "edge-2"));
}
