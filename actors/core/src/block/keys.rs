//! Integers of all rows, device by device.
//!
//! ```text
//! layout u8
//! 0 flat    stream of all rows
//! 1 deltas  stream of the first value of each device ("anchors"), stream of the differences within devices
//! 2 slopes  anchors; first difference of each device with two rows or more; differences of the differences after it
//! ```
//! Anchors and slopes stand apart so that the distance between two devices does not widen the differences within them.

use super::{stream, wire::Reader};

const FLAT: u8 = 0;
const DELTAS: u8 = 1;
const SLOPES: u8 = 2;

/// Memory that is used again for every column.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    anchors: Vec<i64>,
    slopes: Vec<i64>,
    steps: Vec<i64>,
    work: Vec<i64>,
}

/// Appends `keys`, of which each device has as many as `counts` says.
pub(super) fn encode(keys: &[i64], counts: &[u32], scratch: &mut Scratch, out: &mut Vec<u8>) {
    let layout = choose(keys, counts, scratch);
    out.push(layout);
    if layout == FLAT {
        return stream::encode(keys, &mut scratch.work, out);
    }
    split(keys, counts, layout, scratch);
    stream::encode(&scratch.anchors, &mut scratch.work, out);
    if layout == SLOPES {
        stream::encode(&scratch.slopes, &mut scratch.work, out);
    }
    stream::encode(&scratch.steps, &mut scratch.work, out);
}

/// Reads one key per row into `out`, whose former content is lost.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    rows: usize,
    counts: &[u32],
    scratch: &mut Scratch,
    out: &mut Vec<i64>,
) -> Option<()> {
    let layout = reader.u8()?;
    if layout == FLAT {
        return stream::decode(reader, rows, out);
    }
    let devices = counts.len();
    stream::decode(reader, devices, &mut scratch.anchors)?;
    match layout {
        DELTAS => {
            stream::decode(reader, rows - devices, &mut scratch.steps)?;
            join_deltas(counts, scratch, rows, out);
        }
        SLOPES => {
            let sloped = counts.iter().filter(|&&count| count > 1).count();
            stream::decode(reader, sloped, &mut scratch.slopes)?;
            stream::decode(reader, rows - devices - sloped, &mut scratch.steps)?;
            join_slopes(counts, scratch, rows, out);
        }
        _ => return None,
    }
    Some(())
}

fn join_deltas(counts: &[u32], scratch: &Scratch, rows: usize, out: &mut Vec<i64>) {
    out.resize(rows, 0);
    let (mut to, mut steps) = (&mut out[..], &scratch.steps[..]);
    for (&anchor, &count) in scratch.anchors.iter().zip(counts) {
        let (device, rest) = to.split_at_mut(count as usize);
        let (own, others) = steps.split_at(device.len() - 1);
        let mut value = anchor;
        device[0] = value;
        for (to, step) in device[1..].iter_mut().zip(own) {
            value = value.wrapping_add(*step);
            *to = value;
        }
        (to, steps) = (rest, others);
    }
}

fn join_slopes(counts: &[u32], scratch: &Scratch, rows: usize, out: &mut Vec<i64>) {
    out.resize(rows, 0);
    let (mut to, mut steps) = (&mut out[..], &scratch.steps[..]);
    let mut slopes = scratch.slopes.iter();
    for (&anchor, &count) in scratch.anchors.iter().zip(counts) {
        let (device, rest) = to.split_at_mut(count as usize);
        to = rest;
        device[0] = anchor;
        if device.len() == 1 {
            continue;
        }
        let mut slope = slopes.next().copied().unwrap_or_default();
        let (own, others) = steps.split_at(device.len() - 2);
        steps = others;
        let mut value = anchor.wrapping_add(slope);
        device[1] = value;
        for (to, step) in device[2..].iter_mut().zip(own) {
            slope = slope.wrapping_add(*step);
            value = value.wrapping_add(slope);
            *to = value;
        }
    }
}

/// The layout that takes the fewest bytes for the first devices.
fn choose(keys: &[i64], counts: &[u32], scratch: &mut Scratch) -> u8 {
    const SAMPLE: usize = 2048;
    if counts.len() == keys.len() || counts.len() == 1 && keys.len() < 3 {
        return FLAT;
    }
    let mut rows = 0;
    let devices = counts.iter().take_while(|&&count| {
        let more = rows < SAMPLE;
        rows += if more { count as usize } else { 0 };
        more
    });
    let counts = &counts[..devices.count()];
    let keys = &keys[..rows];
    let flat = stream::cost(keys);
    split(keys, counts, DELTAS, scratch);
    let anchors = stream::cost(&scratch.anchors);
    let deltas = anchors + stream::cost(&scratch.steps);
    split(keys, counts, SLOPES, scratch);
    let slopes = anchors + stream::cost(&scratch.slopes) + stream::cost(&scratch.steps);
    if flat <= deltas && flat <= slopes {
        FLAT
    } else if deltas <= slopes {
        DELTAS
    } else {
        SLOPES
    }
}

fn split(keys: &[i64], counts: &[u32], layout: u8, scratch: &mut Scratch) {
    let Scratch { anchors, slopes, steps, .. } = scratch;
    anchors.clear();
    slopes.clear();
    steps.clear();
    let mut rest = keys;
    for &count in counts {
        let (device, others) = rest.split_at(count as usize);
        rest = others;
        anchors.push(device[0]);
        if layout == DELTAS {
            steps.extend(device.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
        } else if let [first, second, ..] = device {
            slopes.push(second.wrapping_sub(*first));
            let bend = |three: &[i64]| three[2].wrapping_sub(three[1]).wrapping_sub(three[1].wrapping_sub(three[0]));
            steps.extend(device.windows(3).map(bend));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(keys: &[i64], counts: &[u32]) -> usize {
        let mut scratch = Scratch::default();
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        encode(keys, counts, &mut scratch, &mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(decode(&mut reader, keys.len(), counts, &mut scratch, &mut out), Some(()));
        assert!(reader.rest().is_empty());
        assert_eq!(out, keys);
        bytes.len()
    }

    #[test]
    fn regular_times_of_many_devices_cost_their_anchors() {
        let keys: Vec<i64> =
            (0..1000i64).flat_map(|device| (0..16).map(move |row| device * 7919 % 1000 + row * 1000)).collect();
        assert!(check(&keys, &[16; 1000]) < 1500);
    }

    proptest! {
        #[test]
        fn keys_of_any_devices_are_read_back(
            devices in proptest::collection::vec((any::<i64>(), -5i64..5, 1u32..20), 1..40),
            shift in 0u32..64,
        ) {
            let counts: Vec<u32> = devices.iter().map(|device| device.2).collect();
            let keys: Vec<i64> = devices
                .iter()
                .flat_map(|&(anchor, slope, count)| {
                    (0..i64::from(count)).map(move |row| (anchor >> shift).wrapping_add(slope * row + row * row % 3))
                })
                .collect();
            check(&keys, &counts);
        }
    }
}
