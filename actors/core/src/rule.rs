//! Rules: conditions on events, on silence and on windows.
//!
//! A rule is judged for each *key* by itself: a device, or the key of a pane. [`RuleBook`] judges the rules on events and on
//! silence in a shard, [`PaneRules`] those on a window beside its panes. Both say only what changes, as [`Signal`]s; what
//! becomes of a signal is the business of [`crate::alert`].
//!
//! For each rule and key there are three stages:
//!
//! ```text
//!            holds                      holds at since + `for`
//! inactive ─────────► pending since t ─────────────────────────► firing
//!     ▲                    │ Withdrawn                             │ Cleared
//!     └────────────────────┴───────────── does not hold ───────────┘
//! ```
//!
//! Invariants
//! 1. Signals of one rule and key alternate: `Pending`? `Firing` `Cleared`, or `Pending` `Withdrawn`. After a recovery a
//!    stretch of them may be said again, each with the `since` it had.
//! 2. Two raisings of one rule and key have different `since`.
//! 3. What is said depends on the events and their order only, never on when they are judged. Silence is the exception: it
//!    is about time of receipt.
//!
//! Clocks: event time for everything but silence, which believes the node's. Events are judged in the order of the
//! journal, not of event time: a device whose clock was set back must not lose its alerts until the clock has caught up.
//! Only the rate needs order; it skips events up to [`RATE_DISORDER`] behind and starts anew at those further behind.
//! A value that is NaN is no value.
//!
//! Limits: state grows with the devices of the shard (32 bytes for each rule that was ever raised for a device, 16 more for
//! a rate, 24 for a z-score), and stops at [`RULE_KEYS_MAX`](crate::limits::RULE_KEYS_MAX) keys per rule for windows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::{Span, Timestamp};

mod book;
mod check;
mod judge;
mod pane;
mod phase;
pub mod spec;
pub mod tally;
mod watch;

pub use book::{LoadError, RuleBook};
pub use check::problems;
pub use pane::PaneRules;
pub use spec::{Condition, Operator, RuleSpec, Severity};
pub use tally::{SHADOW, Tally};
pub use watch::RuleCounters;

/// How far behind its predecessor an event may be and still be taken for one that was overtaken on its way.
pub const RATE_DISORDER: Span = Span::from_secs(60);

/// A rule's condition changed for one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    pub rule: Arc<str>,
    /// The device, or the key of the pane.
    pub key: Arc<str>,
    pub phase: Phase,
    /// Time of the event that changed it; time of receipt for silence; end of the pane for a window.
    pub at: Timestamp,
    /// When the condition began to hold. Together with rule and key it names the raising, for ever.
    pub since: Timestamp,
    /// What `value` is about: the metric; for an expression its first metric that is a number.
    pub metric: Arc<str>,
    /// What was judged: the metric, its rate per second, its z-score, the aggregate, the seconds of silence, or for an
    /// expression its first metric that is a number (1 and 0 when it has none).
    pub value: f64,
    /// The worst value since `since`.
    pub peak: f64,
    /// What the rule's enrichment came to. Only when firing.
    pub facts: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It holds, but not yet for as long as the rule wants.
    Pending,
    Firing,
    /// It fired, and does not hold any more.
    Cleared,
    /// It was pending, and does not hold any more.
    Withdrawn,
}

#[cfg(test)]
mod tests;
