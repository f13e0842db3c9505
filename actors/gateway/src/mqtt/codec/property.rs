//! Properties of MQTT 5.0, kept as the bytes they came in.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{DecodeError, Text, encode::put_varint};

/// Identifiers of properties.
pub mod id {
    pub const PAYLOAD_FORMAT: u8 = 1;
    pub const MESSAGE_EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SUBSCRIPTION_ID: u8 = 11;
    pub const SESSION_EXPIRY: u8 = 17;
    pub const ASSIGNED_CLIENT_ID: u8 = 18;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const AUTH_METHOD: u8 = 21;
    pub const AUTH_DATA: u8 = 22;
    pub const REQUEST_PROBLEM: u8 = 23;
    pub const WILL_DELAY: u8 = 24;
    pub const REQUEST_RESPONSE: u8 = 25;
    pub const RESPONSE_INFORMATION: u8 = 26;
    pub const SERVER_REFERENCE: u8 = 28;
    pub const REASON_TEXT: u8 = 31;
    pub const RECEIVE_MAX: u8 = 33;
    pub const TOPIC_ALIAS_MAX: u8 = 34;
    pub const TOPIC_ALIAS: u8 = 35;
    pub const MAX_QOS: u8 = 36;
    pub const RETAIN_AVAILABLE: u8 = 37;
    pub const USER: u8 = 38;
    pub const MAX_PACKET_BYTES: u8 = 39;
    pub const WILDCARDS_AVAILABLE: u8 = 40;
    pub const SUBSCRIPTION_IDS_AVAILABLE: u8 = 41;
    pub const SHARED_AVAILABLE: u8 = 42;
}

/// The properties of a packet that accepts a set of identifiers (bit n stands for identifier n).
pub(super) mod allowed {
    use super::id::*;

    const fn bits(ids: &[u8]) -> u64 {
        let (mut bits, mut at) = (0, 0);
        while at < ids.len() {
            bits |= 1 << ids[at];
            at += 1;
        }
        bits
    }

    pub const CONNECT: u64 = bits(&[
        SESSION_EXPIRY,
        AUTH_METHOD,
        AUTH_DATA,
        REQUEST_PROBLEM,
        REQUEST_RESPONSE,
        RECEIVE_MAX,
        TOPIC_ALIAS_MAX,
        USER,
        MAX_PACKET_BYTES,
    ]);
    pub const CONNACK: u64 = bits(&[
        SESSION_EXPIRY,
        ASSIGNED_CLIENT_ID,
        SERVER_KEEP_ALIVE,
        AUTH_METHOD,
        AUTH_DATA,
        RESPONSE_INFORMATION,
        SERVER_REFERENCE,
        REASON_TEXT,
        RECEIVE_MAX,
        TOPIC_ALIAS_MAX,
        MAX_QOS,
        RETAIN_AVAILABLE,
        USER,
        MAX_PACKET_BYTES,
        WILDCARDS_AVAILABLE,
        SUBSCRIPTION_IDS_AVAILABLE,
        SHARED_AVAILABLE,
    ]);
    /// What a message keeps on its way from the publisher to subscribers. Its expiry counts down on the way.
    pub const MESSAGE: u64 = bits(&[PAYLOAD_FORMAT, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, USER]);
    pub const PUBLISH: u64 = MESSAGE | bits(&[MESSAGE_EXPIRY, SUBSCRIPTION_ID, TOPIC_ALIAS]);
    pub const WILL: u64 = MESSAGE | bits(&[MESSAGE_EXPIRY, WILL_DELAY]);
    pub const ACK: u64 = bits(&[REASON_TEXT, USER]);
    pub const SUBSCRIBE: u64 = bits(&[SUBSCRIPTION_ID, USER]);
    pub const UNSUBSCRIBE: u64 = bits(&[USER]);
    pub const DISCONNECT: u64 = bits(&[SESSION_EXPIRY, SERVER_REFERENCE, REASON_TEXT, USER]);
    pub const AUTH: u64 = bits(&[AUTH_METHOD, AUTH_DATA, REASON_TEXT, USER]);
}

#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    pub id: u8,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Byte(u8),
    U16(u16),
    U32(u32),
    /// At most 268,435,455.
    VarInt(u32),
    Text(Text),
    Binary(Bytes),
    Pair(Text, Text),
}

/// Properties as they stand on the wire, without their length; checked when they were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties(Bytes);

impl Properties {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn iter(&self) -> impl Iterator<Item = Property> + use<> {
        let mut rest = self.0.clone();
        std::iter::from_fn(move || if rest.is_empty() { None } else { read(&mut rest).ok() })
    }

    /// The number of a property that is there at most once, whatever its width.
    pub fn number(&self, id: u8) -> Option<u32> {
        if self.0.is_empty() {
            return None;
        }
        self.iter().find(|property| property.id == id).and_then(|property| match property.value {
            Value::Byte(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::U32(n) | Value::VarInt(n) => Some(n),
            _ => None,
        })
    }

    pub fn has(&self, id: u8) -> bool {
        !self.0.is_empty() && self.iter().any(|property| property.id == id)
    }

    /// The properties that a message keeps on its way from a publisher to subscribers, in their order.
    pub fn of_message(&self) -> Properties {
        if self.0.is_empty() {
            return Properties::default();
        }
        self.iter().filter(|property| allowed::MESSAGE >> property.id & 1 == 1).collect()
    }

    /// Reads a length and as many bytes of properties, and checks that each is one of `allowed`, well-formed, and there once.
    pub(super) fn decode(src: &mut Bytes, allowed: u64) -> Result<Properties, DecodeError> {
        let len = read_varint(src)? as usize;
        if len > src.len() {
            return Err(DecodeError::Short);
        }
        let raw = src.split_to(len);
        let (mut rest, mut seen) = (raw.clone(), 0u64);
        while !rest.is_empty() {
            let property = read(&mut rest)?;
            let bit = 1u64 << property.id;
            let repeats =
                property.id == id::USER || (property.id == id::SUBSCRIPTION_ID && allowed & 1 << id::TOPIC_ALIAS != 0);
            if allowed & bit == 0 || (seen & bit != 0 && !repeats) || !is_in_range(&property) {
                return Err(DecodeError::BadProperty);
            }
            seen |= bit;
        }
        Ok(Properties(raw))
    }
}

impl FromIterator<Property> for Properties {
    fn from_iter<T: IntoIterator<Item = Property>>(properties: T) -> Properties {
        let mut out = BytesMut::new();
        for property in properties {
            out.put_u8(property.id);
            match property.value {
                Value::Byte(n) => out.put_u8(n),
                Value::U16(n) => out.put_u16(n),
                Value::U32(n) => out.put_u32(n),
                Value::VarInt(n) => put_varint(&mut out, n as usize),
                Value::Text(text) => put_short(&mut out, text.as_bytes()),
                Value::Binary(bytes) => put_short(&mut out, &bytes),
                Value::Pair(name, value) => {
                    put_short(&mut out, name.as_bytes());
                    put_short(&mut out, value.as_bytes());
                }
            }
        }
        Properties(out.freeze())
    }
}

/// Values that the protocol forbids for their property.
fn is_in_range(property: &Property) -> bool {
    match (property.id, &property.value) {
        (
            id::PAYLOAD_FORMAT
            | id::REQUEST_PROBLEM
            | id::REQUEST_RESPONSE
            | id::MAX_QOS
            | id::RETAIN_AVAILABLE
            | id::WILDCARDS_AVAILABLE
            | id::SUBSCRIPTION_IDS_AVAILABLE
            | id::SHARED_AVAILABLE,
            Value::Byte(n),
        ) => *n <= 1,
        (id::RECEIVE_MAX | id::TOPIC_ALIAS, Value::U16(n)) => *n > 0,
        (id::MAX_PACKET_BYTES, Value::U32(n)) | (id::SUBSCRIPTION_ID, Value::VarInt(n)) => *n > 0,
        _ => true,
    }
}

fn read(src: &mut Bytes) -> Result<Property, DecodeError> {
    if src.is_empty() {
        return Err(DecodeError::Short);
    }
    let id = src.get_u8();
    let value = match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM
        | id::REQUEST_RESPONSE
        | id::MAX_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARDS_AVAILABLE
        | id::SUBSCRIPTION_IDS_AVAILABLE
        | id::SHARED_AVAILABLE => Value::Byte(src.try_get_u8().map_err(|_| DecodeError::Short)?),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAX | id::TOPIC_ALIAS_MAX | id::TOPIC_ALIAS => {
            Value::U16(src.try_get_u16().map_err(|_| DecodeError::Short)?)
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAX_PACKET_BYTES => {
            Value::U32(src.try_get_u32().map_err(|_| DecodeError::Short)?)
        }
        id::SUBSCRIPTION_ID => Value::VarInt(read_varint(src)?),
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::ASSIGNED_CLIENT_ID
        | id::AUTH_METHOD
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_TEXT => Value::Text(read_text(src)?),
        id::CORRELATION_DATA | id::AUTH_DATA => Value::Binary(read_short(src)?),
        id::USER => Value::Pair(read_text(src)?, read_text(src)?),
        _ => return Err(DecodeError::BadProperty),
    };
    Ok(Property { id, value })
}

pub(super) fn read_varint(src: &mut Bytes) -> Result<u32, DecodeError> {
    let mut n = 0u32;
    for shift in [0, 7, 14, 21] {
        let byte = src.try_get_u8().map_err(|_| DecodeError::Short)?;
        n |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(DecodeError::BadLength)
}

/// Bytes after a length of two bytes.
pub(super) fn read_short(src: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = usize::from(src.try_get_u16().map_err(|_| DecodeError::Short)?);
    if len > src.len() {
        return Err(DecodeError::Short);
    }
    Ok(src.split_to(len))
}

pub(super) fn read_text(src: &mut Bytes) -> Result<Text, DecodeError> {
    Text::new(read_short(src)?)
}

/// Writes a length of two bytes and the bytes; what does not fit is cut off.
pub(super) fn put_short(out: &mut BytesMut, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}
