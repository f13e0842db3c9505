//! What a user says of device types and their schemas.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::ValueType;

/// Devices whose names match belong to the type. The first type in the file that matches wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceTypeSpec {
    /// Name of the type: letters, digits, `-` and `_`.
    pub name: String,
    /// Patterns of device names with `*` for any run of characters, such as `press-*`.
    pub devices: Vec<String>,
    /// Name of the schema that events of these devices must satisfy. Default: none, everything is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

/// A versioned description of events. A change must be compatible or be given a new name: metrics may be added, ranges widened;
/// types and units stay, and an optional metric never becomes required.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaSpec {
    /// Name of the schema: letters, digits, `-` and `_`.
    pub name: String,
    /// Version, from 1; raised with each change.
    pub version: u32,
    /// Metrics by name.
    pub metrics: BTreeMap<String, MetricSpec>,
    /// Whether events may carry metrics that are not listed. Default: true.
    #[serde(default = "default_true")]
    pub additional: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricSpec {
    /// `f64`, `i64`, `bool`, `text` or `bytes`.
    #[serde(rename = "type")]
    pub value_type: ValueType,
    /// Unit, as in `Cel`, `bar`, `mm/s`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Least value that is accepted. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Greatest value that is accepted. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Whether each event must have it. Default: false.
    #[serde(default)]
    pub required: bool,
}

fn default_true() -> bool {
    true
}
