//! Exact sums of `f64`: the same result in every order and for every way of splitting the values.

use serde::{Deserialize, Serialize};

use super::wide::Wide;

/// `a + b` rounded, and what the rounding cut off, exactly (Knuth's TwoSum). The second part is NaN when the sum is not finite.
#[inline(always)]
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `x × x` rounded, and what the rounding cut off, exactly (Dekker's product with Veltkamp's split). Where that would under- or
/// overflow the second part is 0 and the first at most [`f64::MAX`]: either way both are functions of `x` alone.
pub fn two_square(x: f64) -> (f64, f64) {
    let square = x * x;
    if !(1e-140..=1e140).contains(&x.abs()) {
        return (square.min(f64::MAX), 0.0);
    }
    let split = x * 134_217_729.0;
    let high = split - (split - x);
    let low = x - high;
    (square, ((high * high - square) + 2.0 * high * low) + low * low)
}

/// The exact sum of finite values.
///
/// Invariant: `high + low + wide` is the sum with no rounding at all. Two doubles hold the sums of nearly all that sensors send;
/// an addition that would round goes to the wide accumulator instead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Said")]
pub struct ExactSum {
    pub(super) high: f64,
    pub(super) low: f64,
    wide: Option<Box<Wide>>,
}

/// A sum as somebody else has written it.
#[derive(Deserialize)]
struct Said {
    high: f64,
    low: f64,
    wide: Option<Box<Wide>>,
}

impl TryFrom<Said> for ExactSum {
    type Error = &'static str;

    fn try_from(Said { high, low, wide }: Said) -> Result<ExactSum, &'static str> {
        let finite = high.is_finite() && low.is_finite();
        if finite { Ok(ExactSum { high, low, wide }) } else { Err("a sum of finite values is finite") }
    }
}

impl ExactSum {
    pub fn of_pair(high: f64, low: f64) -> ExactSum {
        ExactSum { high, low, wide: None }
    }

    pub fn add(&mut self, value: f64) {
        if self.wide.is_none() && self.add_pair(value, 0.0) {
            return;
        }
        self.wide.get_or_insert_default().add(value);
    }

    pub fn merge(&mut self, other: &ExactSum) {
        if self.wide.is_some() || !self.add_pair(other.high, other.low) {
            let wide = self.wide.get_or_insert_default();
            wide.add(other.high);
            wide.add(other.low);
        }
        if let Some(more) = &other.wide {
            self.wide.get_or_insert_default().merge(more);
        }
    }

    /// The sum, rounded once.
    pub fn value(&self) -> f64 {
        self.pair().0
    }

    /// The sum as the nearest value and the nearest to what that one leaves.
    pub fn pair(&self) -> (f64, f64) {
        match &self.wide {
            None => two_sum(self.high, self.low),
            Some(wide) => {
                let mut wide = Wide::clone(wide);
                wide.add(self.high);
                wide.add(self.low);
                wide.pair()
            }
        }
    }

    /// Adds `high + low` where two doubles can hold the result exactly, otherwise changes nothing.
    fn add_pair(&mut self, high: f64, low: f64) -> bool {
        match add_pairs((self.high, self.low), (high, low)) {
            Some(sum) => {
                (self.high, self.low) = sum;
                true
            }
            None => false,
        }
    }
}

/// The sum of two pairs, when a pair can hold it exactly.
#[inline(always)]
pub fn add_pairs(a: (f64, f64), b: (f64, f64)) -> Option<(f64, f64)> {
    let (high, high_rest) = two_sum(a.0, b.0);
    let (low, low_rest) = two_sum(a.1, b.1);
    let (low, rest) = two_sum(low, high_rest);
    // A rest is NaN when something overflowed, and then not equal to 0 either.
    (low_rest == 0.0 && rest == 0.0).then(|| two_sum(high, low))
}

/// Mean square deviation from the mean, over n − 1, from the exact sums of the values and of their squares. `None` below two values.
pub fn variance(count: u64, sum: &ExactSum, squares: &Wide) -> Option<f64> {
    if count < 2 {
        return None;
    }
    let n = count as f64;
    let (high, low) = sum.pair();
    let (square, rest) = two_square(high);
    let square = two_sum(square, rest + 2.0 * high * low);
    let mean = divide(square, n);
    let (squares_high, squares_low) = squares.pair();
    let (deviation, rest) = two_sum(squares_high, -mean.0);
    let variance = (deviation + (rest + (squares_low - mean.1))) / (n - 1.0);
    variance.is_finite().then_some(variance.max(0.0))
}

/// A pair divided by a whole number below 2⁵³, to about 100 bits.
fn divide((high, low): (f64, f64), by: f64) -> (f64, f64) {
    let quotient = high / by;
    let (product, rest) = two_product(quotient, by);
    (quotient, ((high - product) - rest + low) / by)
}

fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let split = |x: f64| {
        let scaled = x * 134_217_729.0;
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    (product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |x| x.is_finite()),
            (-1_000_000i64..1_000_000).prop_map(|n| n as f64 / 10.0),
            Just(0.1),
            Just(-1e300),
            Just(1e300),
            Just(f64::MAX),
            Just(5e-324),
        ]
    }

    fn wide(values: &[f64]) -> Wide {
        let mut wide = Wide::default();
        values.iter().for_each(|value| wide.add(*value));
        wide
    }

    #[test]
    fn sums_are_rounded_once() {
        let check = |values: &[f64], sum: f64| {
            let mut exact = ExactSum::default();
            values.iter().for_each(|value| exact.add(*value));
            assert_eq!(exact.value().to_bits(), sum.to_bits(), "{values:?}");
            assert_eq!(wide(values).value().to_bits(), sum.to_bits(), "{values:?}");
        };
        check(&[], 0.0);
        check(&[0.1; 10], 1.0);
        check(&[1e100, 1.0, -1e100, 1e-100], 1.0);
        check(&[f64::MAX, f64::MAX, -f64::MAX], f64::MAX);
        check(&[f64::MAX, f64::MAX], f64::INFINITY);
        check(&[-f64::MAX, -f64::MAX], f64::NEG_INFINITY);
        check(&[5e-324, 5e-324, -1e-323], 0.0);
        check(&[1.0, f64::EPSILON / 2.0], 1.0);
        check(&[1.0, f64::EPSILON / 2.0, 5e-324], 1.0 + f64::EPSILON);
        check(&[-5e-324], -5e-324);
        check(&[f64::MIN_POSITIVE, -5e-324], f64::MIN_POSITIVE - 5e-324);
    }

    #[test]
    fn deviations_survive_a_large_mean() {
        let values: Vec<f64> = (0..1000).map(|n| 1e9 + f64::from(n % 10)).collect();
        let mut sum = ExactSum::default();
        let mut squares = Wide::default();
        for value in &values {
            sum.add(*value);
            let (square, rest) = two_square(*value);
            squares.add(square);
            squares.add(rest);
        }
        let variance = variance(1000, &sum, &squares).unwrap_or_default();
        assert!((variance - 8250.0 / 999.0).abs() < 1e-12, "{variance}");
    }

    #[test]
    fn sums_that_nothing_adds_up_to_are_not_read() {
        let read = |bytes: &[u8]| crate::record::decode::<Wide>(bytes).is_ok();
        assert!(read(b"\x83\xa4base\x21\xa5limbs\x91\x01\xa4adds\x00"));
        // As far up as there are numbers: room for the limbs below would take 32 GiB.
        assert!(!read(b"\x83\xa4base\xce\xff\xff\xff\xff\xa5limbs\x91\x01\xa4adds\x00"));
        // More in a limb than so few additions leave there, and more additions than are waited for.
        assert!(!read(b"\x83\xa4base\x21\xa5limbs\x91\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\xa4adds\x00"));
        assert!(!read(b"\x83\xa4base\x21\xa5limbs\x91\x01\xa4adds\xce\xff\xff\xff\xff"));
        let infinite = b"\x83\xa4high\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00\xa3low\x00\xa4wide\xc0";
        assert!(crate::record::decode::<ExactSum>(infinite).is_err());
    }

    proptest! {
        #[test]
        fn a_sum_is_read_as_it_was_written(values in prop::collection::vec(any_finite(), 0..60)) {
            let (mut exact, wide) = (ExactSum::default(), wide(&values));
            values.iter().for_each(|value| exact.add(*value));
            prop_assert_eq!(crate::record::decode(&crate::record::encode(&exact)), Ok(exact.clone()));
            let mut twice = wide.clone();
            twice.merge(&wide);
            for wide in [wide, twice] {
                prop_assert_eq!(crate::record::decode(&crate::record::encode(&wide)), Ok(wide));
            }
        }

        #[test]
        fn any_order_and_any_split_give_the_same_sum(
            values in prop::collection::vec(any_finite(), 0..60), order in any::<u64>(), split in 0usize..60,
        ) {
            let mut shuffled = values.clone();
            shuffled.sort_by_key(|value| (value.to_bits() ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut whole = ExactSum::default();
            values.iter().for_each(|value| whole.add(*value));
            let (left, right) = shuffled.split_at(split.min(shuffled.len()));
            let mut merged = ExactSum::default();
            let mut other = ExactSum::default();
            left.iter().for_each(|value| merged.add(*value));
            right.iter().for_each(|value| other.add(*value));
            merged.merge(&other);
            prop_assert_eq!(whole.pair(), merged.pair());
            prop_assert_eq!(whole.pair(), wide(&values).pair());
            let mut halves = wide(left);
            halves.merge(&wide(right));
            prop_assert_eq!(whole.pair(), halves.pair());
        }

        #[test]
        fn a_sum_of_two_is_that_of_the_processor(a in any_finite(), b in any_finite()) {
            prop_assert_eq!(wide(&[a, b]).value(), a + b);
        }

        #[test]
        fn squares_are_exact(x in -1e100..1e100f64) {
            let (square, rest) = two_square(x);
            // (h + l)² = square + rest, checked with integers: x = m × 2^e.
            if x.abs() > 1e-100 {
                prop_assert_eq!(square, x * x);
                prop_assert_eq!(x.mul_add(x, -square), rest);
            }
        }
    }
}
