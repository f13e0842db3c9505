//! MQTT 3.1, 3.1.1 and 5.0 on the wire, both directions: bytes in, packets out, and back.
//!
//! [`split`] finds where a packet ends; [`decode`] reads its body. Topics, payloads and properties are slices of the bytes that came in:
//! nothing is copied, and a PUBLISH costs no allocation. Malformed bytes are errors, never panics (`tests/fuzz`, target `mqtt`).
//!
//! ```text
//! packet   type and flags (1 byte) · remaining length (1–4 bytes, 7 bits each, low first) · body
//! text     length (u16, big-endian) · UTF-8
//! property identifier (1 byte) · value, whose type follows from the identifier
//! ```

mod decode;
mod encode;
mod property;
mod reason;
#[cfg(test)]
mod tests;

use std::{fmt, ops};

use bytes::Bytes;

pub use decode::{DecodeError, Split, decode, split};
pub use encode::{encode, puback, publish};
pub use property::{Properties, Property, Value, id};
pub use reason::Reason;

/// The largest remaining length that four bytes can say.
pub const REMAINING_MAX: usize = 268_435_455;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V31,
    V311,
    V5,
}

impl Version {
    pub fn is_5(self) -> bool {
        self == Version::V5
    }
}

/// UTF-8 without U+0000, as a slice of what came in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// # Errors
    /// When the bytes are not UTF-8 or hold a U+0000, which MQTT forbids.
    pub fn new(bytes: Bytes) -> Result<Text, DecodeError> {
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.as_bytes().contains(&0) => Ok(Text(bytes)),
            _ => Err(DecodeError::BadText),
        }
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl ops::Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl From<&str> for Text {
    /// Characters U+0000 are left out.
    fn from(text: &str) -> Text {
        match text.contains('\0') {
            true => Text(text.replace('\0', "").into()),
            false => Text(Bytes::copy_from_slice(text.as_bytes())),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(SubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Disconnect),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    pub version: Version,
    /// Clean session before 5.0.
    pub clean_start: bool,
    /// Seconds; 0 is for ever.
    pub keep_alive: u16,
    pub client_id: Text,
    pub will: Option<Will>,
    pub username: Option<Text>,
    pub password: Option<Bytes>,
    pub properties: Properties,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    pub topic: Text,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    pub properties: Properties,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck {
    pub session_present: bool,
    /// A reason of 5.0, or a return code of 3.1.1.
    pub code: u8,
    pub properties: Properties,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    pub dup: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    pub retain: bool,
    pub topic: Text,
    /// `None` exactly when `qos` is 0.
    pub id: Option<u16>,
    pub properties: Properties,
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    pub id: u16,
    /// Always success before 5.0.
    pub reason: u8,
    pub properties: Properties,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    pub id: u16,
    pub properties: Properties,
    pub filters: Vec<(Text, SubscribeOptions)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SubscribeOptions {
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// 0: send retained messages; 1: only for a new subscription; 2: do not.
    pub retain_handling: u8,
}

/// SUBACK and UNSUBACK; the latter has no codes before 5.0.
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck {
    pub id: u16,
    pub properties: Properties,
    pub codes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe {
    pub id: u16,
    pub properties: Properties,
    pub filters: Vec<Text>,
}

/// DISCONNECT and AUTH.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect {
    pub reason: u8,
    pub properties: Properties,
}
