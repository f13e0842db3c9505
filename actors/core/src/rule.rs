//! Rules: conditions on events, on silence and on windows.

pub mod spec;

pub use spec::{Condition, Operator, RuleSpec, Severity};
