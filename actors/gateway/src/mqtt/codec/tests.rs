use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, option, prelude::*};

use super::{property::allowed, *};

fn text() -> impl Strategy<Value = Text> {
    "[a-z/é+#$]{0,12}".prop_map(|text| Text::from(text.as_str()))
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

/// Properties out of those that a packet may have, each at most once but for those of the user.
fn properties(version: Version, allowed: u64) -> BoxedStrategy<Properties> {
    if version != Version::V5 {
        return Just(Properties::default()).boxed();
    }
    (any::<u64>(), text(), binary(), 1u32..1000, vec((text(), text()), 0..3))
        .prop_map(move |(chosen, text, binary, number, users)| {
            let one = |id: u8| {
                let value = match id {
                    1 | 23 | 25 | 36 | 37 | 40..=42 => Value::Byte((number & 1) as u8),
                    19 | 33..=35 => Value::U16(number as u16),
                    2 | 17 | 24 | 39 => Value::U32(number),
                    11 => Value::VarInt(number * 1000),
                    9 | 22 => Value::Binary(binary.clone()),
                    _ => Value::Text(text.clone()),
                };
                Property { id, value }
            };
            // Authentication data needs its method.
            let chosen = chosen & allowed & !(1 << id::USER) & !(1 << id::AUTH_DATA);
            let singles = (1..=42).filter(|id| chosen >> id & 1 == 1).map(one);
            let users = users.iter().cloned().map(|(a, b)| Property { id: id::USER, value: Value::Pair(a, b) });
            let users = users.filter(|_| allowed >> id::USER & 1 == 1);
            singles.chain(users).collect()
        })
        .boxed()
}

fn connect(version: Version) -> BoxedStrategy<Packet> {
    let will = (text(), binary(), 0..3u8, any::<bool>(), properties(version, allowed::WILL))
        .prop_map(|(topic, payload, qos, retain, properties)| Will { topic, payload, qos, retain, properties });
    let login = (text(), option::of(binary()));
    (any::<bool>(), any::<u16>(), text(), option::of(will), option::of(login), properties(version, allowed::CONNECT))
        .prop_map(move |(clean_start, keep_alive, client_id, will, login, properties)| {
            let (username, password) = login.map_or((None, None), |(name, password)| (Some(name), password));
            let connect = Connect { version, clean_start, keep_alive, client_id, will, username, password, properties };
            Packet::Connect(Box::new(connect))
        })
        .boxed()
}

fn publishes(version: Version) -> BoxedStrategy<Packet> {
    (0..3u8, any::<bool>(), any::<bool>(), text(), 1..=u16::MAX, binary(), properties(version, allowed::PUBLISH))
        .prop_map(|(qos, dup, retain, topic, id, payload, properties)| {
            let id = (qos > 0).then_some(id);
            Packet::Publish(Publish { dup: dup && qos > 0, qos, retain, topic, id, properties, payload })
        })
        .boxed()
}

fn subscribes(version: Version) -> BoxedStrategy<Packet> {
    let options =
        (0..3u8, any::<bool>(), any::<bool>(), 0..3u8).prop_map(move |(qos, no_local, as_published, handling)| {
            let options =
                SubscribeOptions { qos, no_local, retain_as_published: as_published, retain_handling: handling };
            if version.is_5() { options } else { SubscribeOptions { qos, ..SubscribeOptions::default() } }
        });
    (1..=u16::MAX, vec((text(), options), 1..4), properties(version, allowed::SUBSCRIBE))
        .prop_map(|(id, filters, properties)| Packet::Subscribe(Subscribe { id, properties, filters }))
        .boxed()
}

fn others(version: Version) -> BoxedStrategy<Packet> {
    let is_5 = version.is_5();
    let code = move |code: u8| if is_5 { code } else { 0 };
    let ack = (1..=u16::MAX, any::<u8>(), properties(version, allowed::ACK))
        .prop_map(move |(id, reason, properties)| Ack { id, reason: code(reason), properties });
    let suback = (1..=u16::MAX, vec(any::<u8>(), 1..4), properties(version, allowed::ACK))
        .prop_map(|(id, codes, properties)| SubAck { id, properties, codes });
    let connack = (any::<bool>(), any::<u8>(), properties(version, allowed::CONNACK))
        .prop_map(|(session_present, code, properties)| ConnAck { session_present, code, properties });
    let disconnect = (any::<u8>(), properties(version, allowed::DISCONNECT))
        .prop_map(move |(reason, properties)| Disconnect { reason: code(reason), properties });
    let unsubscribe = (1..=u16::MAX, vec(text(), 1..4), properties(version, allowed::UNSUBSCRIBE))
        .prop_map(|(id, filters, properties)| Unsubscribe { id, properties, filters });
    prop_oneof![
        connack.prop_map(Packet::ConnAck),
        ack.clone().prop_map(Packet::PubAck),
        ack.clone().prop_map(Packet::PubRec),
        ack.clone().prop_map(Packet::PubRel),
        ack.prop_map(Packet::PubComp),
        suback.clone().prop_map(Packet::SubAck),
        suback
            .prop_map(move |ack| Packet::UnsubAck(SubAck { codes: if is_5 { ack.codes } else { Vec::new() }, ..ack })),
        unsubscribe.prop_map(Packet::Unsubscribe),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        disconnect.prop_map(Packet::Disconnect),
    ]
    .boxed()
}

fn packets() -> impl Strategy<Value = (Version, Packet)> {
    version().prop_flat_map(|version| {
        let packet = prop_oneof![connect(version), publishes(version), subscribes(version), others(version)];
        (Just(version), packet)
    })
}

fn read_back(version: Version, bytes: &Bytes) -> Packet {
    let Ok(Split::Packet { first, body, len }) = split(bytes, usize::MAX) else { panic!("no packet in {bytes:?}") };
    assert_eq!(len, bytes.len());
    decode(version, first, bytes.slice(body..)).expect("what was encoded is a packet")
}

proptest! {
    #[test]
    fn packets_are_read_as_they_were_written((version, packet) in packets()) {
        let mut out = BytesMut::new();
        encode(version, &packet, &mut out);
        prop_assert_eq!(read_back(version, &out.freeze()), packet);
    }

    #[test]
    fn a_packet_is_found_however_its_bytes_arrive((version, packet) in packets()) {
        let mut out = BytesMut::new();
        encode(version, &packet, &mut out);
        for end in 0..out.len() {
            let Ok(Split::Need(bytes)) = split(&out[..end], usize::MAX) else { panic!("a packet in its first {end} bytes") };
            prop_assert!(bytes > end && bytes <= out.len().max(2));
        }
    }

    #[test]
    fn no_bytes_panic(version in version(), first: u8, body in vec(any::<u8>(), 0..200)) {
        let _ = decode(version, first, Bytes::from(body.clone()));
        let _ = split(&body, 100);
    }

    #[test]
    fn damaged_packets_do_not_panic((version, packet) in packets(), at: usize, byte: u8) {
        let mut out = BytesMut::new();
        encode(version, &packet, &mut out);
        let at = at % out.len();
        out[at] = byte;
        if let Ok(Split::Packet { first, body, len }) = split(&out, usize::MAX) {
            let _ = decode(version, first, out.freeze().slice(body..len));
        }
    }
}

#[test]
fn packets_look_as_the_standard_draws_them() {
    let check = |version: Version, packet: Packet, expected: &[u8]| {
        let mut out = BytesMut::new();
        encode(version, &packet, &mut out);
        assert_eq!(&out[..], expected, "{packet:?}");
    };
    let connack = |code| Packet::ConnAck(ConnAck { session_present: false, code, properties: Properties::default() });
    check(Version::V311, connack(5), &[0x20, 2, 0, 5]);
    check(Version::V5, connack(0x87), &[0x20, 3, 0, 0x87, 0]);
    let ack = |reason| Packet::PubAck(Ack { id: 258, reason, properties: Properties::default() });
    check(Version::V311, ack(0), &[0x40, 2, 1, 2]);
    check(Version::V5, ack(0), &[0x40, 2, 1, 2]);
    check(Version::V5, ack(0x97), &[0x40, 3, 1, 2, 0x97]);
    let suback = SubAck { id: 1, properties: Properties::default(), codes: vec![1, 0x80] };
    check(Version::V311, Packet::SubAck(suback), &[0x90, 4, 0, 1, 1, 0x80]);
    check(Version::V311, Packet::PingResp, &[0xd0, 0]);
    let publish = Publish {
        dup: true,
        qos: 1,
        retain: true,
        topic: Text::from("a"),
        id: Some(7),
        properties: Properties::default(),
        payload: Bytes::from_static(b"x"),
    };
    check(Version::V311, Packet::Publish(publish.clone()), &[0x3b, 6, 0, 1, b'a', 0, 7, b'x']);
    check(Version::V5, Packet::Publish(publish), &[0x3b, 7, 0, 1, b'a', 0, 7, 0, b'x']);
}

#[test]
fn what_the_standard_forbids_is_refused() {
    let check = |version: Version, first: u8, body: &'static [u8], error: DecodeError| {
        assert_eq!(decode(version, first, Bytes::from_static(body)), Err(error), "{first:#x} {body:?}");
    };
    check(Version::V311, 0x36, b"\0\x01a\0\x01", DecodeError::BadFlags);
    check(Version::V311, 0x32, b"\0\x01a\0\0", DecodeError::ZeroId);
    check(Version::V311, 0x30, b"\0\x02a\0", DecodeError::BadText);
    check(Version::V311, 0x30, b"\0\x01\xff", DecodeError::BadText);
    check(Version::V311, 0x30, b"\0\x05a", DecodeError::Short);
    check(Version::V311, 0x82, b"\0\x01", DecodeError::Empty);
    check(Version::V311, 0x80, b"\0\x01\0\x01a\0", DecodeError::BadFlags);
    check(Version::V311, 0x82, b"\0\x01\0\x01a\x03", DecodeError::BadFlags);
    check(Version::V311, 0xc0, b"x", DecodeError::Long);
    check(Version::V311, 0xf0, b"", DecodeError::BadType(15));
    check(Version::V311, 0x10, b"\0\x04MQTT\x06\x02\0\0\0\0", DecodeError::UnsupportedVersion(6));
    check(Version::V311, 0x10, b"\0\x04MQTX\x04\x02\0\0\0\0", DecodeError::BadProtocol);
    check(Version::V311, 0x10, b"\0\x04MQTT\x04\x03\0\0\0\0", DecodeError::BadFlags);
    check(Version::V311, 0x10, b"\0\x04MQTT\x04\x42\0\0\0\0\0\0", DecodeError::BadFlags);
    // A property twice, one that a PUBLISH does not have, and an alias of 0.
    check(Version::V5, 0x30, b"\0\x01a\x06\x23\0\x01\x23\0\x01", DecodeError::BadProperty);
    check(Version::V5, 0x30, b"\0\x01a\x05\x11\0\0\0\x01", DecodeError::BadProperty);
    check(Version::V5, 0x30, b"\0\x01a\x03\x23\0\0", DecodeError::BadProperty);
    assert_eq!(split(&[0x30, 0xff, 0xff, 0xff, 0xff], usize::MAX), Err(DecodeError::BadLength));
    assert_eq!(split(&[0x30, 0x80, 0x01], 100), Err(DecodeError::TooLarge { bytes: 131, max: 100 }));
}
