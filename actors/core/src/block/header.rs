//! The first 40 bytes, and the shape behind them.

use super::{
    BlockError, Summary,
    wire::{Reader, put_varint},
};
use crate::{
    batch::{Metric, Shape},
    limits::{CELLS_PER_BATCH_MAX, EVENTS_PER_BATCH_MAX, METRICS_PER_EVENT_MAX},
    time::Timestamp,
    value::ValueType,
};

pub(super) const MAGIC: [u8; 4] = [0xc1, b'M', b'P', b'B'];
pub(super) const BYTES: usize = 40;
const VERSION: u8 = 1;
const HAS_SEQS: u8 = 1;
const HAS_QUALITY: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) summary: Summary,
    pub(super) has_seqs: bool,
    pub(super) has_quality: bool,
    pub(super) columns: u16,
}

impl Header {
    /// Writes the header over the first bytes of `block`, which is complete behind them.
    pub(super) fn write(&self, block: &mut [u8]) {
        let summary = &self.summary;
        let flags = (u8::from(self.has_seqs) * HAS_SEQS) | (u8::from(self.has_quality) * HAS_QUALITY);
        block[..4].copy_from_slice(&MAGIC);
        block[4] = VERSION;
        block[5] = flags;
        block[6..8].copy_from_slice(&self.columns.to_le_bytes());
        block[8..12].copy_from_slice(&summary.bytes.to_le_bytes());
        block[16..20].copy_from_slice(&summary.rows.to_le_bytes());
        block[20..24].copy_from_slice(&summary.devices.to_le_bytes());
        block[24..32].copy_from_slice(&summary.min_time.0.to_le_bytes());
        block[32..40].copy_from_slice(&summary.max_time.0.to_le_bytes());
        let crc = checksum(block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads and checks the header; `block` must have exactly the length it says.
    pub(super) fn read(block: &[u8]) -> Result<Header, BlockError> {
        if !block.starts_with(&MAGIC) {
            return Err(BlockError::NotABlock);
        }
        match block.get(4) {
            Some(&VERSION) => {}
            Some(&other) => return Err(BlockError::Version(other)),
            None => return Err(BlockError::Length { have: block.len(), want: BYTES }),
        }
        let header = Self::fields(block).ok_or(BlockError::Length { have: block.len(), want: BYTES })?;
        let summary = &header.summary;
        if summary.bytes as usize != block.len() {
            return Err(BlockError::Length { have: block.len(), want: summary.bytes as usize });
        }
        let (rows, columns) = (summary.rows as usize, usize::from(header.columns));
        within("rows", rows, EVENTS_PER_BATCH_MAX)?;
        within("metrics", columns, METRICS_PER_EVENT_MAX)?;
        within("cells", rows * columns, CELLS_PER_BATCH_MAX)?;
        if block[5] & !(HAS_SEQS | HAS_QUALITY) != 0 || summary.devices > summary.rows {
            return Err(BlockError::Malformed("header"));
        }
        Ok(header)
    }

    fn fields(block: &[u8]) -> Option<Header> {
        let mut reader = Reader::new(block.get(5..BYTES)?);
        let flags = reader.u8()?;
        let columns = reader.u16()?;
        let bytes = reader.u32()?;
        let _crc = reader.u32()?;
        let (rows, devices) = (reader.u32()?, reader.u32()?);
        let (min_time, max_time) = (Timestamp(reader.i64()?), Timestamp(reader.i64()?));
        let summary = Summary { bytes, rows, devices, min_time, max_time };
        Some(Header { summary, has_seqs: flags & HAS_SEQS != 0, has_quality: flags & HAS_QUALITY != 0, columns })
    }
}

fn within(what: &'static str, have: usize, limit: usize) -> Result<(), BlockError> {
    if have > limit { Err(BlockError::TooLarge { what, have, limit }) } else { Ok(()) }
}

/// Whether the checksum of a block, whose header has been read, is right.
pub(super) fn is_undamaged(block: &[u8]) -> bool {
    block[12..16] == checksum(block).to_le_bytes()
}

pub(super) fn checksum(block: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&block[..12]);
    crc.update(&block[16..]);
    crc.finalize()
}

pub(super) fn write_shape(shape: &Shape, out: &mut Vec<u8>) {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    for metric in shape.metrics() {
        out.push(metric.value_type as u8);
        for text in [&metric.name, &metric.unit] {
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
    }
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// The bytes of the shape; the reader goes on behind them.
pub(super) fn shape_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], BlockError> {
    let length = reader.u32().ok_or(BlockError::Malformed("shape"))?;
    reader.take(length as usize).ok_or(BlockError::Malformed("shape"))
}

/// Calls `metric` with type, name and unit of each of the `columns` columns.
pub(super) fn metrics<'a>(
    shape: &'a [u8],
    columns: u16,
    metric: &mut dyn FnMut(ValueType, &'a str, &'a str),
) -> Option<()> {
    let mut reader = Reader::new(shape);
    for _ in 0..columns {
        let value_type = ValueType::from_u8(reader.u8()?)?;
        let mut text = || {
            let length = reader.length()?;
            std::str::from_utf8(reader.take(length)?).ok()
        };
        let (name, unit) = (text()?, text()?);
        metric(value_type, name, unit);
    }
    reader.rest().is_empty().then_some(())
}

/// A shape in which each name occurs once.
pub(super) fn read_shape(shape: &[u8], columns: u16) -> Result<Shape, BlockError> {
    let mut list = Vec::with_capacity(usize::from(columns));
    let mut add =
        |value_type, name: &str, unit: &str| list.push(Metric { name: name.into(), value_type, unit: unit.into() });
    metrics(shape, columns, &mut add).ok_or(BlockError::Malformed("shape"))?;
    let mut names: Vec<&str> = list.iter().map(|metric| &*metric.name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(BlockError::Malformed("shape"));
    }
    Ok(Shape::new(list))
}
