//! Names of alerts: the same for the same raising, on every run and version.

use crate::time::Timestamp;

/// 128 bits of FNV-1a (Fowler, Noll, Vo) over rule, key and since, as 26 characters of Crockford's base 32.
pub(super) fn of(rule: &str, key: &str, since: Timestamp) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash = OFFSET;
    // Names hold no zero byte, so the parts cannot run into each other.
    for byte in rule.bytes().chain([0]).chain(key.bytes()).chain([0]).chain(since.0.to_be_bytes()) {
        hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    }
    let digits = b"0123456789abcdefghjkmnpqrstvwxyz";
    (0..26).rev().map(|at| digits[(hash >> (at * 5)) as usize & 31] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_has_the_same_id_for_ever() {
        assert_eq!(of("hot", "press-7", Timestamp(0)), "173dga641y38k0qfnej8kb6x1n");
        assert_ne!(of("hot", "press-7", Timestamp(0)), of("hot", "press-7", Timestamp(1)));
        assert_ne!(of("a", "bc", Timestamp(0)), of("ab", "c", Timestamp(0)));
    }
}
