//! The stages of one rule for one key.

use serde::{Deserialize, Serialize};

use super::{Operator, Phase};
use crate::time::{Span, Timestamp};

/// State of one (rule, key).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Slot {
    stage: Stage,
    /// When the condition began to hold, this time or, when inactive, the last time.
    since: Timestamp,
    peak: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Inactive,
    Pending,
    Firing,
}

/// A change of stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub phase: Phase,
    pub since: Timestamp,
    pub peak: f64,
}

/// Which of two values is the worse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worse {
    Greater,
    Less,
    /// Further from zero.
    Away,
}

/// The limit that raises and the one that ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    pub op: Operator,
    pub limit: f64,
    pub clear: Option<f64>,
}

impl Levels {
    pub fn hold(&self, value: f64, active: bool) -> bool {
        let limit = if active { self.clear.unwrap_or(self.limit) } else { self.limit };
        self.op.holds(value, limit)
    }

    pub fn worse(&self) -> Worse {
        match self.op {
            Operator::Above | Operator::AtLeast => Worse::Greater,
            Operator::Below | Operator::AtMost => Worse::Less,
        }
    }

    /// Whether any of the values raises. Without an early exit, so that it runs several values per cycle.
    pub fn raised_by_any(&self, values: &[f64]) -> bool {
        let limit = self.limit;
        match self.op {
            Operator::Above => values.iter().fold(false, |any, v| any | (*v > limit)),
            Operator::AtLeast => values.iter().fold(false, |any, v| any | (*v >= limit)),
            Operator::Below => values.iter().fold(false, |any, v| any | (*v < limit)),
            Operator::AtMost => values.iter().fold(false, |any, v| any | (*v <= limit)),
        }
    }
}

impl Worse {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Worse::Greater => a.max(b),
            Worse::Less => a.min(b),
            Worse::Away if b.abs() > a.abs() => b,
            Worse::Away => a,
        }
    }
}

impl Default for Slot {
    fn default() -> Slot {
        Slot { stage: Stage::Inactive, since: Timestamp::MIN, peak: 0.0 }
    }
}

impl Slot {
    /// Whether the condition held when it was last judged.
    pub fn is_active(&self) -> bool {
        self.stage != Stage::Inactive
    }

    /// Whether there is anything in it that must not be forgotten.
    pub fn is_used(&self) -> bool {
        *self != Slot::default()
    }

    /// Takes in that at `at` the condition held or did not, with `value`.
    pub fn judge(&mut self, at: Timestamp, holds: bool, value: f64, hold: Span, worse: Worse) -> Option<Step> {
        if !holds {
            return self.end(value, worse);
        }
        match self.stage {
            Stage::Inactive => {
                self.since = self.fresh(at);
                self.peak = value;
                self.stage = if hold > Span::ZERO { Stage::Pending } else { Stage::Firing };
                let phase = if hold > Span::ZERO { Phase::Pending } else { Phase::Firing };
                Some(self.step(phase))
            }
            Stage::Pending => {
                self.peak = worse.of(self.peak, value);
                // A clock that was set back: the condition holds since now at the latest.
                self.since = self.since.min(at);
                // Within the microsecond by which `fresh` may have moved the beginning.
                if at.since(self.since) < Span(hold.0.saturating_sub(1_000)) {
                    return None;
                }
                self.stage = Stage::Firing;
                Some(self.step(Phase::Firing))
            }
            Stage::Firing => {
                self.peak = worse.of(self.peak, value);
                None
            }
        }
    }

    /// The condition does not hold any more, or is not watched any more.
    pub fn end(&mut self, value: f64, worse: Worse) -> Option<Step> {
        let phase = match self.stage {
            Stage::Inactive => return None,
            Stage::Pending => Phase::Withdrawn,
            Stage::Firing => Phase::Cleared,
        };
        self.stage = Stage::Inactive;
        self.peak = worse.of(self.peak, value);
        Some(self.step(phase))
    }

    /// A beginning that no earlier one has had: events of the same instant may raise, clear and raise again.
    fn fresh(&self, at: Timestamp) -> Timestamp {
        let instant = at.0..at.0.saturating_add(1_000);
        if instant.contains(&self.since.0) { Timestamp(self.since.0 + 1) } else { at }
    }

    fn step(&self, phase: Phase) -> Step {
        Step { phase, since: self.since, peak: self.peak }
    }
}
