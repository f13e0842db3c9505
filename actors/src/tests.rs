//! A whole node without doors, on a small world.

use std::sync::Arc;

use bytes::Bytes;
use millpond_core::{
    batch::BatchBuilder,
    dead_letter::PayloadFormat,
    ids::Seq,
    record::{self, Class, Hlc, LeftOut, RecordKind},
    time::{Span, Timestamp},
    value::Value,
    window::{Pane, PaneMetric, WindowSpec},
};
use millpond_gateway::{
    broker::Broker,
    payload::PayloadDecoder,
    port::{AlertsAsked, Inbound, Json, PanesAsked, Query, QueryAggregate, Receipt, Refusal, Source, Submission},
    tap::Tap,
};
use millpond_store::Append;
use prometheus::Registry;
use tokio::sync::oneshot;

use crate::{
    Running, Settings,
    settings::{CheckpointSettings, RetentionSettings, StoreSettings},
    testing::{self, IN_APPLY, IN_GATE, Memory},
};

const BASE: Timestamp = Timestamp::from_millis(1_760_000_000_000);

fn settings(shards: usize) -> Settings {
    let window = |text: &str| -> WindowSpec { serde_json::from_str(text).expect("a window") };
    Settings {
        name: "test".into(),
        shards,
        in_flight_bytes: 4 << 20,
        ingest: Default::default(),
        device_types: Vec::new(),
        schemas: Vec::new(),
        windows: vec![
            window(r#"{ "name": "each", "size": "10s", "lateness": "1h" }"#),
            window(r#"{ "name": "all", "size": "10s", "by": "node", "lateness": "1h", "idle_after": "1h" }"#),
        ],
        rules: Vec::new(),
        alerts: Default::default(),
        webhooks: Vec::new(),
        store: StoreSettings { linger: Span::ZERO, ..StoreSettings::default() },
        retention: RetentionSettings::default(),
        checkpoint: CheckpointSettings { every: Span::from_millis(100), after_bytes: 1 << 20 },
        membership: None,
    }
}

async fn start(memory: &Memory, shards: usize) -> Running {
    let (broker, tap) = (Arc::new(Broker::new()), Arc::new(Tap::new()));
    Running::start(testing::env(memory), settings(shards), broker, tap, Registry::new()).await.expect("the node starts")
}

/// One reading per second of each device, in one submission.
async fn publish(node: &Running, devices: &[&str], seconds: std::ops::Range<i64>) -> Receipt {
    let mut rows = BatchBuilder::default();
    for device in devices {
        for second in seconds.clone() {
            rows.begin(device);
            rows.time(BASE.saturating_add(Span::from_secs(second)));
            rows.seq(second as u64);
            rows.cell("v", Value::F64(second as f64));
            rows.end();
        }
    }
    let (receipt, answer) = oneshot::channel();
    node.node.submit(Submission {
        batches: rows.finish().into_iter().map(|batch| Inbound { batch, block: None }).collect(),
        dead_letters: Vec::new(),
        source: Source { login: "test".into(), door: "test" },
        received: BASE.saturating_add(Span::from_secs(100_000)),
        credit: node.node.credit(1000).await,
        receipt,
        keeper: None,
    });
    answer.await.expect("a receipt")
}

fn stored(accepted: u64, duplicates: u64) -> Receipt {
    Receipt::Stored { accepted, duplicates, rejected: 0 }
}

fn question(device: &str) -> Query {
    Query {
        tenant: None,
        device_id: device.into(),
        metric: "v".into(),
        start: BASE,
        end: Timestamp::MAX,
        aggregate: Some(QueryAggregate::Count),
        step: None,
        limit: 10,
    }
}

async fn count(node: &Running, device: &str) -> u64 {
    let answer = node.node.query(question(device)).await.expect("an answer");
    answer.points.first().map_or(0, |(_, count)| count.as_f64().expect("a number") as u64)
}

async fn panes(node: &Running, window: &str) -> Vec<Json> {
    let mut panes = node
        .node
        .window(PanesAsked { window: window.to_owned(), limit: 100_000, ..PanesAsked::default() })
        .await
        .expect("panes");
    for pane in &mut panes {
        pane.as_object_mut().expect("an object").remove("revision");
    }
    panes.sort_by_key(Json::to_string);
    panes
}

/// Waits until `f` holds, without a clock of its own.
#[expect(clippy::disallowed_methods, reason = "the world of tests is the real one")]
async fn until(what: &str, mut f: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if f().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{what} never happened");
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart_once() {
    for shards in [1, 3] {
        let memory = Memory::default();
        let node = start(&memory, shards).await;
        assert_eq!(publish(&node, &["a", "b", "c"], 0..40).await, stored(120, 0));
        assert_eq!(publish(&node, &["a", "b", "c"], 30..50).await, stored(30, 30));
        until("the panes", async || panes(&node, "each").await.len() == 12).await;
        until("the pane of all", async || panes(&node, "all").await.len() == 4).await;
        let before = (panes(&node, "each").await, panes(&node, "all").await);
        node.stop().await;
        let node = start(&memory, shards).await;
        assert_eq!(publish(&node, &["a", "b", "c"], 0..50).await, stored(0, 150), "the gate remembers");
        assert_eq!(count(&node, "b").await, 50);
        assert_eq!((panes(&node, "each").await, panes(&node, "all").await), before);
        node.stop().await;
    }
}

#[tokio::test]
async fn what_counts_in_another_journal_is_no_part_of_an_answer() {
    let node = start(&Memory::default(), 1).await;
    assert_eq!(publish(&node, &["a", "b"], 0..40).await, stored(80, 0));
    let mut records = Vec::new();
    let scan = node.reader.scan(Class::Raw, Seq(0), |row| {
        records.push(row.seq.0);
        std::ops::ControlFlow::Continue(())
    });
    scan.expect("a journal");
    let left = records.iter().map(|record| LeftOut { record: *record, device: "a".into(), seqs: vec![7, 9, 39, 40] });
    let record = Append {
        kind: RecordKind::LeftOut,
        hlc: Hlc::default(),
        rows: 0,
        min_time: Timestamp::MAX,
        max_time: Timestamp::MIN,
        devices: Vec::new(),
        payload: record::encode(&left.collect::<Vec<_>>()).into(),
    };
    assert!(node.writer.write(Class::State, vec![record], Vec::new()).await);
    assert_eq!((count(&node, "a").await, count(&node, "b").await), (37, 40));
    let question = Query { aggregate: None, limit: 100, ..question("a") };
    let answer = node.node.query(question).await.expect("an answer");
    let values: Vec<f64> = answer.points.iter().filter_map(|(_, value)| value.as_f64()).collect();
    let expected: Vec<f64> = (0..39_u8).filter(|value| ![7, 9].contains(value)).map(f64::from).collect();
    assert_eq!(values, expected);
    node.stop().await;
}

#[tokio::test]
async fn a_batch_that_makes_the_gate_fail_is_set_aside_and_the_shard_comes_back() {
    let node = start(&Memory::default(), 2).await;
    assert_eq!(publish(&node, &["good"], 0..25).await, stored(25, 0));
    assert_eq!(publish(&node, &[IN_GATE], 0..1).await, Receipt::Refused(Refusal::Failed));
    assert_eq!(publish(&node, &["good"], 20..60).await, stored(35, 5), "the rebuilt shard knows what it knew");
    let letters = node.node.dead_letters(None, None, None, 10).await.expect("dead letters");
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0]["reason"], &letters[0]["device_id"]), (&"poison".into(), &IN_GATE.into()));
    until("the panes", async || panes(&node, "each").await.len() == 5).await;
    let of_first = panes(&node, "each").await.iter().filter(|pane| pane["metrics"]["v"]["count"] == 10).count();
    assert_eq!(of_first, 5, "nothing was counted twice by the rebuilding");
    node.stop().await;
}

#[tokio::test]
async fn a_record_that_makes_windows_fail_is_left_out_and_the_rest_goes_on() {
    let memory = Memory::default();
    let node = start(&memory, 1).await;
    assert_eq!(publish(&node, &["good"], 0..25).await, stored(25, 0));
    let poison = publish(&node, &[IN_APPLY], 0..1).await;
    assert_eq!(poison, Receipt::Refused(Refusal::Failed), "it is on disk, but nobody could say so");
    assert_eq!(publish(&node, &["good"], 25..60).await, stored(35, 0));
    until("the panes", async || panes(&node, "each").await.len() == 5).await;
    node.stop().await;
    let node = start(&memory, 1).await;
    assert_eq!(publish(&node, &["good"], 0..60).await, stored(0, 60));
    node.stop().await;
}

#[tokio::test]
async fn only_the_device_whose_data_makes_a_shard_fail_is_set_apart() {
    for poison in [IN_GATE, IN_APPLY] {
        let node = start(&Memory::default(), 1).await;
        assert_eq!(publish(&node, &["good", poison], 0..5).await, Receipt::Refused(Refusal::Failed));
        // The devices send it again, as they must.
        let mut again = Receipt::Refused(Refusal::Failed);
        while again == Receipt::Refused(Refusal::Failed) {
            again = publish(&node, &["good", poison], 0..5).await;
        }
        let Receipt::Stored { accepted, duplicates, rejected } = again else { panic!("{again:?}") };
        assert_eq!((accepted + duplicates, rejected), (5, 5));
        assert_eq!(
            publish(&node, &["good", poison], 5..60).await,
            Receipt::Stored { accepted: 55, duplicates: 0, rejected: 55 }
        );
        until("the panes", async || panes(&node, "each").await.len() == 5).await;
        assert_eq!(count(&node, "good").await, 60);
        assert!(count(&node, poison).await <= 5, "an event that was set apart is stored twice");
        node.stop().await;
    }
}

#[tokio::test]
async fn a_crash_between_checkpoints_gives_the_same_panes() {
    let memory = Memory::default();
    let undisturbed = start(&Memory::default(), 1).await;
    for round in 0..8 {
        let node = start(&memory, 1).await;
        for node in [&node, &undisturbed] {
            assert_eq!(publish(node, &["a", "b"], round * 12..round * 12 + 12).await, stored(24, 0));
        }
        // No stop: what is not committed is lost, as in a crash. Its tasks are left to themselves and may commit nothing more.
        node.crash();
    }
    let node = start(&memory, 1).await;
    for node in [&node, &undisturbed] {
        publish(node, &["a", "b"], 1000..1001).await;
        until("the last panes", async || panes(node, "all").await.len() == 10 && panes(node, "each").await.len() == 20)
            .await;
    }
    assert_eq!(panes(&node, "each").await, panes(&undisturbed, "each").await);
    assert_eq!(panes(&node, "all").await, panes(&undisturbed, "all").await);
    assert_eq!(count(&node, "a").await, 97);
}

#[tokio::test]
async fn dead_letters_are_replayed_when_they_pass() {
    let node = start(&Memory::default(), 1).await;
    let mut decoder = PayloadDecoder::new();
    let payload = Bytes::from_static(br#"{"ts":"2200-01-01T00:00:00Z","v":1}"#);
    decoder.decode(PayloadFormat::Json, Some("d"), &payload).expect("readable");
    let (receipt, answer) = oneshot::channel();
    node.node.submit(Submission {
        batches: decoder.finish(),
        dead_letters: Vec::new(),
        source: Source { login: "test".into(), door: "test" },
        received: BASE,
        credit: None,
        receipt,
        keeper: None,
    });
    assert_eq!(answer.await, Ok(Receipt::Stored { accepted: 0, duplicates: 0, rejected: 1 }));
    let letters = node.node.dead_letters(Some("future_time".into()), None, None, 10).await.expect("dead letters");
    assert_eq!(letters.len(), 1);
    let outcome = node.node.replay_dead_letters(None, None).await.expect("an outcome");
    assert_eq!((&outcome["tried"], &outcome["replayed"]), (&1.into(), &0.into()), "it is still in the future");
    assert_eq!(node.node.dead_letters(None, None, None, 10).await.expect("dead letters").len(), 1, "it stays");
    node.stop().await;
}

#[tokio::test]
async fn a_schema_may_only_change_in_ways_that_its_devices_survive() {
    let memory = Memory::default();
    let with = |version: u32, of_type: &str| {
        let text =
            format!(r#"{{ "name": "s", "version": {version}, "metrics": {{ "v": {{ "type": "{of_type}" }} }} }}"#);
        Settings { schemas: vec![serde_json::from_str(&text).expect("a schema")], ..settings(1) }
    };
    let start = async |settings: Settings| {
        let (broker, tap) = (Arc::new(Broker::new()), Arc::new(Tap::new()));
        Running::start(testing::env(&memory), settings, broker, tap, Registry::new()).await
    };
    start(with(1, "f64")).await.expect("the first version").stop().await;
    assert!(matches!(start(with(2, "text")).await, Err(crate::StartError::Schemas(_))), "a type must stay");
    start(with(1, "f64")).await.expect("the old version still runs").stop().await;
}

/// A node with a rule on the window `all`, and a pane of that window from other sites.
fn hot(settings: Settings) -> Settings {
    let when = r#"{ "type": "window", "window": "all", "metric": "v", "aggregate": "max", "op": ">", "value": 80 }"#;
    let rule = serde_json::from_str(&format!(r#"{{ "name": "hot", "when": {when} }}"#)).expect("a rule");
    Settings { rules: vec![rule], ..settings }
}

fn merged_pane(revision: u32, max: f64) -> Pane {
    let metric = PaneMetric { name: "v".into(), count: 1, max: Some(max), ..PaneMetric::default() };
    Pane {
        window: "all".into(),
        key: "acme/site".into(),
        start: BASE,
        end: BASE.saturating_add(Span::from_secs(10)),
        revision,
        open: false,
        metrics: vec![metric],
        share: None,
        of: None,
        merged: true,
    }
}

#[tokio::test]
async fn panes_of_other_sites_are_kept_and_judged_once_whatever_happens_to_the_node() {
    let memory = Memory::default();
    let start = async || {
        let (broker, tap) = (Arc::new(Broker::new()), Arc::new(Tap::new()));
        let settings = hot(settings(1));
        Running::start(testing::env(&memory), settings, broker, tap, Registry::new()).await.expect("the node starts")
    };
    let alerts = async |node: &Running, wanted: &[&str]| {
        until("the alerts", async || {
            let found = node.node.alerts(AlertsAsked { limit: 10, ..AlertsAsked::default() }).await.expect("alerts");
            let mut states: Vec<&str> = found.iter().filter_map(|alert| alert["state"].as_str()).collect();
            states.sort_unstable();
            states == wanted
        })
        .await;
    };
    let node = start().await;
    let merge = node.merge();
    assert!(merge(vec![merged_pane(0, 90.0)]).await);
    alerts(&node, &["firing"]).await;
    assert!(merge(vec![merged_pane(1, 10.0)]).await);
    alerts(&node, &["resolved"]).await;
    node.rebuild()().await.expect("it was rebuilt");
    assert!(merge(vec![merged_pane(0, 90.0), merged_pane(1, 10.0)]).await, "the new plane takes them");
    alerts(&node, &["resolved"]).await;
    node.stop().await;
    let node = start().await;
    assert!(node.merge()(vec![merged_pane(0, 90.0), merged_pane(1, 10.0)]).await);
    alerts(&node, &["resolved"]).await;
    let said = crate::merged::said(&node.reader, BASE).expect("readable");
    assert_eq!(said.iter().map(|said| (said.key.as_str(), said.revision)).collect::<Vec<_>>(), [("acme/site", 1)]);
    assert_eq!(panes(&node, "all").await.len(), 1);
    assert!(node.merge()(vec![merged_pane(2, 95.0)]).await);
    alerts(&node, &["firing", "resolved"]).await;
    let merge = node.merge();
    node.stop().await;
    assert!(!merge(vec![merged_pane(3, 10.0)]).await, "nobody is there to keep it");
}
