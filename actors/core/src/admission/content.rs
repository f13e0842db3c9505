//! Hashes of what events say, to tell a repeated event from another of the same time. They are stored in checkpoints: they
//! must not change from version to version.

use crate::{
    batch::{Batch, Column, ColumnValues},
    value::Quality,
};

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd6e8_feb8_6659_fd93;
const C: u64 = 0xa076_1d64_78bd_642f;

/// A hash of the cells and the quality of each row, in `out`.
pub(super) fn hashes(batch: &Batch, out: &mut Vec<u64>) {
    values(batch, out);
    for (hash, &quality) in out.iter_mut().zip(&batch.quality) {
        if quality != Quality::Good {
            *hash = fold(*hash ^ A, B ^ quality as u64);
        }
    }
}

/// A hash of the cells of each row, in `out`: the same at every node that the row is sent to. It depends on the names of the metrics, not on
/// the order of the columns or on metrics that the row does not have.
pub fn values(batch: &Batch, out: &mut Vec<u64>) {
    out.clear();
    out.resize(batch.rows(), 0);
    for (metric, column) in batch.shape.metrics().iter().zip(&batch.columns) {
        let name = bytes(metric.name.as_bytes());
        match &column.values {
            ColumnValues::F64(values) => add(out, column, name, values.iter().map(|value| value.to_bits())),
            ColumnValues::I64(values) => add(out, column, name, values.iter().map(|&value| value as u64)),
            ColumnValues::Bool(values) => add(out, column, name, values.iter().map(|&value| u64::from(value))),
            ColumnValues::Text(arena) | ColumnValues::Bytes(arena) => {
                add(out, column, name, (0..batch.rows()).map(|row| bytes(arena.value(row))));
            }
        }
    }
}

/// A hash of an event that is told by its time.
pub(super) fn with_time(content: u64, time: i64) -> u64 {
    fold(content ^ A, fold(time as u64 ^ B, C) | 1)
}

/// A hash of an event that is told by its sequence number.
pub(super) fn with_seq(content: u64, seq: u64) -> u64 {
    fold(content ^ B, fold(seq ^ C, A) | 1)
}

fn add(out: &mut [u64], column: &Column, name: u64, bits: impl Iterator<Item = u64>) {
    // Cells are added up, so that their order does not matter.
    let cells = out.iter_mut().zip(bits);
    match &column.present {
        None => cells.for_each(|(hash, bits)| *hash = hash.wrapping_add(fold(bits ^ name, name | 1))),
        Some(present) => cells.zip(present).filter(|(_, present)| **present).for_each(|((hash, bits), _)| {
            *hash = hash.wrapping_add(fold(bits ^ name, name | 1));
        }),
    }
}

fn bytes(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(C ^ bytes.len() as u64, |hash, word| fold(hash ^ word, A).wrapping_add(B))
}

/// Both halves of the product: every bit of the result depends on every bit of `a`.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;
    use crate::{
        batch::{Metric, Shape},
        time::Timestamp,
        value::{Value, ValueType},
    };

    #[test]
    fn coarse_numbers_do_not_collide() {
        let metric = |name: &str| Metric { name: name.into(), value_type: ValueType::F64, unit: "".into() };
        let mut batch = Batch::empty(Arc::new(Shape::new(vec![metric("a"), metric("b")])));
        for (a, b) in (0..200).flat_map(|a| (0..200).map(move |b| (a, b))) {
            batch.times.push(Timestamp(0));
            batch.columns[0].values.push(Some(Value::F64(f64::from(a) / 4.0)));
            batch.columns[1].values.push(Some(Value::F64(f64::from(b) / 4.0)));
        }
        let mut out = Vec::new();
        hashes(&batch, &mut out);
        assert_eq!(out.iter().collect::<BTreeSet<_>>().len(), 40_000);
    }

    #[test]
    fn hashes_in_checkpoints_stay_the_same() {
        assert_eq!(bytes(b"temperature"), 0x6a6d916abf4255b0);
        assert_eq!(with_time(1, 2), 0x26338a85e52bb7d2);
        assert_eq!(with_seq(1, 2), 0x1bb23c59aafbf2bc);
    }
}
