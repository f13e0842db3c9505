//! From bytes to rows.

use std::sync::Arc;

use super::{
    BlockError,
    column::{self, Memory},
    header::{self, Header},
    keys, names, stream,
    text::TextBudget,
    wire::Reader,
};
use crate::{
    batch::{Batch, Shape},
    time::Timestamp,
    value::Quality,
};

/// Reads blocks, and remembers the last shapes, so that the batches of one shape share it.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Newest first: columns and bytes as they stand in a block, and what they mean.
    shapes: Vec<(u16, Box<[u8]>, Arc<Shape>)>,
    memory: Memory,
}

/// Shapes that a decoder remembers.
const SHAPES_MAX: usize = 16;
/// Longer shapes are not remembered: a stranger's may be as long as its block.
const SHAPE_BYTES_MAX: usize = 16 << 10;

impl Decoder {
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Reads `block`, which must be one whole block and nothing else. The checksum is verified before anything behind the header is read.
    pub fn decode(&mut self, block: &[u8]) -> Result<Batch, BlockError> {
        let header = Header::read(block)?;
        if !header::is_undamaged(block) {
            return Err(BlockError::Checksum);
        }
        let rows = header.summary.rows as usize;
        let mut reader = Reader::new(&block[header::BYTES..]);
        let shape = self.shape(header::shape_bytes(&mut reader)?, header.columns)?;
        let memory = &mut self.memory;
        let (names, counts) = names::decode(&mut reader, header.summary.devices as usize, rows)
            .ok_or(BlockError::Malformed("device table"))?;
        let mut batch = Batch::with_devices(shape, names.text, &names.ends, &counts);
        batch.times = times(&mut reader, rows, &counts, memory).ok_or(BlockError::Malformed("times"))?;
        check_times(&header, &batch.times)?;
        if header.has_seqs {
            batch.seqs = seqs(&mut reader, rows, &counts, memory).ok_or(BlockError::Malformed("sequence numbers"))?;
        }
        if header.has_quality {
            batch.quality = quality(&mut reader, rows, memory).ok_or(BlockError::Malformed("qualities"))?;
        }
        let mut budget = TextBudget::default();
        batch.columns.clear();
        for metric in batch.shape.metrics() {
            batch.columns.push(column::decode(&mut reader, metric.value_type, rows, &counts, memory, &mut budget)?);
        }
        if reader.rest().is_empty() { Ok(batch) } else { Err(column::MALFORMED) }
    }

    fn shape(&mut self, bytes: &[u8], columns: u16) -> Result<Arc<Shape>, BlockError> {
        let known = self.shapes.iter().position(|(count, known, _)| *count == columns && **known == *bytes);
        if let Some(at) = known {
            self.shapes[..=at].rotate_right(1);
            return Ok(self.shapes[0].2.clone());
        }
        let shape = Arc::new(header::read_shape(bytes, columns)?);
        if bytes.len() <= SHAPE_BYTES_MAX {
            self.shapes.truncate(SHAPES_MAX - 1);
            self.shapes.insert(0, (columns, bytes.into(), shape.clone()));
        }
        Ok(shape)
    }
}

pub(super) fn times(
    reader: &mut Reader<'_>,
    rows: usize,
    counts: &[u32],
    memory: &mut Memory,
) -> Option<Vec<Timestamp>> {
    let unit = reader.u8().filter(|&unit| unit <= 9)?;
    keys::decode(reader, rows, counts, &mut memory.scratch, &mut memory.keys)?;
    let power = 10i64.pow(u32::from(unit));
    Some(memory.keys.iter().map(|&key| Timestamp(key.wrapping_mul(power))).collect())
}

/// Retention and queries trust the header: it must not lie about its rows.
fn check_times(header: &Header, times: &[Timestamp]) -> Result<(), BlockError> {
    let (min, max) = times.iter().fold((Timestamp::MAX, Timestamp::MIN), |(min, max), &t| (min.min(t), max.max(t)));
    let same = (header.summary.min_time, header.summary.max_time) == (min, max);
    if same || times.is_empty() { Ok(()) } else { Err(BlockError::Malformed("range of times")) }
}

pub(super) fn seqs(
    reader: &mut Reader<'_>,
    rows: usize,
    counts: &[u32],
    memory: &mut Memory,
) -> Option<Vec<Option<u64>>> {
    stream::decode(reader, rows, &mut memory.work)?;
    keys::decode(reader, rows, counts, &mut memory.scratch, &mut memory.keys)?;
    if memory.work.iter().all(|&present| present == 1) {
        return Some(memory.keys.iter().map(|&key| Some(key as u64)).collect());
    }
    let present = column::to_flags(&memory.work)?;
    Some(present.iter().zip(&memory.keys).map(|(&present, &key)| present.then_some(key as u64)).collect())
}

pub(super) fn quality(reader: &mut Reader<'_>, rows: usize, memory: &mut Memory) -> Option<Vec<Quality>> {
    stream::decode(reader, rows, &mut memory.work)?;
    memory.work.iter().map(|&key| Quality::from_u8(u8::try_from(key).ok()?)).collect()
}
