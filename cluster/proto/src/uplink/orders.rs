//! What the cloud wants a site to run, and what became of it.
//!
//! An order is the whole of what the cloud gives: texts of definitions ([`Text`]) under one head. A text that came with an earlier order and is
//! not in this one is to go; what the site says itself under other names stays. The order that comes last counts. One that is in effect already
//! changes nothing, so that it can be said again to whoever comes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Texts of one order.
pub const TEXTS_MAX: usize = 1024;
/// Bytes of all its texts.
pub const TEXTS_BYTES_MAX: usize = 4 << 20;
/// What a site can be told to run, each kind after those that it builds on.
pub const KINDS: [&str; 4] = ["schemas", "device_types", "windows", "rules"];
/// Problems, and rules that are judged in the shadow, of one outcome; the rest is left out.
pub const PROBLEMS_MAX: usize = 64;
/// A rule that is judged without raising alerts has the name of the one beside it, and this.
pub const SHADOW: &str = "--shadow";

/// The definitions of a head, all of those that the cloud gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Names these definitions: [`head_of`] the texts. Empty when the cloud gives nothing.
    pub head: String,
    /// The rollout that brought it; 0 when the cloud gives nothing.
    pub number: u64,
    pub texts: Vec<Text>,
    /// This node is to write the texts. The others of its site get them from there, and say what became of them.
    #[serde(default)]
    pub write: bool,
}

/// A definition as `rules apply` takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Text {
    /// One of [`KINDS`].
    pub kind: String,
    pub name: String,
    pub text: String,
}

/// What became of an order at a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub number: u64,
    pub head: String,
    pub state: State,
    /// Why it was rejected.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What the site said itself under the same names, and what the order has taken the place of.
    #[serde(default)]
    pub replaced: Vec<String>,
    /// Alerts that began to fire at the node under the definitions that it works with.
    #[serde(default)]
    pub alerts: u64,
    /// Another number after each start of the node.
    #[serde(default)]
    pub boot: u64,
    /// How rules in the shadow were judged since the node started.
    #[serde(default)]
    pub shadow: Vec<Shadow>,
    /// A greater number when the node works with other definitions than before.
    #[serde(default)]
    pub definitions: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has come to the node.
    #[default]
    Received,
    /// The node works with it.
    Applied,
    /// It was not taken; what was there before holds.
    Rejected,
}

/// A rule beside one that it may take the place of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// The name of the one that raises alerts.
    pub rule: String,
    pub fired_old: u64,
    pub fired_new: u64,
    /// Raisings of the one during which the other did not fire.
    pub only_old: u64,
    pub only_new: u64,
}

impl Order {
    /// Whether a site can do what it says: texts of known kinds, each once, and not too many.
    pub fn is_sound(&self) -> bool {
        let names: BTreeSet<(&str, &str)> =
            self.texts.iter().map(|text| (text.kind.as_str(), text.name.as_str())).collect();
        self.texts.len() <= TEXTS_MAX
            && names.len() == self.texts.len()
            && self.texts.iter().all(|text| KINDS.contains(&text.kind.as_str()) && !text.name.is_empty())
            && self.texts.iter().map(|text| text.text.len()).sum::<usize>() <= TEXTS_BYTES_MAX
    }
}

impl State {
    pub fn name(self) -> &'static str {
        ["received", "applied", "rejected"][self as usize]
    }
}

/// The name of these texts, whatever order they come in: 16 hexadecimal digits, and nothing for no texts.
pub fn head_of(texts: &[Text]) -> String {
    if texts.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<&Text> = texts.iter().collect();
    sorted.sort();
    let mut hasher = blake3::Hasher::new();
    for part in sorted.iter().flat_map(|text| [&text.kind, &text.name, &text.text]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
