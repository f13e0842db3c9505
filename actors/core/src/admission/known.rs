//! What a gate tells the gate of another node about a device that goes there, so that events which were accepted here and are sent again
//! there are recognised.

use serde::{Deserialize, Serialize};

use super::{
    Gate, Slot,
    seen::{Generation, RANGES_MAX, Ring, Seen},
};
use crate::time::Timestamp;

/// What is known of a device's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub device: String,
    /// The newest event time accepted; the least there is before the first.
    pub last_time: i64,
    /// Sequence numbers accepted: ranges, ascending.
    pub seen: Vec<(u64, u64)>,
    /// Those accepted before the device began to count anew, and its newest event time by then.
    pub previous: Option<(i64, Vec<(u64, u64)>)>,
    /// Hashes of events that can only be told by their content.
    pub ring: Vec<u64>,
}

impl Gate {
    /// What is known of a device; `None` when nothing is.
    pub fn known(&self, device: &str) -> Option<Known> {
        let index = self.find(device)?;
        Some(known(device, &self.slots[index as usize]))
    }

    /// The same of all devices.
    pub fn all_known(&self) -> impl Iterator<Item = (String, Known)> {
        let of = |index: u32| {
            (self.names.name(index).to_string(), known(self.names.name(index), &self.slots[index as usize]))
        };
        (0..self.len()).map(of)
    }

    /// Adds what another gate knows of a device. Telling it twice, or in another order, changes nothing; in doubt an event counts as new
    /// (invariant 2).
    pub fn learn(&mut self, known: &Known, received: Timestamp) {
        let Some(index) = self.find(&known.device).or_else(|| self.register(&known.device, received)) else { return };
        self.turns.floor = self.turns.next;
        let slot = &mut self.slots[index as usize];
        let previous = match (slot.seen.previous(), &known.previous) {
            (Some(mine), Some((until, ranges))) if *until <= mine.until => {
                Some(Generation { until: mine.until, seen: Seen::of(&union(&mine.seen.ranges(), ranges), None) })
            }
            (Some(mine), None) => Some(mine.clone()),
            (_, Some((until, ranges))) => Some(Generation { until: *until, seen: Seen::of(&union(&[], ranges), None) }),
            (None, None) => None,
        };
        slot.seen = Seen::of(&union(&slot.seen.ranges(), &known.seen), previous);
        slot.last_time = slot.last_time.max(Timestamp(known.last_time));
        if !known.ring.is_empty() {
            let mine = slot.ring.take().map(|ring| ring.keys()).unwrap_or_default();
            let mut keys: Vec<u64> = known.ring.iter().copied().filter(|key| !mine.contains(key)).collect();
            keys.extend(mine);
            let from = keys.len().saturating_sub(super::seen::RING_MAX);
            slot.ring = Some(Box::new(Ring::of(keys.split_off(from))));
        }
    }
}

fn known(device: &str, slot: &Slot) -> Known {
    Known {
        device: device.to_owned(),
        last_time: slot.last_time.0,
        seen: slot.seen.ranges(),
        previous: slot.seen.previous().map(|previous| (previous.until, previous.seen.ranges())),
        ring: slot.ring.as_ref().map(|ring| ring.keys()).unwrap_or_default(),
    }
}

/// All numbers of both, the highest ranges when there are too many. What comes from outside may be in no order.
fn union(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = a.iter().chain(b).copied().filter(|(low, high)| low <= high).collect();
    all.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (low, high) in all {
        match joined.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => joined.push((low, high)),
        }
    }
    let from = joined.len().saturating_sub(RANGES_MAX);
    joined.split_off(from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        admission::{Admitted, Policy},
        batch::BatchBuilder,
        value::Value,
    };

    fn gate() -> Gate {
        Gate::new(Policy::default(), Vec::new(), Vec::new()).unwrap()
    }

    /// How many of the events are new to the gate.
    fn admit(gate: &mut Gate, seqs: &[u64]) -> u32 {
        let mut builder = BatchBuilder::default();
        for seq in seqs {
            builder.begin("d");
            builder.time(Timestamp::from_millis(*seq as i64));
            builder.seq(*seq);
            builder.cell("t", Value::F64(1.0));
            builder.end();
        }
        let mut accepted = 0;
        for mut batch in builder.finish() {
            let mut out = Admitted::default();
            gate.admit(Timestamp::from_millis(1_000_000), &mut batch, &mut out);
            accepted += out.accepted;
        }
        accepted
    }

    #[test]
    fn events_accepted_by_one_gate_are_duplicates_to_another_that_learnt_of_them() {
        let (mut first, mut second) = (gate(), gate());
        assert_eq!(admit(&mut first, &[1, 2, 3, 7]), 4);
        second.learn(&first.known("d").unwrap(), Timestamp(0));
        assert_eq!(admit(&mut second, &[2, 3, 4, 7, 8]), 2);
        first.learn(&second.known("d").unwrap(), Timestamp(0));
        assert_eq!(admit(&mut first, &[4, 8, 9]), 1);
        assert_eq!(first.known("other"), None);
    }

    fn any_known() -> impl Strategy<Value = Known> {
        let ranges = || prop::collection::vec((0u64..60, 0u64..60), 0..6);
        let previous = prop::option::of((0i64..100, ranges()));
        (0i64..100, ranges(), previous, prop::collection::vec(0u64..50, 0..6))
            .prop_map(|(last_time, seen, previous, ring)| Known { device: "d".into(), last_time, seen, previous, ring })
    }

    proptest! {
        #[test]
        fn learning_twice_is_learning_once(a in any_known(), b in any_known()) {
            let mut once = gate();
            once.learn(&a, Timestamp(0));
            once.learn(&b, Timestamp(0));
            let mut twice = once.clone();
            twice.learn(&b, Timestamp(0));
            prop_assert_eq!(once.known("d"), twice.known("d"));
        }
    }
}
