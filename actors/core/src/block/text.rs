//! Columns of text and bytes. The layout is drawn in `column.rs`.

use super::{
    BlockError,
    column::{MALFORMED, Memory},
    stream,
    wire::{Reader, put_varint},
};
use crate::{batch::Arena, limits::BLOCK_TEXT_BYTES_MAX, map::FixedMap};

const PLAIN: u8 = 5;
const DICTIONARY: u8 = 6;
/// More entries than this do not repeat enough to be worth a dictionary.
const ENTRIES_MAX: usize = 4096;

/// What the texts of one block may still take in memory: a dictionary lets a few bytes stand for many.
#[derive(Debug)]
pub(super) struct TextBudget(usize);

impl Default for TextBudget {
    fn default() -> TextBudget {
        TextBudget(BLOCK_TEXT_BYTES_MAX)
    }
}

impl TextBudget {
    fn take(&mut self, bytes: usize) -> Result<(), BlockError> {
        let too_large = |have| BlockError::TooLarge { what: "bytes of text", have, limit: BLOCK_TEXT_BYTES_MAX };
        self.0 = self.0.checked_sub(bytes).ok_or(too_large((BLOCK_TEXT_BYTES_MAX - self.0).saturating_add(bytes)))?;
        Ok(())
    }
}

pub(super) fn encode(
    arena: &Arena,
    rows: std::ops::Range<usize>,
    present: Option<&[bool]>,
    memory: &mut Memory,
    out: &mut Vec<u8>,
) {
    let first = rows.start;
    let value = |row: usize| match present {
        Some(present) if !present[row - first] => &b""[..],
        _ => arena.value(row),
    };
    let values = || rows.clone().map(value);
    if let Some(entries) = dictionary(values(), rows.len(), &mut memory.keys) {
        out.push(DICTIONARY);
        put_varint(out, entries.len() as u64);
        put_texts(entries.iter().copied(), &mut memory.work, out);
        stream::encode(&memory.keys, &mut memory.work, out);
    } else {
        out.push(PLAIN);
        put_texts(values(), &mut memory.work, out);
    }
}

/// Lengths, then the bytes of all.
fn put_texts<'a>(values: impl Iterator<Item = &'a [u8]> + Clone, work: &mut Vec<i64>, out: &mut Vec<u8>) {
    let lengths: Vec<i64> = values.clone().map(|value| value.len() as i64).collect();
    stream::encode(&lengths, work, out);
    values.for_each(|value| out.extend_from_slice(value));
}

/// Distinct values in the order of their first row, and in `keys` the entry of each row, when that takes less than the values.
fn dictionary<'a>(values: impl Iterator<Item = &'a [u8]>, rows: usize, keys: &mut Vec<i64>) -> Option<Vec<&'a [u8]>> {
    let entries_max = ENTRIES_MAX.min(rows / 2);
    let mut known: FixedMap<&[u8], i64> = FixedMap::default();
    let mut entries: Vec<&[u8]> = Vec::new();
    keys.clear();
    for value in values {
        // Neighbours are often the same.
        let last = keys.last().copied().filter(|&entry| entries[entry as usize] == value);
        let entry = last.unwrap_or_else(|| *known.entry(value).or_insert(entries.len() as i64));
        if entry as usize == entries.len() {
            if entries.len() == entries_max {
                return None;
            }
            entries.push(value);
        }
        keys.push(entry);
    }
    Some(entries)
}

pub(super) fn decode(
    body: &mut Reader<'_>,
    rows: usize,
    utf8: bool,
    memory: &mut Memory,
    budget: &mut TextBudget,
) -> Result<Arena, BlockError> {
    match body.u8() {
        Some(PLAIN) => decode_texts(body, rows, utf8, memory, budget),
        Some(DICTIONARY) => {
            let entries = body.length().filter(|&entries| entries <= rows).ok_or(MALFORMED)?;
            let entries = decode_texts(body, entries, utf8, memory, budget)?;
            stream::decode(body, rows, &mut memory.keys).ok_or(MALFORMED)?;
            expand(&entries, &memory.keys, budget)
        }
        _ => Err(MALFORMED),
    }
}

fn expand(entries: &Arena, keys: &[i64], budget: &mut TextBudget) -> Result<Arena, BlockError> {
    let mut total = 0usize;
    for &key in keys {
        let entry = usize::try_from(key).ok().filter(|&key| key < entries.ends.len()).ok_or(MALFORMED)?;
        total += entries.value(entry).len();
    }
    budget.take(total)?;
    let mut arena = Arena { bytes: Vec::with_capacity(total), ends: Vec::with_capacity(keys.len()) };
    keys.iter().for_each(|&key| arena.push(entries.value(key as usize)));
    Ok(arena)
}

fn decode_texts(
    body: &mut Reader<'_>,
    count: usize,
    utf8: bool,
    memory: &mut Memory,
    budget: &mut TextBudget,
) -> Result<Arena, BlockError> {
    stream::decode(body, count, &mut memory.work).ok_or(MALFORMED)?;
    // Bounded by the bytes that are really there before anything is allocated for them.
    let available = body.rest().len();
    let mut total = 0usize;
    let mut ends = Vec::with_capacity(count);
    for &length in &memory.work {
        let length = usize::try_from(length).ok().filter(|&length| length <= available - total).ok_or(MALFORMED)?;
        total += length;
        ends.push(total as u32);
    }
    budget.take(total)?;
    let bytes = body.take(total).ok_or(MALFORMED)?;
    if utf8 {
        let text = std::str::from_utf8(bytes).map_err(|_| MALFORMED)?;
        if !ends.iter().all(|&end| text.is_char_boundary(end as usize)) {
            return Err(MALFORMED);
        }
    }
    Ok(Arena { bytes: bytes.into(), ends })
}
