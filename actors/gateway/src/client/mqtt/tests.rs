use std::sync::Arc;

use bytes::Bytes;
use millpond_env::Mono;
use proptest::prelude::*;

use super::{
    packet,
    session::{Ack, Message, Session},
    *,
};

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

fn opened(in_flight: u16) -> Session {
    let mut session = Session::new(in_flight);
    session.connect("t", None);
    drain(&mut session);
    session.received(&CONNACK).unwrap();
    session
}

/// What the session would write, as packets.
fn drain(session: &mut Session) -> Vec<(u8, Vec<u8>)> {
    let bytes = session.outgoing().to_vec();
    session.sent(bytes.len());
    let (mut rest, mut packets) = (&bytes[..], Vec::new());
    while let Some(packet) = packet::split(rest).unwrap() {
        packets.push((packet.head, packet.body.to_vec()));
        rest = &rest[packet.len..];
    }
    assert!(rest.is_empty());
    packets
}

#[test]
fn a_login_is_written_as_the_standard_says() {
    let mut out = Vec::new();
    packet::connect(&mut out, "ab", Some(&("u".into(), "pw".into())));
    assert_eq!(out, b"\x10\x15\0\x04MQTT\x04\xc2\0\0\0\x02ab\0\x01u\0\x02pw");
    out.clear();
    packet::connect(&mut out, "", None);
    assert_eq!(out, b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0");
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut session = opened(2);
    let topic: Arc<str> = "t".into();
    for tag in 0..3 {
        let sent = session.publish(&topic, Bytes::from_static(b"x"), tag, Mono(tag));
        assert_eq!(sent, tag < 2);
    }
    assert_eq!(drain(&mut session), [(0x32, b"\0\x01t\0\x01x".to_vec()), (0x32, b"\0\x01t\0\x02x".to_vec())]);
    session.received(&[0x40, 2, 0, 2]).unwrap();
    assert_eq!(session.acks().collect::<Vec<_>>(), [Ack { published: Mono(1), tag: 1 }]);
    assert!(session.has_room());
    assert_eq!(session.received(&[0x40, 2, 0, 2]), Err(Malformed::Unasked(2)));
}

#[test]
fn what_was_not_acknowledged_is_sent_again_in_order() {
    let mut session = opened(8);
    let topic: Arc<str> = "t".into();
    session.subscribe("w/#", 1);
    for tag in 0..5 {
        session.publish(&topic, Bytes::from(vec![b'a' + tag as u8]), tag, Mono(0));
    }
    drain(&mut session);
    session.received(&[0x40, 2, 0, 1, 0x40, 2, 0, 3]).unwrap();
    session.publish(&topic, Bytes::from_static(b"z"), 9, Mono(0));
    session.disconnected();
    session.connect("t", None);
    assert_eq!(drain(&mut session)[0].0, 0x10);
    session.received(&CONNACK).unwrap();
    let again = drain(&mut session);
    assert_eq!(again[0].0, 0x82, "subscriptions come first");
    let payloads: Vec<u8> = again[1..].iter().map(|(head, body)| if *head == 0x3a { body[5] } else { 0 }).collect();
    assert_eq!(payloads, b"bdez");
}

#[test]
fn a_refusal_has_a_reason() {
    let mut session = Session::new(1);
    session.connect("t", None);
    session.received(&[0x20, 2, 0, 5]).unwrap();
    assert_eq!((session.is_open(), session.refusal()), (false, Some("not authorized")));
}

proptest! {
    #[test]
    fn messages_arrive_whole_however_they_are_cut(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        cut in 1usize..70,
    ) {
        let mut bytes = Vec::new();
        for (n, payload) in payloads.iter().enumerate() {
            packet::publish(&mut bytes, "a/b", payload, (n % 2 == 0).then_some(n as u16 + 1), false);
        }
        let mut session = opened(1);
        bytes.chunks(cut).for_each(|chunk| session.received(chunk).unwrap());
        let seen: Vec<Message> = session.messages().collect();
        prop_assert!(seen.iter().all(|message| message.topic == "a/b"));
        prop_assert_eq!(seen.iter().map(|message| message.payload.to_vec()).collect::<Vec<_>>(), payloads.clone());
        let acks = drain(&mut session);
        prop_assert_eq!(acks.len(), payloads.len().div_ceil(2));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = opened(4).received(&bytes);
    }
}
