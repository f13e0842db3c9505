//! Questions and their answers, on bidirectional streams: the class (u8) and one frame one way, frames the other.

use bytes::Bytes;
use millpond_core::record::Class;
use millpond_proto::wire::FRAME_BYTES_MAX;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    ABANDONED, Dialect, MALFORMED,
    frame::{self, LinkError, priority},
};

/// The answers to a request. Who drops it tells the other side to stop.
#[derive(Debug)]
pub struct ReplyFrames {
    connection: Connection,
    stream: RecvStream,
    bytes_max: usize,
}

impl ReplyFrames {
    pub(super) async fn ask(connection: &Connection, class: Class, frame: Bytes) -> Result<ReplyFrames, LinkError> {
        let (asking, replies) = ReplyFrames::open(connection, class, frame).await?;
        asking.finish();
        Ok(replies)
    }

    /// The same, when more frames follow the first one.
    pub(super) async fn open(
        connection: &Connection,
        class: Class,
        frame: Bytes,
    ) -> Result<(Replies, ReplyFrames), LinkError> {
        let (mut send, stream) = connection.open_bi().await?;
        let _ = send.set_priority(priority(class));
        send.write_all(&[class as u8]).await?;
        frame::write(&mut send, frame).await?;
        let replies = ReplyFrames::new(connection.clone(), stream, FRAME_BYTES_MAX);
        Ok((Replies::new(send, Dialect::Own, None), replies))
    }

    pub(super) fn new(connection: Connection, stream: RecvStream, bytes_max: usize) -> ReplyFrames {
        ReplyFrames { connection, stream, bytes_max }
    }

    /// The next answer; `None` after the last one. It comes when it is asked for: what is not fetched makes the other side wait.
    ///
    /// # Errors
    /// When the connection or the stream has ended before the last answer. A malformed answer ends the connection.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        let read = frame::read(&mut self.stream, self.bytes_max).await;
        if let Err(LinkError::Malformed(why)) = read {
            self.connection.close(VarInt::from_u32(MALFORMED), why.as_bytes());
        }
        read
    }
}

/// Where the answers to a request go. Dropped before [`Replies::finish`] it tells the other side that there are no more by mistake.
#[derive(Debug)]
pub struct Replies {
    stream: Option<SendStream>,
    dialect: Dialect,
    /// Kept until the request is answered.
    _credit: Option<OwnedSemaphorePermit>,
}

impl Replies {
    pub(super) fn new(stream: SendStream, dialect: Dialect, credit: Option<OwnedSemaphorePermit>) -> Replies {
        Replies { stream: Some(stream), dialect, _credit: credit }
    }

    /// Waits while the other side does not fetch what was sent before.
    ///
    /// # Errors
    /// When the connection is over, the other side wants no more, or the frame is too long.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        match &mut self.stream {
            Some(stream) => frame::write(stream, self.dialect.speak(frame)).await,
            None => Err(LinkError::Abandoned),
        }
    }

    pub fn finish(mut self) {
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.finish();
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.reset(VarInt::from_u32(ABANDONED));
        }
    }
}
