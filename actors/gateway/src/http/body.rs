//! Reading a request's body: bounded, in time, and with credit taken before.

use std::io::Read;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, header};
use millpond_core::{limits::PAYLOAD_BYTES_MAX, time::Span};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Door,
    problem::{Code, Problem},
};

/// How long a request waits for the node to have room before it is told to come again.
const CREDIT_WAIT: Span = Span::from_secs(10);

/// A body after decompression, with the credit for it.
pub(super) struct Received {
    pub bytes: Bytes,
    pub credit: OwnedSemaphorePermit,
}

/// Takes credit, then reads and decompresses.
pub(super) async fn receive(door: &Door, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
    let compressed = is_gzip(headers)?;
    let announced = content_length(headers);
    if announced.is_some_and(|bytes| bytes > PAYLOAD_BYTES_MAX) {
        return Err(Problem::new(Code::TooLarge));
    }
    // All of the credit is taken at once: to wait for more while holding some could lock requests against each other.
    let asked = announced.filter(|_| !compressed).unwrap_or(PAYLOAD_BYTES_MAX).max(1);
    let credit = match door.env.timeout(CREDIT_WAIT, door.node.credit(asked)).await {
        Ok(Some(credit)) => credit,
        Ok(None) => return Err(Problem::new(Code::Unavailable)),
        Err(_) => return Err(Problem::new(Code::Busy)),
    };
    let mut bytes = read(door, body).await?;
    door.metrics.received_bytes.inc_by(bytes.len() as u64);
    if compressed {
        bytes = gunzip(&bytes)?;
    }
    let credit = keep(credit, bytes.len(), asked);
    Ok(Received { bytes, credit })
}

/// Reads a body of at most [`PAYLOAD_BYTES_MAX`].
pub(super) async fn read(door: &Door, body: Body) -> Result<Bytes, Problem> {
    let collected = Limited::new(body, PAYLOAD_BYTES_MAX).collect();
    match door.env.timeout(door.settings.transfer_timeout, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(Code::TooLarge)),
        Ok(Err(error)) => Err(Problem::new(Code::TooSlow).because(format!("the body broke off: {error}"))),
        Err(_) => Err(Problem::new(Code::TooSlow)),
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else { return Ok(false) };
    match encoding.as_bytes() {
        b"gzip" | b"x-gzip" => Ok(true),
        b"identity" | b"" => Ok(false),
        other => {
            let other = String::from_utf8_lossy(other).into_owned();
            Err(Problem::new(Code::UnknownFormat).because(format!("the compression {other:?} is not known")))
        }
    }
}

/// Stops one byte past the limit: a small body that would fill the memory is not unpacked.
fn gunzip(bytes: &[u8]) -> Result<Bytes, Problem> {
    let mut plain = Vec::with_capacity((bytes.len() * 4).min(PAYLOAD_BYTES_MAX));
    let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(PAYLOAD_BYTES_MAX as u64 + 1);
    reader
        .read_to_end(&mut plain)
        .map_err(|error| Problem::new(Code::BadCompression).because(format!("not gzip: {error}")))?;
    if plain.len() > PAYLOAD_BYTES_MAX {
        return Err(Problem::new(Code::TooLarge));
    }
    Ok(plain.into())
}

/// Gives back what was asked for but not used.
fn keep(mut credit: OwnedSemaphorePermit, used: usize, asked: usize) -> OwnedSemaphorePermit {
    let part = (credit.num_permits() as u64 * used as u64).div_ceil(asked as u64) as usize;
    match credit.split(part.clamp(1, credit.num_permits().max(1))) {
        Some(part) => part,
        None => credit,
    }
}
