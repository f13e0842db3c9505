//! Identifiers: who wrote a record, and where it stands among its origin's records.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The node that wrote a record: 128 random bits drawn at the node's first boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Origin(pub [u8; 16]);

impl Origin {
    /// Reads the 32 hexadecimal digits that [`Display`](fmt::Display) writes.
    pub fn from_hex(text: &str) -> Option<Origin> {
        let digits: Vec<u8> =
            text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
        let mut origin = Origin::default();
        if digits.len() != 32 {
            return None;
        }
        for (byte, pair) in origin.0.iter_mut().zip(digits.chunks(2)) {
            *byte = (pair[0] << 4) | pair[1];
        }
        Some(origin)
    }

    /// Enough of it to tell nodes apart when people read it.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Counts the lives of an origin: raised when the node lost its identity or its data, so that a sequence
/// number is never used for two different records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The first incarnation of the origin's store number `founding`, from 0. The upper 16 bits count the stores that an origin had: records
    /// of different ones are different, whatever their numbers. The lower 16 bits count the repairs of one store.
    pub fn first_of(founding: u16) -> Incarnation {
        Incarnation((u32::from(founding) << 16) | 1)
    }

    pub fn founding(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Position of a record among those of one (origin, incarnation), from 1, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Seq(pub u64);

impl Seq {
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// Names one record for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId {
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub seq: Seq,
}

/// A hash of a device's name that never changes: it is written to disk (FNV-1a with 64 bits, finished by MurmurHash3's mixer).
pub fn device_hash(name: &str) -> u64 {
    let fnv = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_as_it_is_written() {
        let origin = Origin([0xa5; 16]);
        assert_eq!(Origin::from_hex(&origin.to_string()), Some(origin));
        assert_eq!(Origin::from_hex("a5"), None);
        assert_eq!(Origin::from_hex(&"é".repeat(16)), None);
    }

    #[test]
    fn the_hash_of_a_name_never_changes() {
        assert_eq!(device_hash(""), 0xefd0_1f60_ba99_2926);
        assert_ne!(device_hash("press-1"), device_hash("press-2"));
    }
}
