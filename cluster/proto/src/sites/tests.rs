use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millpond_core::{
    batch::{Batch, Metric, Shape},
    block,
    planted::{Bug, plant},
    record::{self, DropRange, DropReason, Hlc, Home, LeftOut, RecordKind},
    rule::RuleSpec,
    schema::Pattern,
    time::Timestamp,
    value::{Quality, Value, ValueType},
    window::Pane,
};
use proptest::{collection::vec, prelude::*};

use super::{
    mask::Masks,
    taking::{BACK_OFF_MS_MAX, DISK_PAUSE_MS, LOOK_EVERY_MS, Step, Taking},
    terms::{ByDevice, Filter, Terms},
    *,
};
use crate::{
    replication::{FetchEnd, Moment, RunKey},
    wire::{self, Record},
};

fn terms(classes: &[Class], devices: &[&str]) -> Terms {
    Terms {
        classes: classes.to_vec(),
        devices: devices.iter().map(|&name| name.to_owned()).collect(),
        masks: Masks::default(),
    }
}

fn of(kind: RecordKind, payload: Vec<u8>) -> Record {
    let (min_time, max_time) = (Timestamp(0), Timestamp(0));
    Record { seq: Seq(7), kind, hlc: Hlc(9), rows: 0, min_time, max_time, payload: payload.into() }
}

/// (device, time, number, value) of each row, in their order.
type Rows = Vec<(String, i64, u64, f64)>;

fn block_of(rows: &Rows) -> Record {
    let shape = Shape::new(vec![Metric { name: "t".into(), value_type: ValueType::F64, unit: "".into() }]);
    let mut batch = Batch::empty(Arc::new(shape));
    for (device, time, seq, value) in rows {
        batch.push_run(device, 1);
        batch.times.push(Timestamp(*time));
        batch.seqs.push(Some(*seq));
        batch.quality.push(Quality::Good);
        batch.columns[0].values.push(Some(Value::F64(*value)));
    }
    let mut payload = Vec::new();
    block::encode(&batch, &mut payload);
    let times = || rows.iter().map(|row| row.1);
    Record {
        rows: rows.len() as u32,
        min_time: Timestamp(times().min().unwrap_or(0)),
        max_time: Timestamp(times().max().unwrap_or(0)),
        ..of(RecordKind::Events, payload)
    }
}

fn rows_in(record: &Record) -> Rows {
    let batch = block::Decoder::new().decode(&record.payload).expect("it is a block");
    let mut rows = Vec::new();
    for run in batch.runs() {
        for row in run.rows() {
            let value = batch.columns[0].value(row).and_then(|value| value.as_f64()).expect("it has a value");
            rows.push((batch.device(run).to_owned(), batch.times[row].0, batch.seq(row).expect("it has one"), value));
        }
    }
    rows.sort_by(|a, b| a.partial_cmp(b).expect("they are numbers"));
    rows
}

fn pane(window: &str, key: &str) -> Pane {
    let (start, end) = (Timestamp(0), Timestamp(1));
    let (window, key) = (window.to_owned(), key.to_owned());
    Pane {
        window,
        key,
        start,
        end,
        revision: 0,
        open: false,
        metrics: Vec::new(),
        share: None,
        of: None,
        merged: false,
    }
}

fn windows() -> Vec<WindowSpec> {
    let window = |json: &str| serde_json::from_str(json).expect("it is a window");
    vec![window(r#"{"name": "each", "size": "10s"}"#), window(r#"{"name": "types", "size": "10s", "by": "type"}"#)]
}

fn rules() -> Vec<RuleSpec> {
    let rule = |json: &str| serde_json::from_str(json).expect("it is a rule");
    let of_window = |name: &str, window: &str| {
        let when = r#"{"type": "window", "window": "W", "metric": "t", "aggregate": "mean", "op": ">", "value": 1}"#;
        rule(&format!(r#"{{"name": "{name}", "when": {}}}"#, when.replace('W', window)))
    };
    let hot = rule(r#"{"name": "hot", "when": {"type": "threshold", "metric": "t", "op": ">", "value": 1}}"#);
    vec![hot, of_window("each-hot", "each"), of_window("types-hot", "types")]
}

fn filter(terms: &Terms) -> Filter {
    Filter::new(terms, &Class::ALL, ByDevice::of(&windows(), &rules()))
}

/// What is left of a list of panes.
fn keys_left(terms: &Terms, panes: Vec<Pane>) -> Vec<(String, String)> {
    let left = filter(terms).record(of(RecordKind::Panes, record::encode(&panes)));
    let panes: Vec<Pane> = left.map(|record| record::decode(&record.payload).unwrap()).unwrap_or_default();
    panes.into_iter().map(|pane| (pane.window, pane.key)).collect()
}

#[test]
fn panes_of_other_devices_and_of_groups_stay() {
    let panes =
        || vec![pane("each", "press-1"), pane("each", "oven-1"), pane("types", "press-"), pane("gone", "press-1")];
    let some = terms(&[Class::Pane], &["press-*"]);
    assert_eq!(keys_left(&some, panes()), [("each".to_owned(), "press-1".to_owned())]);
    assert_eq!(keys_left(&terms(&[Class::Pane], &["*"]), panes()).len(), 4);
    assert_eq!(keys_left(&terms(&[Class::Pane], &[]), panes()), []);
    assert_eq!(keys_left(&terms(&[Class::Alert, Class::Raw], &["*"]), panes()), []);
}

#[test]
fn only_what_is_allowed_and_asked_for_leaves() {
    let record = || of(RecordKind::Homes, record::encode(&vec![Home { device: "a".into(), moves: 1 }]));
    let allowed = terms(&[Class::State, Class::Pane], &["*"]);
    let by = ByDevice::default;
    assert!(Filter::new(&allowed, &[Class::State], by()).record(record()).is_some());
    assert!(Filter::new(&allowed, &[Class::Pane], by()).record(record()).is_none());
    assert!(Filter::new(&terms(&[Class::Pane], &["*"]), &Class::ALL, by()).record(record()).is_none());
}

#[test]
fn alerts_of_rules_on_groups_stay() {
    let alert = |rule: &str, key: &str| {
        serde_json::json!({
            "id": "i", "rule": rule, "key": key, "severity": "info", "state": "firing", "since": 0, "fired": null,
            "resolved": null, "resolved_by": null, "cleared": null, "acknowledged": null, "metric": "t", "value": 1.0,
            "peak": 1.0, "message": "", "facts": {}, "repeats": 0, "notified": null, "digested": false, "changed": 0,
        })
    };
    let alerts: Vec<millpond_core::alert::Alert> = [
        alert("hot", "press-1"),
        alert("hot", "oven-1"),
        alert("each-hot", "press-1"),
        alert("types-hot", "press-"),
        alert("gone", "press-1"),
    ]
    .into_iter()
    .map(|json| serde_json::from_value(json).expect("it is an alert"))
    .collect();
    let left = filter(&terms(&[Class::Alert], &["press-*"])).record(of(RecordKind::Alerts, record::encode(&alerts)));
    let left: Vec<millpond_core::alert::Alert> = record::decode(&left.unwrap().payload).unwrap();
    let left: Vec<(&str, &str)> = left.iter().map(|alert| (&*alert.rule, &*alert.key)).collect();
    assert_eq!(left, [("hot", "press-1"), ("each-hot", "press-1")]);
}

#[test]
fn bytes_that_cannot_be_read_stay_unless_everything_may_leave() {
    for kind in [RecordKind::Events, RecordKind::Panes, RecordKind::Alerts, RecordKind::Late, RecordKind::Twin] {
        let record = of(kind, b"rubbish".to_vec());
        assert!(filter(&terms(&Class::ALL, &["press-*"])).record(record.clone()).is_none(), "{kind:?}");
        assert!(filter(&terms(&Class::ALL, &["*"])).record(record).is_some(), "{kind:?}");
    }
}

#[test]
fn what_leaves_events_out_goes_with_the_panes_and_names_only_allowed_devices() {
    let left = |device: &str| LeftOut { record: 7, device: device.to_owned(), seqs: vec![1] };
    let record = of(RecordKind::LeftOut, record::encode(&[left("a-1"), left("b-1")].as_slice()));
    let given = filter(&terms(&[Class::Pane], &["a-*"])).record(record.clone()).expect("panes may leave");
    assert_eq!(record::decode::<Vec<LeftOut>>(&given.payload), Ok(vec![left("a-1")]));
    assert_eq!(filter(&terms(&[Class::State], &["*"])).record(record), None);
}

#[test]
fn receipts_name_no_device() {
    let range =
        DropRange { class: Class::Raw, first: 1, last: 2, records: 2, events: 9, reason: DropReason::Age }.encode();
    assert!(filter(&terms(&[Class::State], &["press-*"])).record(of(RecordKind::DropRange, range)).is_some());
}

#[test]
fn the_planted_bug_lets_everything_leave() {
    plant(Some(Bug::ForgetTerms));
    let left = filter(&terms(&[], &[])).record(of(RecordKind::Panes, Vec::new()));
    plant(None);
    assert!(left.is_some());
}

proptest! {
    /// The promise of the terms for events.
    #[test]
    fn a_block_keeps_exactly_the_rows_of_allowed_devices(
        rows in vec(("[ab][0-9]", 0i64..1_000_000, 0u64..100, -10i32..10), 1..60),
        patterns in vec(prop::sample::select(vec!["a*", "b1", "*3", "b*", "c*", "a2"]), 0..3),
    ) {
        let rows: Rows = rows.into_iter().map(|(d, t, s, v)| (d, t * 1_000_000, s, f64::from(v))).collect();
        let allowed = |device: &str| patterns.iter().any(|pattern| Pattern::new(pattern).matches(device));
        let mut expected: Rows = rows.iter().filter(|row| allowed(&row.0)).cloned().collect();
        expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let record = block_of(&rows);
        match filter(&terms(&[Class::Raw], &patterns)).record(record.clone()) {
            None => prop_assert!(expected.is_empty()),
            Some(left) => {
                prop_assert_eq!(rows_in(&left), expected.clone());
                prop_assert_eq!((left.seq, left.kind, left.hlc), (record.seq, record.kind, record.hlc));
                prop_assert_eq!(left.rows as usize, expected.len());
                let times = || expected.iter().map(|row| Timestamp(row.1));
                prop_assert_eq!((Some(left.min_time), Some(left.max_time)), (times().min(), times().max()));
            }
        }
    }

    #[test]
    fn no_bytes_make_a_filter_panic(kind in prop::sample::select(RecordKind::ALL.to_vec()), bytes in vec(any::<u8>(), 0..300)) {
        let _ = filter(&terms(&Class::ALL, &["a*"])).record(of(kind, bytes));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = wire::decode::<Question>(&bytes);
        if let Ok(Answer::Offers(offers)) = wire::decode::<Answer>(&bytes) {
            offers.offers.iter().for_each(|offer| drop(offer.numbers()));
        }
    }

    #[test]
    fn what_is_said_is_read_as_it_was_said(question in question(), answer in answer()) {
        prop_assert_eq!(wire::decode::<Question>(&wire::encode(&question)).unwrap(), question);
        prop_assert_eq!(wire::decode::<Answer>(&wire::encode(&answer)).unwrap(), answer);
    }

    #[test]
    fn an_offer_has_only_numbers_that_can_be_asked_for(ranges in vec(any::<(u64, u64)>(), 0..80)) {
        let offer = Offer { ranges, ..offer(life(1), Track::Raw, &[]) };
        let numbers = offer.numbers();
        prop_assert!(numbers.len() <= RANGES_MAX && !numbers.contains(0) && !numbers.contains(u64::MAX));
    }

    /// Whatever fails on the way, what is offered is held in the end, and nothing is asked for twice.
    #[test]
    fn everything_that_is_offered_comes_once(
        lanes in vec((0u8..3, any::<bool>(), vec((1u64..60, 0u64..20), 1..4)), 1..5),
        luck in vec(0u8..12, 0..400),
        doors in 1usize..3,
    ) {
        let offers: Vec<Offer> = lanes.iter().map(|(origin, raw, ranges)| {
            let ranges: Vec<(u64, u64)> = ranges.iter().map(|(first, more)| (*first, first + more)).collect();
            offer(life(*origin), if *raw { Track::Raw } else { Track::Results }, &ranges)
        }).collect();
        let mut wanted: BTreeMap<(Life, Track), RangeSet> = BTreeMap::new();
        offers.iter().for_each(|o| wanted.entry((o.life(), o.track)).or_default().merge(&o.numbers()));
        let mut got: BTreeMap<(Life, Track), RangeSet> = BTreeMap::new();
        let mut taking = Taking::new(doors, []);
        let (mut now, mut luck) = (Moment(0), luck.into_iter());
        for _ in 0..5_000 {
            match taking.step(now) {
                Step::Wait { until } => {
                    prop_assert!(until > now);
                    if wanted == got && luck.len() == 0 { break }
                    now = until;
                }
                Step::Look { door } => match luck.next() {
                    Some(0) => taking.failed(door, now),
                    _ => taking.offered(door, now, &offers),
                },
                Step::Fetch { door, wanted: asked } => {
                    let before = got.entry((asked.life, asked.track)).or_default();
                    prop_assert_eq!(before.gaps(asked.first.0, asked.last.0), vec![(asked.first.0, asked.last.0)]);
                    let how = luck.next().unwrap_or(11);
                    // A crash loses all but what is on disk.
                    if how == 4 {
                        taking = Taking::new(doors, got.iter().map(|((life, track), held)| (*life, *track, held.clone())));
                        continue;
                    }
                    let last = Seq(if how < 8 { asked.first.0 } else { asked.last.0 });
                    if how == 5 {
                        taking.not_stored(now);
                    } else if how > 1 {
                        before.insert(asked.first.0, last.0);
                        taking.stored(RunKey { last, ..asked });
                    }
                    taking.ended(door, now, match how {
                        0 | 6 => FetchEnd::Failed,
                        1 => FetchEnd::Unknown,
                        2 => FetchEnd::Busy { retry_ms: 50 },
                        _ => FetchEnd::Done,
                    });
                }
            }
        }
        got.retain(|_, ranges| !ranges.is_empty());
        prop_assert_eq!(got, wanted);
        prop_assert_eq!(taking.missing(), 0);
    }
}

fn life(origin: u8) -> Life {
    Life { origin: Origin([origin; 16]), incarnation: Incarnation(1) }
}

fn offer(life: Life, track: Track, ranges: &[(u64, u64)]) -> Offer {
    let (origin, incarnation) = (life.origin, life.incarnation);
    Offer { origin, incarnation, name: String::new(), track, ranges: ranges.to_vec() }
}

fn question() -> impl Strategy<Value = Question> {
    let classes = vec(prop::sample::select(Class::ALL.to_vec()), 0..5);
    let revoked = vec(any::<u8>(), 0..50).prop_map(Bytes::from);
    prop_oneof![
        (any::<u16>(), revoked).prop_map(|(version, revoked)| Question::Offers { version, revoked }),
        (any::<u8>(), any::<bool>(), any::<(u64, u64)>(), classes).prop_map(|(origin, raw, (first, last), classes)| {
            let Life { origin, incarnation } = life(origin);
            let track = if raw { Track::Raw } else { Track::Results };
            Question::Range { origin, incarnation, track, first: Seq(first), last: Seq(last), classes }
        }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let offers = vec((any::<u8>(), "\\PC{0,9}", vec(any::<(u64, u64)>(), 0..4)), 0..4);
    let offers = offers.prop_map(|all| {
        let one =
            |(origin, name, ranges): (u8, String, Vec<_>)| Offer { name, ..offer(life(origin), Track::Raw, &ranges) };
        let offers = all.into_iter().map(one).collect();
        Offers { offers, windows: windows(), revoked: Bytes::from_static(b"r") }
    });
    prop_oneof![
        offers.prop_map(Answer::Offers),
        any::<u32>().prop_map(|retry_ms| Answer::Busy { retry_ms }),
        Just(Answer::Unknown),
    ]
}

fn at(ms: u64) -> Moment {
    Moment(0).after_ms(ms)
}

#[test]
fn results_go_before_events_and_lives_take_turns() {
    let mut taking = Taking::new(1, []);
    assert_eq!(taking.step(at(0)), Step::Look { door: 0 });
    let all = [(1, Track::Raw), (1, Track::Results), (2, Track::Results)];
    taking.offered(0, at(0), &all.map(|(origin, track)| offer(life(origin), track, &[(1, 4)])));
    let mut order = Vec::new();
    while let Step::Fetch { wanted, .. } = taking.step(at(1)) {
        order.push((wanted.life.origin.0[0], wanted.track, wanted.first.0));
        taking.stored(RunKey { last: Seq(wanted.first.0 + 1), ..wanted });
        taking.ended(0, at(1), FetchEnd::Done);
    }
    let results = |origin, first| (origin, Track::Results, first);
    let raw = |first| (1, Track::Raw, first);
    assert_eq!(order, [results(1, 1), results(2, 1), results(1, 3), results(2, 3), raw(1), raw(3)]);
    assert_eq!(taking.step(at(1)), Step::Wait { until: at(LOOK_EVERY_MS) });
}

#[test]
fn a_door_that_fails_does_not_hold_up_the_other() {
    let mut taking = Taking::new(2, []);
    taking.failed(0, at(0));
    assert_eq!(taking.step(at(0)), Step::Look { door: 1 });
    taking.offered(1, at(0), &[offer(life(1), Track::Raw, &[(1, 4)])]);
    assert!(matches!(taking.step(at(0)), Step::Fetch { door: 1, .. }));
}

#[test]
fn a_door_is_tried_again_after_longer_and_longer_pauses() {
    let (mut now, mut taking, mut pauses) = (at(0), Taking::new(1, []), Vec::new());
    for _ in 0..8 {
        assert_eq!(taking.step(now), Step::Look { door: 0 });
        taking.failed(0, now);
        let Step::Wait { until } = taking.step(now) else { panic!("it waits") };
        pauses.push((until.0 - now.0) / 1_000_000);
        now = until;
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, BACK_OFF_MS_MAX, BACK_OFF_MS_MAX]);
}

#[test]
fn a_full_disk_is_given_time() {
    let mut taking = Taking::new(1, []);
    taking.offered(0, at(0), &[offer(life(1), Track::Raw, &[(1, 4)])]);
    assert!(matches!(taking.step(at(0)), Step::Fetch { .. }));
    taking.not_stored(at(0));
    taking.ended(0, at(0), FetchEnd::Failed);
    assert_eq!(taking.step(at(10)), Step::Wait { until: at(DISK_PAUSE_MS) });
    assert_eq!(taking.missing(), 4);
}

#[test]
fn what_brings_nothing_is_not_asked_for_again_before_the_next_offer() {
    let mut taking = Taking::new(1, []);
    taking.offered(0, at(0), &[offer(life(1), Track::Raw, &[(1, 4)])]);
    assert!(matches!(taking.step(at(0)), Step::Fetch { .. }));
    taking.ended(0, at(0), FetchEnd::Done);
    assert_eq!(taking.step(at(0)), Step::Wait { until: at(LOOK_EVERY_MS) });
}

#[test]
fn lives_are_bounded() {
    let mut taking = Taking::new(1, []);
    let offers: Vec<Offer> = (0..200).map(|origin| offer(life(origin), Track::Raw, &[(1, 4)])).collect();
    taking.offered(0, at(0), &offers);
    let lives: BTreeSet<Life> = taking.lanes().map(|(life, ..)| life).collect();
    assert_eq!(lives.len(), LIVES_MAX);
}
