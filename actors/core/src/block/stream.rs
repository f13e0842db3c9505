//! A sequence of integers as bytes.
//!
//! ```text
//! kind u8      0 values, 1 differences (of each value but the first to the one before it), 2 one value for all
//! kinds 1, 2:  first value (zigzag varint)
//! kinds 0, 1:  for each run of 128 values or differences (the last may be shorter):
//!                width u8 (0 to 64), base (zigzag varint), packed bits of "number minus base"
//! ```
//! All arithmetic wraps around, so that every `i64` can follow every other. The number of values is known from elsewhere.

use super::{
    pack::{RUN, pack, packed_len, unpack},
    wire::{Reader, put_signed, signed_len},
};

const VALUES: u8 = 0;
const DIFFERENCES: u8 = 1;
const CONSTANT: u8 = 2;

/// Appends `values`; `scratch` is memory to work in.
pub(super) fn encode(values: &[i64], scratch: &mut Vec<i64>, out: &mut Vec<u8>) {
    let first = values.first().copied().unwrap_or_default();
    if values.iter().all(|&value| value == first) {
        out.push(CONSTANT);
        put_signed(out, first);
        return;
    }
    if differences_are_smaller(values) {
        out.push(DIFFERENCES);
        put_signed(out, first);
        scratch.clear();
        scratch.extend(values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
        scratch.chunks(RUN).for_each(|run| encode_run(run, out));
    } else {
        out.push(VALUES);
        values.chunks(RUN).for_each(|run| encode_run(run, out));
    }
}

/// Bytes that `values` would take without differences, headers included.
pub(super) fn cost(values: &[i64]) -> usize {
    values
        .chunks(RUN)
        .map(|run| {
            let (base, width) = base_and_width(run);
            1 + signed_len(base) + packed_len(run.len(), width)
        })
        .sum()
}

/// Reads `len` values into `out`, whose former content is lost.
pub(super) fn decode(reader: &mut Reader<'_>, len: usize, out: &mut Vec<i64>) -> Option<()> {
    let kind = reader.u8()?;
    if kind == CONSTANT {
        let value = reader.signed()?;
        out.clear();
        out.resize(len, value);
        return Some(());
    }
    // Whatever was there is overwritten; only the part beyond the old length is filled first.
    out.resize(len, 0);
    match (kind, out.as_mut_slice()) {
        (VALUES, values) => decode_runs(reader, values)?,
        (DIFFERENCES, [first, differences @ ..]) => {
            let mut sum = reader.signed()?;
            *first = sum;
            decode_runs(reader, differences)?;
            for value in differences {
                sum = sum.wrapping_add(*value);
                *value = sum;
            }
        }
        _ => return None,
    }
    Some(())
}

fn decode_runs(reader: &mut Reader<'_>, out: &mut [i64]) -> Option<()> {
    for run in out.chunks_mut(RUN) {
        let (base, width, packed) = run_header(reader, run.len())?;
        unpack(packed, base, width, run);
    }
    Some(())
}

/// Goes past a stream of `len` values.
pub(super) fn skip(reader: &mut Reader<'_>, len: usize) -> Option<()> {
    let mut left = match reader.u8()? {
        VALUES => len,
        DIFFERENCES => {
            reader.signed()?;
            len.checked_sub(1)?
        }
        CONSTANT => {
            reader.signed()?;
            0
        }
        _ => return None,
    };
    while left > 0 {
        let run = left.min(RUN);
        run_header(reader, run)?;
        left -= run;
    }
    Some(())
}

fn run_header<'a>(reader: &mut Reader<'a>, len: usize) -> Option<(i64, u8, &'a [u8])> {
    let width = reader.u8()?;
    if width > 64 {
        return None;
    }
    let base = reader.signed()?;
    Some((base, width, reader.take(packed_len(len, width))?))
}

fn encode_run(run: &[i64], out: &mut Vec<u8>) {
    let (base, width) = base_and_width(run);
    out.push(width);
    put_signed(out, base);
    pack(run, base, width, out);
}

fn base_and_width(run: &[i64]) -> (i64, u8) {
    let (min, max) = run.iter().fold((i64::MAX, i64::MIN), |(min, max), &value| (min.min(value), max.max(value)));
    let range = max.wrapping_sub(min) as u64;
    (min, 64 - range.leading_zeros() as u8)
}

/// Judged by the first few runs: the others are like them.
fn differences_are_smaller(values: &[i64]) -> bool {
    const SAMPLE: usize = 8 * RUN;
    let sample = &values[..values.len().min(SAMPLE)];
    let mut scratch = [0i64; SAMPLE];
    for (to, pair) in scratch.iter_mut().zip(sample.windows(2)) {
        *to = pair[1].wrapping_sub(pair[0]);
    }
    signed_len(sample[0]) + cost(&scratch[..sample.len() - 1]) < cost(sample)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(values: &[i64]) -> usize {
        let (mut bytes, mut scratch, mut out) = (Vec::new(), Vec::new(), vec![7; 3]);
        encode(values, &mut scratch, &mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(decode(&mut reader, values.len(), &mut out), Some(()));
        assert!(reader.rest().is_empty());
        assert_eq!(out, values);
        let mut reader = Reader::new(&bytes);
        assert_eq!(skip(&mut reader, values.len()), Some(()));
        assert!(reader.rest().is_empty());
        bytes.len()
    }

    #[test]
    fn regular_sequences_take_next_to_nothing() {
        assert_eq!(check(&[]), 2);
        assert_eq!(check(&[5; 60_000]), 2);
        let counter: Vec<i64> = (1_000_000..1_001_280).collect();
        assert!(check(&counter) < 200);
    }

    proptest! {
        #[test]
        fn any_integers_are_read_back(values in proptest::collection::vec(any::<i64>(), 0..300), shift in 0u32..64) {
            check(&values);
            check(&values.iter().map(|value| value >> shift).collect::<Vec<_>>());
        }
    }
}
