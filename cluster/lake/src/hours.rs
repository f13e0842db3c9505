//! What a row group of one device comes to, hour by hour. It stands behind the row group, where other programs see nothing, so that steps
//! of an hour and longer need no values.

use std::{io, ops::Range};

use millpond_core::{
    batch::{Column, ColumnValues},
    record,
};
use serde::{Deserialize, Serialize};

use crate::{partial::Partial, rows::Rows};

pub(crate) const HOUR_NS: i64 = 3_600_000_000_000;
/// Hours with fewer rows than this are as quickly read value by value.
const ROWS_MIN: usize = 64;
/// A row group has a device's rows of a day.
const HOURS_MAX: usize = 25;
/// Bytes of what is read, before it is decoded.
const BYTES_MAX: usize = 16 << 20;

/// Consecutive rows of one hour of UTC.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hour {
    pub rows: Range<usize>,
    /// Times of the first and of the last row, in nanoseconds.
    pub times: (i64, i64),
    /// One for each metric, in the order of the columns.
    pub sums: Vec<Partial>,
}

/// What a row group of one device comes to, as a whole; `None` when it has several.
pub(crate) fn sums_of(rows: &Rows) -> Option<Vec<Partial>> {
    (rows.device.first() == rows.device.last()).then(|| sums_of_rows(rows, 0..rows.len()))
}

/// `None` when it does not pay.
pub(crate) fn hours_of(rows: &Rows) -> Option<Vec<Hour>> {
    if rows.device.first() != rows.device.last() {
        return None;
    }
    let mut hours: Vec<Range<usize>> = Vec::new();
    let same_hour = |a: &i64, b: &i64| a.div_euclid(HOUR_NS) == b.div_euclid(HOUR_NS);
    for run in rows.time.chunk_by(same_hour) {
        let start = hours.last().map_or(0, |hour| hour.end);
        hours.push(start..start + run.len());
    }
    let pays = (2..=HOURS_MAX).contains(&hours.len()) && rows.len() >= hours.len() * ROWS_MIN;
    let hour = |rows_of: Range<usize>| Hour {
        times: (rows.time[rows_of.start], rows.time[rows_of.end - 1]),
        sums: sums_of_rows(rows, rows_of.clone()),
        rows: rows_of,
    };
    pays.then(|| hours.into_iter().map(hour).collect())
}

fn sums_of_rows(rows: &Rows, of: Range<usize>) -> Vec<Partial> {
    let of_column = |column: &Column| {
        let mut partial = Partial::default();
        match (&column.values, &column.present) {
            (ColumnValues::F64(values), None) => {
                let values = values[of.clone()].iter().zip(&rows.time[of.clone()]);
                values.for_each(|(value, time)| partial.add(*time, *value));
            }
            (ColumnValues::Text(_) | ColumnValues::Bytes(_), _) => {}
            _ => of.clone().for_each(|row| {
                if let Some(value) = column.value(row).and_then(|value| value.as_f64()) {
                    partial.add(rows.time[row], value);
                }
            }),
        }
        partial
    };
    rows.metrics.iter().map(of_column).collect()
}

pub(crate) fn encode(hours: &[Hour]) -> io::Result<Vec<u8>> {
    zstd::encode_all(&record::encode(&hours)[..], 3)
}

/// `None` when that is not what a row group with so many rows and metrics comes to.
pub(crate) fn decode(bytes: &[u8], rows: usize, metrics: usize) -> Option<Vec<Hour>> {
    let mut plain = Vec::new();
    let decoder = zstd::Decoder::new(bytes).ok()?.single_frame();
    io::Read::read_to_end(&mut io::Read::take(decoder, BYTES_MAX as u64), &mut plain).ok()?;
    let hours: Vec<Hour> = record::decode(&plain).ok()?;
    let mut next = 0;
    for Hour { rows, times, sums } in &hours {
        if rows.start != next || rows.end <= rows.start || times.0 > times.1 || sums.len() != metrics {
            return None;
        }
        next = rows.end;
    }
    (next == rows).then_some(hours)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strangers_bytes_are_no_hours(bytes in prop::collection::vec(any::<u8>(), 0..200), plain in any::<bool>()) {
            let bytes = if plain { bytes } else { zstd::encode_all(&bytes[..], 1).unwrap() };
            prop_assert_eq!(decode(&bytes, 100, 2), None);
        }
    }

    #[test]
    fn hours_that_leave_rows_out_are_none() {
        let hour = |rows: Range<usize>| Hour { rows, times: (0, 1), sums: vec![Partial::default()] };
        let check = |hours: &[Hour], fits: bool| {
            assert_eq!(decode(&encode(hours).unwrap(), 10, 1).as_deref(), fits.then_some(hours));
        };
        check(&[hour(0..4), hour(4..10)], true);
        check(&[hour(0..4), hour(5..10)], false);
        check(&[hour(0..4), hour(3..10)], false);
        check(&[hour(0..4), hour(4..4), hour(4..10)], false);
        check(&[hour(0..9)], false);
        check(&[hour(0..11)], false);
        check(&[], false);
        assert_eq!(decode(&encode(&[hour(0..10)]).unwrap(), 10, 2), None);
    }
}
