use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use millpond_env::Datagrams;
use quinn::{AsyncUdpSocket, udp::Transmit};

use super::QuinnSocket;

/// A socket with room for so many datagrams, that knows one waker, as tokio's.
#[derive(Debug, Default)]
struct Narrow {
    room: AtomicUsize,
    sent: AtomicUsize,
    waker: Mutex<Option<Waker>>,
    broken: bool,
}

impl Narrow {
    fn make_room(&self, datagrams: usize) {
        self.room.fetch_add(datagrams, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }
}

impl Datagrams for Narrow {
    fn poll_send(&self, cx: &mut Context<'_>, _: SocketAddr, _: &[u8]) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::NetworkUnreachable.into()));
        }
        if self.room.load(Ordering::SeqCst) == 0 {
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.room.fetch_sub(1, Ordering::SeqCst);
        self.sent.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }

    fn poll_receive(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        Poll::Pending
    }

    fn local_addr(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9)
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn send(socket: &QuinnSocket) -> io::Result<()> {
    let destination = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 10);
    socket.try_send(&Transmit { destination, ecn: None, contents: b"hello", segment_size: None, src_ip: None })
}

#[test]
fn all_who_wait_for_room_are_woken_when_there_is_some() {
    let beneath = Arc::new(Narrow::default());
    let socket = Arc::new(QuinnSocket::new(beneath.clone()));
    assert_eq!(send(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let mut waiting: Vec<_> = (0..3).map(|_| (socket.clone().create_io_poller(), Arc::new(Count::default()))).collect();
    for (poller, count) in &mut waiting {
        let waker = Waker::from(count.clone());
        assert!(poller.as_mut().poll_writable(&mut Context::from_waker(&waker)).is_pending());
    }
    beneath.make_room(1);
    for (poller, count) in &mut waiting {
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        let waker = Waker::from(count.clone());
        assert!(poller.as_mut().poll_writable(&mut Context::from_waker(&waker)).is_ready());
    }
    assert!(send(&socket).is_ok());
    assert_eq!(send(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(beneath.sent.load(Ordering::SeqCst), 1);
}

#[test]
fn a_network_that_is_unreachable_loses_datagrams_and_nothing_else() {
    let socket = QuinnSocket::new(Arc::new(Narrow { broken: true, ..Narrow::default() }));
    assert!(send(&socket).is_ok());
}
