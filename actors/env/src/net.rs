//! Byte streams between programs.

use std::{fmt::Debug, io, net::SocketAddr};

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

#[async_trait]
pub trait Net: Debug + Send + Sync + 'static {
    /// Port 0 takes any free port; [`Listener::local_addr`] tells which.
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// Connects to `host:port`; the name is resolved by the world.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}
