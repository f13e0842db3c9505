//! What devices send, decoded into batches: JSON, NDJSON, MessagePack and blocks.
//!
//! A row is a flat map. `device` (or `device_id`), `ts`, `seq` and `quality` are keys with a meaning, every other key is a metric:
//! a number, a boolean, text, or (in MessagePack) bytes. `null` stands for a metric that is absent. A payload is one row, an
//! array of rows, or (NDJSON) a row or array per line.
//!
//! A payload is taken whole or not at all: when its last row is bad, the rows before it leave the decoder again, so that a dead
//! letter holds exactly what was not accepted.

mod block;
mod json;
mod msgpack;
mod row;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use millpond_core::{
    batch::BatchBuilder,
    dead_letter::{PayloadFormat, Reason},
};

use crate::port::Inbound;

/// Collects the payloads of one read of a connection, or of one request.
#[derive(Debug, Default)]
pub struct PayloadDecoder {
    builder: BatchBuilder,
    blocks: block::Blocks,
    key: String,
}

impl PayloadDecoder {
    pub fn new() -> PayloadDecoder {
        PayloadDecoder::default()
    }

    /// Decodes `payload` and returns its number of rows. `device` is the device that the address of the payload names (an MQTT
    /// topic): rows need not say theirs then, and must not say another.
    ///
    /// # Errors
    /// Nothing of the payload stays in the decoder; what earlier payloads gave does.
    pub fn decode(
        &mut self,
        format: PayloadFormat,
        device: Option<&str>,
        payload: &Bytes,
    ) -> Result<usize, PayloadError> {
        if payload.is_empty() {
            return Err(PayloadError::malformed("the payload is empty"));
        }
        match guess(format, payload) {
            PayloadFormat::Block => self.blocks.decode(device, payload),
            PayloadFormat::Msgpack => self.rows(device, payload, msgpack::decode),
            PayloadFormat::Ndjson => self.rows(device, payload, json::decode_lines),
            PayloadFormat::Json | PayloadFormat::Unknown => self.rows(device, payload, json::decode),
        }
    }

    /// What was decoded since the last call: one batch per shape, then the blocks as they came.
    pub fn finish(&mut self) -> Vec<Inbound> {
        let mut inbound: Vec<Inbound> =
            self.builder.finish().into_iter().map(|batch| Inbound { batch, block: None }).collect();
        inbound.append(&mut self.blocks.finish());
        inbound
    }

    fn rows(
        &mut self,
        device: Option<&str>,
        payload: &[u8],
        decode: fn(&mut row::Rows<'_>, &mut String, &[u8]) -> Result<(), PayloadError>,
    ) -> Result<usize, PayloadError> {
        let mut rows = row::Rows::new(&mut self.builder, device)?;
        match decode(&mut rows, &mut self.key, payload) {
            Ok(()) => Ok(rows.count()),
            Err(error) => {
                rows.rollback();
                Err(error)
            }
        }
    }
}

/// Why a payload was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct PayloadError {
    pub reason: Reason,
    /// What is wrong and where, for a person. Events are counted from 1, bytes from 0.
    pub detail: String,
}

impl PayloadError {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> PayloadError {
        PayloadError { reason, detail: detail.into() }
    }

    fn malformed(detail: impl Into<String>) -> PayloadError {
        PayloadError::new(Reason::Malformed, detail)
    }
}

/// The format of a payload whose door does not tell: a block by its magic, JSON by the first byte, otherwise MessagePack.
fn guess(format: PayloadFormat, payload: &[u8]) -> PayloadFormat {
    match (format, payload) {
        (PayloadFormat::Unknown, payload) if block::is_block(payload) => PayloadFormat::Block,
        (PayloadFormat::Unknown, [b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n', ..]) => PayloadFormat::Json,
        (PayloadFormat::Unknown, _) => PayloadFormat::Msgpack,
        (known, _) => known,
    }
}
