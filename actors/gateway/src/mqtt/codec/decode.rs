//! Bytes in, packets out.

use bytes::{Buf, Bytes};

use super::{
    Ack, ConnAck, Connect, Disconnect, Packet, Properties, Publish, SubAck, Subscribe, SubscribeOptions, Text,
    Unsubscribe, Version, Will,
    property::{allowed, id, read_short, read_text},
};

/// Why bytes are not a packet. The connection cannot go on: where the next packet begins is not known, or its sender is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a packet of {bytes} bytes; at most {max} are accepted")]
    TooLarge { bytes: usize, max: usize },
    #[error("a length of more than four bytes")]
    BadLength,
    #[error("a packet ends before its contents")]
    Short,
    #[error("bytes after the end of a packet's contents")]
    Long,
    #[error("text that is not UTF-8, or holds a zero")]
    BadText,
    #[error("a property that is unknown, not allowed here, repeated or out of range")]
    BadProperty,
    #[error("flags that the packet type does not have")]
    BadFlags,
    #[error("packet type {0}")]
    BadType(u8),
    #[error("not a protocol name of MQTT")]
    BadProtocol,
    #[error("version {0} of the protocol")]
    UnsupportedVersion(u8),
    #[error("packet identifier 0")]
    ZeroId,
    #[error("no topic filter in the packet")]
    Empty,
}

/// Where the first packet of some bytes ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The packet takes `len` bytes; its body begins at `body`.
    Packet { first: u8, body: usize, len: usize },
    /// More bytes are needed: at least so many in all, as far as is known.
    Need(usize),
}

/// Finds the end of the first packet in `src`.
///
/// # Errors
/// When the packet is longer than `max` bytes, or its length is not one.
pub fn split(src: &[u8], max: usize) -> Result<Split, DecodeError> {
    let Some((&first, rest)) = src.split_first() else { return Ok(Split::Need(2)) };
    let mut remaining = 0usize;
    for at in 0..4 {
        let Some(&byte) = rest.get(at) else { return Ok(Split::Need(at + 2)) };
        remaining |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let (body, len) = (at + 2, at + 2 + remaining);
            return match len {
                len if len > max => Err(DecodeError::TooLarge { bytes: len, max }),
                len if len > src.len() => Ok(Split::Need(len)),
                len => Ok(Split::Packet { first, body, len }),
            };
        }
    }
    Err(DecodeError::BadLength)
}

/// Reads the body of a packet whose first byte was `first`. CONNECT says its version itself.
///
/// # Errors
/// When the body is not what the type and version prescribe.
pub fn decode(version: Version, first: u8, mut body: Bytes) -> Result<Packet, DecodeError> {
    let flags = first & 0x0f;
    let wanted = match first >> 4 {
        3 => return publish(version, flags, body).map(Packet::Publish),
        6 | 8 | 10 => 2,
        _ => 0,
    };
    // Some clients of 3.1 set DUP on SUBSCRIBE and UNSUBSCRIBE, as that version allowed.
    if flags != wanted && version != Version::V31 {
        return Err(DecodeError::BadFlags);
    }
    let src = &mut body;
    let packet = match first >> 4 {
        1 => Packet::Connect(Box::new(connect(src)?)),
        2 => Packet::ConnAck(connack(version, src)?),
        4 => Packet::PubAck(ack(version, src)?),
        5 => Packet::PubRec(ack(version, src)?),
        6 => Packet::PubRel(ack(version, src)?),
        7 => Packet::PubComp(ack(version, src)?),
        8 => Packet::Subscribe(subscribe(version, src)?),
        9 => Packet::SubAck(suback(version, true, src)?),
        10 => Packet::Unsubscribe(unsubscribe(version, src)?),
        11 => Packet::UnsubAck(suback(version, version.is_5(), src)?),
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => Packet::Disconnect(disconnect(version, allowed::DISCONNECT, src)?),
        15 if version.is_5() => Packet::Auth(disconnect(version, allowed::AUTH, src)?),
        other => return Err(DecodeError::BadType(other)),
    };
    if body.is_empty() { Ok(packet) } else { Err(DecodeError::Long) }
}

fn publish(version: Version, flags: u8, mut src: Bytes) -> Result<Publish, DecodeError> {
    let qos = flags >> 1 & 3;
    let dup = flags & 8 != 0;
    if qos == 3 || (qos == 0 && dup && version != Version::V31) {
        return Err(DecodeError::BadFlags);
    }
    let topic = read_text(&mut src)?;
    let id = if qos == 0 { None } else { Some(packet_id(&mut src)?) };
    let properties = properties(version, &mut src, allowed::PUBLISH)?;
    Ok(Publish { dup, qos, retain: flags & 1 != 0, topic, id, properties, payload: src })
}

fn connect(src: &mut Bytes) -> Result<Connect, DecodeError> {
    let name = read_short(src)?;
    let level = byte(src)?;
    let version = match (&name[..], level) {
        (b"MQIsdp", 3) => Version::V31,
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | b"MQIsdp", level) => return Err(DecodeError::UnsupportedVersion(level)),
        _ => return Err(DecodeError::BadProtocol),
    };
    let flags = byte(src)?;
    let (will_flag, will_qos, will_retain) = (flags & 4 != 0, flags >> 3 & 3, flags & 0x20 != 0);
    let (has_user, has_password) = (flags & 0x80 != 0, flags & 0x40 != 0);
    let odd_will = will_qos == 3 || (!will_flag && (will_qos != 0 || will_retain));
    if flags & 1 != 0 || odd_will || (has_password && !has_user && !version.is_5()) {
        return Err(DecodeError::BadFlags);
    }
    let keep_alive = u16(src)?;
    let connect_properties = properties(version, src, allowed::CONNECT)?;
    if connect_properties.has(id::AUTH_DATA) && !connect_properties.has(id::AUTH_METHOD) {
        return Err(DecodeError::BadProperty);
    }
    let client_id = read_text(src)?;
    let will = if will_flag {
        let will_properties = properties(version, src, allowed::WILL)?;
        let (topic, payload) = (read_text(src)?, read_short(src)?);
        Some(Will { topic, payload, qos: will_qos, retain: will_retain, properties: will_properties })
    } else {
        None
    };
    Ok(Connect {
        version,
        clean_start: flags & 2 != 0,
        keep_alive,
        client_id,
        will,
        username: if has_user { Some(read_text(src)?) } else { None },
        password: if has_password { Some(read_short(src)?) } else { None },
        properties: connect_properties,
    })
}

fn connack(version: Version, src: &mut Bytes) -> Result<ConnAck, DecodeError> {
    let flags = byte(src)?;
    if flags > 1 {
        return Err(DecodeError::BadFlags);
    }
    let code = byte(src)?;
    Ok(ConnAck { session_present: flags == 1, code, properties: properties(version, src, allowed::CONNACK)? })
}

fn ack(version: Version, src: &mut Bytes) -> Result<Ack, DecodeError> {
    let id = packet_id(src)?;
    let (reason, properties) = tail(version, src, allowed::ACK)?;
    Ok(Ack { id, reason, properties })
}

fn disconnect(version: Version, allowed: u64, src: &mut Bytes) -> Result<Disconnect, DecodeError> {
    let (reason, properties) = tail(version, src, allowed)?;
    Ok(Disconnect { reason, properties })
}

/// Reason and properties at the end of a packet of 5.0: either both, or the reason, or nothing.
fn tail(version: Version, src: &mut Bytes, allowed: u64) -> Result<(u8, Properties), DecodeError> {
    if !version.is_5() || src.is_empty() {
        return Ok((0, Properties::default()));
    }
    let reason = byte(src)?;
    if src.is_empty() {
        return Ok((reason, Properties::default()));
    }
    Ok((reason, Properties::decode(src, allowed)?))
}

fn subscribe(version: Version, src: &mut Bytes) -> Result<Subscribe, DecodeError> {
    let id = packet_id(src)?;
    let properties = properties(version, src, allowed::SUBSCRIBE)?;
    let mut filters = Vec::new();
    while !src.is_empty() {
        let filter = read_text(src)?;
        let bits = byte(src)?;
        let options = SubscribeOptions {
            qos: bits & 3,
            no_local: bits & 4 != 0,
            retain_as_published: bits & 8 != 0,
            retain_handling: bits >> 4 & 3,
        };
        let known = if version.is_5() { 0x3f } else { 0x03 };
        if bits & !known != 0 || options.qos == 3 || options.retain_handling == 3 {
            return Err(DecodeError::BadFlags);
        }
        filters.push((filter, options));
    }
    if filters.is_empty() { Err(DecodeError::Empty) } else { Ok(Subscribe { id, properties, filters }) }
}

fn suback(version: Version, codes: bool, src: &mut Bytes) -> Result<SubAck, DecodeError> {
    let id = packet_id(src)?;
    let properties = properties(version, src, allowed::ACK)?;
    let codes = if codes { src.split_to(src.len()).to_vec() } else { Vec::new() };
    Ok(SubAck { id, properties, codes })
}

fn unsubscribe(version: Version, src: &mut Bytes) -> Result<Unsubscribe, DecodeError> {
    let id = packet_id(src)?;
    let properties = properties(version, src, allowed::UNSUBSCRIBE)?;
    let mut filters: Vec<Text> = Vec::new();
    while !src.is_empty() {
        filters.push(read_text(src)?);
    }
    if filters.is_empty() { Err(DecodeError::Empty) } else { Ok(Unsubscribe { id, properties, filters }) }
}

fn properties(version: Version, src: &mut Bytes, allowed: u64) -> Result<Properties, DecodeError> {
    if version.is_5() { Properties::decode(src, allowed) } else { Ok(Properties::default()) }
}

fn packet_id(src: &mut Bytes) -> Result<u16, DecodeError> {
    match u16(src)? {
        0 => Err(DecodeError::ZeroId),
        id => Ok(id),
    }
}

fn byte(src: &mut Bytes) -> Result<u8, DecodeError> {
    src.try_get_u8().map_err(|_| DecodeError::Short)
}

fn u16(src: &mut Bytes) -> Result<u16, DecodeError> {
    src.try_get_u16().map_err(|_| DecodeError::Short)
}
