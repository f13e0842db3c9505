//! What a user says of a rule.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Span;

/// A condition that raises an alert for each device (or window key) for which it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// Name of the rule: letters, digits, `-` and `_`. Alerts are at `alerts/{name}/{device}` (MQTT) and `/v1/alerts` (HTTP).
    pub name: String,
    /// What must hold, as a table with `type`: `threshold`, `rate`, `silence`, `window`, `zscore` or `expression`.
    pub when: Condition,
    /// How long it must hold, in event time, before the alert fires. Default: 0s.
    #[serde(default, rename = "for")]
    pub hold: Span,
    /// `info`, `warning` or `critical`. Default: `warning`.
    #[serde(default)]
    pub severity: Severity,
    /// Only devices of these types; empty means all. Default: empty.
    #[serde(default)]
    pub device_types: Vec<String>,
    /// No second notification of the same device and rule within this time. Default: 5m.
    #[serde(default = "default_quiet")]
    pub quiet: Span,
    /// Text of the notification; `{device}`, `{rule}`, `{value}` and `{metric}` are filled in. Default: made from the condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// More facts for the notification: names and CEL expressions on the event, e.g. `{ overload = "current / rated" }`. Default: none.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub enrich: std::collections::BTreeMap<String, String>,
    /// The rule is judged and raises no alerts; how often it would have is counted beside the rule whose name it has without `--shadow` at its
    /// end. `millpond apply` gives a rule in the shadow that name and keeps the one that it may take the place of. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
}

/// When a rule's condition holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Condition {
    /// `metric op value`. With `clear` the condition ends only when the metric has come back past it (hysteresis).
    Threshold {
        /// Name of the metric.
        metric: String,
        /// How the value is compared: `>`, `>=`, `<` or `<=`.
        op: Operator,
        /// The limit.
        value: f64,
        /// Where the value must come back to before the condition ends. Default: the limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear: Option<f64>,
    },
    /// The change of `metric` per second, from one event of the device to its next.
    Rate {
        /// Name of the metric.
        metric: String,
        /// How the value is compared: `>`, `>=`, `<` or `<=`.
        op: Operator,
        /// The limit, in units of the metric per second.
        per_second: f64,
        /// Where the value must come back to before the condition ends. Default: the limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear: Option<f64>,
    },
    /// Nothing was received from the device for `after`.
    Silence {
        /// How long nothing came, by the node's clock.
        after: Span,
    },
    /// An aggregate of a window's pane, named as in the pane: `mean`, `max`, `count`, `p99` …
    Window {
        /// Name of the window.
        window: String,
        /// Name of the metric.
        metric: String,
        /// Name of the aggregate as in the pane; the window must compute it.
        aggregate: String,
        /// How the value is compared: `>`, `>=`, `<` or `<=`.
        op: Operator,
        /// The limit.
        value: f64,
        /// Where the value must come back to before the condition ends. Default: the limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clear: Option<f64>,
    },
    /// `metric` is more than `limit` standard deviations from its mean over about the last `samples` events of the device.
    Zscore {
        /// Name of the metric.
        metric: String,
        /// Standard deviations.
        limit: f64,
        /// From 10 to 100000. Default: 300.
        #[serde(default = "default_samples")]
        samples: u32,
    },
    /// A CEL expression on the event: `temperature > 80.0 && state == "running"`; `device`, `device_type` and `ts` (epoch ms) are known too.
    Expression {
        /// The condition.
        expr: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    #[serde(rename = ">")]
    Above,
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = "<")]
    Below,
    #[serde(rename = "<=")]
    AtMost,
}

impl Operator {
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Operator::Above => value > limit,
            Operator::AtLeast => value >= limit,
            Operator::Below => value < limit,
            Operator::AtMost => value <= limit,
        }
    }

    pub fn symbol(self) -> &'static str {
        match self {
            Operator::Above => ">",
            Operator::AtLeast => ">=",
            Operator::Below => "<",
            Operator::AtMost => "<=",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    #[default]
    Warning,
    Critical,
}

fn default_quiet() -> Span {
    Span::from_secs(300)
}

fn default_samples() -> u32 {
    300
}
