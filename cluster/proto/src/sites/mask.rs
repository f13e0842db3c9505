//! What another site may have only in part: metrics that are dropped, replaced or rounded, and names of devices that are replaced.
//!
//! | how | of a masked metric |
//! |---|---|
//! | `drop` | nothing leaves |
//! | `token` | text and bytes leave as a token that nobody can turn back: the same for the same value, another one for each site that is trusted. Numbers do not leave |
//! | `round` | numbers leave to so many digits; text, bytes and truth values do not leave |
//!
//! With `device` the names of the devices are replaced by tokens too, wherever a record says one. When several masks are on one metric of a
//! device the strictest holds: `drop`, then `token`, then the fewest digits.
//!
//! Where a value shows in other ways it is masked there as well: in panes, late events and alerts. A pane of a group is computed from all
//! of its devices, so it is masked when any of them is. Partial aggregates cannot be replaced, and rounded ones are coarse. Of an alert
//! on a masked metric nothing but its times is left; its facts, which may be computed from any metric, stay when its device has any
//! mask. A twin's properties stay when a part of their path is named like a masked metric. What cannot be read stays.
//!
//! What a mask does not hide: that there was an event and when, that an alert fired, and values from which a masked one can be computed.

mod act;
mod block;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use millpond_core::{
    alert::Alert,
    block::Decoder,
    record::{self, Home, LeftOut, RecordKind},
    window::{LateEvent, Pane},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(super) use self::act::Masking;
use self::act::{Act, Who};
use super::terms::{ByDevice, KeyOf, all_devices};
use crate::{twin::Reported, wire::Record};

/// Digits behind the point that a mask may leave, or take before it.
pub const DIGITS_MAX: i8 = 12;

/// One mask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Patterns of device names, with `*` for any run of characters.
    #[serde(default = "all_devices")]
    pub devices: Vec<String>,
    /// Patterns of names of metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<String>,
    pub how: How,
    /// For `round`: digits behind the point, before it when negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digits: Option<i8>,
    /// For `token`: also the names of the devices.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub device: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    Drop,
    Token,
    Round,
}

impl Mask {
    /// What is wrong with it.
    pub fn problem(&self) -> Option<String> {
        let digits = self.digits.unwrap_or(0);
        let wrong = if self.metrics.is_empty() && !self.device {
            "a mask names `metrics`"
        } else if self.device && self.how != How::Token {
            "names of devices can only be replaced: `device` goes with how = \"token\""
        } else if self.digits.is_some() && self.how != How::Round {
            "`digits` goes with how = \"round\""
        } else if !(-DIGITS_MAX..=DIGITS_MAX).contains(&digits) {
            "`digits` is from -12 to 12"
        } else {
            return None;
        };
        Some(wrong.to_owned())
    }
}

/// The masks on what a site may have.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Masks {
    pub masks: Vec<Mask>,
    /// What tokens are made with. Who knows it can find out whether a token stands for a text; without it nobody can.
    pub secret: [u8; 32],
}

impl Masks {
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// Whether a secret is needed.
    pub fn has_tokens(&self) -> bool {
        self.masks.iter().any(|mask| mask.how == How::Token)
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.masks).finish()
    }
}

/// What becomes of a part of a record.
enum Masked<T> {
    Same(T),
    Changed(T),
    Gone,
}

impl Masking {
    /// What may leave of a record that may leave otherwise.
    pub fn record(&self, record: Record, by_device: &ByDevice, decoder: &mut Decoder) -> Option<Record> {
        match record.kind {
            RecordKind::Events => self.block(record, decoder),
            RecordKind::Panes => list(record, |pane| self.pane(pane, by_device)),
            RecordKind::Alerts => list(record, |alert| self.alert(alert, by_device)),
            RecordKind::Late => list(record, |event| self.late(event)),
            RecordKind::Homes => list(record, |home: Home| match self.name(&home.device) {
                Some(device) => Masked::Changed(Home { device, ..home }),
                None => Masked::Same(home),
            }),
            RecordKind::LeftOut => list(record, |left: LeftOut| match self.name(&left.device) {
                Some(device) => Masked::Changed(LeftOut { device, ..left }),
                None => Masked::Same(left),
            }),
            RecordKind::Twin => list(record, |twin| self.twin(twin)),
            RecordKind::DropRange => Some(record),
        }
    }

    fn pane(&self, pane: Pane, by_device: &ByDevice) -> Masked<Pane> {
        let key = by_device.key_of_pane(&pane.window, &pane.key);
        let who = if key == KeyOf::Device { Who::Device(&pane.key) } else { Who::Group };
        let name = if key == KeyOf::Group { None } else { self.name(&pane.key) };
        let acts: Vec<Act> = pane.metrics.iter().map(|metric| self.act(who, &metric.name)).collect();
        let shares = pane.share.as_deref().unwrap_or_default();
        let of_shares: Vec<Act> = shares.iter().map(|metric| self.act(who, &metric.name)).collect();
        if name.is_none() && acts.iter().chain(&of_shares).all(|act| *act == Act::Keep) {
            return Masked::Same(pane);
        }
        let before = pane.metrics.len();
        let metrics: Vec<_> = (pane.metrics.into_iter().zip(acts))
            .filter_map(|(metric, act)| match act {
                Act::Keep => Some(metric),
                Act::Round(digits) => Some(metric.rounded(digits.0)),
                Act::Token | Act::Drop => None,
            })
            .collect();
        // A pane without metrics would take back what was said before.
        if metrics.is_empty() && before > 0 {
            return Masked::Gone;
        }
        let share = pane.share.map(|shares| {
            let left = shares.into_iter().zip(of_shares).filter_map(|(metric, act)| match act {
                Act::Keep => Some(metric),
                Act::Round(digits) => Some(metric.rounded(digits.0)),
                Act::Token | Act::Drop => None,
            });
            left.collect()
        });
        let key = name.unwrap_or(pane.key);
        Masked::Changed(Pane { key, metrics, share, ..pane })
    }

    fn alert(&self, alert: Alert, by_device: &ByDevice) -> Masked<Alert> {
        let key = by_device.key_of_alert(&alert.rule, &alert.key);
        let who = if key == KeyOf::Device { Who::Device(&alert.key) } else { Who::Group };
        let name = if key == KeyOf::Group { None } else { self.name(&alert.key) };
        let act = self.act(who, &alert.metric);
        if name.is_none() && act == Act::Keep && (alert.facts.is_empty() || !self.concerns(who)) {
            return Masked::Same(alert);
        }
        let mut left = Alert { facts: Default::default(), ..alert };
        match act {
            Act::Keep => {}
            Act::Round(digits) => {
                left.value = millpond_core::value::rounded(left.value, digits.0);
                left.peak = millpond_core::value::rounded(left.peak, digits.0);
            }
            Act::Token | Act::Drop => (left.value, left.peak) = (f64::NAN, f64::NAN),
        }
        if let Some(name) = &name {
            // An id is made from the name: who guesses it could tell by the id.
            (left.id, left.key) = (self.token(left.id.as_bytes()), name.as_str().into());
        }
        if name.is_some() || act != Act::Keep {
            left.message = format!("{} on {}", left.rule, left.key);
        }
        Masked::Changed(left)
    }

    fn late(&self, event: LateEvent) -> Masked<LateEvent> {
        let who = Who::Device(&event.device);
        let acts: Vec<Act> = event.metrics.iter().map(|(name, _)| self.act(who, name)).collect();
        let name = self.name(&event.device);
        if name.is_none() && acts.iter().all(|act| *act == Act::Keep) {
            return Masked::Same(event);
        }
        let left = event.metrics.into_iter().zip(acts).filter_map(|((name, value), act)| match act {
            Act::Keep => Some((name, value)),
            Act::Round(digits) => Some((name, millpond_core::value::rounded(value, digits.0))),
            Act::Token | Act::Drop => None,
        });
        let metrics = left.collect();
        let key = if event.key == event.device { name.clone() } else { None };
        let (key, device) = (key.unwrap_or(event.key), name.unwrap_or(event.device));
        Masked::Changed(LateEvent { key, device, metrics, ..event })
    }

    fn twin(&self, (device, reported): (String, Reported)) -> Masked<(String, Reported)> {
        let name = self.name(&device);
        let masked = |part: &str| self.act(Who::Device(&device), part) != Act::Keep;
        let left = reported.without(|pointer, json| {
            let says_name = |text: &str| name.is_some() && text.contains(&device);
            pointer.split('/').skip(1).any(masked) || says_name(pointer) || json.is_some_and(says_name)
        });
        match name {
            _ if left.is_empty() && !reported.is_empty() => Masked::Gone,
            None if left == reported => Masked::Same((device, reported)),
            name => Masked::Changed((name.unwrap_or(device), left)),
        }
    }
}

/// The parts of a list that may leave; the record as it came when nothing in it is masked.
fn list<T: Serialize + DeserializeOwned>(record: Record, mask: impl Fn(T) -> Masked<T>) -> Option<Record> {
    let parts: Vec<T> = record::decode(&record.payload).ok()?;
    let mut changed = false;
    let left = parts.into_iter().filter_map(|part| match mask(part) {
        Masked::Same(part) => Some(part),
        Masked::Changed(part) => {
            changed = true;
            Some(part)
        }
        Masked::Gone => {
            changed = true;
            None
        }
    });
    let left: Vec<T> = left.collect();
    match (changed, left.is_empty()) {
        (false, _) => Some(record),
        (true, true) => None,
        (true, false) => Some(Record { payload: Bytes::from(record::encode(&left)), ..record }),
    }
}
