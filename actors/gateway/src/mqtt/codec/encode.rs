//! Packets in, bytes out.

use bytes::{BufMut, BytesMut};

use super::{
    Connect, Packet, Properties, Publish, REMAINING_MAX, SubscribeOptions, Version,
    property::{id, put_short},
};

/// Appends `packet` in the form of `version` (CONNECT says its own). Text of more than 65,535 bytes is cut off.
pub fn encode(version: Version, packet: &Packet, out: &mut BytesMut) {
    let mut body = BytesMut::new();
    let first = match packet {
        Packet::Publish(packet) => return publish(version, packet, None, &[], out),
        Packet::Connect(packet) => {
            put_connect(packet, &mut body);
            0x10
        }
        Packet::ConnAck(packet) => {
            body.put_slice(&[packet.session_present.into(), packet.code]);
            put_properties(version, &packet.properties, &mut body);
            0x20
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            body.put_u16(ack.id);
            put_tail(version, ack.reason, &ack.properties, &mut body);
            match packet {
                Packet::PubAck(_) => 0x40,
                Packet::PubRec(_) => 0x50,
                Packet::PubRel(_) => 0x62,
                _ => 0x70,
            }
        }
        Packet::Subscribe(packet) => {
            body.put_u16(packet.id);
            put_properties(version, &packet.properties, &mut body);
            for (filter, options) in &packet.filters {
                put_short(&mut body, filter.as_bytes());
                body.put_u8(option_bits(version, options));
            }
            0x82
        }
        Packet::SubAck(ack) | Packet::UnsubAck(ack) => {
            let is_suback = matches!(packet, Packet::SubAck(_));
            body.put_u16(ack.id);
            put_properties(version, &ack.properties, &mut body);
            if is_suback || version.is_5() {
                body.put_slice(&ack.codes);
            }
            if is_suback { 0x90 } else { 0xb0 }
        }
        Packet::Unsubscribe(packet) => {
            body.put_u16(packet.id);
            put_properties(version, &packet.properties, &mut body);
            packet.filters.iter().for_each(|filter| put_short(&mut body, filter.as_bytes()));
            0xa2
        }
        Packet::PingReq => 0xc0,
        Packet::PingResp => 0xd0,
        Packet::Disconnect(packet) | Packet::Auth(packet) => {
            put_tail(version, packet.reason, &packet.properties, &mut body);
            0xe0
        }
    };
    out.put_u8(if matches!(packet, Packet::Auth(_)) { 0xf0 } else { first });
    put_varint(out, body.len());
    out.put_slice(&body);
}

/// Appends a PUBACK. 5.0 leaves the reason out when it is success.
pub fn puback(version: Version, id: u16, reason: u8, out: &mut BytesMut) {
    let [high, low] = id.to_be_bytes();
    if version.is_5() && reason != 0 {
        out.put_slice(&[0x40, 3, high, low, reason]);
    } else {
        out.put_slice(&[0x40, 2, high, low]);
    }
}

/// Appends a PUBLISH. For 5.0, `expires_s` and `subscription_ids` are added to its own properties.
pub fn publish(
    version: Version,
    packet: &Publish,
    expires_s: Option<u32>,
    subscription_ids: &[u32],
    out: &mut BytesMut,
) {
    let mut extra = BytesMut::new();
    if let Some(seconds) = expires_s {
        extra.put_u8(id::MESSAGE_EXPIRY);
        extra.put_u32(seconds);
    }
    for subscription in subscription_ids {
        extra.put_u8(id::SUBSCRIPTION_ID);
        put_varint(&mut extra, *subscription as usize);
    }
    let properties = packet.properties.as_bytes();
    let properties_len = if version.is_5() { properties.len() + extra.len() } else { 0 };
    let prefix = if version.is_5() { varint_len(properties_len) } else { 0 };
    let topic_len = packet.topic.len().min(usize::from(u16::MAX));
    let id_len = if packet.id.is_some() { 2 } else { 0 };
    let len = 2 + topic_len + id_len + prefix + properties_len + packet.payload.len();
    debug_assert!(len <= REMAINING_MAX);
    out.reserve(len + 5);
    out.put_u8(0x30 | u8::from(packet.dup) << 3 | packet.qos << 1 | u8::from(packet.retain));
    put_varint(out, len);
    put_short(out, packet.topic.as_bytes());
    if let Some(id) = packet.id {
        out.put_u16(id);
    }
    if version.is_5() {
        put_varint(out, properties_len);
        out.put_slice(properties);
        out.put_slice(&extra);
    }
    out.put_slice(&packet.payload);
}

pub(super) fn put_varint(out: &mut BytesMut, mut n: usize) {
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

fn varint_len(n: usize) -> usize {
    match n {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn put_connect(packet: &Connect, body: &mut BytesMut) {
    let (name, level): (&[u8], u8) = match packet.version {
        Version::V31 => (b"MQIsdp", 3),
        Version::V311 => (b"MQTT", 4),
        Version::V5 => (b"MQTT", 5),
    };
    put_short(body, name);
    body.put_u8(level);
    let will = packet.will.as_ref().map_or(0, |will| 4 | will.qos << 3 | u8::from(will.retain) << 5);
    let logins = u8::from(packet.username.is_some()) << 7 | u8::from(packet.password.is_some()) << 6;
    body.put_u8(will | logins | u8::from(packet.clean_start) << 1);
    body.put_u16(packet.keep_alive);
    put_properties(packet.version, &packet.properties, body);
    put_short(body, packet.client_id.as_bytes());
    if let Some(will) = &packet.will {
        put_properties(packet.version, &will.properties, body);
        put_short(body, will.topic.as_bytes());
        put_short(body, &will.payload);
    }
    if let Some(name) = &packet.username {
        put_short(body, name.as_bytes());
    }
    if let Some(password) = &packet.password {
        put_short(body, password);
    }
}

fn option_bits(version: Version, options: &SubscribeOptions) -> u8 {
    if !version.is_5() {
        return options.qos;
    }
    options.qos
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | options.retain_handling << 4
}

fn put_properties(version: Version, properties: &Properties, body: &mut BytesMut) {
    if version.is_5() {
        put_varint(body, properties.as_bytes().len());
        body.put_slice(properties.as_bytes());
    }
}

fn put_tail(version: Version, reason: u8, properties: &Properties, body: &mut BytesMut) {
    if !version.is_5() || (reason == 0 && properties.is_empty()) {
        return;
    }
    body.put_u8(reason);
    if !properties.is_empty() {
        put_properties(version, properties, body);
    }
}
