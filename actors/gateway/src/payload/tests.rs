use millpond_core::{
    batch::{Batch, UNTIMED},
    limits::{METRICS_PER_EVENT_MAX, SHAPES_PER_PAYLOAD_MAX, VALUE_BYTES_MAX},
    time::Timestamp,
    value::{Quality, Value},
};
use proptest::prelude::*;

use super::*;

/// Rows of all batches as (device, time, seq, quality, metrics), in the order of the batches.
fn rows(batches: &[Inbound]) -> Vec<String> {
    let row = |batch: &Batch, device: &str, row: usize| {
        let metrics = batch.shape.metrics().iter().zip(&batch.columns);
        let cells: Vec<String> = metrics
            .map(|(metric, column)| format!("{}={:?}", metric.name, column.value(row).expect("no gaps")))
            .collect();
        let time = if batch.times[row] == UNTIMED { "-".to_string() } else { batch.times[row].0.to_string() };
        let seq = batch.seq(row).map_or("-".to_string(), |seq| seq.to_string());
        format!("{device} {time} {seq} {:?} {}", batch.quality_of(row), cells.join(" "))
    };
    let of_batch = |batch: &Batch| -> Vec<String> {
        batch
            .runs()
            .iter()
            .flat_map(|run| run.rows().map(|at| row(batch, batch.device(run), at)).collect::<Vec<_>>())
            .collect()
    };
    batches.iter().flat_map(|inbound| of_batch(&inbound.batch)).collect()
}

fn decode(
    format: PayloadFormat,
    device: Option<&str>,
    payload: impl Into<Bytes>,
) -> Result<Vec<String>, (Reason, String)> {
    let mut decoder = PayloadDecoder::new();
    let result = decoder.decode(format, device, &payload.into());
    let rows = rows(&decoder.finish());
    match result {
        Ok(count) => {
            assert_eq!(count, rows.len());
            Ok(rows)
        }
        Err(error) => {
            assert!(rows.is_empty(), "rows stayed after an error: {rows:?}");
            Err((error.reason, error.detail))
        }
    }
}

fn json(device: Option<&str>, payload: &str) -> Result<Vec<String>, (Reason, String)> {
    decode(PayloadFormat::Unknown, device, payload.to_string())
}

#[test]
fn an_object_is_one_event() {
    let check = |payload: &str, expected: &str| {
        assert_eq!(json(Some("d"), payload), Ok(vec![expected.to_string()]), "{payload}")
    };
    check(r#"{"t":20.5}"#, "d - - Good t=F64(20.5)");
    check(r#" {"t":20,"on":true,"text":"a\"b"}"#, r#"d - - Good t=F64(20.0) on=Bool(true) text=Text("a\"b")"#);
    check(r#"{"big":9007199254740993}"#, "d - - Good big=I64(9007199254740993)");
    check(r#"{"huge":18446744073709551615}"#, "d - - Good huge=F64(1.8446744073709552e19)");
    check(r#"{"t":1,"gone":null}"#, "d - - Good t=F64(1.0)");
    check(r#"{"seq":7,"quality":"bad","t":-1e-3,"ts":null}"#, "d - 7 Bad t=F64(-0.001)");
    check(r#"{"device":"d","t":1}"#, "d - - Good t=F64(1.0)");
    check("{\"\\u0074\\u00e9\":\"\\n\"}", "d - - Good té=Text(\"\\n\")");
    check("{\n  \"a\": 1,\n  \"b\": 2\n}\n", "d - - Good a=F64(1.0) b=F64(2.0)");
}

#[test]
fn time_stamps_are_rfc_3339_or_epochs_by_magnitude() {
    let check = |ts: &str, ns: i64| {
        assert_eq!(
            json(Some("d"), &format!("{{\"ts\":{ts},\"t\":1}}")),
            Ok(vec![format!("d {ns} - Good t=F64(1.0)")]),
            "{ts}"
        );
    };
    let ns = 1_795_162_500_250_000_000;
    check("\"2026-11-20T08:15:00.250Z\"", ns);
    check("\"2026-11-20T09:15:00.25+01:00\"", ns);
    check("1795162500", ns - 250_000_000);
    check("1795162500.25", ns);
    check("1795162500.123456", ns - 250_000_000 + 123_456_000);
    check("1795162500250", ns);
    check("1795162500250.125", ns + 125_000);
    check("1795162500250000", ns);
    check("1795162500250000001", ns + 1);
    check("0", 0);
    check("-1", -1_000_000_000);
    for bad in ["\"noon\"", "true", "1e40", "9223372036854775808", "-9223372036854775808"] {
        let (reason, detail) = json(Some("d"), &format!("{{\"ts\":{bad},\"t\":1}}")).unwrap_err();
        assert_eq!(reason, Reason::Malformed);
        assert!(detail.contains("`ts` is not a time"), "{detail}");
    }
}

#[test]
fn many_events_come_as_an_array_or_as_lines() {
    let expected = Ok(vec!["a - - Good t=F64(1.0)".to_string(), "b - - Good t=F64(2.0)".to_string()]);
    let one = r#"{"device":"a","t":1}"#;
    let two = r#"{"device_id":"b","t":2}"#;
    assert_eq!(json(None, &format!("[{one}, {two}]")), expected);
    assert_eq!(json(None, &format!("{one}\n{two}\n")), expected);
    assert_eq!(json(None, &format!("{one}\r\n\r\n{two}")), expected);
    assert_eq!(decode(PayloadFormat::Ndjson, None, format!("{one}\n[{two}]")), expected);
    assert_eq!(json(None, "[]"), Ok(vec![]));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let check = |device: Option<&str>, payload: &str, reason: Reason, detail: &str| {
        assert_eq!(json(device, payload), Err((reason, detail.to_string())), "{payload}");
    };
    let malformed = Reason::Malformed;
    check(Some("d"), "", malformed, "the payload is empty");
    check(Some("d"), "{}", malformed, "event 1 (until byte 1): there is no metric");
    check(
        Some("d"),
        r#"{"a":{"b":1}}"#,
        malformed,
        "event 1 (until byte 6): \"a\" is an object, but metrics are flat names",
    );
    check(
        Some("d"),
        r#"{"a":[1]}"#,
        malformed,
        "event 1 (until byte 6): \"a\" is an array, but metrics are flat names",
    );
    check(Some("d"), r#"{"a":1,"a":2}"#, malformed, "event 1 (until byte 11): the key \"a\" occurs twice");
    check(Some("d"), r#"{"a":1,"seq":1,"seq":2}"#, malformed, "event 1 (until byte 21): the key \"seq\" occurs twice");
    check(
        Some("d"),
        r#"{"a":1,"seq":-1}"#,
        malformed,
        "event 1 (until byte 14): `seq` is not a whole number from 0 on",
    );
    check(None, r#"{"a":1}"#, Reason::BadDevice, "event 1 (until byte 6): there is no `device`");
    check(
        None,
        "{\"device\":\"a\",\"t\":1}\n{\"t\":2}\n",
        Reason::BadDevice,
        "event 2 (until byte 27): there is no `device`",
    );
    let other = "event 1 (until byte 12): `device` is \"e\", but the payload was sent for \"d\"";
    check(Some("d"), r#"{"device":"e","t":1}"#, Reason::BadDevice, other);
    check(Some("d"), r#"[{"a":1},5]"#, malformed, "event 2, byte 9: invalid type: integer `5`, expected an object");
}

#[test]
fn broken_json_is_refused() {
    for payload in [
        "{",
        "[{\"a\":1}",
        "{\"a\":1}x",
        "{\"a\":1,}",
        "{\"a\":01}",
        "{\"a\":1e999}",
        "[1]",
        "{'a':1}",
        "[{\"a\":1},]",
        "{\"a\":nul}",
        "{\"a\":1}\n\u{c}\n",
        "{\"a\":\"\\ud800\"}",
    ] {
        let (reason, detail) = json(Some("d"), payload).expect_err(payload);
        assert_eq!(reason, Reason::Malformed, "{payload}");
        assert!(detail.contains("byte"), "{detail}");
    }
    let (_, detail) = decode(PayloadFormat::Json, Some("d"), &b"{\"a\":\"\xff\"}"[..]).unwrap_err();
    assert_eq!(detail, "byte 6 is not UTF-8");
    let deep = "[".repeat(100_000);
    assert!(json(Some("d"), &deep).is_err());
}

#[test]
fn a_bad_row_takes_its_payload_with_it_but_not_the_ones_before() {
    let mut decoder = PayloadDecoder::new();
    let mut send = |text: &'static str| {
        decoder.decode(PayloadFormat::Json, Some("d"), &Bytes::from_static(text.as_bytes())).is_ok()
    };
    assert!(send(r#"[{"t":1},{"t":2,"name":"x"}]"#));
    assert!(!send(r#"[{"t":3},{"t":4,"name":"longer"},{"new":1},{"t":5,"seq":9},{"t":[]}]"#));
    assert!(send(r#"{"t":6}"#));
    let expected = ["d - - Good t=F64(1.0)", "d - - Good t=F64(6.0)", "d - - Good t=F64(2.0) name=Text(\"x\")"];
    assert_eq!(rows(&decoder.finish()), expected);
    assert!(decoder.finish().is_empty());
}

#[test]
fn a_payload_has_bounds() {
    let check =
        |payload: String, reason: Reason| assert_eq!(json(Some("d"), &payload).expect_err("too large").0, reason);
    let metrics = |count: usize| (0..count).map(|n| format!("\"m{n}\":1")).collect::<Vec<_>>().join(",");
    assert!(json(Some("d"), &format!("{{{}}}", metrics(METRICS_PER_EVENT_MAX))).is_ok());
    check(format!("{{{}}}", metrics(METRICS_PER_EVENT_MAX + 1)), Reason::TooLarge);
    check(format!("{{\"a\":\"{}\"}}", "x".repeat(VALUE_BYTES_MAX + 1)), Reason::TooLarge);
    check(format!("{{\"{}\":1}}", "x".repeat(200)), Reason::Malformed);
    check("{\"a\\u0000\":1}".into(), Reason::Malformed);
    let shapes = |count: usize| (0..count).map(|n| format!("{{\"m{n}\":1}}")).collect::<Vec<_>>().join(",");
    assert!(json(Some("d"), &format!("[{}]", shapes(SHAPES_PER_PAYLOAD_MAX))).is_ok());
    check(format!("[{}]", shapes(SHAPES_PER_PAYLOAD_MAX + 1)), Reason::TooLarge);
    check(format!("[{}{{\"a\":1}}]", "{\"a\":1},".repeat(65_536)), Reason::TooLarge);
    for device in ["", "a\nb", &"x".repeat(129)] {
        assert_eq!(json(Some(device), "{\"a\":1}").expect_err("a bad name").0, Reason::BadDevice);
    }
}

#[test]
fn msgpack_has_bytes_and_time_stamps_of_its_own() {
    let mut row = vec![0x83, 0xa2];
    row.extend_from_slice(b"ts");
    row.extend_from_slice(&[0xd7, 0xff]);
    row.extend_from_slice(&((250_000_000u64 << 34) | 1_795_162_500).to_be_bytes());
    row.extend_from_slice(&[0xa1, b'b', 0xc4, 2, 1, 2, 0xa1, b'e', 0xd4, 5, 9]);
    let expected = "d 1795162500250000000 - Good b=Bytes([1, 2]) e=Bytes([9])".to_string();
    assert_eq!(decode(PayloadFormat::Unknown, Some("d"), row), Ok(vec![expected]));
}

#[test]
fn broken_msgpack_is_refused_with_its_place() {
    let check = |payload: &[u8], detail: &str| {
        let expected = Err((Reason::Malformed, detail.to_string()));
        assert_eq!(decode(PayloadFormat::Msgpack, Some("d"), payload.to_vec()), expected, "{payload:x?}");
    };
    check(&[0x81, 0xa1, b'a'], "event 1, byte 3: the payload ends in the middle of a value");
    check(&[0x92, 0x81, 0xa1, b'a', 1, 7], "event 2, byte 6: expected a map, or an array of maps, but found a number");
    check(&[0x81, 0xa1, b'a', 0x90], "event 1, byte 4: \"a\" is an array, but metrics are flat names");
    check(&[0x81, 1, 2], "event 1, byte 2: a key is a number, not text");
    check(&[0x81, 0xa1, 0xff, 1], "event 1, byte 4: a metric's name is not UTF-8");
    check(&[0x81, 0xa1, b'a', 0xa1, 0xff], "event 1, byte 5: text is not UTF-8");
    check(&[0xdd, 255, 255, 255, 255], "event 1, byte 5: the payload ends in the middle of a value");
    check(&[0xdb, 255, 255, 255, 255], "event 1, byte 1: expected a map, or an array of maps, but found text");
}

/// A row as a generator makes it and as both formats can say it.
#[derive(Clone, Debug)]
struct Made {
    device: String,
    ts: Option<i64>,
    seq: Option<u64>,
    quality: Quality,
    metrics: Vec<(String, MadeValue)>,
}

#[derive(Clone, Debug)]
enum MadeValue {
    Float(f64),
    Int(i64),
    Bool(bool),
    Text(String),
    Null,
}

fn made() -> impl Strategy<Value = Made> {
    let value = prop_oneof![
        any::<f64>()
            .prop_filter("JSON has them, and a sign of zero is not kept", |x| x.is_finite() && *x != 0.0)
            .prop_map(MadeValue::Float),
        any::<i64>().prop_map(MadeValue::Int),
        any::<bool>().prop_map(MadeValue::Bool),
        "\\PC{0,20}|[\"\\\\\n\t/]{1,4}".prop_map(MadeValue::Text),
        Just(MadeValue::Null),
    ];
    let metrics = proptest::collection::btree_map("m[a-zé \"\\\\.]{0,8}", value, 0..8);
    let quality = prop_oneof![Just(Quality::Good), Just(Quality::Uncertain), Just(Quality::Bad)];
    let time = proptest::option::of(150_000_000_000_000_000i64..2_000_000_000_000_000_000);
    ("[a-z]{1,6}", time, proptest::option::of(any::<u64>()), quality, metrics).prop_map(
        |(device, ts, seq, quality, metrics)| {
            let mut metrics: Vec<_> = metrics.into_iter().collect();
            metrics.push(("last".into(), MadeValue::Bool(true)));
            Made { device, ts, seq, quality, metrics }
        },
    )
}

impl Made {
    fn expected(&self) -> String {
        let cells: Vec<String> = self
            .metrics
            .iter()
            .filter_map(|(name, value)| {
                let value = match value {
                    MadeValue::Float(x) => Value::F64(*x),
                    MadeValue::Int(n) => millpond_core::value::number_of_integer(*n),
                    MadeValue::Bool(b) => Value::Bool(*b),
                    MadeValue::Text(text) => Value::Text(text),
                    MadeValue::Null => return None,
                };
                Some(format!("{name}={value:?}"))
            })
            .collect();
        let time = self.ts.map_or("-".into(), |ts| Timestamp(ts).0.to_string());
        let seq = self.seq.map_or("-".into(), |seq| seq.to_string());
        format!("{} {time} {seq} {:?} {}", self.device, self.quality, cells.join(" "))
    }

    fn entries(&self) -> Vec<(String, serde_json::Value)> {
        let mut entries =
            vec![("device".into(), self.device.clone().into()), ("quality".into(), serde_json::json!(self.quality))];
        entries.extend(self.ts.map(|ts| ("ts".into(), ts.into())));
        entries.extend(self.seq.map(|seq| ("seq".into(), seq.into())));
        entries.extend(self.metrics.iter().map(|(name, value)| {
            let value = match value {
                MadeValue::Float(x) => (*x).into(),
                MadeValue::Int(n) => (*n).into(),
                MadeValue::Bool(b) => (*b).into(),
                MadeValue::Text(text) => text.clone().into(),
                MadeValue::Null => serde_json::Value::Null,
            };
            (name.clone(), value)
        }));
        entries
    }

    fn json(&self) -> String {
        let entries: Vec<String> = self
            .entries()
            .iter()
            .map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key.as_str())))
            .collect();
        format!("{{{}}}", entries.join(","))
    }

    fn msgpack(&self) -> Vec<u8> {
        let mut row = Vec::new();
        let entries = self.entries();
        rmp::encode::write_map_len(&mut row, entries.len() as u32).expect("to memory");
        for (key, value) in entries {
            rmp::encode::write_str(&mut row, &key).expect("to memory");
            match value {
                serde_json::Value::Null => rmp::encode::write_nil(&mut row).expect("to memory"),
                serde_json::Value::Bool(b) => rmp::encode::write_bool(&mut row, b).expect("to memory"),
                serde_json::Value::String(text) => rmp::encode::write_str(&mut row, &text).expect("to memory"),
                serde_json::Value::Number(n) => {
                    if let Some(n) = n.as_u64() {
                        rmp::encode::write_uint(&mut row, n).expect("to memory");
                    } else if let Some(n) = n.as_i64() {
                        rmp::encode::write_sint(&mut row, n).expect("to memory");
                    } else {
                        rmp::encode::write_f64(&mut row, n.as_f64().expect("a float")).expect("to memory");
                    }
                }
                other => panic!("{other} is not made"),
            }
        }
        row
    }
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

proptest! {
    #[test]
    fn rows_that_were_written_are_read_back(made in proptest::collection::vec(made(), 1..12)) {
        let expected = sorted(made.iter().map(Made::expected).collect());
        let objects: Vec<String> = made.iter().map(Made::json).collect();
        let array = json(None, &format!("[{}]", objects.join(", "))).map(sorted);
        prop_assert_eq!(array, Ok(expected.clone()));
        let lines = decode(PayloadFormat::Ndjson, None, objects.join("\n")).map(sorted);
        prop_assert_eq!(lines, Ok(expected.clone()));
        let maps: Vec<u8> = made.iter().flat_map(Made::msgpack).collect();
        prop_assert_eq!(decode(PayloadFormat::Msgpack, None, maps.clone()).map(sorted), Ok(expected.clone()));
        let mut array = Vec::new();
        rmp::encode::write_array_len(&mut array, made.len() as u32).expect("to memory");
        array.extend(maps);
        prop_assert_eq!(decode(PayloadFormat::Msgpack, None, array).map(sorted), Ok(expected));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), like_json in "[\\[\\]{}\",:0-9a-z.\\\\ \n-]{0,80}") {
        for format in [PayloadFormat::Unknown, PayloadFormat::Json, PayloadFormat::Msgpack, PayloadFormat::Block] {
            let _ = decode(format, Some("d"), bytes.clone());
            let _ = decode(format, None, like_json.clone());
        }
    }

    #[test]
    fn a_damaged_row_never_panics(made in made(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut row = made.msgpack();
        *at.get_mut(&mut row) = byte;
        let _ = decode(PayloadFormat::Msgpack, None, row);
        let mut text = made.json().into_bytes();
        *at.get_mut(&mut text) = byte;
        let _ = decode(PayloadFormat::Json, None, text);
    }
}
