//! What the kinds of conditions remember of each device, and how they judge its next event.

use serde::{Deserialize, Serialize};

use super::{
    RATE_DISORDER, RuleSpec,
    phase::{Levels, Worse},
    spec::Condition,
};
use crate::{
    expr::Expr,
    time::{Span, Timestamp},
};

/// The condition of a rule, ready to judge.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Threshold(Levels),
    Rate(Levels),
    Zscore(Zscore),
    Expression(Expr),
    Silence { after: Span },
}

impl Test {
    /// `None` for conditions on windows, and for expressions that do not compile (which [`super::problems`] reports).
    pub fn new(spec: &RuleSpec) -> Option<Test> {
        Some(match &spec.when {
            Condition::Threshold { op, value, clear, .. } => {
                Test::Threshold(Levels { op: *op, limit: *value, clear: *clear })
            }
            Condition::Rate { op, per_second, clear, .. } => {
                Test::Rate(Levels { op: *op, limit: *per_second, clear: *clear })
            }
            Condition::Zscore { limit, samples, .. } => Test::Zscore(Zscore::new(*limit, *samples)),
            Condition::Expression { expr } => Test::Expression(Expr::compile(expr).ok()?),
            Condition::Silence { after } => Test::Silence { after: *after },
            Condition::Window { .. } => return None,
        })
    }

    pub fn worse(&self) -> Worse {
        match self {
            Test::Threshold(levels) | Test::Rate(levels) => levels.worse(),
            Test::Zscore(_) => Worse::Away,
            Test::Expression(_) | Test::Silence { .. } => Worse::Greater,
        }
    }
}

/// The last event of a device, for its rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Previous {
    at: Timestamp,
    value: f64,
}

impl Default for Previous {
    fn default() -> Previous {
        Previous { at: Timestamp::MIN, value: f64::NAN }
    }
}

impl Previous {
    /// The change per second since the event before; `None` for the first event, and for one that is out of order.
    pub fn rate(&mut self, at: Timestamp, value: f64) -> Option<f64> {
        let before = *self;
        if at <= before.at && before.at.since(at) <= RATE_DISORDER {
            return None;
        }
        *self = Previous { at, value };
        if before.at == Timestamp::MIN || at < before.at {
            return None;
        }
        Some((value - before.value) / at.since(before.at).as_secs_f64())
    }
}

/// Deviation from the recent mean, in standard deviations.
///
/// Mean and variance are exponentially weighted with α = 2 / (samples + 1), so that about the last `samples` events count
/// (plain averages before there are so many; Finch, "Incremental calculation of weighted mean and variance", 2009). A value
/// outside the limit enters the estimate only as the limit: one outlier does not hide the next, while a lasting change
/// widens the variance event by event until it is the new normal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Zscore {
    pub limit: f64,
    alpha: f64,
    /// Events before the first judgement.
    learning: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Estimate {
    events: u32,
    mean: f64,
    variance: f64,
}

impl Zscore {
    fn new(limit: f64, samples: u32) -> Zscore {
        Zscore { limit, alpha: 2.0 / (f64::from(samples) + 1.0), learning: (samples / 3).max(10) }
    }

    /// The z-score of a value against the events before it, `None` while there are too few; then learns the value.
    pub fn score(&self, estimate: &mut Estimate, value: f64) -> Option<f64> {
        if !value.is_finite() {
            return None;
        }
        let mut delta = value - estimate.mean;
        let mut score = None;
        if estimate.events >= self.learning {
            // A signal that never moved has no deviation; the least one is what a double can tell from its mean.
            let deviation = estimate.variance.sqrt().max(estimate.mean.abs() * 1e-9).max(1e-12);
            score = Some(delta / deviation);
            let most = self.limit.min(3.0) * deviation;
            delta = delta.clamp(-most, most);
        }
        estimate.events = estimate.events.saturating_add(1);
        let weight = self.alpha.max(1.0 / f64::from(estimate.events));
        estimate.mean += weight * delta;
        estimate.variance = (1.0 - weight) * (estimate.variance + weight * delta * delta);
        score
    }
}
