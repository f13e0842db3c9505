//! The bytes of a connection that are not packets yet.
//!
//! A busy connection reads 64 KiB at a time; an idle one holds 2 KiB, so that thousands of quiet devices cost little. The size follows
//! what reads bring: a read that fills its room doubles it; after some that leave most of it empty it is small again.

use std::{
    io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use millpond_env::Stream;
use tokio::io::AsyncReadExt;

use super::codec::{DecodeError, Split, split};

const READ_BYTES_MIN: usize = 2 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
/// Small reads in a row after which little is read at a time.
const SMALL_READS: u32 = 8;

#[derive(Debug)]
pub(super) struct Input {
    buffer: BytesMut,
    /// Room for the next read.
    room: usize,
    small_reads: u32,
    /// Bytes in all that the packet at the front takes, as far as is known.
    needed: usize,
}

impl Input {
    /// Begins with bytes that were read before.
    pub(super) fn new(buffer: BytesMut) -> Input {
        Input { buffer, room: READ_BYTES_MIN, small_reads: 0, needed: 0 }
    }

    /// Reads more; 0 bytes are the end of the stream.
    pub(super) fn poll_read(&mut self, stream: &mut Box<dyn Stream>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let missing = self.needed.saturating_sub(self.buffer.len());
        let wanted = self.room.max(missing);
        if self.buffer.capacity() - self.buffer.len() < missing.max(self.room / 4).max(1) {
            self.buffer.reserve(wanted);
        }
        let spare = self.buffer.capacity() - self.buffer.len();
        let read = pin!(stream.read_buf(&mut self.buffer)).poll(cx);
        if let Poll::Ready(Ok(bytes)) = read {
            self.adapt(bytes, spare);
        }
        read
    }

    /// All complete packets at the front, and what is wrong with the bytes after them.
    pub(super) fn packets(&mut self, packet_bytes_max: usize) -> (Bytes, Result<(), DecodeError>) {
        let mut end = 0;
        let rest = loop {
            match split(&self.buffer[end..], packet_bytes_max) {
                Ok(Split::Packet { len, .. }) => end += len,
                Ok(Split::Need(bytes)) => {
                    self.needed = bytes;
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        (self.buffer.split_to(end).freeze(), rest)
    }

    fn adapt(&mut self, bytes: usize, spare: usize) {
        if bytes == spare && spare >= self.room {
            self.room = (self.room * 2).min(READ_BYTES_MAX);
        }
        self.small_reads = if bytes < self.room / 8 { self.small_reads + 1 } else { 0 };
        if self.small_reads >= SMALL_READS && self.room > READ_BYTES_MIN {
            self.room = READ_BYTES_MIN;
            // What was read may still stand in the old buffer; it moves into a small one.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
    }
}
