//! What a step of a series comes to, so that it can be merged with what others found.

use millpond_core::{record, time::Timestamp, value::Value, window::ExactSum};
use serde::{Deserialize, Serialize};

/// Merging is commutative and associative down to the last bit, and the same as counting all values at once.
///
/// NaN and infinities are counted in `skipped` and nowhere else; of several values at the same time the least is the first and the
/// greatest the last. Booleans are 0 and 1; text and bytes are not counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    pub count: u64,
    pub skipped: u64,
    pub sum: ExactSum,
    range: Option<(f64, f64)>,
    ends: Option<(Mark, Mark)>,
}

type Mark = (i64, f64);

impl Partial {
    pub fn add_value(&mut self, time: Timestamp, value: &Value<'_>) {
        if let Some(value) = value.as_f64() {
            self.add(time.0, value);
        }
    }

    #[inline]
    pub fn add(&mut self, time: i64, value: f64) {
        if !value.is_finite() {
            self.skipped += 1;
            return;
        }
        self.count += 1;
        self.sum.add(value);
        self.see((value, value), ((time, value), (time, value)));
    }

    pub fn merge(&mut self, other: &Partial) {
        self.count += other.count;
        self.skipped += other.skipped;
        self.sum.merge(&other.sum);
        if let (Some(range), Some(ends)) = (other.range, other.ends) {
            self.see(range, ends);
        }
    }

    #[inline]
    fn see(&mut self, range: (f64, f64), ends: (Mark, Mark)) {
        let before = |a: &Mark, b: &Mark| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).is_lt();
        let (min, max) = self.range.get_or_insert(range);
        // By the total order: which zero is the least must not depend on who came first.
        if range.0.total_cmp(min).is_lt() {
            *min = range.0;
        }
        if range.1.total_cmp(max).is_gt() {
            *max = range.1;
        }
        let (first, last) = self.ends.get_or_insert(ends);
        if before(&ends.0, first) {
            *first = ends.0;
        }
        if before(last, &ends.1) {
            *last = ends.1;
        }
    }

    pub fn min(&self) -> Option<f64> {
        self.range.map(|range| range.0)
    }

    pub fn max(&self) -> Option<f64> {
        self.range.map(|range| range.1)
    }

    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum.value() / self.count as f64)
    }

    pub fn first(&self) -> Option<(Timestamp, f64)> {
        self.ends.map(|(first, _)| (Timestamp(first.0), first.1))
    }

    pub fn last(&self) -> Option<(Timestamp, f64)> {
        self.ends.map(|(_, last)| (Timestamp(last.0), last.1))
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.skipped == 0
    }
}

/// Of each row group of one device, what its metrics come to: stands in the footer of a file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums(pub Vec<Option<Vec<Partial>>>);

impl Sums {
    pub fn encode(&self) -> Vec<u8> {
        record::encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Option<Sums> {
        record::decode(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merging_is_the_same_as_counting_at_once(
            values in prop::collection::vec((0i64..20, prop::num::f64::ANY), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let count = |values: &[(i64, f64)]| {
                let mut partial = Partial::default();
                values.iter().for_each(|(time, value)| partial.add(*time, *value));
                partial
            };
            let whole = count(&values);
            let cut = if values.is_empty() { 0 } else { cut.index(values.len()) };
            let (mut right, left) = (count(&values[cut..]), count(&values[..cut]));
            right.merge(&left);
            prop_assert_eq!(right.sum.value().to_bits(), whole.sum.value().to_bits());
            prop_assert_eq!((right.count, right.skipped, right.min(), right.max()), (whole.count, whole.skipped, whole.min(), whole.max()));
            prop_assert_eq!((right.first(), right.last()), (whole.first(), whole.last()));
            let sums = Sums(vec![Some(vec![whole.clone()]), None]);
            prop_assert_eq!(Sums::decode(&sums.encode()), Some(sums));
        }
    }
}
