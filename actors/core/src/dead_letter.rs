//! Dead letters: rejected input, kept with its reason until it is replayed or deleted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Why input was rejected. The codes have pages in `docs/errors/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The payload could not be read as any of the formats of its door.
    Malformed,
    /// An event without a device, or with a name that is empty, too long or has control characters.
    BadDevice,
    /// The device is not known, and unknown devices are not registered.
    UnknownDevice,
    /// The device is quarantined.
    Quarantined,
    /// A metric has another type than its schema says.
    WrongType,
    /// A value lies outside the range of its schema.
    OutOfRange,
    /// A metric that the schema requires is missing.
    MissingMetric,
    /// A metric that the schema does not know, and it allows no others.
    UnknownMetric,
    /// A metric has another unit than its schema says.
    WrongUnit,
    /// The time stamp is further ahead of the node's clock than is allowed.
    FutureTime,
    /// The time stamp is older than the node accepts.
    AncientTime,
    /// The payload is larger, or has more metrics or events, than the node accepts.
    TooLarge,
    /// The batch made its shard fail; it was set aside so that the shard could go on.
    Poison,
}

impl Reason {
    pub const ALL: [Reason; 13] = [
        Reason::Malformed,
        Reason::BadDevice,
        Reason::UnknownDevice,
        Reason::Quarantined,
        Reason::WrongType,
        Reason::OutOfRange,
        Reason::MissingMetric,
        Reason::UnknownMetric,
        Reason::WrongUnit,
        Reason::FutureTime,
        Reason::AncientTime,
        Reason::TooLarge,
        Reason::Poison,
    ];

    /// The code under which an operator finds the page: `MP0101` …
    pub fn code(self) -> &'static str {
        [
            "MP0101", "MP0102", "MP0103", "MP0104", "MP0105", "MP0106", "MP0107", "MP0108", "MP0109", "MP0110",
            "MP0111", "MP0112", "MP0113",
        ][self as usize]
    }

    /// As in JSON and in the label of metrics.
    pub fn name(self) -> &'static str {
        [
            "malformed",
            "bad_device",
            "unknown_device",
            "quarantined",
            "wrong_type",
            "out_of_range",
            "missing_metric",
            "unknown_metric",
            "wrong_unit",
            "future_time",
            "ancient_time",
            "too_large",
            "poison",
        ][self as usize]
    }
}

/// How the payload of a dead letter is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// As received at a door that guesses the format (MQTT).
    Unknown,
    Json,
    Ndjson,
    Msgpack,
    /// A block of events: what passed the decoder but was rejected later is kept so.
    Block,
}

/// Rejected input. Stored in MessagePack with named fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub received: Timestamp,
    pub reason: Reason,
    /// What exactly was wrong and where, for a person.
    pub detail: String,
    /// Empty when the payload does not say.
    pub device: String,
    /// Who sent it: the login, and the door it came through (`mqtt`, `http`).
    pub login: String,
    pub door: String,
    pub format: PayloadFormat,
    #[serde(with = "crate::dead_letter::as_bytes")]
    pub payload: Vec<u8>,
}

/// MessagePack has a type for bytes that serde's `Vec<u8>` does not use by itself.
pub(crate) mod as_bytes {
    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Vec<u8>, E> {
                Ok(v.to_vec())
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}
