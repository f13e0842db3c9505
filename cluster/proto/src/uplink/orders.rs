//! What the cloud wants a site to run, and what became of it.
//!
//! Orders are texts of definitions ([`Text`]) under one head. They come again until the site says that they are in effect or why not; one that
//! is in effect already changes nothing.

use serde::{Deserialize, Serialize};

/// Texts of one order.
pub const TEXTS_MAX: usize = 1024;

/// The definitions of a head, all of those that the cloud gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Names these definitions: the hash of their texts.
    pub head: String,
    /// Counts the orders of this site; a later one replaces an earlier one.
    pub number: u64,
    pub texts: Vec<Text>,
    /// Texts that an earlier order gave and this one does not, by kind and name.
    #[serde(default)]
    pub removed: Vec<(String, String)>,
}

/// A definition as `rules apply` takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Text {
    /// `rules`, `windows`, `schemas`, `device_types` or `configuration`.
    pub kind: String,
    pub name: String,
    pub text: String,
}

/// What became of an order at a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub number: u64,
    pub head: String,
    pub state: State,
    /// Why it was rejected.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Alerts that began to fire at the site since the order took effect.
    #[serde(default)]
    pub alerts: u64,
    /// Times that the node has started since then.
    #[serde(default)]
    pub starts: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has come to the site.
    #[default]
    Received,
    /// The nodes that are up work with it.
    Applied,
    /// It was not taken; what was there before holds.
    Rejected,
}
