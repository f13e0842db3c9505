//! What may leave over a line that is thin or paid for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{problem::SpecProblem, time::Span};

/// What may go over a line, either way, headers included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetSpec {
    /// Bytes per second, at least 100. Default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Bytes per day, by the wall clock; when they are used up only alerts and state leave until the next day. Default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u64>,
    /// What a byte counts for on a line that is paid for, from 1 to 100: rate and day are used up so many times as fast. Default: 1.
    pub metered: f64,
    /// Hours of the day in which events from before may leave, such as `22:00-05:30`. Default: always.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<String>,
    /// How far the clock of days and hours is ahead of UTC, such as `1h`; `-5h` where it is behind. Default: 0s.
    pub offset: Span,
}

impl Default for BudgetSpec {
    fn default() -> BudgetSpec {
        BudgetSpec { rate: None, per_day: None, metered: 1.0, schedule: Vec::new(), offset: Span::ZERO }
    }
}

impl BudgetSpec {
    /// The stretches of the day in which events from before may leave, in seconds; one that ends before it begins goes over midnight. None at
    /// all means always.
    pub fn hours(&self) -> Vec<(i64, i64)> {
        self.schedule.iter().filter_map(|text| hours_of(text)).collect()
    }

    /// What may leave on average in a second; `None` when there is no bound.
    pub fn bytes_per_second(&self) -> Option<f64> {
        let by_day = self.per_day.map(|bytes| bytes as f64 / 86_400.0);
        let by_rate = self.rate.map(|rate| rate as f64);
        let least = by_rate.into_iter().chain(by_day).reduce(f64::min)?;
        Some((least / self.metered.max(1.0)).max(0.001))
    }

    /// What is wrong with it, by its keys.
    pub fn problems(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        if self.rate.is_some_and(|rate| rate < 100) {
            problems.push(SpecProblem::new("rate", "is at least 100 bytes per second"));
        }
        if !(1.0..=100.0).contains(&self.metered) {
            problems.push(SpecProblem::new("metered", "is from 1 to 100"));
        }
        for (at, text) in self.schedule.iter().enumerate().filter(|(_, text)| hours_of(text).is_none()) {
            let problem = SpecProblem::new(format!("schedule[{at}]"), format!("`{text}` is no stretch of the day"));
            problems.push(problem.hint("for example 22:00-05:30"));
        }
        if self.offset.0.unsigned_abs() > 86_400_000_000_000 {
            problems.push(SpecProblem::new("offset", "is at most 24h"));
        }
        problems
    }
}

/// The seconds of the day of `HH:MM-HH:MM`; a stretch of no length is the whole day.
fn hours_of(text: &str) -> Option<(i64, i64)> {
    let time = |text: &str| {
        let (hours, minutes) = text.trim().split_once(':')?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        (hours <= 24 && minutes < 60 && hours * 60 + minutes <= 24 * 60).then_some((hours * 60 + minutes) * 60)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (time(from)?, time(to)?);
    Some(if from == to { (0, 86_400) } else { (from, to) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_stretches_of_a_day() {
        assert_eq!(hours_of("22:00-05:30"), Some((79_200, 19_800)));
        assert_eq!(hours_of("00:00-24:00"), Some((0, 86_400)));
        assert_eq!(hours_of("12:00-12:00"), Some((0, 86_400)));
        for text in ["", "22-23", "25:00-26:00", "24:01-01:00", "10:60-11:00", "+1:00-02:00", "10:00", ":-:"] {
            assert_eq!(hours_of(text), None, "{text}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        assert_eq!(BudgetSpec::default().problems(), []);
        let offset = Span::from_secs(-90_000);
        let bad =
            BudgetSpec { rate: Some(1), metered: f64::NAN, schedule: vec!["night".into()], offset, per_day: None };
        let places: Vec<String> = bad.problems().into_iter().map(|problem| problem.place).collect();
        assert_eq!(places, ["rate", "metered", "schedule[0]", "offset"]);
    }
}
