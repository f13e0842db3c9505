//! Reading parts of a block.

use super::{
    BlockError, ColumnStats,
    column::{self, Memory},
    decode,
    header::{self, Header},
    names::{self, Names},
    text::TextBudget,
    wire::Reader,
};
use crate::{
    time::Timestamp,
    value::{Value, ValueType},
};

pub(super) fn devices(block: &[u8], device: &mut dyn FnMut(&str, u32)) -> Result<(), BlockError> {
    let (_, _, names, counts) = open(block)?;
    names.iter().zip(counts).for_each(|(name, count)| device(name, count));
    Ok(())
}

pub(super) fn series(
    block: &[u8],
    device: &str,
    metric: &str,
    point: &mut dyn FnMut(Timestamp, Value<'_>),
) -> Result<bool, BlockError> {
    let (opened, mut reader, names, counts) = open(block)?;
    let Some((column, value_type)) = position(&opened, metric)? else { return Ok(false) };
    if !names.iter().any(|name| name == device) {
        return Ok(false);
    }
    let rows = opened.header.summary.rows as usize;
    let mut memory = Memory::default();
    let times = decode::times(&mut reader, rows, &counts, &mut memory).ok_or(BlockError::Malformed("times"))?;
    skip_heads(&opened.header, &mut reader, &counts, &mut memory)?;
    for _ in 0..column {
        column::body(&mut reader).ok_or(column::MALFORMED)?;
    }
    let column = column::decode(&mut reader, value_type, rows, &counts, &mut memory, &mut TextBudget::default())?;
    let mut start = 0;
    for (name, count) in names.iter().zip(counts) {
        let end = start + count as usize;
        if name == device {
            for (row, &time) in times.iter().enumerate().take(end).skip(start) {
                column.value(row).into_iter().for_each(|value| point(time, value));
            }
        }
        start = end;
    }
    Ok(true)
}

pub(super) fn statistics(block: &[u8], metric: &str) -> Result<Option<ColumnStats>, BlockError> {
    let (opened, mut reader, _, counts) = open(block)?;
    let Some((column, _)) = position(&opened, metric)? else { return Ok(None) };
    let rows = opened.header.summary.rows as usize;
    let mut memory = Memory::default();
    decode::times(&mut reader, rows, &counts, &mut memory).ok_or(BlockError::Malformed("times"))?;
    skip_heads(&opened.header, &mut reader, &counts, &mut memory)?;
    for _ in 0..column {
        column::body(&mut reader).ok_or(column::MALFORMED)?;
    }
    let mut body = column::body(&mut reader).ok_or(column::MALFORMED)?;
    column::statistics(&mut body, rows).ok_or(column::MALFORMED)
}

struct Opened<'a> {
    header: Header,
    shape: &'a [u8],
}

/// Header, a reader that stands at the times, and the device table.
fn open(block: &[u8]) -> Result<(Opened<'_>, Reader<'_>, Names, Vec<u32>), BlockError> {
    let header = Header::read(block)?;
    let mut reader = Reader::new(&block[header::BYTES..]);
    let shape = header::shape_bytes(&mut reader)?;
    let summary = &header.summary;
    let (names, counts) = names::decode(&mut reader, summary.devices as usize, summary.rows as usize)
        .ok_or(BlockError::Malformed("device table"))?;
    Ok((Opened { header, shape }, reader, names, counts))
}

/// Which column holds `metric`, and its type.
fn position(opened: &Opened<'_>, metric: &str) -> Result<Option<(usize, ValueType)>, BlockError> {
    let (mut at, mut found) = (0, None);
    let mut look = |value_type, name: &str, _: &str| {
        if name == metric {
            found = Some((at, value_type));
        }
        at += 1;
    };
    header::metrics(opened.shape, opened.header.columns, &mut look).ok_or(BlockError::Malformed("shape"))?;
    Ok(found)
}

/// Goes on to the columns.
fn skip_heads(header: &Header, reader: &mut Reader<'_>, counts: &[u32], memory: &mut Memory) -> Result<(), BlockError> {
    let rows = header.summary.rows as usize;
    if header.has_seqs {
        decode::seqs(reader, rows, counts, memory).ok_or(BlockError::Malformed("sequence numbers"))?;
    }
    if header.has_quality {
        decode::quality(reader, rows, memory).ok_or(BlockError::Malformed("qualities"))?;
    }
    Ok(())
}
