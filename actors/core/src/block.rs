//! Blocks: a batch as bytes. The bytes on the wire are the bytes on disk and the bytes to the cloud.
//!
//! # Format v1
//! Numbers are little-endian; varints are LEB128, signed ones zigzag. Rows stand device by device.
//!
//! ```text
//! header, 40 bytes
//!      0  4  magic     C1 'M' 'P' 'B' (no JSON text and no MessagePack value starts with C1)
//!      4  1  version   1
//!      5  1  flags     1 has sequence numbers, 2 has qualities
//!      6  2  columns
//!      8  4  length    of the whole block
//!     12  4  crc       CRC-32 (IEEE) of the whole block without these four bytes
//!     16  4  rows
//!     20  4  devices
//!     24  8  min time  nanoseconds since 1970, of all rows
//!     32  8  max time
//! shape     length u32, then for each column: type u8 (0 f64, 1 i64, 2 bool, 3 text, 4 bytes), name, unit (each: varint length, bytes)
//! devices   names and rows of each          drawn in names.rs
//! times     unit u8 (times are keys × 10^unit nanoseconds, up to 9), keys      drawn in keys.rs
//! [seqs]    stream of all rows: 1 present, 0 absent; keys
//! [quality] stream of all rows: 0 good, 1 uncertain, 2 bad      drawn in stream.rs
//! columns   one after another               drawn in column.rs
//! ```
//!
//! How numbers shrink: per column an exact decimal with one exponent becomes an integer (`float.rs`); integers become differences
//! within each device, with the devices' first values apart (`keys.rs`); differences go in runs of 128, each less the run's least and
//! packed to the run's width (`stream.rs`, `pack.rs`). Decoding has no branch per value.
//!
//! # Trust
//! A block may come from a stranger. [`Decoder::decode`] checks the checksum first, then every length and count against what is
//! there and against [`crate::limits`] before it allocates; no bytes make it panic. Statistics are the sender's word.

use crate::{batch::Batch, time::Timestamp, value::Value};

mod column;
mod decode;
mod encode;
mod float;
mod header;
mod keys;
mod names;
mod pack;
mod read;
mod stats;
mod stream;
#[cfg(test)]
mod tests;
mod text;
mod wire;

pub use decode::Decoder;
pub use stats::ColumnStats;

/// What the header of a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length of the block.
    pub bytes: u32,
    pub rows: u32,
    pub devices: u32,
    /// Of all rows; [`crate::batch::UNTIMED`] when one has no time. Both are 0 in a block without rows.
    pub min_time: Timestamp,
    pub max_time: Timestamp,
}

/// Why bytes are not a block that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error("not a block: it does not start with the magic number")]
    NotABlock,
    #[error("a block of version {0}, which this program does not know")]
    Version(u8),
    #[error("the block has {have} bytes where its header says {want}")]
    Length { have: usize, want: usize },
    #[error("the block is damaged: its checksum does not match")]
    Checksum,
    #[error("the block has {have} {what}, more than {limit}")]
    TooLarge { what: &'static str, have: usize, limit: usize },
    #[error("the block is malformed in its {0}")]
    Malformed(&'static str),
}

/// Appends the block of `batch` to `out`. Rows of a device that stand in several runs are joined, as by [`Batch::grouped`].
///
/// # Panics
/// When the batch is beyond the limits of a block ([`fits`]): readers would refuse it. [`encode_split`] has no such limits.
pub fn encode(batch: &Batch, out: &mut Vec<u8>) {
    encode::encode(batch, out);
}

/// Blocks of at most `max_bytes` each, devices in the order of their first row. A single row that is larger gets a block of its own.
pub fn encode_split(batch: &Batch, max_bytes: usize) -> Vec<Vec<u8>> {
    encode::encode_split(batch, max_bytes)
}

/// Whether one block can hold `batch`, whatever its length in bytes.
pub fn fits(batch: &Batch) -> bool {
    encode::fits(batch, 0..batch.rows())
}

/// Whether `bytes` start like a block of any version.
pub fn is_block(bytes: &[u8]) -> bool {
    bytes.starts_with(&header::MAGIC)
}

/// Reads the header only; the checksum is not verified.
pub fn peek(block: &[u8]) -> Result<Summary, BlockError> {
    header::Header::read(block).map(|header| header.summary)
}

/// Calls `point` for each value of `metric` of `device`, in the order of the rows; other columns are not decoded, and the checksum is not
/// verified. `false` when the block has no such device or metric.
pub fn read_series(
    block: &[u8],
    device: &str,
    metric: &str,
    point: &mut dyn FnMut(Timestamp, Value<'_>),
) -> Result<bool, BlockError> {
    read::series(block, device, metric, point)
}

/// Calls `device` with the name and the number of rows of each device.
pub fn devices(block: &[u8], device: &mut dyn FnMut(&str, u32)) -> Result<(), BlockError> {
    read::devices(block, device)
}

/// The hashes of the devices ([`crate::ids::device_hash`]), as the journal's index keeps them.
pub fn device_hashes(block: &[u8]) -> Result<Vec<u64>, BlockError> {
    let mut hashes = Vec::new();
    read::devices(block, &mut |name, _| hashes.push(crate::ids::device_hash(name)))?;
    Ok(hashes)
}

/// The statistics of `metric` over the whole block; `None` when it has no such metric, or none were written.
pub fn statistics(block: &[u8], metric: &str) -> Result<Option<ColumnStats>, BlockError> {
    read::statistics(block, metric)
}
