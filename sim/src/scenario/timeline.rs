//! From "every thirty seconds or so" to a list of what happens when: a function of scenario and seed.

use rand::{RngExt, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::{Range, Scenario, fault::Fault};

/// A fault that happens: nothing in it is left to chance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Injection {
    /// Nanoseconds since the beginning.
    pub at_ns: u64,
    /// For a loss of power in the middle of a commit: after how many operations of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<u64>,
    pub fault: Fault,
}

/// Disk operations of a commit, about: one of them is the one at which the power goes.
const OPERATIONS: std::ops::Range<u64> = 1..30;

/// In the order of time.
pub fn timeline(scenario: &Scenario, rng: &mut StdRng) -> Vec<Injection> {
    let end = scenario.duration.0.max(0) as u64;
    let mut all = Vec::new();
    for scheduled in &scenario.faults {
        let when = &scheduled.when;
        let until = when.until.map_or(end, |until| until.0.max(0) as u64).min(end);
        let mut at = when.from.map_or(0, |from| from.0.max(0) as u64);
        if let Some(once) = when.at {
            all.push(injection(once.draw(rng).0.max(0) as u64, &scheduled.fault, rng));
        }
        while let Some(every) = when.every {
            at += every.draw(rng).0.max(1) as u64;
            if at >= until {
                break;
            }
            all.push(injection(at, &scheduled.fault, rng));
        }
    }
    all.retain(|injection| injection.at_ns < end);
    all.sort_by_key(|injection| injection.at_ns);
    all
}

fn injection(at_ns: u64, fault: &Fault, rng: &mut StdRng) -> Injection {
    let mut fault = fault.clone();
    let mut fix = |range: &mut Range| *range = Range::exactly(range.draw(rng));
    if let Some(range) = fault.lasts_mut() {
        fix(range);
    }
    if let Fault::ClockStep { ahead, back, .. } = &mut fault {
        fix(ahead);
        fix(back);
    }
    let mid_commit = matches!(fault, Fault::PowerLoss { mid_commit: true, .. });
    Injection { at_ns, operations: mid_commit.then(|| rng.random_range(OPERATIONS)), fault }
}
