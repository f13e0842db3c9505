//! Byte streams and datagrams between programs.

use std::{
    fmt::Debug,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connected, ordered, reliable stream of bytes, as TCP gives it.
pub trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static> Stream for S {}

#[async_trait]
pub trait Listener: Debug + Send + 'static {
    /// The next connection and its peer. Errors concern one connection (or a lack of descriptors): wait a little and call again.
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)>;

    fn local_addr(&self) -> SocketAddr;
}

/// A socket for datagrams, as UDP gives it: each arrives whole, or not at all, or twice, or after its successors. Any number of tasks
/// may send; one receives.
pub trait Datagrams: Debug + Send + Sync + 'static {
    /// Sends one datagram, or says that the socket has no room for it now.
    fn poll_send(&self, cx: &mut Context<'_>, to: SocketAddr, datagram: &[u8]) -> Poll<io::Result<()>>;

    /// The next datagram, its length and its sender. What does not fit into `into` is cut off.
    fn poll_receive(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>>;

    fn local_addr(&self) -> SocketAddr;
}

/// Programs of our kind on the local network.
#[async_trait]
pub trait Neighbours: Debug + Send + 'static {
    /// Where one more may be reached, by any of these addresses. Who is believed has to be decided by other means: anybody can say anything on a
    /// local network. `None`: nobody will be found any more.
    async fn next(&mut self) -> Option<Vec<SocketAddr>>;
}

#[async_trait]
pub trait Net: Debug + Send + Sync + 'static {
    /// Port 0 takes any free port; [`Listener::local_addr`] tells which.
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// A socket for datagrams; port 0 takes any free port.
    async fn bind(&self, addr: SocketAddr) -> io::Result<Arc<dyn Datagrams>>;

    /// The addresses of a host by its name. Whoever implements nothing knows addresses only.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addr = host.parse().map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(vec![SocketAddr::new(addr, port)])
    }

    /// Says on the local network that this program, `name`, takes datagrams at `at` (an unspecified address: at all that this machine has),
    /// and finds others that say so, until what is returned is dropped. Whoever implements nothing finds nobody.
    async fn neighbours(&self, _name: &str, _at: SocketAddr) -> io::Result<Box<dyn Neighbours>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Connects to `host:port`; the name is resolved by the world.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}
