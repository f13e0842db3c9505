use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    batch::{BatchBuilder, Metric, Shape},
    schema::MetricSpec,
    value::{Value, ValueType},
};

const NOW: Timestamp = Timestamp::from_millis(1_795_162_500_000);

fn gate(policy: Policy) -> Gate {
    Gate::new(policy, Vec::new(), Vec::new()).unwrap()
}

/// An event of one metric; without a time it is untimed.
#[derive(Clone, Copy, Debug)]
struct Event {
    device: &'static str,
    second: Option<i64>,
    seq: Option<u64>,
    value: f64,
}

fn event(device: &'static str, second: impl Into<Option<i64>>, seq: impl Into<Option<u64>>, value: f64) -> Event {
    Event { device, second: second.into(), seq: seq.into(), value }
}

fn batch(events: &[Event]) -> Batch {
    let mut builder = BatchBuilder::default();
    for event in events {
        builder.begin(event.device);
        builder.time(event.second.map_or(UNTIMED, |second| Timestamp(NOW.0 + second * 1_000_000_000)));
        event.seq.into_iter().for_each(|seq| builder.seq(seq));
        builder.cell("temperature", Value::F64(event.value));
        builder.end();
    }
    builder.finish().swap_remove(0)
}

/// One letter for each event: accepted, duplicate, rejected.
fn letters(out: &Admitted, rows: usize) -> String {
    let letter = |row| match out.verdict(row) {
        RowVerdict::Accept => 'a',
        RowVerdict::Duplicate => 'd',
        RowVerdict::Reject(..) => 'r',
    };
    (0..rows).map(letter).collect()
}

fn admit(gate: &mut Gate, events: &[Event]) -> String {
    let (mut batch, mut out) = (batch(events), Admitted::default());
    gate.admit(NOW, &mut batch, &mut out);
    let letters = letters(&out, events.len());
    assert_eq!(out.accepted as usize, letters.matches('a').count());
    assert_eq!(out.duplicates as usize, letters.matches('d').count());
    assert_eq!(out.rejected as usize, letters.matches('r').count());
    letters
}

fn reason(gate: &mut Gate, events: &[Event]) -> (Reason, String) {
    let (mut batch, mut out) = (batch(events), Admitted::default());
    gate.admit(NOW, &mut batch, &mut out);
    match out.verdict(0) {
        RowVerdict::Reject(reason, detail) => (*reason, detail.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn devices_have_dense_indices_and_their_first_matching_type() {
    let device_type =
        |name: &str, pattern: &str| DeviceTypeSpec { name: name.into(), devices: vec![pattern.into()], schema: None };
    let types = vec![device_type("press", "press-*"), device_type("any", "*-1")];
    let mut gate = Gate::new(Policy::default(), types, Vec::new()).unwrap();
    let mut out = Admitted::default();
    let names = ["press-1", "pump-1", "oven-7", "press-1"];
    let events: Vec<Event> = names.iter().map(|name| event(name, 0, None, name.len() as f64)).collect();
    gate.admit(NOW, &mut batch(&events), &mut out);
    let refs: Vec<(u32, u32)> = out.devices.iter().map(|device| (device.index, device.device_type)).collect();
    assert_eq!(refs, [(0, 0), (1, 1), (2, DeviceRef::UNTYPED), (0, 0)]);
    assert_eq!(gate.find("oven-7"), Some(2));
    assert_eq!(gate.device(1).name, "pump-1");
    let by_name: Vec<&str> = gate.devices_by_name(Some("oven-7"), 1).iter().map(|device| device.name).collect();
    assert_eq!(by_name, ["press-1"]);
    assert_eq!(gate.devices().count(), 3);
}

#[test]
fn names_that_cannot_be_topics_are_rejected() {
    let mut gate = gate(Policy::default());
    for name in ["", "a/b", "a+b", "#", "a\nb"] {
        assert_eq!(reason(&mut gate, &[event(name, 0, None, 0.0)]).0, Reason::BadDevice, "{name:?}");
    }
    let long = Box::leak("x".repeat(129).into_boxed_str());
    assert_eq!(reason(&mut gate, &[event(long, 0, None, 0.0)]).0, Reason::BadDevice);
    assert!(gate.is_empty());
}

#[test]
fn unknown_and_too_many_devices_are_rejected_by_policy() {
    let types = vec![DeviceTypeSpec { name: "press".into(), devices: vec!["press-*".into()], schema: None }];
    let policy = Policy { unknown_devices: UnknownDevices::DeadLetter, devices_max: 1, ..Policy::default() };
    let mut gate = Gate::new(policy, types, Vec::new()).unwrap();
    assert_eq!(reason(&mut gate, &[event("oven-1", 0, None, 0.0)]).0, Reason::UnknownDevice);
    assert_eq!(admit(&mut gate, &[event("press-1", 0, None, 0.0), event("press-2", 0, None, 0.0)]), "ar");
}

#[test]
fn events_of_a_quarantined_device_are_rejected_until_it_is_taken_back() {
    let mut gate = gate(Policy::default());
    assert!(!gate.quarantine("press-1", true));
    assert_eq!(admit(&mut gate, &[event("press-1", 0, 1, 0.0)]), "a");
    assert!(gate.quarantine("press-1", true));
    assert_eq!(reason(&mut gate, &[event("press-1", 1, 2, 0.0)]).0, Reason::Quarantined);
    gate.quarantine("press-1", false);
    assert_eq!(admit(&mut gate, &[event("press-1", 1, 2, 0.0)]), "a");
}

#[test]
fn untimed_events_get_the_time_of_receipt() {
    let mut gate = gate(Policy::default());
    let mut rows = batch(&[event("press-1", None, None, 1.0), event("press-1", -5, None, 2.0)]);
    let mut out = Admitted::default();
    gate.admit(NOW, &mut rows, &mut out);
    assert_eq!(rows.times, [NOW, Timestamp(NOW.0 - 5_000_000_000)]);
    assert!(out.altered);
    gate.admit(NOW, &mut batch(&[event("press-1", -4, None, 2.0)]), &mut out);
    assert!(!out.altered && out.rows.is_none());
}

#[test]
fn a_stamp_in_the_future_moves_nothing() {
    let mut gate = gate(Policy::default());
    assert_eq!(admit(&mut gate, &[event("press-1", 0, 1, 0.0)]), "a");
    let before = gate.save();
    let (reason, detail) = reason(&mut gate, &[event("press-1", 301, 2, 0.0)]);
    assert_eq!(reason, Reason::FutureTime);
    assert!(detail.contains("5m1s ahead"), "{detail}");
    assert_eq!(gate.device(0).last_time, Some(NOW));
    assert_eq!(gate.device(0).rejected, 1);
    gate.cold[0].rejected = 0;
    assert_eq!(gate.save(), before);
    assert_eq!(admit(&mut gate, &[event("press-1", 300, 2, 0.0)]), "a");
}

#[test]
fn a_stamp_in_the_future_is_clamped_by_policy() {
    let mut gate = gate(Policy { on_future: OnFuture::Clamp, ..Policy::default() });
    let mut out = Admitted::default();
    let future = [event("press-1", 900, 1, 0.0), event("press-2", 900, None, 0.0)];
    let mut rows = batch(&future);
    gate.admit(NOW, &mut rows, &mut out);
    assert_eq!(rows.times, [NOW, NOW]);
    assert!(out.altered && out.rows.is_none());
    assert_eq!(admit(&mut gate, &future), "dd", "sent again");
    assert_eq!(gate.device(0).skew, None, "a clamped stamp says nothing about the clock");
}

#[test]
fn events_older_than_the_policy_are_rejected() {
    let mut gate = gate(Policy { max_age: Some(Span::from_secs(60)), ..Policy::default() });
    assert_eq!(admit(&mut gate, &[event("press-1", -61, None, 0.0), event("press-1", -60, None, 0.0)]), "ra");
}

#[test]
fn numbered_events_are_accepted_once() {
    let mut gate = gate(Policy::default());
    assert_eq!(admit(&mut gate, &[event("p", -9, 1, 0.0), event("p", -8, 2, 0.0), event("p", -7, 3, 0.0)]), "aaa");
    assert_eq!(admit(&mut gate, &[event("p", -8, 2, 0.0), event("p", -6, 4, 0.0), event("p", -6, 4, 0.0)]), "dad");
    assert_eq!(admit(&mut gate, &[event("p", -3, 7, 0.0), event("p", -5, 5, 0.0), event("p", -3, 7, 0.0)]), "aad");
    let device = gate.device(0);
    assert_eq!((device.accepted, device.duplicates), (6, 3));
    assert_eq!(device.last_time, Some(Timestamp(NOW.0 - 3_000_000_000)));
}

#[test]
fn a_device_may_count_anew() {
    let mut gate = gate(Policy::default());
    for seq in 1..=5 {
        assert_eq!(admit(&mut gate, &[event("p", seq as i64 - 100, seq, 0.0)]), "a");
    }
    assert_eq!(admit(&mut gate, &[event("p", -50, 1, 0.0), event("p", -49, 2, 0.0)]), "aa", "after its restart");
    assert_eq!(admit(&mut gate, &[event("p", -50, 1, 0.0)]), "d");
    assert_eq!(admit(&mut gate, &[event("p", -95, 5, 0.0)]), "d", "from before its restart");
    assert_eq!(admit(&mut gate, &[event("p", -94, 6, 0.0)]), "a");
}

#[test]
fn untimed_numbered_events_are_told_by_their_content() {
    let mut gate = gate(Policy::default());
    let first = event("p", None, 1, 20.0);
    assert_eq!(admit(&mut gate, &[first]), "a");
    assert_eq!(admit(&mut gate, &[first]), "d");
    assert_eq!(admit(&mut gate, &[event("p", None, 1, 21.0)]), "a", "the device counts anew");
    let others: Vec<Event> = (2..34).map(|seq| event("p", None, seq, 0.0)).collect();
    assert_eq!(admit(&mut gate, &others), "a".repeat(32));
    assert_eq!(admit(&mut gate, &[first]), "a", "too long ago to be known");
}

#[test]
fn timed_events_without_a_number_are_told_by_time_and_content() {
    let mut gate = gate(Policy::default());
    let rows: Vec<Event> = (0..64).map(|at| event("p", at - 100, None, at as f64)).collect();
    assert_eq!(admit(&mut gate, &rows), "a".repeat(64));
    assert_eq!(admit(&mut gate, &rows), "d".repeat(64));
    assert_eq!(admit(&mut gate, &[event("p", -100, None, 5.0)]), "a", "other content");
    assert_eq!(admit(&mut gate, &[rows[63], rows[0]]), "da", "the oldest gave way");
}

#[test]
fn events_with_neither_time_nor_number_are_never_duplicates() {
    let mut gate = gate(Policy::default());
    assert_eq!(admit(&mut gate, &[event("p", None, None, 1.0), event("p", None, None, 1.0)]), "aa");
}

#[test]
fn without_dedup_everything_is_new() {
    let mut gate = gate(Policy { dedup: false, ..Policy::default() });
    let rows = [event("p", -1, 1, 0.0), event("p", -1, 1, 0.0), event("p", -1, None, 0.0), event("p", -1, None, 0.0)];
    assert_eq!(admit(&mut gate, &rows), "aaaa");
}

#[test]
fn skew_is_how_far_a_device_is_behind() {
    let mut gate = gate(Policy::default());
    (0..200).for_each(|n| drop(admit(&mut gate, &[event("p", -30, n, 0.0)])));
    assert_eq!(gate.device(0).skew.map(Span::as_millis), Some(30_000));
}

#[test]
fn a_loaded_gate_remembers() {
    let mut one = gate(Policy::default());
    let rows = [event("p", -9, 1, 0.0), event("q", -8, None, 0.0), event("r", None, 7, 0.0), event("p", -8, 5, 0.0)];
    assert_eq!(admit(&mut one, &rows), "aaaa");
    assert_eq!(admit(&mut one, &[event("p", -5, 1, 0.0)]), "a", "counts anew");
    one.quarantine("q", true);
    let saved = one.save();
    let mut two = gate(Policy::default());
    two.load(&saved).unwrap();
    assert_eq!(two.save(), saved);
    assert!(one.devices().eq(two.devices()));
    two.quarantine("q", false);
    assert_eq!(admit(&mut two, &rows), "dddd");
    assert!(matches!(two.load(b"nonsense"), Err(LoadError::Malformed(_))));
}

#[test]
fn committed_events_that_are_observed_are_known() {
    let mut one = gate(Policy::default());
    let rows = [event("p", -9, 1, 0.0), event("q", -8, None, 0.0), event("r", None, 7, 0.0)];
    let (mut committed, mut out) = (batch(&rows), Admitted::default());
    one.admit(NOW, &mut committed, &mut out);
    let mut recovered = gate(Policy::default());
    let mut devices = Vec::new();
    recovered.observe(NOW, &committed, &mut devices);
    assert_eq!(devices, out.devices);
    assert_eq!(admit(&mut recovered, &rows), "ddd");
}

fn schema(additional: bool) -> Vec<SchemaSpec> {
    let metric = |value_type, unit: Option<&str>, min, max, required| MetricSpec {
        value_type,
        unit: unit.map(str::to_string),
        min,
        max,
        required,
    };
    let metrics = BTreeMap::from([
        ("temperature".to_string(), metric(ValueType::F64, Some("Cel"), Some(-40.0), Some(200.0), true)),
        ("cycles".to_string(), metric(ValueType::I64, None, Some(0.0), None, false)),
        ("state".to_string(), metric(ValueType::Text, None, None, None, false)),
    ]);
    vec![SchemaSpec { name: "press".into(), version: 3, metrics, additional }]
}

fn with_schema(additional: bool) -> Gate {
    let schema_name = Some("press".to_string());
    let types = vec![DeviceTypeSpec { name: "press".into(), devices: vec!["p*".into()], schema: schema_name }];
    Gate::new(Policy::default(), types, schema(additional)).unwrap()
}

#[test]
fn a_schema_says_types_ranges_units_and_what_is_required() {
    let check = |gate: &mut Gate, cells: &[(&str, &str, Value<'_>)], expected: Option<(Reason, &str)>| {
        let metric = |cell: &(&str, &str, Value<'_>)| Metric {
            name: cell.0.into(),
            value_type: cell.2.value_type(),
            unit: cell.1.into(),
        };
        let mut rows = Batch::empty(Arc::new(Shape::new(cells.iter().map(metric).collect())));
        rows.push_run("p", 1);
        rows.times.push(UNTIMED);
        rows.columns.iter_mut().zip(cells).for_each(|(column, cell)| column.values.push(Some(cell.2)));
        let mut out = Admitted::default();
        gate.admit(NOW, &mut rows, &mut out);
        let found = match out.verdict(0) {
            RowVerdict::Reject(reason, detail) => Some((*reason, &**detail)),
            _ => None,
        };
        assert_eq!(found, expected);
    };
    let t = ("temperature", "", Value::F64(20.0));
    let gate = &mut with_schema(true);
    check(gate, &[t], None);
    check(gate, &[("temperature", "Cel", Value::I64(20))], None);
    check(gate, &[t, ("cycles", "", Value::F64(3.0)), ("state", "", Value::Text("on"))], None);
    check(gate, &[t, ("other", "", Value::Bool(true))], None);
    let rejected = [
        (
            vec![("temperature", "", Value::F64(250.0))],
            Reason::OutOfRange,
            "temperature is 250, above 200 (schema press v3)",
        ),
        (
            vec![("temperature", "", Value::I64(-41))],
            Reason::OutOfRange,
            "temperature is -41, below -40 (schema press v3)",
        ),
        (
            vec![("temperature", "", Value::F64(f64::NAN))],
            Reason::OutOfRange,
            "temperature is NaN, outside its range (schema press v3)",
        ),
        (
            vec![("temperature", "K", Value::F64(20.0))],
            Reason::WrongUnit,
            "temperature is in K, but schema press v3 says Cel",
        ),
        (
            vec![("temperature", "", Value::Text("hot"))],
            Reason::WrongType,
            "temperature is text, but schema press v3 says f64",
        ),
        (
            vec![("cycles", "", Value::I64(1))],
            Reason::MissingMetric,
            "temperature is missing, which schema press v3 requires",
        ),
        (
            vec![t, ("cycles", "", Value::F64(0.5))],
            Reason::WrongType,
            "cycles is 0.5, which is not an i64 (schema press v3)",
        ),
        (vec![t, ("", "", Value::F64(0.5))], Reason::Malformed, "\"\" cannot be the name of a metric"),
    ];
    for (cells, reason, detail) in &rejected {
        check(gate, cells, Some((*reason, detail)));
    }
    let detail = "other is not in schema press v3, which allows no other metrics";
    check(&mut with_schema(false), &[t, ("other", "", Value::F64(1.0))], Some((Reason::UnknownMetric, detail)));
}

#[test]
fn only_the_rows_that_a_schema_forbids_are_rejected() {
    let mut gate = with_schema(true);
    let rows =
        [event("p1", -3, 1, 20.0), event("p2", -3, 1, 999.0), event("other", -3, 1, 999.0), event("p1", -2, 2, -99.0)];
    assert_eq!(admit(&mut gate, &rows), "arar");
    assert_eq!(admit(&mut gate, &[event("p1", -2, 2, 20.0)]), "a", "what was rejected was not seen");
}

#[test]
fn problems_of_the_specs_are_told_all_at_once() {
    let mut schemas = schema(true);
    schemas[0].version = 0;
    schemas[0].metrics.get_mut("temperature").unwrap().min = Some(999.0);
    let types = vec![DeviceTypeSpec { name: "a b".into(), devices: vec![], schema: Some("pres".into()) }];
    let policy = Policy { devices_max: 0, ..Policy::default() };
    let problems = Gate::new(policy, types, schemas).unwrap_err();
    let places: Vec<&str> = problems.iter().map(|problem| problem.place.as_str()).collect();
    let expected = [
        "ingest.devices_max",
        "device_types[0].name",
        "device_types[0].devices",
        "device_types[0].schema",
        "schemas[0].version",
        "schemas[0].metrics.temperature.min",
    ];
    assert_eq!(places, expected);
    assert_eq!(problems[3].hint.as_deref(), Some("did you mean `press`?"));
}

/// Events of three devices: numbered, timed, both or neither, some of them sent again.
fn events() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let one = (0usize..3, prop::option::weighted(0.8, -40i64..-1), prop::option::weighted(0.6, 0u64..12), 0u8..3)
        .prop_map(|(device, second, seq, value)| event(["a", "b", "c"][device], second, seq, f64::from(value)));
    prop::collection::vec(prop::collection::vec(one, 1..8), 1..30)
}

proptest! {
    #[test]
    fn undo_leaves_no_trace(history in events(), undone in events()) {
        let mut gate = gate(Policy::default());
        // Devices stay registered, so all of them are.
        admit(&mut gate, &["a", "b", "c"].map(|device| event(device, -50, 50, 0.0)));
        history.iter().for_each(|events| drop(admit(&mut gate, events)));
        let before = gate.save();
        let mut admitted = Vec::new();
        for events in &undone {
            let (mut rows, mut out) = (batch(events), Admitted::default());
            gate.admit(NOW, &mut rows, &mut out);
            admitted.push((rows, out));
        }
        admitted.iter().rev().for_each(|(rows, out)| gate.undo(rows, out));
        prop_assert_eq!(gate.save(), before);
    }

    #[test]
    fn what_was_undone_out_of_order_is_accepted_again(first in 1u64..20, second in 1u64..20, seqs: bool) {
        let mut gate = gate(Policy::default());
        let rows = |from: u64, count: u64| -> Vec<Event> {
            (from..from + count).map(|n| event("p", n as i64 - 100, seqs.then_some(n), 0.0)).collect()
        };
        let (one, two) = (rows(1, first), rows(1 + first, second));
        let (mut rows, mut out) = (batch(&one), Admitted::default());
        gate.admit(NOW, &mut rows, &mut out);
        prop_assert_eq!(admit(&mut gate, &two), "a".repeat(two.len()));
        gate.undo(&rows, &out);
        prop_assert_eq!(admit(&mut gate, &two), "d".repeat(two.len()));
        prop_assert_eq!(admit(&mut gate, &one), "a".repeat(one.len()));
        prop_assert_eq!(admit(&mut gate, &one), "d".repeat(one.len()));
    }

    /// Each device numbers its events; messages are lost on their way back, so that any of the last few is sent again at any time.
    #[test]
    fn however_often_events_are_sent_each_is_accepted_once(
        sends in prop::collection::vec((0usize..3, 0u64..8, 1u64..5), 1..200), fails in prop::collection::vec(prop::bool::weighted(0.1), 200),
    ) {
        let mut gate = gate(Policy::default());
        let devices = ["a", "b", "c"];
        let mut next = [0u64; 3];
        let mut accepted: BTreeMap<(usize, u64), u32> = BTreeMap::new();
        for ((device, back, count), fails) in sends.into_iter().zip(fails) {
            let from = next[device].saturating_sub(back);
            let rows: Vec<Event> = (from..from + count).map(|n| event(devices[device], n as i64 - 2000, n, n as f64)).collect();
            let (mut batch, mut out) = (batch(&rows), Admitted::default());
            gate.admit(NOW, &mut batch, &mut out);
            if fails {
                gate.undo(&batch, &out);
                continue;
            }
            next[device] = next[device].max(from + count);
            for (row, n) in (from..from + count).enumerate().filter(|(row, _)| out.is_accepted(*row)) {
                let times = accepted.entry((device, n)).or_default();
                *times += 1;
                prop_assert_eq!(*times, 1, "row {} of device {}", row, device);
            }
        }
        for (device, &next) in next.iter().enumerate() {
            prop_assert!((0..next).all(|n| accepted.contains_key(&(device, n))));
        }
    }
}
