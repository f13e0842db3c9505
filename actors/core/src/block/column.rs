//! One column of a block.
//!
//! ```text
//! length    u32     of all that follows
//! flags     u8      1 has gaps, 2 has statistics
//! [gaps]    stream  of all rows: 1 present, 0 absent
//! [stats]   count varint; min, max, sum f64
//! encoding  u8, then for
//! 0 raw        8 bytes per row: f64
//! 1 decimal    exponent u8; exceptions: count varint, each (rows since the one before varint, f64); keys
//! 2 float32    keys
//! 3 float64    keys
//! 4 integers   keys (i64; bool as 0 and 1)
//! 5 plain      lengths (stream), bytes of all rows (text and bytes)
//! 6 dictionary entries varint, lengths (stream), bytes of all entries, entry of each row (stream)
//! ```
//! "keys" are described in `keys.rs`, "stream" in `stream.rs`. An absent row has whatever is cheapest; readers put the type's zero there.

use super::{
    BlockError,
    float::{self, EXPONENT_MAX, Form, fill_gaps},
    keys::{self, Scratch},
    stats, stream,
    text::{self, TextBudget},
    wire::{Reader, put_varint},
};
use crate::{
    batch::{Column, ColumnValues},
    value::ValueType,
};

const HAS_GAPS: u8 = 1;
const HAS_STATS: u8 = 2;

const RAW: u8 = 0;
const DECIMAL: u8 = 1;
const FLOAT32: u8 = 2;
const FLOAT64: u8 = 3;
const INTEGERS: u8 = 4;

/// Memory that is used again from column to column.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) keys: Vec<i64>,
    pub(super) scratch: Scratch,
    pub(super) work: Vec<i64>,
    exceptions: Vec<usize>,
}

/// Appends the rows `rows` of `column`, of which each device has as many as `counts` says.
pub(super) fn encode(
    column: &Column,
    rows: std::ops::Range<usize>,
    counts: &[u32],
    memory: &mut Memory,
    out: &mut Vec<u8>,
) {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let present = column.present.as_ref().map(|present| &present[rows.clone()]).filter(|p| p.contains(&false));
    let stats = stats::of(column, rows.clone(), present);
    out.push((u8::from(present.is_some()) * HAS_GAPS) | (u8::from(stats.is_some()) * HAS_STATS));
    if let Some(present) = present {
        memory.keys.clear();
        memory.keys.extend(present.iter().map(|&present| i64::from(present)));
        stream::encode(&memory.keys, &mut memory.work, out);
    }
    if let Some(stats) = stats {
        put_varint(out, stats.count);
        [stats.min, stats.max, stats.sum].iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    }
    match &column.values {
        ColumnValues::F64(values) => encode_f64(&values[rows], present, counts, memory, out),
        ColumnValues::I64(values) => encode_integers(values[rows].iter().copied(), present, counts, memory, out),
        ColumnValues::Bool(values) => {
            encode_integers(values[rows].iter().map(|&value| i64::from(value)), present, counts, memory, out);
        }
        ColumnValues::Text(arena) | ColumnValues::Bytes(arena) => text::encode(arena, rows, present, memory, out),
    }
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads one column of `rows` rows.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    value_type: ValueType,
    rows: usize,
    counts: &[u32],
    memory: &mut Memory,
    budget: &mut TextBudget,
) -> Result<Column, BlockError> {
    let mut body = body(reader).ok_or(MALFORMED)?;
    let flags = body.u8().filter(|flags| flags & !(HAS_GAPS | HAS_STATS) == 0).ok_or(MALFORMED)?;
    let present = if flags & HAS_GAPS != 0 {
        stream::decode(&mut body, rows, &mut memory.keys).ok_or(MALFORMED)?;
        let gaps = to_flags(&memory.keys).ok_or(MALFORMED)?;
        gaps.contains(&false).then_some(gaps)
    } else {
        None
    };
    if flags & HAS_STATS != 0 {
        body.varint().and_then(|_| body.take(24)).ok_or(MALFORMED)?;
    }
    let mut values = match value_type {
        ValueType::F64 => ColumnValues::F64(decode_f64(&mut body, rows, counts, memory).ok_or(MALFORMED)?),
        ValueType::I64 => {
            decode_integers(&mut body, rows, counts, memory).ok_or(MALFORMED)?;
            ColumnValues::I64(memory.keys.as_slice().into())
        }
        ValueType::Bool => {
            decode_integers(&mut body, rows, counts, memory).ok_or(MALFORMED)?;
            ColumnValues::Bool(to_flags(&memory.keys).ok_or(MALFORMED)?)
        }
        ValueType::Text => ColumnValues::Text(text::decode(&mut body, rows, true, memory, budget)?),
        ValueType::Bytes => ColumnValues::Bytes(text::decode(&mut body, rows, false, memory, budget)?),
    };
    if !body.rest().is_empty() {
        return Err(MALFORMED);
    }
    if let Some(present) = &present {
        clear_absent(&mut values, present).ok_or(MALFORMED)?;
    }
    Ok(Column { values, present })
}

pub(super) const MALFORMED: BlockError = BlockError::Malformed("columns");

/// The bytes of the column that starts here; the reader goes on behind it.
pub(super) fn body<'a>(reader: &mut Reader<'a>) -> Option<Reader<'a>> {
    let length = reader.u32()? as usize;
    Some(Reader::new(reader.take(length)?))
}

/// The statistics in the head of a column, when it has them.
pub(super) fn statistics(body: &mut Reader<'_>, rows: usize) -> Option<Option<stats::ColumnStats>> {
    let flags = body.u8()?;
    if flags & HAS_STATS == 0 {
        return Some(None);
    }
    if flags & HAS_GAPS != 0 {
        stream::skip(body, rows)?;
    }
    let count = body.varint()?;
    Some(Some(stats::ColumnStats { count, min: body.f64()?, max: body.f64()?, sum: body.f64()? }))
}

/// Keys that must all be 0 or 1.
pub(super) fn to_flags(keys: &[i64]) -> Option<Vec<bool>> {
    let all = keys.iter().fold(0, |all, key| all | key);
    (all & !1 == 0).then(|| keys.iter().map(|&key| key != 0).collect())
}

fn encode_f64(values: &[f64], present: Option<&[bool]>, counts: &[u32], memory: &mut Memory, out: &mut Vec<u8>) {
    let Memory { keys, scratch, exceptions, .. } = memory;
    let start = out.len();
    match float::to_keys(values, present, keys, exceptions) {
        Form::Decimal(exponent) => {
            out.extend_from_slice(&[DECIMAL, exponent]);
            put_varint(out, exceptions.len() as u64);
            let mut before = 0;
            for &row in exceptions.iter() {
                put_varint(out, (row - before) as u64);
                out.extend_from_slice(&values[row].to_le_bytes());
                before = row;
            }
        }
        Form::Float32 => out.push(FLOAT32),
        Form::Float64 => out.push(FLOAT64),
    }
    keys::encode(keys, counts, scratch, out);
    if out.len() - start > 1 + 8 * values.len() {
        out.truncate(start);
        out.push(RAW);
        for (row, value) in values.iter().enumerate() {
            let kept = present.is_none_or(|present| present[row]);
            out.extend_from_slice(&(if kept { *value } else { 0.0 }).to_le_bytes());
        }
    }
}

fn decode_f64(body: &mut Reader<'_>, rows: usize, counts: &[u32], memory: &mut Memory) -> Option<Vec<f64>> {
    let Memory { keys, scratch, .. } = memory;
    let mut exceptions = None;
    let form = match body.u8()? {
        RAW => {
            let bytes = body.take(rows * 8)?.chunks_exact(8);
            return Some(bytes.map(|b| f64::from_le_bytes(std::array::from_fn(|i| b[i]))).collect());
        }
        DECIMAL => {
            let exponent = body.u8().filter(|&exponent| exponent <= EXPONENT_MAX)?;
            exceptions = Some(body.clone());
            let count = body.length()?;
            for _ in 0..count {
                body.varint()?;
                body.take(8)?;
            }
            Form::Decimal(exponent)
        }
        FLOAT32 => Form::Float32,
        FLOAT64 => Form::Float64,
        _ => return None,
    };
    keys::decode(body, rows, counts, scratch, keys)?;
    let mut values = Vec::with_capacity(rows);
    float::from_keys(form, keys, &mut values);
    if let Some(mut exceptions) = exceptions {
        let mut row = 0usize;
        for _ in 0..exceptions.length()? {
            row = row.checked_add(exceptions.length()?)?;
            *values.get_mut(row)? = exceptions.f64()?;
        }
    }
    Some(values)
}

fn encode_integers(
    values: impl Iterator<Item = i64>,
    present: Option<&[bool]>,
    counts: &[u32],
    memory: &mut Memory,
    out: &mut Vec<u8>,
) {
    memory.keys.clear();
    memory.keys.extend(values);
    if let Some(present) = present {
        fill_gaps(&mut memory.keys, |row| present[row]);
    }
    out.push(INTEGERS);
    keys::encode(&memory.keys, counts, &mut memory.scratch, out);
}

fn decode_integers(body: &mut Reader<'_>, rows: usize, counts: &[u32], memory: &mut Memory) -> Option<()> {
    (body.u8()? == INTEGERS).then_some(())?;
    keys::decode(body, rows, counts, &mut memory.scratch, &mut memory.keys)
}

/// Absent rows hold the type's zero, as everywhere. An absent text must be empty already.
fn clear_absent(values: &mut ColumnValues, present: &[bool]) -> Option<()> {
    let absent = present.iter().enumerate().filter(|(_, present)| !**present).map(|(row, _)| row);
    match values {
        ColumnValues::F64(values) => absent.for_each(|row| values[row] = 0.0),
        ColumnValues::I64(values) => absent.for_each(|row| values[row] = 0),
        ColumnValues::Bool(values) => absent.for_each(|row| values[row] = false),
        ColumnValues::Text(arena) | ColumnValues::Bytes(arena) => {
            let mut absent = absent;
            return absent.all(|row| arena.value(row).is_empty()).then_some(());
        }
    }
    Some(())
}
