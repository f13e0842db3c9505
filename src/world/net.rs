//! TCP of the operating system.
#![expect(clippy::disallowed_methods, reason = "these are the sockets behind Env")]

use std::{io, net::SocketAddr};

use async_trait::async_trait;
use millpond_env::{Listener, Net, Stream};
use tokio::net::{TcpListener, TcpStream};

/// Streams send small writes at once (`TCP_NODELAY`): our callers write whole frames.
#[derive(Debug)]
pub struct Tcp;

#[async_trait]
impl Net for Tcp {
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(addr).await?;
        let local = listener.local_addr()?;
        Ok(Box::new(Bound { listener, local }))
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

#[derive(Debug)]
struct Bound {
    listener: TcpListener,
    local: SocketAddr,
}

#[async_trait]
impl Listener for Bound {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}
