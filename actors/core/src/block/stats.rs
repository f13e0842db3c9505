//! Statistics in the head of a column: whoever asks for an aggregate of a whole block need not decode it.

use std::ops::Range;

use crate::batch::{Column, ColumnValues};

/// Of the values of one column that are present and are numbers (NaN is none). Booleans count as 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColumnStats {
    pub count: u64,
    /// Infinite, and greater than `max`, when `count` is 0.
    pub min: f64,
    pub max: f64,
    /// Added up in [`LANES`] lanes, so that it may differ from a plain sum in the last bits.
    pub sum: f64,
}

const LANES: usize = 8;
/// In a block of fewer rows statistics would weigh more than they spare.
const ROWS_MIN: usize = 64;

/// `None` for columns that are not numbers, and for few rows.
pub(super) fn of(column: &Column, rows: Range<usize>, present: Option<&[bool]>) -> Option<ColumnStats> {
    if rows.len() < ROWS_MIN {
        return None;
    }
    match &column.values {
        ColumnValues::F64(values) => Some(of_numbers(&values[rows], present, |value| value)),
        ColumnValues::I64(values) => Some(of_numbers(&values[rows], present, |value| value as f64)),
        ColumnValues::Bool(values) => Some(of_numbers(&values[rows], present, |value| f64::from(u8::from(value)))),
        ColumnValues::Text(_) | ColumnValues::Bytes(_) => None,
    }
}

fn of_numbers<T: Copy>(values: &[T], present: Option<&[bool]>, number: impl Fn(T) -> f64) -> ColumnStats {
    let mut lanes = [ColumnStats { count: 0, min: f64::INFINITY, max: f64::NEG_INFINITY, sum: 0.0 }; LANES];
    let add = |lane: &mut ColumnStats, value: f64, counts: bool| {
        let counts = counts & !value.is_nan();
        lane.count += u64::from(counts);
        lane.sum += if counts { value } else { 0.0 };
        lane.min = if counts & (value < lane.min) { value } else { lane.min };
        lane.max = if counts & (value > lane.max) { value } else { lane.max };
    };
    match present {
        None => {
            let chunks = values.chunks_exact(LANES);
            chunks.remainder().iter().zip(&mut lanes).for_each(|(&value, lane)| add(lane, number(value), true));
            for chunk in chunks {
                chunk.iter().zip(&mut lanes).for_each(|(&value, lane)| add(lane, number(value), true));
            }
        }
        Some(present) => {
            for (row, (&value, &present)) in values.iter().zip(present).enumerate() {
                add(&mut lanes[row % LANES], number(value), present);
            }
        }
    }
    lanes.into_iter().reduce(ColumnStats::join).unwrap_or(lanes[0])
}

impl ColumnStats {
    fn join(self, other: ColumnStats) -> ColumnStats {
        ColumnStats {
            count: self.count + other.count,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            sum: self.sum + other.sum,
        }
    }
}
