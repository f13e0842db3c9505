//! Bit packing: runs of 128 numbers of one width.
//!
//! A whole run interleaves lanes so that one shift serves several numbers (Lemire and Boytsov, "Decoding billions of integers per
//! second through vectorization", 2015). Up to 32 bits: 4 lanes of u32, number `i` in lane `i % 4`, word `w` of lane `l` at
//! bytes `(4 w + l) * 4`. Above: 2 lanes of u64, number `i` in lane `i % 2`, word `w` of lane `l` at bytes `(2 w + l) * 8`. Within a
//! lane numbers follow one another from the low bits up. A shorter run has no lanes: its bits follow one another
//! from the low bit of the first byte, and the last byte is filled with zeros. All words are little-endian.

/// Numbers of a whole run.
pub(super) const RUN: usize = 128;

/// Bytes of `len` packed numbers of `width` bits.
pub(super) fn packed_len(len: usize, width: u8) -> usize {
    (len * usize::from(width)).div_ceil(8)
}

/// Appends `value - base` of each value, which fits `width` bits.
pub(super) fn pack(values: &[i64], base: i64, width: u8, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    match <&[i64; RUN]>::try_from(values) {
        Ok(run) if width <= 32 => pack_lanes_u32(run, base, u32::from(width), out),
        Ok(run) => pack_lanes_u64(run, base, u32::from(width), out),
        Err(_) => pack_tail(values, base, u32::from(width), out),
    }
}

/// Fills `out` from `packed`, which has [`packed_len`] bytes for it.
pub(super) fn unpack(packed: &[u8], base: i64, width: u8, out: &mut [i64]) {
    if width == 0 {
        out.fill(base);
        return;
    }
    match <&mut [i64; RUN]>::try_from(&mut *out) {
        Ok(run) if width <= 32 => unpack_by_width(packed, base, width, run),
        Ok(run) => unpack_lanes_u64(packed, base, u32::from(width), run),
        Err(_) => unpack_tail(packed, base, u32::from(width), out),
    }
}

fn pack_lanes_u32(run: &[i64; RUN], base: i64, width: u32, out: &mut Vec<u8>) {
    let mut filled = 0u32;
    let mut words = [0u32; 4];
    let mut packed = [0u8; 16 * 32];
    let mut chunks = packed.chunks_exact_mut(16);
    let mut flush = |words: [u32; 4]| {
        if let Some(chunk) = chunks.next() {
            for (to, word) in chunk.chunks_exact_mut(4).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
        }
    };
    for four in run.chunks_exact(4) {
        let numbers: [u32; 4] = std::array::from_fn(|lane| four[lane].wrapping_sub(base) as u32);
        words = std::array::from_fn(|lane| words[lane] | numbers[lane] << filled);
        filled += width;
        if filled >= 32 {
            flush(words);
            filled -= 32;
            let carried = width - filled;
            words = std::array::from_fn(|lane| if carried < 32 { numbers[lane] >> carried } else { 0 });
        }
    }
    out.extend_from_slice(&packed[..packed_len(RUN, width as u8)]);
}

fn pack_lanes_u64(run: &[i64; RUN], base: i64, width: u32, out: &mut Vec<u8>) {
    let mut filled = 0u32;
    let mut words = [0u64; 2];
    for two in run.chunks_exact(2) {
        let numbers: [u64; 2] = std::array::from_fn(|lane| two[lane].wrapping_sub(base) as u64);
        words = std::array::from_fn(|lane| words[lane] | numbers[lane] << filled);
        filled += width;
        if filled >= 64 {
            words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
            filled -= 64;
            let carried = width - filled;
            words = std::array::from_fn(|lane| if carried < 64 { numbers[lane] >> carried } else { 0 });
        }
    }
}

fn pack_tail(values: &[i64], base: i64, width: u32, out: &mut Vec<u8>) {
    let mut filled = 0u32;
    let mut word = 0u128;
    for value in values {
        word |= u128::from(value.wrapping_sub(base) as u64) << filled;
        filled += width;
        while filled >= 8 {
            out.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(word as u8);
    }
}

/// The widths of slowly moving values have code of their own, in which every shift is a constant.
fn unpack_by_width(packed: &[u8], base: i64, width: u8, out: &mut [i64; RUN]) {
    match width {
        1 => unpack_lanes_u32::<1>(packed, base, 1, out),
        2 => unpack_lanes_u32::<2>(packed, base, 2, out),
        3 => unpack_lanes_u32::<3>(packed, base, 3, out),
        4 => unpack_lanes_u32::<4>(packed, base, 4, out),
        5 => unpack_lanes_u32::<5>(packed, base, 5, out),
        6 => unpack_lanes_u32::<6>(packed, base, 6, out),
        7 => unpack_lanes_u32::<7>(packed, base, 7, out),
        8 => unpack_lanes_u32::<8>(packed, base, 8, out),
        _ => unpack_lanes_u32::<0>(packed, base, u32::from(width), out),
    }
}

/// `WIDTH` is the width, or 0 when only `width` knows it.
#[inline(always)]
fn unpack_lanes_u32<const WIDTH: u32>(packed: &[u8], base: i64, width: u32, out: &mut [i64; RUN]) {
    let width = if WIDTH == 0 { width } else { WIDTH };
    let mask = u32::MAX >> (32 - width);
    let mut next = packed.chunks_exact(16);
    let mut load = || {
        let chunk = next.next().unwrap_or(&[0; 16]);
        std::array::from_fn::<u32, 4, _>(|lane| {
            u32::from_le_bytes([chunk[4 * lane], chunk[4 * lane + 1], chunk[4 * lane + 2], chunk[4 * lane + 3]])
        })
    };
    let mut words = load();
    let mut used = 0u32;
    for four in out.chunks_exact_mut(4) {
        let mut numbers = words.map(|word| word >> used);
        used += width;
        if used >= 32 {
            used -= 32;
            words = load();
            if used > 0 {
                let missing = width - used;
                numbers = std::array::from_fn(|lane| numbers[lane] | words[lane] << missing);
            }
        }
        for (to, number) in four.iter_mut().zip(numbers) {
            *to = base.wrapping_add(i64::from(number & mask));
        }
    }
}

fn unpack_lanes_u64(packed: &[u8], base: i64, width: u32, out: &mut [i64; RUN]) {
    let mask = u64::MAX >> (64 - width);
    let mut next = packed.chunks_exact(16);
    let mut load = || {
        let chunk = next.next().unwrap_or(&[0; 16]);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| chunk[at + byte]));
        [word(0), word(8)]
    };
    let mut words = load();
    let mut used = 0u32;
    for two in out.chunks_exact_mut(2) {
        let mut numbers = words.map(|word| word >> used);
        used += width;
        if used >= 64 {
            used -= 64;
            words = load();
            if used > 0 {
                let missing = width - used;
                numbers = std::array::from_fn(|lane| numbers[lane] | words[lane] << missing);
            }
        }
        for (to, number) in two.iter_mut().zip(numbers) {
            *to = base.wrapping_add((number & mask) as i64);
        }
    }
}

fn unpack_tail(packed: &[u8], base: i64, width: u32, out: &mut [i64]) {
    // Zeros behind the bytes, so that each number can be read with one wide load.
    let mut padded = [0u8; RUN * 8 + 16];
    padded[..packed.len()].copy_from_slice(packed);
    let mask = u64::MAX >> (64 - width);
    let mut bit = 0usize;
    for to in out {
        let at = bit / 8;
        let word = u128::from_le_bytes(std::array::from_fn(|byte| padded[at + byte]));
        *to = base.wrapping_add(((word >> (bit % 8)) as u64 & mask) as i64);
        bit += width as usize;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_of_every_width_are_read_back(width in 0u8..=64, len in 0usize..=RUN, whole: bool, base: i64, seed: u64) {
            let len = if whole { RUN } else { len };
            let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
            let number = |i: u64| seed.wrapping_mul(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).rotate_left(17) & mask;
            let values: Vec<i64> = (0..len as u64).map(|i| base.wrapping_add(number(i) as i64)).collect();
            let mut packed = Vec::new();
            pack(&values, base, width, &mut packed);
            prop_assert_eq!(packed.len(), packed_len(len, width));
            let mut out = vec![0; len];
            unpack(&packed, base, width, &mut out);
            prop_assert_eq!(out, values);
        }
    }
}
