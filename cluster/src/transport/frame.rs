//! Frames on streams: the length (u32, little-endian), then so many bytes.

use bytes::{Bytes, BytesMut};
use millpond_core::record::Class;
use millpond_proto::wire::FRAME_BYTES_MAX;
use quinn::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError};

/// Why nothing more comes, or goes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The connection is over.
    #[error("the connection is over: {0}")]
    Closed(String),
    /// The other side gave this stream up; the connection goes on.
    #[error("the other side gave up")]
    Abandoned,
    /// The other side does not keep to the protocol. The connection ends.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The frame is longer than [`FRAME_BYTES_MAX`].
    #[error("the frame is too long")]
    TooLong,
}

/// The length of the next frame; `None` at the end of the stream.
pub(super) async fn read_length(stream: &mut RecvStream, max: usize) -> Result<Option<usize>, LinkError> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(ReadExactError::FinishedEarly(_)) => return Err(LinkError::Malformed("the stream ends within a frame")),
        Err(ReadExactError::ReadError(error)) => return Err(error.into()),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > max { Err(LinkError::Malformed("the frame is too long")) } else { Ok(Some(length)) }
}

/// Takes memory for what has come, not for what was announced.
pub(super) async fn read_body(stream: &mut RecvStream, length: usize) -> Result<Bytes, LinkError> {
    let mut frame = BytesMut::new();
    while frame.len() < length {
        let chunk = stream.read_chunk(length - frame.len(), true).await?;
        let chunk = chunk.ok_or(LinkError::Malformed("the stream ends within a frame"))?;
        if chunk.bytes.len() == length {
            return Ok(chunk.bytes);
        }
        frame.extend_from_slice(&chunk.bytes);
    }
    Ok(frame.freeze())
}

pub(super) async fn read(stream: &mut RecvStream, max: usize) -> Result<Option<Bytes>, LinkError> {
    match read_length(stream, max).await? {
        Some(length) => read_body(stream, length).await.map(Some),
        None => Ok(None),
    }
}

/// The first byte of a stream; a stream that was given up before it is empty.
pub(super) async fn read_kind(stream: &mut RecvStream) -> Result<Option<u8>, LinkError> {
    let mut kind = [0];
    match stream.read_exact(&mut kind).await {
        Ok(()) => Ok(Some(kind[0])),
        Err(ReadExactError::FinishedEarly(_)) => Ok(None),
        Err(ReadExactError::ReadError(error)) => Err(error.into()),
    }
}

pub(super) fn class_of(kind: u8) -> Result<Class, LinkError> {
    Class::ALL.get(usize::from(kind)).copied().ok_or(LinkError::Malformed("the kind of a stream is not known"))
}

pub(super) fn length_of(frame: &Bytes) -> Result<[u8; 4], LinkError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(LinkError::TooLong);
    }
    Ok((frame.len() as u32).to_le_bytes())
}

pub(super) async fn write(stream: &mut SendStream, frame: Bytes) -> Result<(), LinkError> {
    let length = Bytes::copy_from_slice(&length_of(&frame)?);
    Ok(stream.write_all_chunks(&mut [length, frame]).await?)
}

/// Higher goes first.
pub(super) fn priority(class: Class) -> i32 {
    Class::Raw as i32 - class as i32
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> LinkError {
        match error {
            ReadError::Reset(_) | ReadError::ClosedStream => LinkError::Abandoned,
            ReadError::ConnectionLost(error) => error.into(),
            other => LinkError::Closed(other.to_string()),
        }
    }
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> LinkError {
        LinkError::Closed(error.to_string())
    }
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> LinkError {
        match error {
            WriteError::Stopped(_) | WriteError::ClosedStream => LinkError::Abandoned,
            WriteError::ConnectionLost(error) => error.into(),
            other => LinkError::Closed(other.to_string()),
        }
    }
}
