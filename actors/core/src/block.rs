//! Blocks: a batch as bytes, on the wire and on disk (format v1).

use crate::{batch::Batch, time::Timestamp, value::Value};

/// What the header of a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length of the block.
    pub bytes: u32,
    pub rows: u32,
    pub devices: u32,
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
    #[error("the block is cut off: {have} of {want} bytes")]
    Truncated { have: usize, want: usize },
    #[error("the block is damaged: its checksum does not match")]
    Checksum,
    #[error("the block has {have} {what}, more than {limit}")]
    TooLarge { what: &'static str, have: usize, limit: usize },
    #[error("the block is malformed in its {0}")]
    Malformed(&'static str),
}

/// Appends the block of `batch` to `out`; rows of a device that stand in several runs are joined.
pub fn encode(_batch: &Batch, _out: &mut Vec<u8>) {
    todo!()
}

/// Blocks of at most `max_bytes` each (a single row that is larger gets a block of its own), in the order of the rows.
pub fn encode_split(_batch: &Batch, _max_bytes: usize) -> Vec<Vec<u8>> {
    todo!()
}

/// Reads blocks, and remembers the last shapes so that batches of one shape share it.
#[derive(Debug, Default)]
pub struct Decoder {}

impl Decoder {
    pub fn new() -> Decoder {
        Decoder::default()
    }

    pub fn decode(&mut self, _block: &[u8]) -> Result<Batch, BlockError> {
        todo!()
    }
}

/// Whether `bytes` start like a block of any version.
pub fn is_block(_bytes: &[u8]) -> bool {
    todo!()
}

/// Reads the header only; the checksum is not verified.
pub fn peek(_block: &[u8]) -> Result<Summary, BlockError> {
    todo!()
}

/// Calls `point` for each value of `metric` of `device`, in the order of the rows. `false` when the block has no such device or metric.
pub fn read_series(
    _block: &[u8],
    _device: &str,
    _metric: &str,
    _point: &mut dyn FnMut(Timestamp, Value<'_>),
) -> Result<bool, BlockError> {
    todo!()
}

/// Calls `device` with the name and the number of rows of each device.
pub fn devices(_block: &[u8], _device: &mut dyn FnMut(&str, u32)) -> Result<(), BlockError> {
    todo!()
}
