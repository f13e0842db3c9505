//! Bloom filters over the hashes of devices: whether a value of the journal may hold a device.
//!
//! A filter is an array of 2^k bits, 8 to 2,048 bytes. Four bits stand for a device.

const BITS_MIN: usize = 64;
const BITS_MAX: usize = 16_384;

/// The filter over `hashes`, or `None` when it would tell too little: more than six of ten bits would be set.
pub(crate) fn build<'a>(hashes: impl Iterator<Item = &'a u64> + Clone) -> Option<Vec<u8>> {
    let bits = (hashes.clone().count() * 8).next_power_of_two().clamp(BITS_MIN, BITS_MAX);
    let mut filter = vec![0u8; bits / 8];
    for hash in hashes {
        for bit in places(*hash, bits) {
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
    let set: u32 = filter.iter().map(|byte| byte.count_ones()).sum();
    (set as usize * 10 <= bits * 6).then_some(filter)
}

/// False only when the device is certainly not in the value. A filter of a wrong size excludes nothing.
pub(crate) fn may_contain(filter: &[u8], hash: u64) -> bool {
    let bits = filter.len() * 8;
    !bits.is_power_of_two() || places(hash, bits).all(|bit| filter[bit / 8] & (1 << (bit % 8)) != 0)
}

fn places(hash: u64, bits: usize) -> impl Iterator<Item = usize> {
    let mixed = (hash ^ (hash >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (start, step) = (mixed >> 32, (mixed & 0xffff_ffff) | 1);
    (0..4u64).map(move |i| (start.wrapping_add(step.wrapping_mul(i)) as usize) & (bits - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        let hash = |i: u64| i.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (i << 40);
        for count in [1u64, 10, 100, 1000, 2000] {
            let inside: Vec<u64> = (0..count).map(hash).collect();
            let filter = build(inside.iter()).expect("worth keeping");
            assert!(inside.iter().all(|h| may_contain(&filter, *h)));
            let wrong = (count..count + 10_000).filter(|i| may_contain(&filter, hash(*i))).count();
            assert!(wrong < 1500, "{wrong} of 10,000 wrongly found with {count} devices");
        }
    }

    #[test]
    fn repeats_do_not_spoil_a_filter() {
        let many: Vec<u64> = (0..100_000u64).map(|i| (i % 500).wrapping_mul(0x9e37_79b9_97f4_a7c1)).collect();
        assert!(build(many.iter()).is_some());
    }

    #[test]
    fn a_filter_over_too_many_devices_is_not_kept() {
        let many: Vec<u64> = (0..20_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_97f4_a7c1)).collect();
        assert_eq!(build(many.iter()), None);
    }
}
