//! What is promised, by the names under which it is checked.

use serde::{Deserialize, Serialize};

/// See `docs/architecture.md` for what each means to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// What was acknowledged is stored as it was sent; or a dead letter, a receipt or a ledger says where it went.
    NothingLost,
    /// No reading is stored twice.
    NothingTwice,
    /// Panes are what the simplest model makes of the stored records, and no event is late without a reason.
    PanesAgree,
    /// Memory, queues and disk stay within their limits.
    StaysBounded,
    /// Each alert is told once by identity, in order, and none is missing.
    AlertsOnce,
    /// A node that says it is ready takes events; one that cannot says so.
    HealthIsHonest,
}

impl Promise {
    pub const ALL: [Promise; 6] = [
        Promise::NothingLost,
        Promise::NothingTwice,
        Promise::PanesAgree,
        Promise::StaysBounded,
        Promise::AlertsOnce,
        Promise::HealthIsHonest,
    ];

    pub fn all() -> Vec<Promise> {
        Promise::ALL.to_vec()
    }

    pub fn name(self) -> &'static str {
        match self {
            Promise::NothingLost => "nothing_lost",
            Promise::NothingTwice => "nothing_twice",
            Promise::PanesAgree => "panes_agree",
            Promise::StaysBounded => "stays_bounded",
            Promise::AlertsOnce => "alerts_once",
            Promise::HealthIsHonest => "health_is_honest",
        }
    }
}

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// `None`: the run itself failed, by a panic or because less happened than the scenario expects.
    pub promise: Option<Promise>,
    pub node: String,
    /// What exactly, with an example.
    pub detail: String,
}
