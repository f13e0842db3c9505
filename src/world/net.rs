//! TCP and UDP of the operating system.
#![expect(clippy::disallowed_methods, reason = "these are the sockets behind Env")]

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use millpond_env::{Datagrams, Listener, Neighbours, Net, Stream};
use tokio::{
    io::ReadBuf,
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::neighbours::Mdns;

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

    async fn bind(&self, addr: SocketAddr) -> io::Result<Arc<dyn Datagrams>> {
        let socket = UdpSocket::bind(addr).await?;
        let local = socket.local_addr()?;
        Ok(Arc::new(Udp { socket, local }))
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await?.collect())
    }

    async fn neighbours(&self, name: &str, at: SocketAddr) -> io::Result<Box<dyn Neighbours>> {
        Ok(Box::new(Mdns::begin(name, at)?))
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

#[derive(Debug)]
struct Udp {
    socket: UdpSocket,
    local: SocketAddr,
}

impl Datagrams for Udp {
    fn poll_send(&self, cx: &mut Context<'_>, to: SocketAddr, datagram: &[u8]) -> Poll<io::Result<()>> {
        self.socket.poll_send_to(cx, datagram, to).map_ok(|_| ())
    }

    fn poll_receive(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut room = ReadBuf::new(into);
        self.socket.poll_recv_from(cx, &mut room).map_ok(|from| (room.filled().len(), from))
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}
