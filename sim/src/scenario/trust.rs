//! What boxes of one site let another site have.

use millpond_core::{budget::BudgetSpec, record::Class};
use serde::{Deserialize, Serialize};

/// Another site with which a box exchanges records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSpec {
    pub site: String,
    /// What its boxes may have.
    pub classes: Vec<Class>,
    /// Of which devices, as patterns. Default: all.
    #[serde(default = "all_devices")]
    pub devices: Vec<String>,
    /// Boxes of the other site from which this one fetches what it may have. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Delivers the records of its own site, as far as they may leave, to the node of that site that is one of a cloud. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uplink: bool,
    /// What the line to the cloud may be used for. Default: whatever it carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetSpec>,
}

fn all_devices() -> Vec<String> {
    vec!["*".to_owned()]
}
