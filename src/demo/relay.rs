//! The line between a site and the cloud: datagrams in both directions, until it is cut.
//!
//! Whoever sends to its address is a client; each has a socket of its own towards what is behind the line, so that answers find back. A line that
//! is cut tells nobody: what is sent is gone, as on a real one.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use millpond_core::time::Span;
use millpond_env::{Datagrams, Env};
use tokio_util::sync::{CancellationToken, DropGuard};

/// No datagram is longer.
const DATAGRAM_BYTES: usize = 65_535;
/// Nodes come back with other ports after they were killed: the one that has been here longest goes then.
const CLIENTS_MAX: usize = 32;
/// After an error of a socket.
const PAUSE: Span = Span::from_millis(10);

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    state: Arc<State>,
    _ended: DropGuard,
}

#[derive(Debug, Default)]
struct State {
    is_cut: AtomicBool,
    /// Datagrams that went nowhere because the line was cut.
    lost: AtomicU64,
}

impl Relay {
    /// A line on a free port of the loopback, to what listens at `behind`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn open(env: &Env, behind: SocketAddr) -> io::Result<Relay> {
        let front = env.net.bind(any_port()).await?;
        let (addr, state, ended) = (front.local_addr(), Arc::<State>::default(), CancellationToken::new());
        let carrier = Carrier { env: env.clone(), front, behind, state: state.clone() };
        let until = ended.clone();
        env.spawn(async move {
            tokio::select! {
                biased;
                () = until.cancelled() => {}
                () = carrier.run() => {}
            }
        });
        Ok(Relay { addr, state, _ended: ended.drop_guard() })
    }

    /// Where its clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn is_cut(&self) -> bool {
        self.state.is_cut.load(Ordering::Relaxed)
    }

    pub fn cut(&self, cut: bool) {
        self.state.is_cut.store(cut, Ordering::Relaxed);
    }
}

impl State {
    /// Whether a datagram gets through.
    fn carries(&self) -> bool {
        let cut = self.is_cut.load(Ordering::Relaxed);
        self.lost.fetch_add(u64::from(cut), Ordering::Relaxed);
        !cut
    }
}

/// A client's socket towards what is behind the line, and the task that carries the answers. It ends when this is dropped.
struct Client {
    number: u64,
    back: Arc<dyn Datagrams>,
    _ended: DropGuard,
}

struct Carrier {
    env: Env,
    front: Arc<dyn Datagrams>,
    behind: SocketAddr,
    state: Arc<State>,
}

impl Carrier {
    /// From the clients to what is behind.
    async fn run(self) {
        let mut clients: BTreeMap<SocketAddr, Client> = BTreeMap::new();
        let mut bytes = vec![0; DATAGRAM_BYTES];
        let mut number = 0;
        loop {
            let Ok((length, from)) = receive(&self.front, &mut bytes).await else {
                self.env.sleep(PAUSE).await;
                continue;
            };
            if !self.state.carries() {
                continue;
            }
            let is_new = !clients.contains_key(&from);
            if is_new {
                let Ok(back) = self.env.net.bind(any_port()).await else { continue };
                number += 1;
                clients.insert(from, self.client(from, number, back));
                let oldest = clients.iter().min_by_key(|(_, client)| client.number).map(|(addr, _)| *addr);
                if let Some(oldest) = oldest.filter(|_| clients.len() > CLIENTS_MAX) {
                    clients.remove(&oldest);
                }
            }
            if let Some(client) = clients.get(&from) {
                send(&client.back, self.behind, &bytes[..length]).await;
            }
        }
    }

    fn client(&self, addr: SocketAddr, number: u64, back: Arc<dyn Datagrams>) -> Client {
        let ended = CancellationToken::new();
        let (env, front, state) = (self.env.clone(), self.front.clone(), self.state.clone());
        let (source, until) = (back.clone(), ended.clone());
        let answers = async move {
            let mut bytes = vec![0; DATAGRAM_BYTES];
            loop {
                match receive(&source, &mut bytes).await {
                    Ok((length, _)) if state.carries() => send(&front, addr, &bytes[..length]).await,
                    Ok(_) => {}
                    Err(_) => env.sleep(PAUSE).await,
                }
            }
        };
        self.env.spawn(async move {
            tokio::select! {
                biased;
                () = until.cancelled() => {}
                () = answers => {}
            }
        });
        Client { number, back, _ended: ended.drop_guard() }
    }
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

async fn receive(socket: &Arc<dyn Datagrams>, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    poll_fn(|cx| socket.poll_receive(cx, into)).await
}

/// One that cannot be sent is lost.
async fn send(socket: &Arc<dyn Datagrams>, to: SocketAddr, datagram: &[u8]) {
    let _ = poll_fn(|cx| socket.poll_send(cx, to, datagram)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    const PATIENCE: Span = Span::from_secs(10);

    async fn arrives(env: &Env, at: &Arc<dyn Datagrams>) -> (String, SocketAddr) {
        let mut bytes = [0; 64];
        let (length, from) =
            env.timeout(PATIENCE, receive(at, &mut bytes)).await.expect("in time").expect("a datagram");
        (String::from_utf8_lossy(&bytes[..length]).into_owned(), from)
    }

    #[tokio::test]
    async fn what_is_sent_over_a_line_that_is_cut_is_gone_and_it_comes_back() {
        let env = World::client();
        let cloud = env.net.bind(any_port()).await.unwrap();
        let line = Relay::open(&env, cloud.local_addr()).await.unwrap();
        let node = env.net.bind(any_port()).await.unwrap();
        send(&node, line.addr(), b"one").await;
        let (said, back) = arrives(&env, &cloud).await;
        assert_eq!(said, "one");
        send(&cloud, back, b"yes").await;
        assert_eq!(arrives(&env, &node).await, ("yes".to_owned(), line.addr()));
        // A second client, whose datagram comes after those of the first, shows that the line has seen them.
        let other = env.net.bind(any_port()).await.unwrap();
        line.cut(true);
        send(&node, line.addr(), b"two").await;
        send(&cloud, back, b"no").await;
        let both_are_lost = async {
            while line.state.lost.load(Ordering::Relaxed) < 2 {
                env.sleep(Span::from_millis(1)).await;
            }
        };
        env.timeout(PATIENCE, both_are_lost).await.expect("in time");
        line.cut(false);
        send(&node, line.addr(), b"three").await;
        assert_eq!(arrives(&env, &cloud).await.0, "three");
        send(&other, line.addr(), b"four").await;
        let (said, another) = arrives(&env, &cloud).await;
        assert!(said == "four" && another != back);
        send(&cloud, back, b"again").await;
        assert_eq!(arrives(&env, &node).await.0, "again");
    }
}
