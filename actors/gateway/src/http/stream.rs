//! A connection that does not wait for ever.
//!
//! hyper's own time-outs read the process clock; these ask [`Env`]. Two things are watched: how long a client takes from the end of
//! one answer to the whole head of its next request (sending it byte by byte does not help), and how long it leaves our bytes unread.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use millpond_core::time::Span;
use millpond_env::{Env, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection does, shared by its stream and its answers.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose answer is not finished.
    open: AtomicUsize,
    /// Requests so far.
    begun: AtomicU64,
    /// Woken when a request ends: hyper need not read again by itself, and the idle time begins.
    ended: AtomicWaker,
}

impl Activity {
    /// A request's head has come. It is open until the returned guard goes.
    pub fn begin(self: &Arc<Activity>) -> Busy {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }
}

#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.wake();
    }
}

/// The body of an answer; its request is open as long as it lives.
pub(super) struct Answer {
    pub body: Body,
    pub _busy: Busy,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream whose reads fail when the connection was idle for too long, and whose writes fail when they stall.
pub(super) struct Watched {
    stream: Box<dyn Stream>,
    env: Env,
    activity: Arc<Activity>,
    idle_max: Span,
    stall_max: Span,
    /// Runs while no request is open, with the number of requests before it.
    idle: Option<(u64, Timer)>,
    stall: Option<Timer>,
}

impl Watched {
    pub fn new(
        env: &Env,
        stream: Box<dyn Stream>,
        activity: Arc<Activity>,
        idle_max: Span,
        stall_max: Span,
    ) -> Watched {
        Watched { stream, env: env.clone(), activity, idle_max, stall_max, idle: None, stall: None }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.activity.ended.register(cx.waker());
        if self.activity.open.load(Ordering::Relaxed) > 0 {
            self.idle = None;
            return Poll::Pending;
        }
        let begun = self.activity.begun.load(Ordering::Relaxed);
        if self.idle.as_ref().is_none_or(|(before, _)| *before != begun) {
            self.idle = Some((begun, self.env.sleep(self.idle_max)));
        }
        match &mut self.idle {
            Some((_, timer)) => timer.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into()),
            None => Poll::Pending,
        }
    }

    /// Watches a write: a timer runs from the moment at which it could not go on.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall_max = self.stall_max;
        let timer = self.stall.get_or_insert_with(|| self.env.sleep(stall_max));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_idle(cx).map(Err),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}
