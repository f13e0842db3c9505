//! What happens to readings between a machine and a node: duplicates, disorder, silence, garbage. Skewed clocks are part of the
//! machines ([`super::Clocks`]).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};

use millpond_core::time::{Span, Timestamp};

use super::{kind::Reading, noise::Noise};

/// Probabilities are per reading, from 0 to 1. The default does no mischief.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Mischief {
    /// Sent a second time, up to `delay_max` later.
    pub duplicate: f64,
    /// Held back by up to `delay_max`, so that others overtake it.
    pub disorder: f64,
    pub delay_max: Span,
    /// The device falls silent for up to `silence_max`, keeps its readings, and then sends them in one burst.
    pub silence: f64,
    pub silence_max: Span,
    /// A payload that is no reading is sent as well.
    pub malformed: f64,
}

/// What reaches the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    Reading(Reading),
    /// Not JSON, not MessagePack, not a block.
    Malformed {
        device: Arc<str>,
        payload: Vec<u8>,
    },
}

/// Passes readings on with mischief. No reading is ever lost: once the time is past all delays, each was delivered at least once.
#[derive(Debug)]
pub struct Troublemaker {
    knobs: Mischief,
    noise: Noise,
    /// Ends of the silences by device.
    silent_until: BTreeMap<Arc<str>, Timestamp>,
    /// Waiting deliveries by (time, order of arrival).
    waiting: BinaryHeap<Reverse<(Timestamp, u64)>>,
    held: BTreeMap<u64, Delivery>,
    taken: u64,
}

impl Troublemaker {
    pub fn new(seed: u64, knobs: Mischief) -> Troublemaker {
        Troublemaker {
            knobs,
            noise: Noise::new(seed, 2, 0),
            silent_until: BTreeMap::new(),
            waiting: BinaryHeap::new(),
            held: BTreeMap::new(),
            taken: 0,
        }
    }

    /// Takes readings in order of time, draining `readings`, and appends to `out` what arrives until `now`.
    pub fn pass(&mut self, now: Timestamp, readings: &mut Vec<Reading>, out: &mut Vec<Delivery>) {
        if self.knobs == Mischief::default() {
            out.extend(readings.drain(..).map(Delivery::Reading));
            return;
        }
        for reading in readings.drain(..) {
            let due = self.due(&reading);
            if self.noise.happens(self.knobs.malformed) {
                let payload = self.garbage();
                self.hold(due, Delivery::Malformed { device: reading.device.clone(), payload });
            }
            if self.noise.happens(self.knobs.duplicate) {
                let again = due.saturating_add(self.delay(self.knobs.delay_max));
                self.hold(again, Delivery::Reading(reading.clone()));
            }
            self.hold(due, Delivery::Reading(reading));
        }
        while let Some(Reverse((due, order))) = self.waiting.peek().copied() {
            if due > now {
                return;
            }
            self.waiting.pop();
            out.extend(self.held.remove(&order));
        }
    }

    /// When the next held delivery arrives.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.waiting.peek().map(|Reverse((due, _))| *due)
    }

    fn due(&mut self, reading: &Reading) -> Timestamp {
        if self.noise.happens(self.knobs.silence) {
            let end = reading.at.saturating_add(self.delay(self.knobs.silence_max));
            let until = self.silent_until.entry(reading.device.clone()).or_insert(end);
            *until = end.max(*until);
        }
        let mut due = reading.at;
        if self.noise.happens(self.knobs.disorder) {
            due = due.saturating_add(self.delay(self.knobs.delay_max));
        }
        self.silent_until.get(&reading.device).map_or(due, |until| due.max(*until))
    }

    fn delay(&mut self, max: Span) -> Span {
        Span((max.0 as f64 * self.noise.unit()) as i64)
    }

    fn hold(&mut self, due: Timestamp, delivery: Delivery) {
        self.held.insert(self.taken, delivery);
        self.waiting.push(Reverse((due, self.taken)));
        self.taken += 1;
    }

    /// Cut-off JSON, wrong types, bytes from nowhere.
    fn garbage(&mut self) -> Vec<u8> {
        match self.noise.next() % 4 {
            0 => b"{\"ts\":17951625".to_vec(),
            1 => b"{\"ts\":\"noon\",\"force\":[1,2]}".to_vec(),
            2 => Vec::new(),
            _ => (0..24).map(|_| self.noise.next() as u8 | 0x80).collect(),
        }
    }
}
