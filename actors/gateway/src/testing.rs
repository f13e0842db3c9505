//! A world for tests of the gateway: tokio's clock and sockets on loopback.
#![expect(clippy::disallowed_methods, reason = "this is the world behind Env")]

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use millpond_core::time::Timestamp;
use millpond_env::{
    BlockDevice, Blocking, Clock, Datagrams, Disk, DiskSpace, Entropy, Env, Listener, Mono, Net, Spawner, Stream,
    Trace, Worker,
};

/// Must be called on a tokio runtime with time and network.
pub(crate) fn env() -> Env {
    let world = Arc::new(World { began: tokio::time::Instant::now() });
    Env {
        clock: world.clone(),
        net: world.clone(),
        disk: world.clone(),
        entropy: world.clone(),
        spawner: world.clone(),
        blocking: world.clone(),
        trace: world,
    }
}

#[derive(Debug)]
struct World {
    began: tokio::time::Instant,
}

impl Clock for World {
    fn now(&self) -> Mono {
        Mono(self.began.elapsed().as_nanos() as u64)
    }

    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is right");
        Timestamp(since.as_nanos() as i64)
    }

    fn timer(&self, at: Mono) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep_until(self.began + Duration::from_nanos(at.0)))
    }
}

#[async_trait]
impl Net for World {
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Bound(tokio::net::TcpListener::bind(addr).await?)))
    }

    async fn bind(&self, _: std::net::SocketAddr) -> io::Result<Arc<dyn Datagrams>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(tokio::net::TcpStream::connect((host, port)).await?))
    }
}

#[derive(Debug)]
struct Bound(tokio::net::TcpListener);

#[async_trait]
impl Listener for Bound {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket has an address")
    }
}

impl Entropy for World {
    fn seed(&self, purpose: &str) -> [u8; 32] {
        *blake3::hash(purpose.as_bytes()).as_bytes()
    }
}

impl Spawner for World {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(task);
    }
}

impl Blocking for World {
    fn worker(&self, _name: &str) -> Box<dyn Worker> {
        unimplemented!("the gateway has no workers")
    }

    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(job);
    }
}

impl Trace for World {
    fn event(&self, _kind: &'static str, _detail: &[u8]) {}
}

/// The gateway uses no files.
impl Disk for World {
    fn open(&self, _path: &str) -> io::Result<Box<dyn BlockDevice>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, _path: &str) -> io::Result<Option<Vec<u8>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write(&self, _path: &str, _content: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _path: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self, _path: &str) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
