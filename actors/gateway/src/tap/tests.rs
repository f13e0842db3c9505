use millpond_core::{
    batch::{BatchBuilder, UNTIMED},
    time::Timestamp,
    value::{Quality, Value},
};

use super::*;

fn batch(rows: &[(&str, f64)]) -> Arc<Batch> {
    let mut builder = BatchBuilder::default();
    for (device, value) in rows {
        builder.begin(device);
        builder.time(Timestamp(1_000_000));
        builder.cell("t", Value::F64(*value));
        builder.end();
    }
    Arc::new(builder.finish().remove(0))
}

fn tap(filter: TapFilter) -> (Arc<Tap>, Subscription) {
    let tap = Arc::new(Tap::new());
    let subscription = tap.subscribe(filter).expect("room");
    (tap, subscription)
}

async fn lines(subscription: &mut Subscription) -> String {
    let mut out = Vec::new();
    subscription.next(&mut out).await;
    String::from_utf8(out).expect("text")
}

#[tokio::test]
async fn a_tap_is_wanted_while_somebody_watches() {
    let (tap, subscription) = tap(TapFilter::default());
    assert!(tap.wanted());
    drop(subscription);
    assert!(!tap.wanted());
    tap.publish(batch(&[("a", 1.0)]));
}

#[tokio::test]
async fn events_come_out_as_devices_may_send_them() {
    let (tap, mut subscription) = tap(TapFilter::default());
    let mut builder = BatchBuilder::default();
    builder.begin("a\"b");
    builder.time(Timestamp(1_795_162_500_250_000_001));
    builder.seq(7);
    builder.quality(Quality::Bad);
    for (name, value) in [
        ("f", Value::F64(20.0)),
        ("nan", Value::F64(f64::NAN)),
        ("i", Value::I64(1 << 60)),
        ("b", Value::Bool(true)),
        ("s", Value::Text("x\n")),
        ("y", Value::Bytes(&[255])),
    ] {
        builder.cell(name, value);
    }
    builder.end();
    tap.publish(Arc::new(builder.finish().remove(0)));
    let expected = "{\"device\":\"a\\\"b\",\"ts\":\"2026-11-20T08:15:00.250000001Z\",\"seq\":7,\"quality\":\"bad\",\"f\":20,\
        \"nan\":null,\"i\":1152921504606846976,\"b\":true,\"s\":\"x\\n\",\"y\":\"/w==\"}\n";
    assert_eq!(lines(&mut subscription).await, expected);
    builder.begin("a");
    builder.time(UNTIMED);
    builder.cell("t", Value::F64(1.0));
    builder.end();
    tap.publish(Arc::new(builder.finish().remove(0)));
    assert_eq!(lines(&mut subscription).await, "{\"device\":\"a\",\"t\":1}\n");
}

#[tokio::test]
async fn a_filter_looks_at_device_metric_and_condition() {
    let check = async |filter: TapFilter, expected: &[&str]| {
        let (tap, mut subscription) = tap(filter);
        tap.publish(batch(&[("a", 1.0), ("a", 2.0), ("b", 3.0)]));
        let lines = lines(&mut subscription).await;
        let found: Vec<&str> = lines.lines().map(|line| line.rsplit(':').next().unwrap_or_default()).collect();
        assert_eq!(found, expected);
    };
    let filter = |device: Option<&str>, metric: Option<&str>, condition: Option<&str>| {
        TapFilter::new(device.map(str::to_owned), metric.map(str::to_owned), condition).expect("a good filter")
    };
    check(filter(None, None, None), &["1}", "2}", "3}"]).await;
    check(filter(Some("a"), None, None), &["1}", "2}"]).await;
    check(filter(None, Some("t"), Some("t >= 2.0")), &["2}", "3}"]).await;
    check(filter(None, Some("other"), None), &[]).await;
    check(filter(None, None, Some("other > 1.0")), &[]).await;
    check(filter(None, None, Some("device == 'b'")), &["3}"]).await;
    assert!(TapFilter::new(None, None, Some("t >")).is_err());
}

#[tokio::test]
async fn a_slow_reader_misses_events_and_is_told_how_many() {
    let (tap, mut subscription) = tap(TapFilter::default());
    for _ in 0..TAP_QUEUE_MAX + 3 {
        tap.publish(batch(&[("a", 1.0), ("a", 2.0)]));
    }
    let mut out = Vec::new();
    let missed = subscription.next(&mut out).await;
    assert!(missed >= 6, "{missed}");
    assert_eq!(tap.dropped(), missed);
    assert!(out.starts_with(format!("{{\"dropped\":{missed}}}\n").as_bytes()));
    tap.publish(batch(&[("a", 1.0)]));
    assert_eq!(subscription.next(&mut out).await, 0, "there is room again, and it is told once");
}

#[tokio::test]
async fn there_are_only_so_many_readers() {
    let tap = Arc::new(Tap::new());
    let readers: Vec<_> = (0..TAP_READERS_MAX).map(|_| tap.subscribe(TapFilter::default())).collect();
    assert!(readers.iter().all(Option::is_some));
    assert!(tap.subscribe(TapFilter::default()).is_none());
}
