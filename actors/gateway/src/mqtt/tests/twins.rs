//! What devices tell the site, and how it finds them.

use serde_json::json;

use super::*;
use crate::port::AskError;

#[tokio::test]
async fn reports_and_answers_go_to_the_site() {
    let served = Served::open();
    served.node.seen().site = Some(Ok(json!({})));
    let mut client = served.connect(Version::V311, "press").await;
    client.publish("devices/press/twin/reported", 1, true, r#"{"a":1}"#).await;
    client.publish("devices/press/commands/7/result", 2, false, "done").await;
    assert_eq!((client.acknowledged().await, client.acknowledged().await), ((1, 0), (2, 0)));
    let seen = served.node.seen();
    let answer = r#"answer {"answer":"done","device":"press","id":"7"}"#;
    assert_eq!(seen.told, [r#"report {"device":"press","patch":{"a":1}}"#, answer]);
    assert_eq!((seen.rows, seen.dead_letters.len(), seen.retained.len()), (0, 0, 0), "a report is not retained");
}

#[tokio::test]
async fn what_the_site_does_not_take_is_a_dead_letter() {
    let served = Served::open();
    let mut client = served.connect(Version::V311, "press").await;
    client.publish("devices/press/twin/reported", 1, false, "{nonsense").await;
    assert_eq!(client.acknowledged().await, (1, 0));
    served.node.seen().site = Some(Err(AskError::Invalid("too much".into())));
    client.publish("devices/press/twin/reported", 2, false, "{}").await;
    assert_eq!(client.acknowledged().await, (2, 0));
    assert_eq!(served.node.seen().dead_letters, ["press {nonsense", "press {}"]);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_could_not_be_written_is_not_acknowledged() {
    let served = Served::open();
    served.node.seen().site = Some(Err(AskError::Unavailable));
    let mut client = served.connect(Version::V5, "press").await;
    client.publish("devices/press/twin/reported", 1, false, "{}").await;
    assert_eq!(client.acknowledged().await, (1, 0x97));
    assert!(served.node.seen().dead_letters.is_empty());
}

#[tokio::test]
async fn without_a_site_they_are_messages_like_others() {
    let served = Served::open();
    let mut watcher = served.connect(Version::V311, "watcher").await;
    watcher.subscribe("devices/#", 1).await;
    let mut client = served.connect(Version::V311, "press").await;
    client.publish("devices/press/twin/reported", 1, false, "{}").await;
    assert_eq!(client.acknowledged().await, (1, 0));
    let Packet::Publish(heard) = watcher.next().await else { panic!("no message") };
    assert_eq!(&*heard.topic, "devices/press/twin/reported");
}

#[tokio::test]
async fn the_node_hears_for_which_device_a_client_listens() {
    let users = vec![
        UserSettings::with_token("press", "press", Role::Device),
        UserSettings::with_token("otto", "otto", Role::Operator),
    ];
    let served = Served::start(MqttSettings::default(), users);
    let connect = async |name: &str| {
        let mut client = served.dial(Version::V311);
        let hello = Connect {
            username: Some(name.into()),
            password: Some(name.as_bytes().to_vec().into()),
            ..hello(Version::V311, name)
        };
        client.send(&Packet::Connect(Box::new(hello))).await;
        assert!(matches!(client.next().await, Packet::ConnAck(ConnAck { code: 0, .. })));
        client
    };
    let mut press = connect("press").await;
    press.subscribe("devices/press/commands/+", 1).await;
    let mut otto = connect("otto").await;
    otto.subscribe("devices/press/commands/+", 1).await;
    otto.subscribe("devices/#", 1).await;
    assert_eq!(served.node.seen().listening, [("press".to_owned(), true)], "who watches is not the device");
    drop(press);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(served.node.seen().listening.last(), Some(&("press".to_owned(), false)));
}
