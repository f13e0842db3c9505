//! Which mask is on what, and the tokens.

use std::cmp::Reverse;

use millpond_core::schema::Pattern;

use super::{How, Mask, Masks};

/// Domain of the tokens' keys.
const CONTEXT: &str = "millpond 2026 tokens of masked values v1";
/// Bytes of a digest that a token shows.
const TOKEN_BYTES: usize = 16;

/// What is done with a metric of a device, the strictest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Keep,
    Round(Reverse<i8>),
    Token,
    Drop,
}

/// Whose value it is.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    Device(&'a str),
    /// Of several devices, or of one that is not known.
    Group,
}

/// The masks, ready for use.
pub struct Masking {
    pub rules: Vec<Rule>,
    key: [u8; 32],
}

pub struct Rule {
    devices: Vec<Pattern>,
    metrics: Vec<Pattern>,
    pub act: Act,
    device: bool,
}

impl Masking {
    /// `None` when nothing is masked.
    pub fn new(masks: &Masks) -> Option<Masking> {
        let rules: Vec<Rule> = masks.masks.iter().map(Rule::new).collect();
        (!rules.is_empty()).then(|| Masking { rules, key: blake3::derive_key(CONTEXT, &masks.secret) })
    }

    pub fn act(&self, who: Who<'_>, metric: &str) -> Act {
        let acts = self.rules.iter().filter(|rule| rule.concerns(who) && rule.has_metric(metric)).map(|rule| rule.act);
        acts.max().unwrap_or(Act::Keep)
    }

    /// Whether any metric is masked.
    pub fn concerns(&self, who: Who<'_>) -> bool {
        self.rules.iter().any(|rule| !rule.metrics.is_empty() && rule.concerns(who))
    }

    /// What stands in the place of a device's name, when it may not leave.
    pub fn name(&self, device: &str) -> Option<String> {
        let hidden = self.rules.iter().any(|rule| rule.device && rule.concerns(Who::Device(device)));
        hidden.then(|| self.token(device.as_bytes()))
    }

    pub fn token(&self, value: &[u8]) -> String {
        let digest = blake3::keyed_hash(&self.key, value);
        let hex = digest.as_bytes()[..TOKEN_BYTES].iter().map(|byte| format!("{byte:02x}"));
        ["t-".to_owned()].into_iter().chain(hex).collect()
    }
}

impl Rule {
    fn new(mask: &Mask) -> Rule {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        let act = match mask.how {
            How::Drop => Act::Drop,
            How::Token => Act::Token,
            How::Round => Act::Round(Reverse(mask.digits.unwrap_or(0))),
        };
        Rule { devices: patterns(&mask.devices), metrics: patterns(&mask.metrics), act, device: mask.device }
    }

    pub fn concerns(&self, who: Who<'_>) -> bool {
        match who {
            Who::Device(name) => self.devices.iter().any(|pattern| pattern.matches(name)),
            Who::Group => true,
        }
    }

    pub fn has_metric(&self, metric: &str) -> bool {
        self.metrics.iter().any(|pattern| pattern.matches(metric))
    }
}
