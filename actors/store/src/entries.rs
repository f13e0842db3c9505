//! Entries of the state tables, of any size.
//!
//! ```text
//! small entry: 0, then CRC32 of the value, then the value
//! large entry: 1, then CRC32 of the value, its length (u64), the number of pieces (u32);
//!              the pieces lie in the table `pieces` under (table, key, 0…)
//! ```
//! Numbers are little-endian. Row and piece stay within what redb stores without waste.

use bytes::Bytes;
use millpond_core::limits::JOURNAL_VALUE_BYTES;
use redb::{ReadableTable, WriteTransaction};

use crate::{
    commit::Put,
    fault::Fault,
    layout::{u32_at, u64_at},
    tables::{PIECES, Table},
    usage::Usage,
};

/// What redb adds to key and value of a lone entry, and more.
const ROW_OVERHEAD: usize = 64;
const LARGE_ROW: usize = 17;

/// What a row of a state table says of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row<'a> {
    Small { crc: u32, value: &'a [u8] },
    Large { crc: u32, len: u64, pieces: u32 },
}

impl<'a> Row<'a> {
    pub fn decode(row: &'a [u8]) -> Result<Row<'a>, Fault> {
        match row.first() {
            Some(0) if row.len() >= 5 => Ok(Row::Small { crc: u32_at(row, 1), value: &row[5..] }),
            Some(1) if row.len() == LARGE_ROW => {
                Ok(Row::Large { crc: u32_at(row, 1), len: u64_at(row, 5), pieces: u32_at(row, 13) })
            }
            _ => Err(Fault::corrupt("an entry is malformed")),
        }
    }

    pub fn value_bytes(&self) -> u64 {
        match self {
            Row::Small { value, .. } => value.len() as u64,
            Row::Large { len, .. } => *len,
        }
    }
}

/// The value behind a row, its checksum compared.
pub(crate) fn read_value(
    row: &[u8],
    table: Table,
    key: &[u8],
    pieces: &impl ReadableTable<(u8, &'static [u8], u32), &'static [u8]>,
) -> Result<Bytes, Fault> {
    let (crc, value) = match Row::decode(row)? {
        Row::Small { crc, value } => (crc, value.to_vec()),
        Row::Large { crc, len, pieces: count } => {
            let mut value = Vec::new();
            for piece in 0..count {
                let bytes = pieces.get((table as u8, key, piece))?.ok_or_else(|| {
                    Fault::corrupt(format!("piece {piece} of an entry of {} is missing", table.name()))
                })?;
                value.extend_from_slice(bytes.value());
            }
            if value.len() as u64 != len {
                return Err(Fault::corrupt(format!("an entry of {} has lost bytes", table.name())));
            }
            (crc, value)
        }
    };
    if crc32fast::hash(&value) != crc {
        return Err(Fault::corrupt(format!("an entry of {} does not match its checksum", table.name())));
    }
    Ok(value.into())
}

/// Applies the puts in order.
pub(crate) fn apply(txn: &WriteTransaction, puts: &[Put]) -> Result<(), Fault> {
    for table in Table::ALL {
        if puts.iter().any(|put| put.table == table) {
            for put in puts.iter().filter(|put| put.table == table) {
                replace(txn, table, &put.key, put.value.as_deref())?;
            }
        }
    }
    Ok(())
}

/// Appends dead letters under the next ids, deletes those named, and pushes out the oldest past the limits. Returns
/// how many were pushed out.
pub(crate) fn dead_letters(
    txn: &WriteTransaction,
    usage: &mut Usage,
    letters: &[Bytes],
    forget: &[u64],
    limits: crate::DeadLetterLimits,
) -> Result<u64, Fault> {
    let dead = &mut usage.dead_letters;
    for letter in letters {
        replace(txn, Table::DeadLetters, &dead.next_id.to_be_bytes(), Some(letter))?;
        dead.next_id += 1;
        dead.count += 1;
        dead.bytes += letter.len() as u64;
    }
    for id in forget {
        if let Some(bytes) = replace(txn, Table::DeadLetters, &id.to_be_bytes(), None)? {
            dead.count -= 1;
            dead.bytes = dead.bytes.saturating_sub(bytes);
        }
    }
    let mut pushed_out = 0;
    while dead.count > limits.count_max || (dead.bytes > limits.bytes_max && dead.count > 0) {
        let oldest = txn.open_table(Table::DeadLetters.definition())?.first()?.map(|(key, _)| key.value().to_vec());
        let Some(key) = oldest else {
            return Err(Fault::corrupt("fewer dead letters than were counted"));
        };
        let bytes = replace(txn, Table::DeadLetters, &key, None)?.unwrap_or(0);
        dead.count -= 1;
        dead.bytes = dead.bytes.saturating_sub(bytes);
        dead.dropped += 1;
        dead.dropped_bytes += bytes;
        dead.dropped_through = key.try_into().map_or(dead.dropped_through, u64::from_be_bytes);
        pushed_out += 1;
    }
    Ok(pushed_out)
}

/// Sets or deletes an entry. Returns the size of the value that was there.
pub(crate) fn replace(
    txn: &WriteTransaction,
    table: Table,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<Option<u64>, Fault> {
    let mut rows = txn.open_table(table.definition())?;
    let room = JOURNAL_VALUE_BYTES - ROW_OVERHEAD - key.len();
    let old = match value {
        None => old_row(rows.remove(key)?)?,
        Some(value) if value.len() <= room => {
            let mut row = Vec::with_capacity(value.len() + 5);
            row.push(0);
            row.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
            row.extend_from_slice(value);
            old_row(rows.insert(key, row.as_slice())?)?
        }
        Some(value) => {
            let mut row = vec![1];
            row.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
            row.extend_from_slice(&(value.len() as u64).to_le_bytes());
            row.extend_from_slice(&(value.len().div_ceil(room) as u32).to_le_bytes());
            old_row(rows.insert(key, row.as_slice())?)?
        }
    };
    let new_pieces = value.filter(|value| value.len() > room).map_or(0, |value| value.len().div_ceil(room)) as u32;
    let old_pieces = old.map_or(0, |(_, pieces)| pieces);
    if new_pieces > 0 || old_pieces > 0 {
        let mut pieces = txn.open_table(PIECES)?;
        for piece in new_pieces..old_pieces {
            pieces.remove((table as u8, key, piece))?;
        }
        for (piece, bytes) in value.unwrap_or_default().chunks(room).take(new_pieces as usize).enumerate() {
            pieces.insert((table as u8, key, piece as u32), bytes)?;
        }
    }
    Ok(old.map(|(bytes, _)| bytes))
}

/// Size of the old value and its number of pieces. A malformed old row is replaced all the same.
fn old_row(row: Option<redb::AccessGuard<'_, &'static [u8]>>) -> Result<Option<(u64, u32)>, Fault> {
    Ok(row.map(|row| match Row::decode(row.value()) {
        Ok(Row::Large { len, pieces, .. }) => (len, pieces),
        Ok(small) => (small.value_bytes(), 0),
        Err(_) => (0, 0),
    }))
}
