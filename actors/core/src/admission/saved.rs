//! A gate's memory as bytes, for checkpoints: MessagePack, the envelope with named fields, each device as an array.

use serde::{Deserialize, Serialize};

use super::{
    Cold, Gate, LoadError, Slot,
    seen::{Generation, RANGES_MAX, Ring, Seen},
};
use crate::time::Timestamp;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    devices: Vec<SavedDevice>,
}

type Ranges = Vec<(u64, u64)>;

/// Name; first seen, last seen, last time; accepted, duplicates, rejected; quarantined; skew in ms (NaN: none); ranges seen; the
/// generation before (until, ranges); keys of the ring.
#[derive(Serialize, Deserialize)]
struct SavedDevice(String, [i64; 3], [u64; 3], bool, f32, Ranges, Option<(i64, Ranges)>, Vec<u64>);

pub(super) fn save(gate: &Gate) -> Vec<u8> {
    let device = |index: u32| {
        let (slot, cold) = (&gate.slots[index as usize], &gate.cold[index as usize]);
        SavedDevice(
            gate.names.name(index).to_string(),
            [cold.first_seen.0, slot.last_seen.0, slot.last_time.0],
            [slot.accepted, cold.duplicates, cold.rejected],
            slot.quarantined,
            slot.skew_ms,
            slot.seen.ranges(),
            slot.seen.previous().map(|previous| (previous.until, previous.seen.ranges())),
            slot.ring.as_ref().map(|ring| ring.keys()).unwrap_or_default(),
        )
    };
    let saved = Saved { version: VERSION, devices: (0..gate.len()).map(device).collect() };
    rmp_serde::to_vec_named(&saved).expect("numbers and text can be written to memory")
}

pub(super) fn load(gate: &mut Gate, bytes: &[u8]) -> Result<(), LoadError> {
    #[derive(Deserialize)]
    struct Envelope {
        version: u32,
    }
    let malformed = |error: rmp_serde::decode::Error| LoadError::Malformed(error.to_string());
    let Envelope { version } = rmp_serde::from_slice(bytes).map_err(malformed)?;
    if version != VERSION {
        return Err(LoadError::Version(version));
    }
    let saved: Saved = rmp_serde::from_slice(bytes).map_err(malformed)?;
    gate.forget();
    for device in saved.devices {
        let SavedDevice(name, [first_seen, last_seen, last_time], counts, quarantined, skew_ms, ranges, previous, ring) =
            device;
        if gate.names.find(&name, u32::MAX).is_some() {
            return Err(LoadError::Malformed(format!("device {name} is there twice")));
        }
        gate.names.add(&name).ok_or_else(|| LoadError::Malformed("too many names".into()))?;
        let previous = previous.map(|(until, ranges)| Generation { until, seen: seen(&ranges, None) });
        gate.slots.push(Slot {
            last_time: Timestamp(last_time),
            last_seen: Timestamp(last_seen),
            accepted: counts[0],
            seen: seen(&ranges, previous),
            ring: (!ring.is_empty()).then(|| Box::new(Ring::of(ring))),
            skew_ms,
            device_type: gate.type_of(&name),
            quarantined,
        });
        gate.cold.push(Cold { first_seen: Timestamp(first_seen), duplicates: counts[1], rejected: counts[2] });
    }
    Ok(())
}

/// The ranges, as far as they are in order.
fn seen(ranges: &[(u64, u64)], previous: Option<Generation>) -> Seen {
    let from = ranges.len().saturating_sub(RANGES_MAX);
    let ranges = &ranges[from..];
    let ordered = ranges.iter().all(|(low, high)| low <= high) && ranges.windows(2).all(|pair| pair[0].1 < pair[1].0);
    if ordered { Seen::of(ranges, previous) } else { Seen::default() }
}
