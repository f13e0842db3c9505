use std::sync::Arc;

use bytes::Bytes;
use millpond_core::limits::{MQTT_INFLIGHT_OUT_MAX, MQTT_QUEUE_MAX, MQTT_SUBSCRIPTIONS_MAX};
use millpond_env::Mono;
use proptest::{collection::vec, prelude::*};

use super::*;

const S: u64 = 1_000_000_000;

fn attach(broker: &Broker, client: &str, clean: bool, expiry_s: u32) -> Attached {
    let request = Attach { client_id: client.into(), clean, expiry_s, receive_max: u16::MAX, will: None };
    broker.attach(request).expect("there is room")
}

fn options(qos: u8) -> SubscribeOptions {
    SubscribeOptions { qos, ..SubscribeOptions::default() }
}

fn subscribe(broker: &Broker, to: &Attached, filter: &str, qos: u8) {
    broker.subscribe(&to.session, to.epoch, filter, options(qos), 0).expect("it may");
}

fn take(broker: &Broker, to: &Attached, now: u64) -> Vec<Sending> {
    let mut out = Vec::new();
    broker.take(&to.session, to.epoch, Mono(now), usize::MAX, &mut out);
    out
}

/// (topic, payload, QoS, retain, duplicate) of each message that goes out.
fn taken(broker: &Broker, to: &Attached) -> Vec<(String, String, u8, bool, bool)> {
    let line = |sending: Sending| {
        let Outgoing { message, retain, .. } = sending.outgoing;
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        (message.topic.to_string(), payload, u8::from(sending.id.is_some()), retain, sending.dup)
    };
    take(broker, to, 0).into_iter().map(line).collect()
}

fn line(topic: &str, payload: &str, qos: u8, retain: bool, dup: bool) -> (String, String, u8, bool, bool) {
    (topic.into(), payload.into(), qos, retain, dup)
}

/// Matching as the standard words it, one rule after the other.
fn naive(filter: &[&str], topic: &[&str], first: bool) -> bool {
    match (filter, topic) {
        (["#"], rest) => !(first && rest.first().is_some_and(|level| level.starts_with('$'))),
        ([], []) => true,
        (["+", filter @ ..], [level, topic @ ..]) => !(first && level.starts_with('$')) && naive(filter, topic, false),
        ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && naive(filter, topic, false),
        _ => false,
    }
}

fn filter() -> impl Strategy<Value = String> {
    (vec(prop_oneof![Just("a"), Just("b"), Just(""), Just("$s"), Just("+")], 1..5), any::<bool>()).prop_map(
        |(mut levels, all)| {
            if all {
                levels.pop();
                levels.push("#");
            }
            levels.join("/")
        },
    )
}

fn topics() -> impl Strategy<Value = String> {
    vec(prop_oneof![Just("a"), Just("b"), Just("c"), Just(""), Just("$s")], 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("topics are not empty", |topic| !topic.is_empty())
}

proptest! {
    #[test]
    fn the_tree_finds_what_the_standard_says(filters in vec(filter(), 0..12), removed in vec(any::<bool>(), 12), topic in topics()) {
        let broker = Broker::new();
        let mut live = std::collections::BTreeSet::new();
        let clients: Vec<Attached> = (0..filters.len()).map(|at| attach(&broker, &format!("c{at}"), true, 0)).collect();
        for (at, filter) in filters.iter().enumerate() {
            if topic::is_filter(filter) {
                subscribe(&broker, &clients[at], filter, 0);
                live.insert(at);
            }
        }
        for (at, removed) in removed.iter().enumerate().take(filters.len()) {
            if *removed && live.remove(&at) {
                prop_assert!(broker.unsubscribe(&clients[at].session, clients[at].epoch, &filters[at]));
            }
        }
        let levels: Vec<&str> = topic.split('/').collect();
        let expected: Vec<usize> = live.into_iter().filter(|at| naive(&filters[*at].split('/').collect::<Vec<_>>(), &levels, true)).collect();
        prop_assert_eq!(broker.wanted(&topic), !expected.is_empty());
        broker.publish(&topic, Bytes::from_static(b"x"), 0, true);
        let found: Vec<usize> = (0..filters.len()).filter(|at| !taken(&broker, &clients[*at]).is_empty()).collect();
        prop_assert_eq!(&found, &expected);
        // The same by the other way: retained messages found by a filter.
        for (at, filter) in filters.iter().enumerate().filter(|(_, filter)| topic::is_filter(filter)) {
            let late = attach(&broker, &format!("late{at}"), true, 0);
            subscribe(&broker, &late, filter, 0);
            prop_assert_eq!(taken(&broker, &late).len(), usize::from(naive(&filter.split('/').collect::<Vec<_>>(), &levels, true)));
        }
    }
}

#[test]
fn a_message_comes_once_with_the_best_qos_of_overlapping_subscriptions() {
    let broker = Broker::new();
    let client = attach(&broker, "c", true, 0);
    broker.subscribe(&client.session, client.epoch, "a/#", options(0), 3).expect("it may");
    broker.subscribe(&client.session, client.epoch, "a/+", options(2), 4).expect("it may");
    broker.publish("a/b", Bytes::from_static(b"x"), 1, false);
    let out = take(&broker, &client, 0);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].outgoing.qos, 1);
    assert_eq!(out[0].outgoing.subscription_ids, [3, 4]);
}

#[test]
fn retained_messages_are_replaced_removed_and_replayed() {
    let broker = Broker::new();
    assert_eq!(broker.load_retained([("a/old".to_owned(), Bytes::from_static(b"1"), 1)]), 0);
    broker.publish("a/x", Bytes::from_static(b"2"), 0, true);
    broker.publish("a/x", Bytes::from_static(b"3"), 0, true);
    broker.publish("a/y", Bytes::from_static(b"4"), 0, true);
    broker.publish("a/y", Bytes::new(), 0, true);
    let client = attach(&broker, "c", true, 0);
    subscribe(&broker, &client, "a/#", 1);
    assert_eq!(taken(&broker, &client), [line("a/old", "1", 1, true, false), line("a/x", "3", 0, true, false)]);
    // A live one does not look retained.
    broker.publish("a/x", Bytes::from_static(b"5"), 0, true);
    assert_eq!(taken(&broker, &client), [line("a/x", "5", 0, false, false)]);
}

#[test]
fn thousands_of_retained_messages_reach_a_subscriber_page_by_page() {
    let broker = Broker::new();
    let many = MQTT_QUEUE_MAX * 2;
    for n in 0..many {
        broker.publish(&format!("r/{n:05}"), Bytes::from_static(b"x"), 0, true);
    }
    let client = attach(&broker, "c", true, 0);
    subscribe(&broker, &client, "r/+", 0);
    let mut got = 0;
    loop {
        match take(&broker, &client, 0).len() {
            0 => break,
            n => got += n,
        }
    }
    assert_eq!(got, many);
}

#[test]
fn retain_handling_says_when_retained_messages_come() {
    let check = |handling: u8, first: usize, again: usize| {
        let broker = Broker::new();
        broker.publish("a", Bytes::from_static(b"x"), 0, true);
        let client = attach(&broker, "c", true, 0);
        let options = SubscribeOptions { retain_handling: handling, ..options(0) };
        for expected in [first, again] {
            broker.subscribe(&client.session, client.epoch, "a", options, 0).expect("it may");
            assert_eq!(taken(&broker, &client).len(), expected, "handling {handling}");
        }
    };
    check(0, 1, 1);
    check(1, 1, 0);
    check(2, 0, 0);
}

#[test]
fn no_local_keeps_the_own_messages_away() {
    let broker = Broker::new();
    let client = attach(&broker, "c", true, 0);
    let options = SubscribeOptions { no_local: true, retain_as_published: true, ..options(0) };
    broker.subscribe(&client.session, client.epoch, "a", options, 0).expect("it may");
    broker.deliver(Message::new("a", Bytes::from_static(b"mine"), 0, false), Some(client.session.key));
    broker.deliver(Message::new("a", Bytes::from_static(b"other"), 0, true), None);
    assert_eq!(taken(&broker, &client), [line("a", "other", 0, true, false)]);
}

#[test]
fn a_session_goes_on_where_its_connection_broke_off() {
    let broker = Broker::new();
    let first = attach(&broker, "c", false, 60);
    assert!(!first.present);
    subscribe(&broker, &first, "a", 1);
    for payload in ["1", "2", "3"] {
        broker.publish("a", payload.into(), 1, false);
    }
    let sent = take(&broker, &first, 0);
    first.session.acknowledged(first.epoch, sent[1].id.expect("QoS 1"));
    assert!(broker.detach(&first.session, first.epoch, false, None, Mono(0)).0);
    broker.publish("a", "4".into(), 1, false);
    broker.publish("a", "lost".into(), 0, false);
    let second = attach(&broker, "c", false, 60);
    assert!(second.present);
    assert_eq!(
        taken(&broker, &second),
        [line("a", "1", 1, false, true), line("a", "3", 1, false, true), line("a", "4", 1, false, false)]
    );
}

#[test]
fn a_session_ends_when_its_client_stays_away() {
    let broker = Broker::new();
    let first = attach(&broker, "c", false, 60);
    subscribe(&broker, &first, "a", 1);
    broker.detach(&first.session, first.epoch, false, None, Mono(0));
    broker.sweep(Mono(59 * S));
    assert!(broker.wanted("a"));
    broker.sweep(Mono(60 * S));
    assert!(!broker.wanted("a"));
    assert!(!attach(&broker, "c", false, 60).present);
}

#[test]
fn a_newer_connection_takes_the_session_over() {
    let broker = Broker::new();
    for clean in [true, false] {
        let first = attach(&broker, "c", clean, 60);
        subscribe(&broker, &first, "a", 1);
        let second = attach(&broker, "c", clean, 60);
        assert_eq!(second.present, !clean);
        assert_eq!(first.session.lost(first.epoch), Some(End::TakenOver));
        assert_eq!(second.session.lost(second.epoch), None);
        broker.publish("a", "x".into(), 1, false);
        assert!(take(&broker, &first, 0).is_empty());
        assert!(broker.subscribe(&first.session, first.epoch, "b", options(0), 0).is_err());
        assert!(!broker.detach(&first.session, first.epoch, false, None, Mono(0)).0);
        assert_eq!(taken(&broker, &second).len(), usize::from(!clean));
        assert!(broker.detach(&second.session, second.epoch, true, Some(0), Mono(0)).0);
    }
}

#[test]
fn too_many_waiting_messages_end_the_session_and_nothing_is_left_out_silently() {
    let broker = Broker::new();
    let slow = attach(&broker, "slow", false, 60);
    let other = attach(&broker, "other", false, 60);
    subscribe(&broker, &slow, "a", 1);
    subscribe(&broker, &other, "a", 0);
    for _ in 0..=MQTT_QUEUE_MAX {
        assert_eq!(slow.session.lost(slow.epoch), None);
        broker.publish("a", "x".into(), 1, false);
    }
    assert_eq!(slow.session.lost(slow.epoch), Some(End::Overflow));
    // QoS 0 is dropped instead.
    assert_eq!(other.session.lost(other.epoch), None);
    assert_eq!(take(&broker, &other, 0).len(), MQTT_QUEUE_MAX);
    broker.detach(&slow.session, slow.epoch, false, None, Mono(0));
    assert!(!attach(&broker, "slow", false, 60).present);
}

#[test]
fn unacknowledged_messages_are_bounded_by_what_the_client_takes() {
    let broker = Broker::new();
    let check = |client: &str, receive_max: u16, expected: usize| {
        let request = Attach { client_id: client.into(), clean: true, expiry_s: 0, receive_max, will: None };
        let to = broker.attach(request).expect("there is room");
        subscribe(&broker, &to, "a", 1);
        for _ in 0..MQTT_INFLIGHT_OUT_MAX + 10 {
            broker.publish("a", "x".into(), 1, false);
        }
        let out = take(&broker, &to, 0);
        assert_eq!(out.len(), expected);
        to.session.acknowledged(to.epoch, out[0].id.expect("QoS 1"));
        assert_eq!(take(&broker, &to, 0).len(), 1);
    };
    check("few", 3, 3);
    check("many", u16::MAX, MQTT_INFLIGHT_OUT_MAX);
}

#[test]
fn expired_messages_are_not_sent() {
    let broker = Broker::new();
    let client = attach(&broker, "c", true, 0);
    subscribe(&broker, &client, "a", 1);
    let message = Message { expires: Some(Mono(5 * S)), ..Message::new("a", "x".into(), 1, true) };
    broker.deliver(message, None);
    assert!(take(&broker, &client, 5 * S).is_empty());
    subscribe(&broker, &client, "a", 1);
    assert!(take(&broker, &client, 6 * S).is_empty());
}

#[test]
fn subscriptions_of_a_client_are_bounded() {
    let broker = Broker::new();
    let client = attach(&broker, "c", true, 0);
    for n in 0..MQTT_SUBSCRIPTIONS_MAX {
        subscribe(&broker, &client, &format!("a/{n}"), 0);
    }
    let refused = broker.subscribe(&client.session, client.epoch, "one/more", options(0), 0);
    assert_eq!(refused, Err(SubscribeError::TooMany));
    subscribe(&broker, &client, "a/0", 1);
}

fn will(delay_s: u32) -> Option<Will> {
    Some(Will { message: Message::new("gone", "x".into(), 0, false), delay_s, login: "l".into() })
}

#[test]
fn wills_are_due_when_the_client_is_gone_for_long_enough() {
    let attach = |broker: &Broker, clean, expiry_s, will| {
        let request = Attach { client_id: Arc::from("c"), clean, expiry_s, receive_max: 10, will };
        broker.attach(request).expect("there is room")
    };
    // (delay, expiry of the session, good-bye) → due at once, and due in the sweep after so many seconds.
    let check = |delay_s: u32, expiry_s: u32, good_bye: bool, at_once: bool, after_s: Option<u64>| {
        let broker = Broker::new();
        let to = attach(&broker, false, expiry_s, will(delay_s));
        let (_, due) = broker.detach(&to.session, to.epoch, good_bye, None, Mono(0));
        assert_eq!(due.is_some(), at_once, "{delay_s} {expiry_s} {good_bye}");
        let first = (0..100).find(|s| !broker.sweep(Mono(s * S)).is_empty());
        assert_eq!(first, after_s, "{delay_s} {expiry_s} {good_bye}");
    };
    check(0, 0, false, true, None);
    check(0, 60, false, true, None);
    check(0, 60, true, false, None);
    check(5, 60, false, false, Some(5));
    check(50, 20, false, false, Some(20));
    check(5, 0, false, true, None);
    // Coming back in time voids a delayed will; starting anew does not.
    for (clean, wills) in [(false, 0), (true, 1)] {
        let broker = Broker::new();
        let to = attach(&broker, false, 60, will(5));
        broker.detach(&to.session, to.epoch, false, None, Mono(0));
        assert_eq!(attach(&broker, clean, 60, None).wills.len(), wills);
    }
}
