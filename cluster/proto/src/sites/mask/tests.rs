use std::collections::BTreeMap;

use millpond_core::{
    alert::AlertState,
    batch::BatchBuilder,
    block,
    ids::{Origin, Seq},
    record::{Class, Hlc},
    rule::{RuleSpec, Severity},
    time::Timestamp,
    value::Value,
    window::{PaneMetric, Stats, WindowSpec},
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    sites::terms::{Filter, Terms},
    twin::Stamp,
};

fn mask(devices: &str, metrics: &str, how: How) -> Mask {
    Mask { devices: vec![devices.into()], metrics: vec![metrics.into()], how, digits: None, device: false }
}

fn names(devices: &str) -> Mask {
    Mask { metrics: Vec::new(), device: true, ..mask(devices, "", How::Token) }
}

fn round(metrics: &str, digits: i8) -> Mask {
    Mask { digits: Some(digits), ..mask("*", metrics, How::Round) }
}

fn filter(masks: &[Mask]) -> Filter {
    let windows: Vec<WindowSpec> =
        serde_json::from_str(r#"[{"name": "each", "size": "10s"}, {"name": "all", "size": "10s", "by": "site"}]"#)
            .expect("they are windows");
    let when = r#"{"type": "threshold", "metric": "badge", "op": ">", "value": 1}"#;
    let rules: Vec<RuleSpec> =
        serde_json::from_str(&format!(r#"[{{"name": "hot", "when": {when}}}]"#)).expect("they are rules");
    let masks = Masks { masks: masks.to_vec(), secret: [7; 32] };
    let terms = Terms { classes: Class::ALL.to_vec(), masks, ..Terms::default() };
    Filter::new(&terms, &Class::ALL, ByDevice::of(&windows, &rules))
}

fn record(kind: RecordKind, payload: Vec<u8>) -> Record {
    let (min_time, max_time) = (Timestamp(1), Timestamp(1));
    Record { seq: Seq(7), kind, hlc: Hlc(9), rows: 1, min_time, max_time, payload: payload.into() }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Device, number, and the metrics badge (text), tag (bytes), t (number) as far as the event has them.
type Row = (String, u64, [Option<u8>; 3]);

fn secret(n: u8) -> String {
    format!("badge-of-{n:03}-nobody")
}

fn block_of(rows: &[Row]) -> Record {
    let mut builder = BatchBuilder::default();
    // All metrics once, so that there is one shape; columns may have gaps behind it.
    for (device, seq, [badge, tag, t]) in rows {
        builder.begin(device);
        builder.time(Timestamp(*seq as i64));
        builder.seq(*seq);
        let texts = [badge, tag].map(|n| secret(n.unwrap_or(0)));
        builder.cell("badge", Value::Text(&texts[0]));
        builder.cell("tag", Value::Bytes(texts[1].as_bytes()));
        builder.cell("t", Value::F64(f64::from(t.unwrap_or(0)) / 8.0));
        builder.end();
    }
    let mut batch = builder.finish().swap_remove(0);
    for (at, column) in batch.columns.iter_mut().enumerate() {
        let present: Vec<bool> = rows.iter().map(|row| row.2[at].is_some()).collect();
        column.present = present.contains(&false).then_some(present);
    }
    let mut payload = Vec::new();
    block::encode(&batch, &mut payload);
    record(RecordKind::Events, payload)
}

/// By number: device, and each metric as text.
fn rows_of(record: &Record) -> BTreeMap<u64, (String, BTreeMap<String, String>)> {
    let batch = Decoder::new().decode(&record.payload).expect("it is a block");
    let mut rows = BTreeMap::new();
    for run in batch.runs() {
        for row in run.rows() {
            let metrics = batch.shape.metrics().iter().zip(&batch.columns).filter_map(|(metric, column)| {
                let value = match column.value(row)? {
                    Value::Text(text) => text.to_owned(),
                    Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    value => format!("{value:?}"),
                };
                Some((metric.name.to_string(), value))
            });
            rows.insert(batch.seq(row).expect("it has one"), (batch.device(run).to_owned(), metrics.collect()));
        }
    }
    rows
}

fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let cells = [(); 3].map(|()| prop::option::weighted(0.8, 0u8..6));
    vec(("(press|oven)-[0-3]", cells), 1..30).prop_map(|rows| {
        let numbered = rows.into_iter().enumerate();
        numbered.map(|(seq, (device, cells))| (device, seq as u64 + 1, cells)).collect()
    })
}

proptest! {
    #[test]
    fn nothing_of_a_masked_value_leaves_and_the_rest_is_as_it_was(
        rows in any_rows(),
        how in prop::sample::select(vec![How::Drop, How::Token]),
        metrics in prop::sample::select(vec!["badge", "t*", "*"]),
    ) {
        let masks = [mask("press-*", metrics, how)];
        let before = block_of(&rows);
        let left = filter(&masks).record(before.clone());
        let (all, left) = (rows_of(&before), left.as_ref().map(|left| (left, rows_of(left))));
        let mut tokens: BTreeMap<String, String> = BTreeMap::new();
        for (seq, (device, cells)) in &all {
            let masked = |name: &str| device.starts_with("press") && (metrics == "*" || name.starts_with(metrics.trim_end_matches('*')));
            let found = left.as_ref().and_then(|(_, rows)| rows.get(seq));
            let gone = !cells.is_empty() && cells.keys().all(|name| masked(name) && (how == How::Drop || name == "t"));
            prop_assert_eq!(found.is_none(), gone);
            let Some((name, found)) = found else { continue };
            prop_assert_eq!(name, device);
            for (metric, value) in cells {
                match found.get(metric) {
                    same if !masked(metric) => prop_assert_eq!(same, Some(value)),
                    None => prop_assert!(how == How::Drop || metric == "t"),
                    Some(token) => {
                        prop_assert!(how == How::Token && token.starts_with("t-") && token != value);
                        let known = tokens.entry(value.clone()).or_insert_with(|| token.clone());
                        prop_assert_eq!(known, token);
                    }
                }
            }
        }
        let mut distinct: Vec<&String> = tokens.values().collect();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), tokens.len());
        if metrics == "*" && rows.iter().all(|row| row.0.starts_with("press")) && let Some((left, _)) = left {
            for n in 0..6 {
                prop_assert!(!holds(&left.payload, &secret(n)));
            }
        }
    }

    #[test]
    fn a_block_without_masked_rows_leaves_verbatim(rows in any_rows()) {
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.0.starts_with("oven")).collect();
        prop_assume!(!rows.is_empty());
        let before = block_of(&rows);
        let masks = [mask("press-*", "*", How::Drop), names("press-*"), mask("*", "other", How::Token)];
        prop_assert_eq!(filter(&masks).record(before.clone()), Some(before));
    }

    #[test]
    fn names_of_devices_are_nowhere(rows in any_rows()) {
        let left = filter(&[names("press-*")]).record(block_of(&rows)).expect("no row is left out");
        let mut tokens = BTreeMap::new();
        for (seq, (device, cells)) in rows_of(&left) {
            let was = &rows[seq as usize - 1];
            prop_assert_eq!(device.starts_with("t-"), was.0.starts_with("press"));
            prop_assert_eq!(cells.len(), was.2.iter().flatten().count());
            prop_assert_eq!(tokens.entry(was.0.clone()).or_insert(device.clone()), &device);
        }
        for n in 0..4 {
            let name = format!("press-{n}");
            prop_assert!(!holds(&left.payload, &name));
        }
    }

    #[test]
    fn no_bytes_make_a_mask_panic(kind in prop::sample::select(RecordKind::ALL.to_vec()), bytes in vec(any::<u8>(), 0..300)) {
        let masks = [mask("a*", "*", How::Token), names("*"), round("*", -2)];
        let _ = filter(&masks).record(record(kind, bytes));
    }
}

#[test]
fn the_strictest_mask_holds() {
    let act = |masks: &[Mask], device: &str, metric: &str| {
        let masks = Masks { masks: masks.to_vec(), secret: [0; 32] };
        Masking::new(&masks).expect("something is masked").act(Who::Device(device), metric)
    };
    let masks = [round("t", 1), round("t", 0), round("t", 2), mask("press-*", "t", How::Token)];
    assert_eq!(act(&masks, "oven-1", "t"), Act::Round(std::cmp::Reverse(0)));
    assert_eq!(act(&masks, "press-1", "t"), Act::Token);
    assert_eq!(act(&[masks[3].clone(), mask("*", "*", How::Drop)], "press-1", "t"), Act::Drop);
    assert_eq!(act(&masks, "press-1", "u"), Act::Keep);
}

#[test]
fn numbers_leave_with_fewer_digits() {
    let rows = [("oven-1".to_owned(), 1, [Some(1), Some(1), Some(11)])];
    let left = filter(&[round("*", 1)]).record(block_of(&rows)).expect("numbers are left");
    let cells = BTreeMap::from([("t".to_owned(), format!("{:?}", Value::F64(1.4)))]);
    assert_eq!(
        rows_of(&left),
        BTreeMap::from([(1, ("oven-1".to_owned(), cells))]),
        "what is no number cannot be rounded"
    );
}

fn pane(window: &str, key: &str) -> Pane {
    let metric = |name: &str| PaneMetric { name: name.into(), count: 2, sum: Some(1.25), ..PaneMetric::default() };
    let share = |name: &str| {
        let mut stats = Stats::default();
        stats.add(Timestamp(1), 1.25, Default::default());
        millpond_core::window::PartMetric { name: name.into(), stats }
    };
    Pane {
        window: window.into(),
        key: key.into(),
        start: Timestamp(0),
        end: Timestamp(1),
        revision: 0,
        open: false,
        metrics: vec![metric("badge"), metric("t")],
        share: Some(vec![share("badge"), share("t")]),
        of: None,
        merged: false,
    }
}

fn panes_left(masks: &[Mask], panes: &[Pane]) -> Vec<Pane> {
    let left = filter(masks).record(record(RecordKind::Panes, record::encode(&panes)));
    left.map(|left| record::decode(&left.payload).expect("panes")).unwrap_or_default()
}

#[test]
fn masked_metrics_leave_panes_and_their_shares() {
    let panes = [pane("each", "press-1"), pane("each", "oven-1"), pane("all", "site")];
    let left = panes_left(&[mask("press-*", "badge", How::Token)], &panes);
    let metrics = |pane: &Pane| -> Vec<String> {
        let shares = pane.share.iter().flatten().map(|share| format!("+{}", share.name));
        pane.metrics.iter().map(|metric| metric.name.clone()).chain(shares).collect()
    };
    assert_eq!(metrics(&left[0]), ["t", "+t"]);
    assert_eq!(left[1], panes[1]);
    assert_eq!(metrics(&left[2]), ["t", "+t"], "presses are part of the site");
    assert_eq!(panes_left(&[mask("press-*", "*", How::Drop)], &panes), [panes[1].clone()], "it would be a retraction");
    let rounded = &panes_left(&[round("badge", 1)], &panes)[0];
    assert_eq!((rounded.metrics[0].sum, rounded.metrics[1].sum), (Some(1.3), Some(1.25)));
    assert_eq!(rounded.share.as_ref().map(|shares| shares[0].stats.sum.value()), Some(1.3));
    let retraction = Pane { metrics: Vec::new(), share: None, ..pane("each", "press-1") };
    assert_eq!(panes_left(&[mask("*", "*", How::Drop)], std::slice::from_ref(&retraction)), [retraction]);
}

#[test]
fn keys_that_are_devices_are_replaced_and_others_are_not() {
    let panes = [pane("each", "press-1"), pane("all", "site"), pane("all", "press-1"), pane("gone", "press-1")];
    let keys: Vec<String> = panes_left(&[names("*")], &panes).into_iter().map(|pane| pane.key).collect();
    assert_eq!(keys[1], "site");
    assert!(keys[0].starts_with("t-") && keys[0] == keys[2] && keys[0] == keys[3], "{keys:?}");
}

fn alert() -> Alert {
    Alert {
        id: "173dga641y38k0qfnej8kb6x1n".into(),
        rule: "hot".into(),
        key: "press-1".into(),
        severity: Severity::Info,
        state: AlertState::Firing,
        since: Timestamp(0),
        fired: None,
        resolved: None,
        resolved_by: None,
        cleared: None,
        acknowledged: None,
        metric: "badge".into(),
        value: 81.26,
        peak: 90.51,
        message: "press-1: badge is 81.26".into(),
        facts: BTreeMap::from([("operator".into(), "nobody".into())]),
        repeats: 0,
        notified: None,
        digested: false,
        changed: Timestamp(0),
    }
}

fn alert_left(masks: &[Mask]) -> Alert {
    let left = filter(masks).record(record(RecordKind::Alerts, record::encode(&vec![alert()]))).expect("it leaves");
    record::decode::<Vec<Alert>>(&left.payload).expect("alerts").swap_remove(0)
}

#[test]
fn of_an_alert_on_a_masked_metric_only_its_times_are_left() {
    let left = alert_left(&[mask("press-*", "badge", How::Drop)]);
    assert!(left.value.is_nan() && left.peak.is_nan() && left.facts.is_empty());
    assert_eq!((left.message.as_str(), left.id), ("hot on press-1", alert().id));
    let left = alert_left(&[round("badge", 0)]);
    assert_eq!((left.value, left.peak, left.message.as_str()), (81.0, 91.0, "hot on press-1"));
    let left = alert_left(&[mask("press-*", "other", How::Drop)]);
    assert_eq!((left.value, left.facts.len()), (81.26, 0), "facts may come from any metric");
    assert_eq!(alert_left(&[mask("oven-*", "*", How::Drop)]), alert());
}

#[test]
fn no_kind_of_record_says_the_name_of_a_device_that_is_replaced() {
    let late = LateEvent {
        window: "each".into(),
        key: "press-1".into(),
        device: "press-1".into(),
        time: Timestamp(1),
        metrics: vec![("t".into(), 1.0)],
    };
    let mut reported = Reported::default();
    let stamp = Stamp { hlc: Hlc(1), origin: Origin([1; 16]), seq: 1 };
    let said =
        serde_json::json!({ "label": "I am press-1", "press-1": 1, "mode": "auto", "badge": { "of": "nobody" } });
    reported.report(stamp, &said).expect("a report");
    let records = [
        record(RecordKind::Panes, record::encode(&vec![pane("each", "press-1")])),
        record(RecordKind::Alerts, record::encode(&vec![alert()])),
        record(RecordKind::Late, record::encode(&vec![late])),
        record(RecordKind::Homes, record::encode(&vec![Home { device: "press-1".into(), moves: 3 }])),
        record(
            RecordKind::LeftOut,
            record::encode(&vec![LeftOut { record: 1, device: "press-1".into(), seqs: vec![1] }]),
        ),
        record(RecordKind::Twin, record::encode(&vec![("press-1", &reported)])),
    ];
    let masks = [names("press-*"), mask("*", "badge", How::Token)];
    let token = Masking::new(&Masks { masks: masks.to_vec(), secret: [7; 32] }).expect("masks").token(b"press-1");
    for record in records {
        let left = filter(&masks).record(record.clone()).expect("some of it leaves");
        assert!(holds(&record.payload, "press-1") && !holds(&left.payload, "press-1"), "{:?}", record.kind);
        assert!(holds(&left.payload, &token), "{:?}", record.kind);
        assert!(!holds(&left.payload, "nobody") && !holds(&left.payload, "173dga641y38k0qfnej8kb6x1n"));
        if record.kind == RecordKind::Twin {
            let twins: Vec<(String, Reported)> = record::decode(&left.payload).expect("twins");
            assert_eq!(twins[0].1.value(), serde_json::json!({ "mode": "auto" }));
        }
    }
}

#[test]
fn what_cannot_be_read_stays_when_anything_is_masked() {
    for kind in [RecordKind::Events, RecordKind::Panes, RecordKind::Alerts, RecordKind::Late, RecordKind::Twin] {
        assert_eq!(filter(&[mask("press-*", "t", How::Drop)]).record(record(kind, b"rubbish".to_vec())), None);
    }
}

#[test]
fn a_mask_that_means_nothing_is_told() {
    let good = [mask("*", "t", How::Drop), round("t", -3), names("*")];
    assert!(good.iter().all(|mask| mask.problem().is_none()));
    let bad = [
        Mask { metrics: Vec::new(), ..good[0].clone() },
        Mask { device: true, ..good[0].clone() },
        Mask { digits: Some(1), ..good[0].clone() },
        round("t", 13),
    ];
    assert!(bad.iter().all(|mask| mask.problem().is_some()));
}
