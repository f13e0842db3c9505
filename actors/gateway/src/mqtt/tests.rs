#![expect(clippy::disallowed_methods, reason = "the door is started on the runtime of the test")]

mod client;
pub(crate) mod node;
mod twins;

use bytes::Bytes;
use millpond_core::time::Span;
use tokio::io::AsyncWriteExt;

use super::{MqttSettings, codec::*};
use crate::{
    auth::{Role, UserSettings},
    port::Refusal,
};
use client::{Client, Served, hello, message};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

#[tokio::test]
async fn telemetry_is_acknowledged_after_its_commit_and_in_order() {
    for version in VERSIONS {
        let served = Served::open();
        served.node.seen().holds = true;
        let mut client = served.connect(version, "c").await;
        client.publish("devices/press-1/telemetry", 7, false, r#"{"t":1}"#).await;
        client.ping().await;
        client.publish("telemetry", 3, false, r#"[{"device":"a","t":1},{"device":"b","t":2}]"#).await;
        client.publish("other", 4, false, "x").await;
        // Only pings are answered: nothing is on disk yet, not even when the later submission is.
        client.ping().await;
        served.node.answer(1);
        client.ping().await;
        served.node.answer(0);
        for id in [7, 3, 4] {
            assert_eq!(client.acknowledged().await, (id, 0), "{version:?}");
        }
        assert_eq!(served.node.seen().devices, ["press-1", "a", "b"]);
        served.stop().await;
    }
}

#[tokio::test]
async fn publishes_of_one_read_share_a_submission() {
    let served = Served::open();
    let mut client = served.connect(Version::V311, "c").await;
    let mut out = bytes::BytesMut::new();
    for id in 1..=100 {
        encode(Version::V311, &message("devices/a/telemetry", id, false, r#"{"t":1}"#), &mut out);
    }
    client.stream.write_all(&out[..1000]).await.expect("the door reads");
    client.stream.write_all(&out[1000..]).await.expect("the door reads");
    for id in 1..=100 {
        assert_eq!(client.acknowledged().await, (id, 0));
    }
    let seen = served.node.seen();
    assert_eq!(seen.rows, 100);
    assert!(seen.submissions < 20, "{}", seen.submissions);
}

#[tokio::test]
async fn a_payload_that_cannot_be_decoded_is_kept_and_does_not_block_the_line() {
    let served = Served::open();
    let mut client = served.connect(Version::V311, "c").await;
    client.publish("devices/a/telemetry", 1, false, "{nonsense").await;
    client.publish("devices/a/telemetry", 2, false, r#"{"t":1}"#).await;
    assert_eq!(client.acknowledged().await, (1, 0));
    assert_eq!(client.acknowledged().await, (2, 0));
    assert_eq!(served.node.seen().dead_letters, ["a {nonsense"]);
    assert_eq!(served.node.seen().rows, 1);
}

#[tokio::test(start_paused = true)]
async fn refused_telemetry_is_never_acknowledged_as_stored() {
    for (refusal, expected) in [(Refusal::Full, 0x97), (Refusal::Failed, 0x80)] {
        let served = Served::open();
        served.node.seen().refuses = Some(refusal);
        let mut client = served.connect(Version::V5, "c").await;
        client.publish("devices/a/telemetry", 1, false, r#"{"t":1}"#).await;
        assert_eq!(client.acknowledged().await, (1, expected));
        // 3.1.1 has no way to say it: the connection goes, after a pause.
        let mut client = served.connect(Version::V311, "d").await;
        client.publish("other", 1, false, "x").await;
        assert_eq!(client.acknowledged().await, (1, 0));
        let began = tokio::time::Instant::now();
        client.publish("devices/a/telemetry", 2, false, r#"{"t":1}"#).await;
        client.publish("other", 3, false, "x").await;
        assert_eq!(client.try_next().await, None);
        assert!(began.elapsed().as_millis() >= 1000);
    }
    let served = Served::open();
    served.node.seen().refuses = Some(Refusal::Stopping);
    let mut client = served.connect(Version::V5, "c").await;
    client.publish("devices/a/telemetry", 1, false, r#"{"t":1}"#).await;
    assert_eq!(client.next().await, disconnect(0x8b));
}

#[tokio::test(start_paused = true)]
async fn without_credit_the_socket_is_not_read() {
    let served = Served::open();
    let mut client = served.connect(Version::V311, "c").await;
    let all = served.node.credit.clone().acquire_many_owned(16 << 20).await.expect("it is open");
    client.publish("devices/a/telemetry", 1, false, r#"{"t":1}"#).await;
    let big = "x".repeat(900_000);
    for _ in 0..3 {
        let mut out = bytes::BytesMut::new();
        encode(Version::V311, &message("other", 0, false, &big), &mut out);
        let full = tokio::time::timeout(std::time::Duration::from_millis(50), client.stream.write_all(&out)).await;
        if full.is_err() {
            // The pipe of 1 MiB is full and nobody empties it.
            assert_eq!(served.node.seen().submissions, 0);
            drop(all);
            assert_eq!(client.acknowledged().await, (1, 0));
            return;
        }
    }
    panic!("everything was read");
}

#[tokio::test]
async fn what_a_lost_client_keeps_comes_again_and_nothing_else() {
    let check = async |id: u16, says_goodbye: bool, expected: bool| {
        let served = Served::open();
        served.node.seen().holds = true;
        let mut client = served.connect(Version::V5, "c").await;
        client.publish("devices/a/telemetry", id, false, r#"{"t":1}"#).await;
        client.ping().await;
        assert!(!served.node.seen().held[0].comes_again(), "the client waits");
        if says_goodbye {
            client.send(&Packet::Disconnect(Disconnect { reason: 0, properties: Properties::default() })).await;
        }
        drop(client);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(served.node.seen().held[0].comes_again(), expected, "{id} {says_goodbye}");
    };
    check(1, false, true).await;
    check(0, false, false).await;
    check(1, true, false).await;
}

#[tokio::test]
async fn subscribers_see_telemetry_after_its_commit() {
    let served = Served::open();
    let mut reader = served.connect(Version::V5, "reader").await;
    assert_eq!(reader.subscribe("devices/+/telemetry", 1).await, [1]);
    served.node.seen().holds = true;
    let mut client = served.connect(Version::V311, "c").await;
    client.publish("devices/a/telemetry", 1, true, r#"{"t":1}"#).await;
    client.ping().await;
    reader.ping().await;
    served.node.answer(0);
    let Packet::Publish(publish) = reader.next().await else { panic!("no PUBLISH") };
    assert_eq!(
        (&*publish.topic, &publish.payload[..], publish.qos, publish.retain),
        ("devices/a/telemetry", &br#"{"t":1}"#[..], 1, false)
    );
}

#[tokio::test]
async fn retained_messages_are_kept_on_disk_before_they_are_acknowledged_and_seen() {
    let served = Served::open();
    let mut client = served.connect(Version::V5, "c").await;
    client.publish("state/a", 1, true, "on").await;
    assert_eq!(client.acknowledged().await, (1, 0));
    assert_eq!(served.node.seen().retained, [("state/a".to_owned(), Bytes::from_static(b"on"))]);
    assert_eq!(client.subscribe("state/#", 0).await, [0]);
    let Packet::Publish(publish) = client.next().await else { panic!("no PUBLISH") };
    assert!(publish.retain && &publish.payload[..] == b"on");
    served.node.seen().refuses_retained = true;
    client.publish("state/b", 2, true, "on").await;
    assert_eq!(client.acknowledged().await, (2, 0x97));
    client.subscribe("state/b", 0).await;
    client.ping().await;
}

#[tokio::test]
async fn a_will_is_published_when_the_client_vanishes_and_only_then() {
    for (good_bye, expected) in [(true, false), (false, true)] {
        let served = Served::open();
        let mut reader = served.connect(Version::V311, "reader").await;
        reader.subscribe("gone/#", 0).await;
        let mut client = served.dial(Version::V311);
        let will = Will {
            topic: Text::from("gone/c"),
            payload: Bytes::from_static(b"bye"),
            qos: 1,
            retain: true,
            properties: Properties::default(),
        };
        client.send(&Packet::Connect(Box::new(Connect { will: Some(will), ..hello(Version::V311, "c") }))).await;
        client.next().await;
        if good_bye {
            client.send(&Packet::Disconnect(Disconnect { reason: 0, properties: Properties::default() })).await;
        }
        drop(client);
        served_until(&served, &[("reader", true), ("c", true), ("c", false)]).await;
        if expected {
            let Packet::Publish(publish) = reader.next().await else { panic!("no PUBLISH") };
            assert_eq!(&publish.payload[..], b"bye");
            assert_eq!(served.node.seen().retained.len(), 1);
        } else {
            reader.ping().await;
        }
    }
}

/// Waits until the node heard of these sessions.
async fn served_until(served: &Served, presence: &[(&str, bool)]) {
    loop {
        let seen: Vec<_> = served.node.seen().presence.clone();
        if seen.iter().map(|(name, on)| (name.as_str(), *on)).eq(presence.iter().copied()) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_newer_connection_ends_the_older_one() {
    let served = Served::open();
    let mut older = served.connect(Version::V5, "c").await;
    let mut newer = served.connect(Version::V5, "c").await;
    assert_eq!(older.next().await, disconnect(0x8e));
    assert_eq!(older.try_next().await, None);
    newer.ping().await;
}

fn disconnect(reason: u8) -> Packet {
    Packet::Disconnect(Disconnect { reason, properties: Properties::default() })
}

#[tokio::test(start_paused = true)]
async fn silent_clients_are_disconnected_and_others_are_not() {
    let served = Served::open();
    let mut silent = served.dial(Version::V5);
    silent.send(&Packet::Connect(Box::new(Connect { keep_alive: 10, ..hello(Version::V5, "silent") }))).await;
    silent.next().await;
    let mut forever = served.connect(Version::V5, "forever").await;
    let began = tokio::time::Instant::now();
    assert_eq!(silent.next().await, disconnect(0x8d));
    assert_eq!(began.elapsed().as_secs(), 15);
    tokio::time::sleep(std::time::Duration::from_secs(100_000)).await;
    forever.ping().await;
    // Nothing at all is said: no CONNECT within ten seconds.
    let mut mute = served.dial(Version::V5);
    assert_eq!(mute.try_next().await, None);
}

#[tokio::test(start_paused = true)]
async fn logins_decide_who_comes_in_and_where() {
    let users = vec![UserSettings::with_token("press-1", "t0k3n", Role::Device)];
    let served = Served::start(MqttSettings::default(), users);
    let connect = async |version, user: Option<&str>, password: Option<&'static str>| {
        let mut client = served.dial(version);
        let username = user.map(Text::from);
        let password = password.map(|password| Bytes::from_static(password.as_bytes()));
        client.send(&Packet::Connect(Box::new(Connect { username, password, ..hello(version, "c") }))).await;
        let Packet::ConnAck(answer) = client.next().await else { panic!("no CONNACK") };
        (client, answer.code)
    };
    assert_eq!(connect(Version::V311, None, None).await.1, 5);
    assert_eq!(connect(Version::V5, None, None).await.1, 0x87);
    assert_eq!(connect(Version::V311, Some("press-1"), Some("wrong")).await.1, 4);
    assert_eq!(connect(Version::V5, Some("press-1"), Some("wrong")).await.1, 0x86);
    let (mut client, code) = connect(Version::V5, Some("press-1"), Some("t0k3n")).await;
    assert_eq!(code, 0);
    client.publish("devices/press-1/telemetry", 1, false, r#"{"t":1}"#).await;
    assert_eq!(client.acknowledged().await, (1, 0));
    client.publish("devices/press-2/telemetry", 2, false, r#"{"t":1}"#).await;
    assert_eq!(client.acknowledged().await, (2, 0x87));
    assert_eq!(client.subscribe("#", 0).await, [0x87]);
    assert_eq!(served.node.seen().devices, ["press-1"]);
    let (mut client, _) = connect(Version::V311, Some("press-1"), Some("t0k3n")).await;
    client.publish("devices/press-2/telemetry", 2, false, r#"{"t":1}"#).await;
    assert_eq!(client.try_next().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_breaks_the_protocol_ends_the_connection_with_its_reason() {
    let served =
        Served::start(MqttSettings { anonymous: true, packet_bytes_max: 1024, ..MqttSettings::default() }, Vec::new());
    let check = async |bytes: &[u8], reason: u8| {
        let mut client = served.connect(Version::V5, "c").await;
        client.stream.write_all(bytes).await.expect("the door reads");
        assert_eq!(client.next().await, disconnect(reason), "{bytes:?}");
        assert_eq!(client.try_next().await, None);
    };
    check(&[0x30, 0xff, 0x7f], 0x95).await;
    check(&[0x30, 0xff, 0xff, 0xff, 0xff, 0xff], 0x81).await;
    check(&[0x34, 6, 0, 1, b'a', 0, 1, 0], 0x9b).await;
    check(&[0x30, 4, 0, 1, b'#', 0], 0x90).await;
    check(&[0x30, 3, 0, 0, 0], 0x90).await;
    check(&[0x30, 7, 0, 1, b'a', 3, 0x23, 0xff, 0xff], 0x94).await;
    check(&[0x30, 6, 0, 0, 3, 0x23, 0, 1], 0x82).await;
    check(&[0x20, 3, 0, 0, 0], 0x82).await;
    // A CONNECT of a version to come, and something that is not MQTT.
    let mut client = served.dial(Version::V5);
    client.stream.write_all(b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\0\0").await.expect("the door reads");
    assert!(matches!(client.next().await, Packet::ConnAck(ConnAck { code: 0x84, .. })));
    let mut client = served.dial(Version::V311);
    client.stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("the door reads");
    assert_eq!(client.try_next().await, None);
}

#[tokio::test]
async fn a_topic_alias_stands_for_its_topic() {
    let served = Served::open();
    let mut client = served.connect(Version::V5, "c").await;
    let alias = |topic: &str, id: u16| {
        let Packet::Publish(publish) = message(topic, id, false, r#"{"t":1}"#) else { unreachable!() };
        let property = Property { id: id::TOPIC_ALIAS, value: Value::U16(5) };
        Packet::Publish(Publish { properties: [property].into_iter().collect(), ..publish })
    };
    for (topic, id) in [("devices/a/telemetry", 1), ("", 2), ("devices/b/telemetry", 3), ("", 4)] {
        client.send(&alias(topic, id)).await;
        assert_eq!(client.acknowledged().await, (id, 0));
    }
    assert_eq!(served.node.seen().devices, ["a", "a", "b", "b"]);
}

#[tokio::test]
async fn a_session_is_resumed_with_what_came_in_between() {
    let served = Served::open();
    let connect = async |clean_start| -> (Client, bool) {
        let mut client = served.dial(Version::V311);
        client.send(&Packet::Connect(Box::new(Connect { clean_start, ..hello(Version::V311, "c") }))).await;
        let Packet::ConnAck(answer) = client.next().await else { panic!("no CONNACK") };
        (client, answer.session_present)
    };
    let (mut client, present) = connect(false).await;
    assert!(!present);
    client.subscribe("a", 1).await;
    drop(client);
    served_until(&served, &[("c", true), ("c", false)]).await;
    served.broker.publish("a", Bytes::from_static(b"x"), 1, false);
    let (mut client, present) = connect(false).await;
    assert!(present);
    let Packet::Publish(publish) = client.next().await else { panic!("no PUBLISH") };
    let ack = Ack { id: publish.id.expect("QoS 1"), reason: 0, properties: Properties::default() };
    client.send(&Packet::PubAck(ack)).await;
    client.ping().await;
    assert!(!connect(true).await.1);
}

#[tokio::test]
async fn stopping_finishes_what_was_begun() {
    let served = Served::open();
    served.node.seen().holds = true;
    let mut client = served.connect(Version::V5, "c").await;
    client.publish("devices/a/telemetry", 1, false, r#"{"t":1}"#).await;
    client.ping().await;
    let node = served.node.clone();
    let stopping = tokio::spawn(served.stop());
    tokio::task::yield_now().await;
    node.answer(0);
    assert_eq!(client.acknowledged().await, (1, 0));
    assert_eq!(client.next().await, disconnect(0x8b));
    stopping.await.expect("it stops");
}

#[tokio::test]
async fn shared_subscriptions_and_bad_filters_are_refused() {
    let served = Served::open();
    for (version, expected) in [(Version::V5, [0x9e, 0x8f]), (Version::V311, [0x80, 0x80])] {
        let mut client = served.connect(version, "c").await;
        assert_eq!(client.subscribe("$share/g/a", 1).await, [expected[0]]);
        assert_eq!(client.subscribe("a/#/b", 1).await, [expected[1]]);
        assert_eq!(client.subscribe("a/+", 2).await, [1]);
    }
}

#[test]
fn settings_out_of_bounds_are_told() {
    assert_eq!(MqttSettings::default().problems(), []);
    let settings = MqttSettings {
        connections_max: 0,
        packet_bytes_max: 1 << 30,
        session_expiry_max: Span(-1),
        ..MqttSettings::default()
    };
    let places: Vec<_> = settings.problems().into_iter().map(|problem| problem.place).collect();
    assert_eq!(places, ["mqtt.connections_max", "mqtt.packet_bytes_max", "mqtt.session_expiry_max"]);
}
