//! Results with less precision, for those who may not see all of it.

use super::{PaneMetric, PartMetric, Stats, exact::ExactSum};
use crate::value::rounded;

impl PaneMetric {
    /// All aggregates but the counts to so many digits behind the point, or before it when negative.
    pub fn rounded(self, digits: i8) -> PaneMetric {
        let round = |value: Option<f64>| value.map(|value| rounded(value, digits));
        PaneMetric {
            sum: round(self.sum),
            min: round(self.min),
            max: round(self.max),
            mean: round(self.mean),
            stddev: round(self.stddev),
            first: round(self.first),
            last: round(self.last),
            quantiles: self.quantiles.into_iter().map(|(q, value)| (q, rounded(value, digits))).collect(),
            ..self
        }
    }
}

impl PartMetric {
    /// Partial aggregates of as little precision. What cannot be rounded is not in them: merged with others they give no quantiles, no
    /// standard deviation, no first and no last value.
    pub fn rounded(&self, digits: i8) -> PartMetric {
        let Stats { count, skipped, sum, min, max, .. } = &self.stats;
        let mut coarse = ExactSum::default();
        coarse.add(rounded(sum.value(), digits));
        let (min, max) = (rounded(*min, digits), rounded(*max, digits));
        let stats = Stats { count: *count, skipped: *skipped, sum: coarse, min, max, extra: None };
        PartMetric { name: self.name.clone(), stats }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{time::Timestamp, window::stats::Wants};

    #[test]
    fn nothing_but_counts_keeps_its_digits() {
        let mut stats = Stats::default();
        for value in [1.26, 2.51, 7.77] {
            stats.add(Timestamp(1), value, Wants { squares: true, order: true, sketch: true });
        }
        let part = PartMetric { name: "t".into(), stats }.rounded(0);
        assert_eq!((part.stats.count, part.stats.sum.value(), part.stats.min, part.stats.max), (3, 12.0, 1.0, 8.0));
        assert_eq!(part.stats.extra, None);
        let metric = PaneMetric { count: 3, sum: Some(11.54), quantiles: vec![(0.55, 2.51)], ..PaneMetric::default() };
        let metric = metric.rounded(0);
        assert_eq!((metric.count, metric.sum, metric.mean, metric.quantiles), (3, Some(12.0), None, vec![(0.55, 3.0)]));
    }
}
