use proptest::prelude::*;

use super::*;
use crate::batch::BatchBuilder;

fn event() -> Batch {
    let mut builder = BatchBuilder::default();
    builder.begin("press-7");
    builder.time(Timestamp::from_millis(1_700_000_000_123));
    builder.cell("temperature", Value::F64(81.5));
    builder.cell("cycles", Value::I64(400));
    builder.cell("running", Value::Bool(true));
    builder.cell("state", Value::Text("warm-up"));
    builder.cell("motor.current", Value::F64(12.0));
    builder.cell("druck [bar]", Value::F64(6.5));
    builder.end();
    builder.finish().remove(0)
}

fn ask(source: &str) -> Result<Option<Outcome>, ExprError> {
    let batch = event();
    let view = EventView {
        batch: &batch,
        row: 0,
        device: batch.device(&batch.runs()[0]),
        device_type: "press",
        time: batch.times[0],
    };
    Expr::compile(source)?.eval(&view)
}

#[test]
fn conditions_read_the_event() {
    let check = |source: &str, expected: bool| assert_eq!(ask(source), Ok(Some(Outcome::Bool(expected))), "{source}");
    check("temperature > 80.0 && state == \"warm-up\"", true);
    check("temperature > 80", true);
    check("temperature * 2 > 163", false);
    check("2 * (temperature - 1) == 161", true);
    check("motor.current < 3 || running", true);
    check("metrics[\"druck [bar]\"] >= 6.5", true);
    check("metrics[\"motor.current\"] == motor.current", true);
    check("cycles == 400 && cycles in [300, 400]", true);
    check("cycles % 100 == 0", true);
    check("device.startsWith('press-') && device_type == 'press'", true);
    check("ts == 1700000000123", true);
    check("ts - 1000 < ts", true);
    check("state in ['idle', 'warm-up']", true);
    check("has(temperature) && !has(pressure) && !has(metrics['x y'])", true);
    check("math.abs(temperature - 90) < 10 && math.greatest(temperature, 90, 3) == 90.0", true);
    check("running ? temperature > 100 : temperature > 10", false);
    check("-temperature < 0 && size(state) == 7", true);
}

#[test]
fn values_can_be_numbers_and_text() {
    assert_eq!(ask("motor.current / 8"), Ok(Some(Outcome::F64(1.5))));
    assert_eq!(ask("device + '!'"), Ok(Some(Outcome::Text("press-7!".into()))));
    assert_eq!(ask("size(device)"), Ok(Some(Outcome::I64(7))));
    assert_eq!(ask("3u"), Ok(Some(Outcome::I64(3))));
}

#[test]
fn a_missing_metric_decides_nothing_unless_it_is_not_needed() {
    assert_eq!(ask("pressure > 1.0"), Ok(None));
    assert_eq!(ask("!(pressure > 1.0)"), Ok(None));
    assert_eq!(ask("int > 1"), Ok(None), "the name of a type is a metric like any other");
    assert_eq!(ask("temperature > 80 || pressure > 1.0"), Ok(Some(Outcome::Bool(true))));
    assert_eq!(ask("has(pressure) ? pressure > 1.0 : running"), Ok(Some(Outcome::Bool(true))));
}

#[test]
fn wrong_types_are_errors_of_the_event() {
    for source in ["state > 5", "state + 1 > 0", "temperature && running", "ts / 0 == 1", "running > 1"] {
        assert!(ask(source).is_err(), "{source}: {:?}", ask(source));
    }
}

#[test]
fn what_the_dialect_lacks_is_refused_with_its_place() {
    let check = |source: &str, words: &str, column: Option<u32>| {
        let error = Expr::compile(source).expect_err(source);
        assert!(error.message.contains(words), "{source}: {error}");
        assert_eq!(error.column, column, "{source}: {error}");
    };
    check("now() > 1", "no function `now`", Some(4));
    check("temperature > timestamp('2026-01-01T00:00:00Z')", "no function `timestamp`", Some(24));
    check("[1].exists(x, x > 0)", "no loops", Some(11));
    check("state.startWith('a')", "did you mean `startsWith`?", Some(16));
    check("{'a': 1}['a']", "only `metrics", Some(9));
    check("temperature > null", "`null`", Some(15));
    check("math.exp(1.0) > 2.0", "`math.exp`", Some(9));
    check(&"(".repeat(2000), "at most 1024 bytes", None);
    assert!(Expr::compile("").is_err());
    assert_eq!(Expr::compile("temperature > ").expect_err("an operand is missing").column, Some(15));
}

#[test]
fn an_expression_names_its_metrics() {
    let expr = Expr::compile("a > 1 && b.c < 2 || has(d) && device == 'x' && a < 9").expect("good");
    assert_eq!(expr.metrics().collect::<Vec<_>>(), ["a", "b.c", "d"]);
    let _: &(dyn Send + Sync) = &expr;
}

#[test]
fn a_mask_keeps_what_holds_and_counts_what_cannot_be_decided() {
    let mut builder = BatchBuilder::default();
    for (device, value) in [("a", 1.0), ("a", 3.0), ("b", 5.0)] {
        builder.begin(device);
        builder.cell("x", Value::F64(value));
        builder.end();
    }
    let batch = builder.finish().remove(0);
    let devices = [DeviceRef { index: 0, device_type: 0 }, DeviceRef { index: 1, device_type: DeviceRef::UNTYPED }];
    let types = ["press".to_owned()];
    let mut mask = Vec::new();
    let ask =
        |source: &str, mask: &mut Vec<bool>| Expr::compile(source).expect("good").mask(&batch, &devices, &types, mask);
    assert_eq!(ask("x > 2", &mut mask), MaskCount::default());
    assert_eq!(mask, [false, true, true]);
    assert_eq!(ask("device_type == 'press'", &mut mask), MaskCount::default());
    assert_eq!(mask, [false, true, false]);
    assert_eq!(ask("y > 2", &mut mask).missing, 1);
    let count = ask("device > 2", &mut Vec::new());
    assert_eq!(count.errors, 3);
    assert!(count.first_error.is_some());
}

/// Sources of the longest and the deepest kind, in a thread with less stack than any of ours.
#[test]
#[expect(clippy::disallowed_methods, reason = "only a thread of its own has a stack of a given size")]
fn no_source_exhausts_the_stack() {
    let sources: Vec<String> = vec![
        "(".repeat(1024),
        format!("{}1{}", "(".repeat(511), ")".repeat(511)),
        format!("{}1{}", "[".repeat(511), "]".repeat(511)),
        format!("{}1", "-".repeat(1000)),
        format!("{}true", "!".repeat(1000)),
        vec!["a"; 512].join("+"),
        vec!["a"; 512].join("."),
        vec!["a"; 341].join("&&"),
        vec!["a"; 341].join("=="),
        vec!["a?b"; 250].join(":"),
        format!("a{}", "[a".repeat(500)),
        format!("a{}", ".f()".repeat(250)),
        format!("a{}", "[1]".repeat(330)),
        "f(".repeat(500),
        "a?".repeat(500),
        "{a:".repeat(340),
        "-(".repeat(500),
    ];
    let worker = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
        for source in sources {
            if let Ok(expr) = Expr::compile(&source) {
                let batch = event();
                let view = EventView { batch: &batch, row: 0, device: "d", device_type: "", time: batch.times[0] };
                let _ = expr.eval(&view);
            }
        }
    });
    worker.expect("a thread").join().expect("no panic");
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("temperature".to_owned()),
        Just("state".to_owned()),
        Just("a.b".to_owned()),
        Just("metrics".to_owned()),
        Just("math.".to_owned()),
        Just("greatest(".to_owned()),
        Just("has(".to_owned()),
        Just("size(".to_owned()),
        Just("'text'".to_owned()),
        Just("b'\\xff'".to_owned()),
        Just("r\"".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("'\\u12'".to_owned()),
        Just("1e400".to_owned()),
        Just("9223372036854775808".to_owned()),
        Just("-9223372036854775808".to_owned()),
        Just("0x".to_owned()),
        Just("0xFFu".to_owned()),
        Just("1u".to_owned()),
        Just(".5".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just(" in ".to_owned()),
        Just("?".to_owned()),
        Just(".?".to_owned()),
        Just("[?".to_owned()),
        Just("`x`".to_owned()),
        "[-+*/%<>=!&|?:.,()\\[\\]{}`'\"\\\\ \n]",
        "\\PC{1,3}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_source_panics(source in prop_oneof![pieces(), "\\PC{0,60}"]) {
        match Expr::compile(&source) {
            Ok(_) => drop(ask(&source)),
            Err(error) => prop_assert!(!error.message.is_empty()),
        }
    }
}
