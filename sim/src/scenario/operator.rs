//! People who change what a site says: what devices should be, what they are called, rules.

use serde::{Deserialize, Serialize};

use super::range::Range;
use millpond_core::time::Span;

/// Somebody who changes one thing after the other, by HTTP, at any of some nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorSpec {
    /// First part of the names of the devices and rules that are changed: two operators of different names change different ones. Default:
    /// `operator`.
    #[serde(default = "default_name")]
    pub name: String,
    /// Nodes of a site; each change goes to one of them.
    pub nodes: Vec<String>,
    /// Pause before each change. Default: 0.5s to 2s.
    #[serde(default = "default_every")]
    pub every: Range,
    /// What is changed. Default: everything.
    #[serde(default = "What::all")]
    pub changes: Vec<What>,
    /// Devices (and rules) whose things are changed. Default: 4.
    #[serde(default = "default_devices")]
    pub devices: u32,
    /// Keys of each. Default: 3.
    #[serde(default = "default_keys")]
    pub keys: u32,
}

/// What can be changed by name and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// What a device should be.
    Desired,
    /// What a device says it is.
    Reported,
    /// What is said of a device; it has one key.
    Registry,
    /// A rule; it has one key.
    Rules,
}

impl What {
    pub const ALL: [What; 4] = [What::Desired, What::Reported, What::Registry, What::Rules];

    pub fn all() -> Vec<What> {
        What::ALL.to_vec()
    }

    pub fn name(self) -> &'static str {
        match self {
            What::Desired => "desired",
            What::Reported => "reported",
            What::Registry => "registry",
            What::Rules => "rules",
        }
    }
}

fn default_name() -> String {
    "operator".to_owned()
}

fn default_every() -> Range {
    Range(Span::from_millis(500), Span::from_secs(2))
}

fn default_devices() -> u32 {
    4
}

fn default_keys() -> u32 {
    3
}
