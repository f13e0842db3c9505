//! Definitions that somebody gives a cloud for its sites.

use std::collections::BTreeMap;

use millpond_core::time::Span;
use serde::{Deserialize, Serialize};

use super::range::Range;

/// A set of rules that goes to all sites of a cloud, to one of them first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// The node of the cloud that is told.
    pub node: String,
    pub at: Range,
    /// The site that gets it first. Default: the cloud chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// How long it is watched. Default: 30s.
    #[serde(default = "default_watch")]
    pub watch: Span,
    /// Alerts that the first site may raise in a minute. Default: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_alert_rate: Option<f64>,
    /// Name and text of each rule; the set is the whole of what the sites get.
    pub rules: BTreeMap<String, String>,
    pub ends: Ends,
}

/// What must become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// All sites work with it.
    Done,
    /// It comes back from its first site, with a reason.
    Returned,
}

impl Ends {
    pub fn name(self) -> &'static str {
        match self {
            Ends::Done => "done",
            Ends::Returned => "returned",
        }
    }
}

fn default_watch() -> Span {
    Span::from_secs(30)
}
