//! Mergeable aggregates of one metric.

use serde::{Deserialize, Serialize};

use super::{
    Aggregate, PaneMetric, WindowSpec,
    exact::{self, ExactSum},
    sketch::Sketch,
    wide::Wide,
};
use crate::time::Timestamp;

/// What is computed beyond count, sum, min and max.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wants {
    pub squares: bool,
    pub order: bool,
    pub sketch: bool,
}

impl Wants {
    pub fn of(spec: &WindowSpec) -> Wants {
        Wants {
            squares: spec.aggregates.contains(&Aggregate::Stddev),
            order: spec.aggregates.contains(&Aggregate::First) || spec.aggregates.contains(&Aggregate::Last),
            sketch: !spec.quantiles.is_empty(),
        }
    }

    pub fn any(self) -> bool {
        self.squares || self.order || self.sketch
    }
}

/// Partial aggregates of one metric. Merging is commutative and associative down to the last bit.
///
/// NaN and infinities are in no aggregate: they are counted in `skipped`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub count: u64,
    pub skipped: u64,
    pub sum: ExactSum,
    pub min: f64,
    pub max: f64,
    pub extra: Option<Box<Extra>>,
}

/// Aggregates that are kept only when the definition wants them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extra {
    pub squares: Wide,
    pub first: Mark,
    pub last: Mark,
    pub sketch: Sketch,
}

/// Event time, and the value's bits in an order that is total: of two values at the same time the lesser is the first.
type Mark = (i64, i64);

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            count: 0,
            skipped: 0,
            sum: ExactSum::default(),
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            extra: None,
        }
    }
}

impl Default for Extra {
    fn default() -> Extra {
        Extra {
            squares: Wide::default(),
            first: (i64::MAX, i64::MAX),
            last: (i64::MIN, i64::MIN),
            sketch: Sketch::default(),
        }
    }
}

impl Stats {
    pub fn add(&mut self, time: Timestamp, value: f64, wants: Wants) {
        if !value.is_finite() {
            self.skipped += 1;
            return;
        }
        self.count += 1;
        self.sum.add(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if wants.any() {
            self.extra.get_or_insert_default().add(time, value, wants);
        }
    }

    pub fn merge(&mut self, other: &Stats) {
        self.count = self.count.saturating_add(other.count);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.sum.merge(&other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if let Some(more) = &other.extra {
            self.extra.get_or_insert_default().merge(more);
        }
    }

    /// Neither a value nor a skipped one.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.skipped == 0
    }

    /// The aggregates that `spec` asks for.
    pub fn report(&self, name: &str, spec: &WindowSpec) -> PaneMetric {
        let mut metric =
            PaneMetric { name: name.to_owned(), count: self.count, skipped: self.skipped, ..PaneMetric::default() };
        if self.count == 0 {
            return metric;
        }
        let sum = self.sum.value();
        for aggregate in &spec.aggregates {
            match aggregate {
                Aggregate::Count => {}
                Aggregate::Sum => metric.sum = Some(unsigned_zero(sum)),
                Aggregate::Min => metric.min = Some(unsigned_zero(self.min)),
                Aggregate::Max => metric.max = Some(unsigned_zero(self.max)),
                Aggregate::Mean => metric.mean = Some(unsigned_zero(sum / self.count as f64)),
                Aggregate::Stddev => metric.stddev = self.stddev(),
                Aggregate::First => metric.first = self.extra.as_ref().map(|extra| value_of_order(extra.first.1)),
                Aggregate::Last => metric.last = self.extra.as_ref().map(|extra| value_of_order(extra.last.1)),
            }
        }
        if let Some(extra) = &self.extra {
            let quantile = |q: &f64| extra.sketch.quantile(*q).map(|value| (*q, value.max(self.min).min(self.max)));
            metric.quantiles = spec.quantiles.iter().filter_map(quantile).collect();
        }
        metric
    }

    fn stddev(&self) -> Option<f64> {
        exact::variance(self.count, &self.sum, &self.extra.as_ref()?.squares).map(f64::sqrt)
    }
}

impl Extra {
    pub fn add(&mut self, time: Timestamp, value: f64, wants: Wants) {
        if wants.squares {
            let (square, rest) = exact::two_square(value);
            self.squares.add(square);
            self.squares.add(rest);
        }
        if wants.order {
            let mark = (time.0, order_of_value(value));
            self.first = self.first.min(mark);
            self.last = self.last.max(mark);
        }
        if wants.sketch {
            self.sketch.add(value);
        }
    }

    pub fn merge(&mut self, other: &Extra) {
        self.squares.merge(&other.squares);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.sketch.merge(&other.sketch);
    }
}

/// Which of 0 and −0 is the least depends on who came first: both are reported as 0.
fn unsigned_zero(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value }
}

/// The bits of a value as a number that orders as [`f64::total_cmp`] does.
fn order_of_value(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

fn value_of_order(order: i64) -> f64 {
    f64::from_bits((order ^ (((order >> 63) as u64) >> 1) as i64) as u64)
}
