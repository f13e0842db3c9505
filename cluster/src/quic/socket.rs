//! A socket for quinn, one datagram at a time.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use millpond_env::Datagrams;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// All connections of an endpoint send through one socket, and any number of them may wait for room. The socket beneath knows one
/// waker only, which wakes them all.
pub struct QuinnSocket {
    datagrams: Arc<dyn Datagrams>,
    room: Arc<Room>,
    waker: Waker,
}

impl QuinnSocket {
    pub fn new(datagrams: Arc<dyn Datagrams>) -> QuinnSocket {
        let room = Arc::new(Room::default());
        QuinnSocket { datagrams, waker: Waker::from(room.clone()), room }
    }
}

impl fmt::Debug for QuinnSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuinnSocket").field(&self.datagrams).finish()
    }
}

impl AsyncUdpSocket for QuinnSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { room: self.room.clone() })
    }

    /// An error of one datagram (a network that is unreachable for a while, say) is no error of a connection: the datagram is lost,
    /// and what it carried is sent again.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let woken = self.room.woken.load(Ordering::Acquire);
        let mut cx = Context::from_waker(&self.waker);
        match self.datagrams.poll_send(&mut cx, transmit.destination, transmit.contents) {
            Poll::Ready(Ok(()) | Err(_)) => Ok(()),
            Poll::Pending => {
                self.room.fill(woken);
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        into: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = 0;
        for (into, meta) in into.iter_mut().zip(meta) {
            match self.datagrams.poll_receive(cx, into) {
                Poll::Ready(Ok((len, addr))) => {
                    *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                    received += 1;
                }
                // What was received before is told first; an error comes again.
                _ if received > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.datagrams.local_addr())
    }
}

/// Whether the socket has room, and who waits for it.
#[derive(Debug, Default)]
struct Room {
    /// How often there was room again. Who was refused at one count and finds another has missed the news, and tries again.
    woken: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    full: bool,
    tasks: Vec<Waker>,
}

impl Room {
    fn fill(&self, woken: u64) {
        let mut waiting = self.waiting();
        waiting.full = self.woken.load(Ordering::Acquire) == woken;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Room {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let tasks = {
            let mut waiting = self.waiting();
            self.woken.fetch_add(1, Ordering::AcqRel);
            waiting.full = false;
            std::mem::take(&mut waiting.tasks)
        };
        tasks.into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct Poller {
    room: Arc<Room>,
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.room.waiting();
        if !waiting.full {
            return Poll::Ready(Ok(()));
        }
        if !waiting.tasks.iter().any(|task| task.will_wake(cx.waker())) {
            waiting.tasks.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
