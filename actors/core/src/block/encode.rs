//! From rows to bytes.

use std::{borrow::Cow, ops::Range};

use super::{
    Summary,
    column::{self, Memory},
    header::{self, Header},
    keys, names, stream,
};
use crate::{
    batch::{Batch, ColumnValues},
    limits::{
        BLOCK_NAME_BYTES_MAX, BLOCK_TEXT_BYTES_MAX, CELLS_PER_BATCH_MAX, EVENTS_PER_BATCH_MAX, METRICS_PER_EVENT_MAX,
    },
    time::Timestamp,
};

pub(super) fn encode(batch: &Batch, out: &mut Vec<u8>) {
    let batch = joined(batch);
    assert!(fits(&batch, 0..batch.rows()), "a batch of {} rows is beyond the limits of a block", batch.rows());
    encode_rows(&batch, 0..batch.rows(), &mut Memory::default(), out);
}

pub(super) fn encode_split(batch: &Batch, max_bytes: usize) -> Vec<Vec<u8>> {
    let batch = joined(batch);
    let mut blocks = Vec::new();
    let mut memory = Memory::default();
    let rows = rows_of(&batch, max_bytes, &mut memory);
    let mut start = 0;
    while start < batch.rows() {
        let end = (start + rows).min(batch.rows());
        split(&batch, start..end, max_bytes, &mut memory, &mut blocks);
        start = end;
    }
    blocks
}

/// Encodes `rows`, in halves when they take more than `max_bytes`.
fn split(batch: &Batch, rows: Range<usize>, max_bytes: usize, memory: &mut Memory, blocks: &mut Vec<Vec<u8>>) {
    let one = rows.len() == 1;
    if one || fits(batch, rows.clone()) {
        let mut block = Vec::new();
        encode_rows(batch, rows.clone(), memory, &mut block);
        if one || block.len() <= max_bytes {
            block.shrink_to_fit();
            return blocks.push(block);
        }
    }
    let middle = rows.start + rows.len() / 2;
    split(batch, rows.start..middle, max_bytes, memory, blocks);
    split(batch, middle..rows.end, max_bytes, memory, blocks);
}

/// How many rows will probably take a little less than `max_bytes`, judged by the first ones.
fn rows_of(batch: &Batch, max_bytes: usize, memory: &mut Memory) -> usize {
    const SAMPLE: usize = 1024;
    let sample = 0..SAMPLE;
    if batch.rows() < 2 * SAMPLE || !fits(batch, sample.clone()) {
        return batch.rows().max(1);
    }
    let mut block = Vec::new();
    encode_rows(batch, sample, memory, &mut block);
    let most = (max_bytes * SAMPLE / block.len()).clamp(1, EVENTS_PER_BATCH_MAX);
    // Equal parts, with a margin of a sixteenth.
    let parts = batch.rows().div_ceil((most - most / 16).max(1));
    batch.rows().div_ceil(parts)
}

pub(super) fn fits(batch: &Batch, rows: Range<usize>) -> bool {
    let names: usize = runs(batch, &rows).map(|(name, _)| name.len()).sum();
    let text: usize = batch
        .columns
        .iter()
        .map(|column| match &column.values {
            ColumnValues::Text(arena) | ColumnValues::Bytes(arena) if !rows.is_empty() => {
                let start = rows.start.checked_sub(1).map_or(0, |before| arena.ends[before]);
                (arena.ends[rows.end - 1] - start) as usize
            }
            _ => 0,
        })
        .sum();
    rows.len() <= EVENTS_PER_BATCH_MAX
        && batch.columns.len() <= METRICS_PER_EVENT_MAX
        && rows.len() * batch.columns.len() <= CELLS_PER_BATCH_MAX
        && names <= BLOCK_NAME_BYTES_MAX
        && text <= BLOCK_TEXT_BYTES_MAX
}

fn joined(batch: &Batch) -> Cow<'_, Batch> {
    if batch.is_grouped() { Cow::Borrowed(batch) } else { Cow::Owned(batch.clone().grouped()) }
}

/// Devices and how many of `rows` are theirs.
fn runs<'a>(batch: &'a Batch, rows: &Range<usize>) -> impl Iterator<Item = (&'a str, u32)> {
    let Range { start, end } = *rows;
    let first = batch.runs().partition_point(|run| run.end as usize <= start);
    batch.runs()[first..].iter().take_while(move |run| (run.start as usize) < end).map(move |run| {
        let own = (run.start as usize).max(start)..(run.end as usize).min(end);
        (batch.device(run), own.len() as u32)
    })
}

fn encode_rows(batch: &Batch, rows: Range<usize>, memory: &mut Memory, out: &mut Vec<u8>) {
    let start = out.len();
    // Slowly moving metrics take about a byte each.
    out.reserve(header::BYTES + 256 + rows.len() * (2 + batch.columns.len()));
    out.extend_from_slice(&[0; header::BYTES]);
    header::write_shape(&batch.shape, out);
    let (devices, counts): (Vec<&str>, Vec<u32>) = runs(batch, &rows).filter(|(_, count)| *count > 0).unzip();
    names::encode(&devices, &counts, out);
    let times = &batch.times[rows.clone()];
    encode_times(times, &counts, memory, out);
    let has_seqs = !batch.seqs.is_empty() && batch.seqs[rows.clone()].iter().any(Option::is_some);
    if has_seqs {
        encode_seqs(&batch.seqs[rows.clone()], &counts, memory, out);
    }
    let has_quality = !batch.quality.is_empty() && batch.quality[rows.clone()].iter().any(|&q| q as u8 != 0);
    if has_quality {
        let quality: Vec<i64> = batch.quality[rows.clone()].iter().map(|&quality| quality as i64).collect();
        stream::encode(&quality, &mut memory.work, out);
    }
    for column in &batch.columns {
        column::encode(column, rows.clone(), &counts, memory, out);
    }
    let summary = Summary {
        bytes: (out.len() - start) as u32,
        rows: rows.len() as u32,
        devices: devices.len() as u32,
        min_time: times.iter().min().copied().unwrap_or_default(),
        max_time: times.iter().max().copied().unwrap_or_default(),
    };
    let columns = batch.columns.len() as u16;
    Header { summary, has_seqs, has_quality, columns }.write(&mut out[start..]);
}

fn encode_times(times: &[Timestamp], counts: &[u32], memory: &mut Memory, out: &mut Vec<u8>) {
    let unit = [9u8, 6, 3].into_iter().find(|&unit| {
        let power = 10i64.pow(u32::from(unit));
        times.iter().all(|time| time.0 % power == 0)
    });
    let unit = unit.unwrap_or(0);
    let power = 10i64.pow(u32::from(unit));
    memory.keys.clear();
    match unit {
        0 => memory.keys.extend(times.iter().map(|time| time.0)),
        _ => memory.keys.extend(times.iter().map(|time| time.0 / power)),
    }
    out.push(unit);
    keys::encode(&memory.keys, counts, &mut memory.scratch, out);
}

fn encode_seqs(seqs: &[Option<u64>], counts: &[u32], memory: &mut Memory, out: &mut Vec<u8>) {
    memory.keys.clear();
    memory.keys.extend(seqs.iter().map(|seq| i64::from(seq.is_some())));
    stream::encode(&memory.keys, &mut memory.work, out);
    let mut before = seqs.iter().flatten().next().copied().unwrap_or_default();
    memory.keys.clear();
    memory.keys.extend(seqs.iter().map(|seq| {
        before = seq.unwrap_or(before);
        before as i64
    }));
    keys::encode(&memory.keys, counts, &mut memory.scratch, out);
}
