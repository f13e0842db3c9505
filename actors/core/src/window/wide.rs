//! Sums without rounding, however far apart the values are.

use serde::{Deserialize, Serialize};

/// Bits of a limb that carry the value; the rest of its `i64` is room for carries.
const BITS: u32 = 32;
const RADIX: i64 = 1 << BITS;
/// Each value changes a limb by less than 2³², so that this many fit before carries must be passed on.
const ADDS_MAX: u32 = 1 << 30;

/// The greatest value ends in limb 65; the rest is for carries of more additions than there can be.
const LIMBS_MAX: u32 = 70;

/// An exact sum of finite `f64` values: a fixed-point integer in units of 2⁻¹⁰⁷⁴ (the least subnormal), cut into limbs of 32 bits
/// of which only the stretch in use is kept (a small "superaccumulator": Neal, "Fast exact summation using small and large
/// superaccumulators", 2015). Integers add up to the same whatever the order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Said")]
pub struct Wide {
    /// Position of `limbs[0]`: it counts units of 2^(32 × base − 1074).
    base: u32,
    /// From the least up. Between two calls of [`normalise`](Self::normalise) a limb may be negative or past 2³².
    limbs: Vec<i64>,
    /// Values added since carries were passed on.
    adds: u32,
}

/// A sum as somebody else has written it.
#[derive(Deserialize)]
struct Said {
    base: u32,
    limbs: Vec<i64>,
    adds: u32,
}

impl TryFrom<Said> for Wide {
    type Error = &'static str;

    /// Only what additions can come to: whoever adds to it makes room for all limbs between.
    fn try_from(Said { base, limbs, adds }: Said) -> Result<Wide, &'static str> {
        let room = (u64::from(adds) + 1) << BITS;
        let fits = base <= LIMBS_MAX && limbs.len() <= (LIMBS_MAX - base) as usize && adds < ADDS_MAX;
        if !fits || limbs.iter().any(|limb| limb.unsigned_abs() > room) {
            return Err("no sum comes to this");
        }
        Ok(Wide { base, limbs, adds })
    }
}

impl Wide {
    /// Adds a finite value.
    pub fn add(&mut self, value: f64) {
        debug_assert!(value.is_finite());
        if value == 0.0 {
            return;
        }
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7ff) as u32;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, position) = if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        let at = self.reach(position / BITS, 3);
        let shifted = u128::from(mantissa) << (position % BITS);
        let sign = if bits >> 63 == 0 { 1 } else { -1 };
        for (limb, shift) in self.limbs[at..at + 3].iter_mut().zip([0, 32, 64]) {
            *limb += sign * i64::from((shifted >> shift) as u32);
        }
        self.count_add();
    }

    pub fn merge(&mut self, other: &Wide) {
        let mut other = other.clone();
        other.normalise();
        self.normalise();
        if other.limbs.is_empty() {
            return;
        }
        let at = self.reach(other.base, other.limbs.len());
        for (limb, more) in self.limbs[at..].iter_mut().zip(&other.limbs) {
            *limb += more;
        }
        self.count_add();
    }

    /// The sum, rounded once to the nearest (ties to even); infinite when it is out of range.
    pub fn value(&self) -> f64 {
        let (negative, base, digits) = self.magnitude();
        let value = round(base, &digits);
        if negative { -value } else { value }
    }

    /// The sum as the nearest value and the nearest to what that one leaves: about 106 bits.
    pub fn pair(&self) -> (f64, f64) {
        let high = self.value();
        if !high.is_finite() {
            return (high, 0.0);
        }
        let mut rest = self.clone();
        rest.add(-high);
        (high, rest.value())
    }

    /// Makes sure of limbs `base..base + count` and returns where they begin.
    fn reach(&mut self, base: u32, count: usize) -> usize {
        if self.limbs.is_empty() {
            self.base = base;
        }
        if base < self.base {
            let more = (self.base - base) as usize;
            self.limbs.splice(0..0, std::iter::repeat_n(0, more));
            self.base = base;
        }
        let at = (base - self.base) as usize;
        if self.limbs.len() < at + count {
            self.limbs.resize(at + count, 0);
        }
        at
    }

    fn count_add(&mut self) {
        self.adds += 1;
        if self.adds == ADDS_MAX {
            self.normalise();
        }
    }

    /// Passes carries on: all limbs but the topmost are then in `0..2³²`, and the topmost has the sign.
    fn normalise(&mut self) {
        self.adds = 0;
        let mut carry = 0;
        let Some((top, rest)) = self.limbs.split_last_mut() else { return };
        for limb in rest {
            let sum = *limb + carry;
            *limb = sum & (RADIX - 1);
            carry = sum >> BITS;
        }
        let mut last = *top + carry;
        while !(-RADIX / 2..RADIX / 2).contains(&last) {
            if let Some(top) = self.limbs.last_mut() {
                *top = last & (RADIX - 1);
            }
            last >>= BITS;
            self.limbs.push(0);
        }
        if let Some(top) = self.limbs.last_mut() {
            *top = last;
        }
    }

    /// Sign, base, and the digits of the magnitude from the least up.
    fn magnitude(&self) -> (bool, u32, Vec<u32>) {
        let mut positive = self.clone();
        positive.normalise();
        let negative = positive.limbs.last().is_some_and(|top| *top < 0);
        if negative {
            positive.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            positive.normalise();
        }
        (negative, positive.base, positive.limbs.iter().map(|limb| *limb as u32).collect())
    }
}

/// `digits × 2^(32 × base − 1074)` as the nearest `f64`.
fn round(base: u32, digits: &[u32]) -> f64 {
    let Some(top) = digits.iter().rposition(|digit| *digit != 0) else { return 0.0 };
    // The topmost 96 bits stand in `window`, what lies below them counts only as "something".
    let digit = |back: usize| top.checked_sub(back).map_or(0, |at| u128::from(digits[at]));
    let window = digit(0) << 64 | digit(1) << 32 | digit(2);
    let below = digits[..top.saturating_sub(2)].iter().any(|digit| *digit != 0);
    let length = 128 - window.leading_zeros();
    // Position of the window's lowest bit, in units of 2^-1074.
    let lowest = i64::from(BITS) * (i64::from(base) + top as i64 - 2);
    let excess = i64::from(length) - 53;
    // Subnormals have fewer than 53 bits: no bit lies below position 0.
    let excess = excess.max(-lowest);
    if excess <= 0 {
        return assemble((window << -excess) as u64, lowest + excess);
    }
    let (kept, cut) = ((window >> excess) as u64, window & ((1 << excess) - 1));
    let half = 1u128 << (excess - 1);
    let up = cut > half || (cut == half && (below || kept & 1 == 1));
    assemble(kept + u64::from(up), lowest + excess)
}

/// `mantissa × 2^(position − 1074)` for a mantissa up to 2⁵³.
fn assemble(mantissa: u64, position: i64) -> f64 {
    let (mantissa, position) = if mantissa == 1 << 53 { (1 << 52, position + 1) } else { (mantissa, position) };
    if mantissa < 1 << 52 {
        debug_assert!(position <= 0 || mantissa == 0);
        return f64::from_bits(mantissa);
    }
    if position + 1 >= 0x7ff {
        return f64::INFINITY;
    }
    f64::from_bits((position as u64 + 1) << 52 | (mantissa & ((1 << 52) - 1)))
}
