//! Quantiles from counts in buckets.

use serde::{Deserialize, Serialize};

use crate::limits::SKETCH_BUCKETS_MAX;

/// Bits of a value that name its bucket are those above this many: the exponent and 6 bits of the fraction, so that a bucket
/// spans at most 1/64 of its values and its middle is within 0.8 % of each.
const CUT: u32 = 46;

/// How often values fell into each bucket: a DDSketch (Masson et al., 2019) whose logarithm is the one that the bits of an `f64`
/// already are, so that all machines agree on the buckets. Sparse; merges by adding counts; relative error below 1 %.
///
/// Invariant: of each sign the [`SKETCH_BUCKETS_MAX`] greatest magnitudes that ever occurred are told apart, and all smaller values
/// count as 0. What is one of the greatest of all is one of the greatest of any part, so the order of additions does not show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Said")]
pub struct Sketch {
    /// `(bucket, count)`, in the order of the values. Bucket 0 holds zeros; that of a negative value is minus that of its magnitude.
    buckets: Vec<(i32, u64)>,
    /// The least magnitudes kept, of negative and of positive values; 0 while none had to be given up.
    floors: (i32, i32),
}

/// Counts as somebody else has written them.
#[derive(Deserialize)]
struct Said {
    buckets: Vec<(i32, u64)>,
    floors: (i32, i32),
}

impl TryFrom<Said> for Sketch {
    type Error = &'static str;

    fn try_from(Said { buckets, floors }: Said) -> Result<Sketch, &'static str> {
        let greatest = bucket(f64::MAX);
        let ascending = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let exist = buckets.iter().all(|(bucket, _)| (-greatest..=greatest).contains(bucket));
        let (negatives, positives) = (|(bucket, _): &&(i32, u64)| *bucket < 0, |(bucket, _): &&(i32, u64)| *bucket > 0);
        let few = buckets.iter().filter(negatives).count() <= SKETCH_BUCKETS_MAX
            && buckets.iter().filter(positives).count() <= SKETCH_BUCKETS_MAX;
        let floors_exist = [floors.0, floors.1].iter().all(|floor| (0..=greatest).contains(floor));
        if ascending && exist && few && floors_exist {
            return Ok(Sketch { buckets, floors });
        }
        Err("no values are counted so")
    }
}

impl Sketch {
    /// Counts a finite value.
    pub fn add(&mut self, value: f64) {
        self.count(bucket(value), 1);
    }

    pub fn merge(&mut self, other: &Sketch) {
        self.floors = (self.floors.0.max(other.floors.0), self.floors.1.max(other.floors.1));
        let below = |bucket: i32| bucket != 0 && self.is_below_floor(bucket);
        let (given_up, kept): (Vec<_>, Vec<_>) = self.buckets.iter().partition(|(bucket, _)| below(*bucket));
        self.buckets = kept;
        given_up.iter().chain(&other.buckets).for_each(|(bucket, count)| self.count(*bucket, *count));
    }

    /// The value at rank ⌈q × n⌉ of n; `None` when there are none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.buckets.iter().fold(0, |total: u64, (_, count)| total.saturating_add(*count));
        let rank = ((q * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0u64;
        self.buckets.iter().find_map(|(bucket, count)| {
            seen = seen.saturating_add(*count);
            (seen >= rank).then(|| middle(*bucket))
        })
    }

    fn count(&mut self, bucket: i32, count: u64) {
        let bucket = if self.is_below_floor(bucket) { 0 } else { bucket };
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => {
                self.buckets.insert(at, (bucket, count));
                self.give_up_excess(bucket);
            }
        }
    }

    /// Counts the least magnitude as 0 when `bucket` was one too many of its sign.
    fn give_up_excess(&mut self, bucket: i32) {
        let negatives = self.buckets.partition_point(|(bucket, _)| *bucket < 0);
        let positives = self.buckets.partition_point(|(bucket, _)| *bucket <= 0);
        if bucket < 0 && negatives > SKETCH_BUCKETS_MAX {
            let (_, count) = self.buckets.remove(negatives - 1);
            self.floors.0 = -self.buckets[negatives - 2].0;
            self.count(0, count);
        } else if bucket > 0 && self.buckets.len() - positives > SKETCH_BUCKETS_MAX {
            let (_, count) = self.buckets.remove(positives);
            self.floors.1 = self.buckets[positives].0;
            self.count(0, count);
        }
    }

    fn is_below_floor(&self, bucket: i32) -> bool {
        if bucket < 0 { -bucket < self.floors.0 } else { bucket < self.floors.1 }
    }
}

fn bucket(value: f64) -> i32 {
    if value == 0.0 {
        return 0;
    }
    let magnitude = 1 + (value.abs().to_bits() >> CUT) as i32;
    if value < 0.0 { -magnitude } else { magnitude }
}

fn middle(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let magnitude = f64::from_bits((u64::from(bucket.unsigned_abs()) - 1) << CUT | 1 << (CUT - 1));
    if bucket < 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.add(*value));
        sketch
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(
            mut values in prop::collection::vec(prop_oneof![-1e6..1e6f64, -1.0..1.0f64, Just(0.0)], 1..300), q in 0.0..=1.0f64,
        ) {
            let got = sketch(&values).quantile(q).unwrap();
            values.sort_by(f64::total_cmp);
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            prop_assert!((got - exact).abs() <= 0.01 * exact.abs(), "{got} for {exact}");
        }

        #[test]
        fn any_order_and_any_split_give_the_same_sketch(
            values in prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 0..5000), split in 0usize..5000,
        ) {
            // More different magnitudes than are kept.
            let mut sorted = values.clone();
            sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
            let (left, right) = sorted.split_at(split.min(values.len()));
            let mut merged = sketch(left);
            merged.merge(&sketch(right));
            prop_assert_eq!(&merged, &sketch(&values));
            let mut other_way = sketch(right);
            other_way.merge(&sketch(left));
            prop_assert_eq!(&other_way, &merged);
            prop_assert_eq!(crate::record::decode(&crate::record::encode(&merged)), Ok(merged));
        }
    }

    #[test]
    fn counts_that_no_values_come_to_are_not_read() {
        let sketch = |buckets: Vec<(i32, u64)>, floors| {
            crate::record::decode::<Sketch>(&crate::record::encode(&Sketch { buckets, floors }))
        };
        assert!(sketch(vec![(-3, 1), (0, 1), (bucket(f64::MAX), u64::MAX)], (3, 0)).is_ok());
        assert!(sketch(vec![(3, 1), (0, 1)], (0, 0)).is_err(), "out of order");
        assert!(sketch(vec![(i32::MIN, 1)], (0, 0)).is_err(), "no value has this bucket");
        assert!(sketch(vec![(3, 1)], (0, -1)).is_err());
        let many = 1..=SKETCH_BUCKETS_MAX as i32 + 1;
        assert!(sketch(many.map(|bucket| (bucket, 1)).collect(), (0, 0)).is_err(), "more than are kept");
    }

    #[test]
    fn counts_beyond_all_numbers_are_the_greatest() {
        let mut sketch = Sketch { buckets: vec![(1, u64::MAX), (2, u64::MAX)], floors: (0, 0) };
        sketch.merge(&sketch.clone());
        assert_eq!(sketch.quantile(0.0), sketch.quantile(1.0));
    }

    #[test]
    fn an_empty_sketch_has_no_quantiles() {
        assert_eq!(Sketch::default().quantile(0.5), None);
    }
}
