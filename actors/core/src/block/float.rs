//! Floating-point columns as integers that are close together.
//!
//! Sensors report decimals: 21.375 is 21375 × 10⁻³, and dividing 21375 by 1000 gives the same bits again. A column of decimals
//! becomes integers with one exponent; what is no decimal (NaN, infinities, −0) is an exception, kept as it is. Columns of other
//! numbers become their bits, put in an order in which neighbours differ little: those of an `f32` when that is exact.

/// How the integers of a column become numbers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Each is divided by ten to this power.
    Decimal(u8),
    /// Ordered bits of an `f32`.
    Float32,
    /// Ordered bits of an `f64`.
    Float64,
}

/// A power of ten with this exponent is exact in `f64`, with a margin.
pub(super) const EXPONENT_MAX: u8 = 18;

/// Integers up to 2^51 can be converted by adding and subtracting this number, which is 1.5 × 2^52; that is also how numbers are rounded.
const MAGIC: f64 = 6_755_399_441_055_744.0;
const MANTISSA_MAX: f64 = 2_251_799_813_685_248.0;

const POWERS: [f64; EXPONENT_MAX as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];

/// Writes an integer for each value into `keys` and the rows that these do not give back into `exceptions`. Rows that are not
/// present get the integer of the row before them.
pub(super) fn to_keys(
    values: &[f64],
    present: Option<&[bool]>,
    keys: &mut Vec<i64>,
    exceptions: &mut Vec<usize>,
) -> Form {
    let is_present = |row: usize| present.is_none_or(|present| present[row]);
    if let Some(exponent) = decimal(values, &is_present, keys, exceptions) {
        if present.is_some() || !exceptions.is_empty() {
            fill_gaps(keys, |row| is_present(row) && exceptions.binary_search(&row).is_err());
        }
        return Form::Decimal(exponent);
    }
    exceptions.clear();
    keys.clear();
    // Which bits a converted NaN has is not certain: it stays an f64.
    let fits_f32 = |value: f64| !value.is_nan() && f64::from(value as f32).to_bits() == value.to_bits();
    let form = if (0..values.len()).all(|row| !is_present(row) || fits_f32(values[row])) {
        keys.extend(values.iter().map(|&value| i64::from(ordered32((value as f32).to_bits() as i32))));
        Form::Float32
    } else {
        keys.extend(values.iter().map(|&value| ordered64(value.to_bits() as i64)));
        Form::Float64
    };
    if present.is_some() {
        fill_gaps(keys, is_present);
    }
    form
}

/// Appends the numbers that `keys` stand for.
pub(super) fn from_keys(form: Form, keys: &[i64], values: &mut Vec<f64>) {
    match form {
        Form::Decimal(0) => values.extend(keys.iter().map(|&key| mantissa(key))),
        Form::Decimal(exponent) => {
            let power = POWERS[usize::from(exponent)];
            values.extend(keys.iter().map(|&key| mantissa(key) / power));
        }
        Form::Float32 => {
            values.extend(keys.iter().map(|&key| f64::from(f32::from_bits(ordered32(key as i32) as u32))));
        }
        Form::Float64 => values.extend(keys.iter().map(|&key| f64::from_bits(ordered64(key) as u64))),
    }
}

/// Gives every row that `kept` leaves out the integer of the row before it.
pub(super) fn fill_gaps(keys: &mut [i64], kept: impl Fn(usize) -> bool) {
    let mut before = (0..keys.len()).find(|&row| kept(row)).map_or(0, |row| keys[row]);
    for (row, key) in keys.iter_mut().enumerate() {
        if kept(row) {
            before = *key;
        } else {
            *key = before;
        }
    }
}

/// The exponent with which nearly all values are decimals; the others are exceptions.
fn decimal(
    values: &[f64],
    is_present: &impl Fn(usize) -> bool,
    keys: &mut Vec<i64>,
    exceptions: &mut Vec<usize>,
) -> Option<u8> {
    let exceptions_max = values.len() / 8;
    let mut exponent = guess(values, is_present)?;
    'again: loop {
        keys.clear();
        exceptions.clear();
        let power = POWERS[usize::from(exponent)];
        for (chunk_at, chunk) in values.chunks(64).enumerate() {
            let mut exact = true;
            keys.extend(chunk.iter().map(|&value| {
                let (key, same) = try_exponent(value, power);
                exact &= same;
                key
            }));
            if exact {
                continue;
            }
            for (at, &value) in chunk.iter().enumerate() {
                let row = chunk_at * 64 + at;
                if !is_present(row) || try_exponent(value, power).1 {
                    continue;
                }
                if let Some(higher) = least_exponent(value, exponent + 1) {
                    exponent = higher;
                    continue 'again;
                }
                exceptions.push(row);
                if exceptions.len() > exceptions_max {
                    return None;
                }
            }
        }
        return Some(exponent);
    }
}

/// The exponent that a few values need; `None` when most of them are not decimals.
fn guess(values: &[f64], is_present: &impl Fn(usize) -> bool) -> Option<u8> {
    let step = (values.len() / 32).max(1);
    let (mut exponent, mut found, mut missed) = (0, 0, 0);
    for row in (0..values.len()).step_by(step).filter(|&row| is_present(row)) {
        match least_exponent(values[row], exponent) {
            Some(needed) => {
                exponent = needed;
                found += 1;
            }
            None => missed += 1,
        }
    }
    (found >= missed).then_some(exponent)
}

fn least_exponent(value: f64, from: u8) -> Option<u8> {
    (from..=EXPONENT_MAX).find(|&exponent| try_exponent(value, POWERS[usize::from(exponent)]).1)
}

/// The nearest integer to `value × power`, and whether dividing it by `power` gives the same bits.
#[inline(always)]
fn try_exponent(value: f64, power: f64) -> (i64, bool) {
    let scaled = value * power;
    let shifted = scaled + MAGIC;
    let same = ((shifted - MAGIC) / power).to_bits() == value.to_bits();
    ((shifted.to_bits() as i64).wrapping_sub(MAGIC.to_bits() as i64), same & (scaled.abs() < MANTISSA_MAX))
}

#[inline(always)]
fn mantissa(key: i64) -> f64 {
    f64::from_bits(key.wrapping_add(MAGIC.to_bits() as i64) as u64) - MAGIC
}

/// Integers in the order of the numbers whose bits they come from. Its own inverse.
fn ordered64(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

fn ordered32(bits: i32) -> i32 {
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(values: &[f64]) -> (Form, usize) {
        let (mut keys, mut exceptions, mut back) = (Vec::new(), Vec::new(), Vec::new());
        let form = to_keys(values, None, &mut keys, &mut exceptions);
        from_keys(form, &keys, &mut back);
        exceptions.iter().for_each(|&row| back[row] = values[row]);
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values));
        (form, exceptions.len())
    }

    #[test]
    fn decimals_become_integers() {
        assert_eq!(check(&[1.0, 2.0, 3.0]), (Form::Decimal(0), 0));
        assert_eq!(check(&[21.375, 21.4, -0.1]), (Form::Decimal(3), 0));
        assert_eq!(check(&[1e-9, 0.25]), (Form::Decimal(9), 0));
        assert_eq!(check(&[73.967_322_073]), (Form::Decimal(9), 0));
    }

    #[test]
    fn what_is_no_decimal_is_an_exception() {
        let mut values = vec![0.5; 100];
        values[7] = f64::NAN;
        values[8] = -0.0;
        values[99] = f64::NEG_INFINITY;
        assert_eq!(check(&values), (Form::Decimal(1), 3));
    }

    #[test]
    fn other_numbers_keep_their_bits() {
        assert_eq!(check(&[f64::from(0.1f32), f64::from(1.0f32 / 3.0)]).0, Form::Float32);
        assert_eq!(check(&[1.0 / 3.0, std::f64::consts::PI * 1e20]).0, Form::Float64);
        assert_eq!(check(&[f64::from_bits(0x7ff0_0000_0000_0001)]).0, Form::Float64);
        assert_eq!(check(&[f64::MAX, f64::MIN_POSITIVE, 5e-324, 9_007_199_254_740_993.0]).0, Form::Float64);
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(bits in proptest::collection::vec(any::<u64>(), 0..200), decimals: Vec<i32>, exponent in 0i32..12) {
            let mut values: Vec<f64> = bits.into_iter().map(f64::from_bits).collect();
            check(&values);
            let decimals: Vec<f64> = decimals.into_iter().map(|m| f64::from(m) / 10f64.powi(exponent)).collect();
            check(&decimals);
            values.truncate(9);
            values.extend(decimals);
            check(&values);
        }
    }
}
