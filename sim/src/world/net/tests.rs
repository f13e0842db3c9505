//! Two machines and what they can and cannot tell each other.

mod datagrams;
mod failures;
mod streams;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use millpond_core::time::Span;
use millpond_env::{Env, Stream};

use super::LinkSpec;
use crate::world::{HostSpec, World, core::HostId};

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// Two hosts that are on, `a` and `b`.
struct Pair {
    world: World,
    a: Env,
    b: Env,
}

fn pair(seed: u64, spec: LinkSpec) -> Pair {
    let mut world = World::new(seed, 0.0);
    for (name, last) in [("a", 1), ("b", 2)] {
        world.add(HostSpec {
            name: name.to_owned(),
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
            clock_offset: Span::ZERO,
            clock_ppm: 0.0,
            disk: None,
        });
    }
    world.network().set_default(spec);
    let (a, b) = (world.boot(A), world.boot(B));
    Pair { world, a, b }
}

impl Pair {
    fn on(&self, host: HostId, task: impl Future<Output = ()> + Send + 'static) {
        let env = if host == A { &self.a } else { &self.b };
        self.world.enter(host, || env.spawn(task));
    }

    fn run(&mut self, ns: u64) {
        let until = self.world.now().after(ns);
        while self.world.step(until).is_some() {}
    }
}

/// A link without loss, of one latency.
fn quick(latency_ms: i64) -> LinkSpec {
    let latency = Span::from_millis(latency_ms);
    LinkSpec { latency: (latency, latency), ..LinkSpec::LOCAL }
}

fn port(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

/// What tasks tell the test.
#[derive(Debug)]
struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Slot(self.0.clone())
    }
}

impl<T> Slot<T> {
    fn new() -> Slot<T> {
        Slot(Arc::new(Mutex::new(None)))
    }

    fn set(&self, value: T) {
        *self.0.lock().unwrap() = Some(value);
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap().take()
    }
}

/// Has `b` accept one stream on port 7 and `a` connect to it, and hands each to its task.
fn stream<F, G>(
    pair: &Pair,
    on_a: impl FnOnce(Env, Box<dyn Stream>) -> F + Send + 'static,
    on_b: impl FnOnce(Env, Box<dyn Stream>) -> G + Send + 'static,
) where
    F: Future<Output = ()> + Send,
    G: Future<Output = ()> + Send,
{
    let (a, b) = (pair.a.clone(), pair.b.clone());
    pair.on(B, async move {
        let mut listener = b.net.listen(port(7)).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        on_b(b, stream).await;
    });
    pair.on(A, async move {
        let stream = a.net.connect("b", 7).await.unwrap();
        on_a(a, stream).await;
    });
}

/// Bytes that differ from place to place.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
