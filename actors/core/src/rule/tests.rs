use proptest::prelude::*;

use super::{phase::Levels, *};
use crate::{
    batch::{Batch, BatchBuilder, DeviceRef},
    map::FixedMap,
    value::Value,
    window::{Pane, PaneMetric},
};

const TYPES: [&str; 2] = ["press", "oven"];

fn types() -> Vec<String> {
    TYPES.iter().map(|name| (*name).to_owned()).collect()
}

fn spec(name: &str, when: Condition) -> RuleSpec {
    RuleSpec {
        name: name.into(),
        when,
        hold: Span::ZERO,
        severity: Severity::Warning,
        device_types: Vec::new(),
        quiet: Span::from_secs(300),
        message: None,
        enrich: Default::default(),
        shadow: false,
    }
}

fn above(value: f64, clear: Option<f64>) -> Condition {
    Condition::Threshold { metric: "temp".into(), op: Operator::Above, value, clear }
}

fn at(s: f64) -> Timestamp {
    Timestamp((s * 1e9) as i64)
}

/// Devices are named by letters, and each letter is its own index; `o…` are ovens, the others presses.
fn device(name: &str) -> DeviceRef {
    DeviceRef { index: u32::from(name.as_bytes()[0] - b'a'), device_type: u32::from(name.starts_with('o')) }
}

fn batch(rows: &[(&str, f64, f64)]) -> Batch {
    let mut builder = BatchBuilder::default();
    for (name, s, value) in rows {
        builder.begin(name);
        builder.time(at(*s));
        builder.cell("temp", Value::F64(*value));
        builder.end();
    }
    builder.finish().remove(0)
}

fn apply(book: &mut RuleBook, batch: &Batch, received: f64) -> Vec<Signal> {
    let devices: Vec<_> = batch.runs().iter().map(|run| device(batch.device(run))).collect();
    let mut out = Vec::new();
    book.apply(batch, &devices, None, at(received), &mut out);
    out
}

fn book(specs: Vec<RuleSpec>) -> RuleBook {
    RuleBook::new(specs, &types()).expect("good rules")
}

/// `rule key phase at since value`, times in seconds.
fn told(signals: &[Signal]) -> Vec<String> {
    let line = |s: &Signal| {
        format!("{} {} {:?} {} {} {}", s.rule, s.key, s.phase, s.at.0 as f64 / 1e9, s.since.0 as f64 / 1e9, s.value)
    };
    signals.iter().map(line).collect()
}

fn check(specs: Vec<RuleSpec>, rows: &[(&str, f64, f64)], expected: &[&str]) {
    let whole = apply(&mut book(specs.clone()), &batch(rows), 0.0);
    assert_eq!(told(&whole), expected);
    // Row by row, saved and loaded in between, it is the same.
    let mut single = Vec::new();
    let mut judge = book(specs.clone());
    for row in rows {
        single.extend(apply(&mut judge, &batch(&[*row]), 0.0));
        let saved = judge.save();
        judge = book(specs.clone());
        judge.load(&saved).expect("what was saved");
        assert_eq!(judge.save(), saved);
    }
    let sorted = |mut signals: Vec<Signal>| {
        signals.sort_by(|a, b| (&a.rule, &a.key).cmp(&(&b.rule, &b.key)));
        signals
    };
    assert_eq!(sorted(single), sorted(whole));
}

#[test]
fn a_threshold_fires_and_clears_on_transitions_only() {
    check(
        vec![spec("hot", above(80.0, None))],
        &[("a", 0.0, 70.0), ("a", 1.0, 81.0), ("a", 2.0, 90.0), ("a", 3.0, 80.0), ("a", 4.0, 70.0), ("b", 4.0, 99.0)],
        &["hot a Firing 1 1 81", "hot a Cleared 3 1 80", "hot b Firing 4 4 99"],
    );
}

#[test]
fn hysteresis_ends_only_past_the_clear_level() {
    check(
        vec![spec("hot", above(80.0, Some(75.0)))],
        &[("a", 0.0, 78.0), ("a", 1.0, 81.0), ("a", 2.0, 76.0), ("a", 3.0, 75.0), ("a", 4.0, 78.0)],
        &["hot a Firing 1 1 81", "hot a Cleared 3 1 75"],
    );
}

#[test]
fn it_fires_when_it_held_for_long_enough_in_event_time() {
    check(
        vec![RuleSpec { hold: Span::from_secs(10), ..spec("hot", above(80.0, None)) }],
        &[
            ("a", 0.0, 81.0),
            ("a", 5.0, 79.0),
            ("a", 6.0, 95.0),
            ("a", 15.0, 81.0),
            ("a", 16.0, 82.0),
            ("a", 20.0, 81.0),
            ("a", 21.0, 1.0),
        ],
        &[
            "hot a Pending 0 0 81",
            "hot a Withdrawn 5 0 79",
            "hot a Pending 6 6 95",
            "hot a Firing 16 6 82",
            "hot a Cleared 21 6 1",
        ],
    );
}

#[test]
fn the_worst_value_is_remembered() {
    let rows = [("a", 0.0, 81.0), ("a", 1.0, 99.0), ("a", 2.0, 85.0), ("a", 3.0, 1.0)];
    let signals = apply(&mut book(vec![spec("hot", above(80.0, None))]), &batch(&rows), 0.0);
    assert_eq!(signals.iter().map(|s| s.peak).collect::<Vec<_>>(), [81.0, 99.0]);
}

#[test]
fn raisings_of_one_instant_have_different_beginnings() {
    let rows = [("a", 1.0, 81.0), ("a", 1.0, 1.0), ("a", 1.0, 82.0), ("a", 1.0, 1.0), ("a", 1.0, 82.0)];
    let signals = apply(&mut book(vec![spec("hot", above(80.0, None))]), &batch(&rows), 0.0);
    let since: Vec<i64> = signals.iter().map(|s| s.since.0 - at(1.0).0).collect();
    assert_eq!(since, [0, 0, 1, 1, 2]);
}

#[test]
fn a_clock_that_was_set_back_delays_no_alert() {
    check(
        vec![RuleSpec { hold: Span::from_secs(10), ..spec("hot", above(80.0, None)) }],
        &[("a", 3600.0, 81.0), ("a", 1.0, 82.0), ("a", 11.0, 83.0), ("a", 12.0, 1.0)],
        &["hot a Pending 3600 3600 81", "hot a Firing 11 1 83", "hot a Cleared 12 1 1"],
    );
}

#[test]
fn a_rule_judges_devices_of_its_types_only() {
    check(
        vec![RuleSpec { device_types: vec!["oven".into()], ..spec("hot", above(80.0, None)) }],
        &[("a", 0.0, 99.0), ("o", 0.0, 99.0)],
        &["hot o Firing 0 0 99"],
    );
    let mut untyped = Vec::new();
    let mut judge = book(vec![RuleSpec { device_types: vec!["press".into()], ..spec("hot", above(80.0, None)) }]);
    let untyped_device = DeviceRef { index: 0, device_type: DeviceRef::UNTYPED };
    judge.apply(&batch(&[("a", 0.0, 99.0)]), &[untyped_device], None, at(0.0), &mut untyped);
    assert!(untyped.is_empty());
}

#[test]
fn a_device_that_the_rule_does_not_watch_any_more_is_cleared() {
    let all = vec![spec("hot", above(80.0, None))];
    let mut before = book(all.clone());
    apply(&mut before, &batch(&[("a", 0.0, 99.0)]), 0.0);
    let mut after = book(vec![RuleSpec { device_types: vec!["oven".into()], ..all[0].clone() }]);
    after.load(&before.save()).expect("what was saved");
    assert_eq!(told(&apply(&mut after, &batch(&[("a", 5.0, 99.0)]), 0.0)), ["hot a Cleared 5 0 0"]);
    let mut out = Vec::new();
    before.forget(0, "a", at(9.0), &mut out);
    assert_eq!(told(&out), ["hot a Cleared 9 0 0"]);
}

#[test]
fn rows_that_are_masked_gaps_and_nan_say_nothing() {
    let mut judge = book(vec![spec("hot", above(80.0, None))]);
    let rows = batch(&[("a", 0.0, 99.0), ("a", 1.0, 70.0)]);
    let mut out = Vec::new();
    judge.apply(&rows, &[device("a")], Some(&[false, true]), at(0.0), &mut out);
    assert!(out.is_empty());
    assert_eq!(apply(&mut judge, &batch(&[("a", 2.0, 99.0)]), 0.0).len(), 1);
    assert!(apply(&mut judge, &batch(&[("a", 3.0, f64::NAN)]), 0.0).is_empty());
    let mut below =
        spec("cold", Condition::Threshold { metric: "temp".into(), op: Operator::Below, value: 5.0, clear: None });
    below.hold = Span::ZERO;
    let mut judge = book(vec![below]);
    let mut gaps = batch(&[("a", 0.0, 99.0), ("a", 1.0, 0.0)]);
    gaps.columns[0].present = Some(vec![true, false]);
    assert!(apply(&mut judge, &gaps, 0.0).is_empty());
}

#[test]
fn integers_and_booleans_are_judged_as_numbers() {
    let mut builder = BatchBuilder::default();
    builder.begin("a");
    builder.cell("temp", Value::I64(99));
    builder.end();
    builder.begin("b");
    builder.cell("temp", Value::Bool(true));
    builder.end();
    let rule = Condition::Threshold { metric: "temp".into(), op: Operator::AtLeast, value: 1.0, clear: None };
    let mut judge = book(vec![spec("on", rule)]);
    let told: usize = builder.finish().iter().map(|batch| apply(&mut judge, batch, 0.0).len()).sum();
    assert_eq!(told, 2);
}

#[test]
fn a_rate_is_the_change_per_second_of_event_time() {
    let rate = Condition::Rate { metric: "temp".into(), op: Operator::Above, per_second: 2.0, clear: None };
    check(
        vec![spec("fast", rate.clone())],
        &[("a", 0.0, 0.0), ("a", 2.0, 4.0), ("a", 4.0, 9.0), ("a", 3.0, 0.0), ("a", 4.0, 0.0), ("a", 5.0, 10.0)],
        &["fast a Firing 4 0 2.5".replace(" 0 2.5", " 4 2.5").as_str(), "fast a Cleared 5 4 1"],
    );
    // Further back than events overtake each other: the clock was set back, and the rate begins anew.
    check(
        vec![spec("fast", rate)],
        &[("a", 1000.0, 0.0), ("a", 0.0, 50.0), ("a", 1.0, 60.0)],
        &["fast a Firing 1 1 10"],
    );
}

fn wave(n: usize) -> Vec<(&'static str, f64, f64)> {
    (0..n).map(|i| ("a", i as f64, 20.0 + (i as f64 * 0.7).sin())).collect()
}

#[test]
fn a_zscore_fires_on_an_outlier_and_is_not_poisoned_by_it() {
    let zscore = Condition::Zscore { metric: "temp".into(), limit: 4.0, samples: 60 };
    let mut rows = wave(100);
    rows[50].2 = 40.0;
    rows[60].2 = 28.0;
    let signals = apply(&mut book(vec![spec("odd", zscore.clone())]), &batch(&rows), 0.0);
    let phases: Vec<_> = signals.iter().map(|s| (s.phase, s.at.0 / 1_000_000_000)).collect();
    use Phase::*;
    assert_eq!(phases, [(Firing, 50), (Cleared, 51), (Firing, 60), (Cleared, 61)]);
    // Silent until it has seen a third of its samples.
    let mut early = wave(30);
    early[15].2 = 40.0;
    assert!(apply(&mut book(vec![spec("odd", zscore)]), &batch(&early), 0.0).is_empty());
}

#[test]
fn a_lasting_change_becomes_the_new_normal() {
    for (samples, limit) in [(30, 4.0), (300, 3.0), (100, 2.0)] {
        let zscore = Condition::Zscore { metric: "temp".into(), limit, samples };
        let mut rows = vec![("a", 0.0, 5.0); 400];
        rows.resize(400 + samples as usize * 12, ("a", 1.0, 50.0));
        let signals = apply(&mut book(vec![spec("odd", zscore)]), &batch(&rows), 0.0);
        let phases: Vec<_> = signals.iter().map(|s| s.phase).collect();
        assert_eq!(phases, [Phase::Firing, Phase::Cleared], "{samples} samples, limit {limit}");
    }
}

#[test]
fn an_expression_fires_and_its_facts_are_added() {
    let mut builder = BatchBuilder::default();
    for (s, temp, state) in [(0.0, 85.0, "idle"), (1.0, 85.0, "running"), (2.0, 85.0, "idle")] {
        builder.begin("a");
        builder.time(at(s));
        builder.cell("state", Value::Text(state));
        builder.cell("temp", Value::F64(temp));
        builder.end();
    }
    let batch = builder.finish().remove(0);
    let mut rule = spec("odd", Condition::Expression { expr: "temp > 80 && state == 'running'".into() });
    rule.enrich.insert("over".into(), "temp - 80".into());
    rule.enrich.insert("none".into(), "pressure * 2".into());
    rule.enrich.insert("bad".into(), "state > 3".into());
    let mut judge = book(vec![rule]);
    let signals = apply(&mut judge, &batch, 0.0);
    assert_eq!(told(&signals), ["odd a Firing 1 1 85", "odd a Cleared 2 1 85"]);
    assert_eq!(&*signals[0].metric, "temp");
    assert_eq!(signals[0].facts.len(), 2);
    assert!(signals[0].facts[0].1.starts_with("error: "));
    assert_eq!(signals[0].facts[1], ("over".into(), "5".into()));
    assert!(signals[1].facts.is_empty());
    let (_, counters) = judge.counters().next().expect("a rule");
    assert_eq!((counters.missing, counters.errors), (1, 1));
}

#[test]
fn an_expression_without_its_metric_is_false_and_counted() {
    let expr = Condition::Expression { expr: "temp > 80 && pressure > 1".into() };
    let mut judge = book(vec![spec("odd", expr)]);
    assert!(apply(&mut judge, &batch(&[("a", 0.0, 85.0), ("a", 1.0, 3.0)]), 0.0).is_empty());
    assert_eq!(judge.counters().next().expect("a rule").1.missing, 1);
}

#[test]
fn silence_is_about_receipt_and_ends_with_the_next_event() {
    let mut judge = book(vec![spec("mute", Condition::Silence { after: Span::from_secs(10) })]);
    let tick = |judge: &mut RuleBook, now: f64| {
        let mut out = Vec::new();
        judge.tick(at(now), &mut out);
        told(&out)
    };
    assert!(tick(&mut judge, 100.0).is_empty());
    assert!(apply(&mut judge, &batch(&[("a", 7.0, 0.0), ("b", 7.0, 0.0)]), 101.0).is_empty());
    assert!(tick(&mut judge, 110.0).is_empty());
    assert!(apply(&mut judge, &batch(&[("b", 8.0, 0.0)]), 110.0).is_empty());
    assert_eq!(tick(&mut judge, 112.0), ["mute a Firing 111 111 11"]);
    assert!(tick(&mut judge, 113.0).is_empty());
    assert_eq!(told(&apply(&mut judge, &batch(&[("a", 9.0, 0.0)]), 115.0)), ["mute a Cleared 115 111 0"]);
    assert_eq!(tick(&mut judge, 121.0), ["mute b Firing 120 120 11"]);
    assert_eq!(tick(&mut judge, 125.0), ["mute a Firing 125 125 10"]);
}

#[test]
fn after_a_restart_silence_is_counted_from_the_start() {
    let rules = vec![spec("mute", Condition::Silence { after: Span::from_secs(10) })];
    let mut before = book(rules.clone());
    before.tick(at(0.0), &mut Vec::new());
    apply(&mut before, &batch(&[("a", 0.0, 0.0), ("b", 0.0, 0.0)]), 1.0);
    let mut judge = book(rules);
    judge.load(&before.save()).expect("what was saved");
    // Replayed from the journal: too old to say anything about now.
    assert!(apply(&mut judge, &batch(&[("a", 0.0, 0.0)]), 2.0).is_empty());
    let mut out = Vec::new();
    judge.tick(at(1000.0), &mut out);
    judge.tick(at(1009.0), &mut out);
    assert!(out.is_empty());
    // An alert that fired after the checkpoint is cleared by the first sign of life.
    assert_eq!(told(&apply(&mut judge, &batch(&[("b", 0.0, 0.0)]), 1009.5)), ["mute b Cleared 1009.5 1009.5 0"]);
    assert!(apply(&mut judge, &batch(&[("b", 0.0, 0.0)]), 1009.6).is_empty());
    judge.tick(at(1010.0), &mut out);
    assert_eq!(told(&out), ["mute a Firing 1010 1010 1008"]);
}

#[test]
fn silence_can_be_held() {
    let held = RuleSpec { hold: Span::from_secs(5), ..spec("mute", Condition::Silence { after: Span::from_secs(10) }) };
    let mut judge = book(vec![held]);
    let mut out = Vec::new();
    judge.tick(at(0.0), &mut out);
    apply(&mut judge, &batch(&[("a", 0.0, 0.0)]), 0.0);
    [9.0, 10.0, 12.0, 15.0, 16.0].iter().for_each(|now| judge.tick(at(*now), &mut out));
    assert_eq!(told(&out), ["mute a Pending 10 10 10", "mute a Firing 10 10 15"]);
}

fn pane(key: &str, end: f64, mean: Option<f64>) -> Pane {
    let metric = |mean| PaneMetric { name: "temp".into(), count: 3, mean: Some(mean), ..PaneMetric::default() };
    Pane {
        window: "minute".into(),
        key: key.into(),
        start: at(end - 60.0),
        end: at(end),
        revision: 0,
        open: false,
        metrics: mean.map(metric).into_iter().collect(),
        share: None,
        of: None,
        merged: false,
    }
}

fn on_window(aggregate: &str) -> RuleSpec {
    let when = Condition::Window {
        window: "minute".into(),
        metric: "temp".into(),
        aggregate: aggregate.into(),
        op: Operator::Above,
        value: 80.0,
        clear: Some(75.0),
    };
    spec("warm", when)
}

#[test]
fn a_pane_raises_and_a_later_revision_clears() {
    let specs = [on_window("mean"), spec("hot", above(1.0, None))];
    let mut rules = PaneRules::new("minute", &specs).expect("good rules");
    assert!(PaneRules::new("hour", &specs).expect("good rules").is_empty());
    let mut out = Vec::new();
    let panes = [
        pane("a", 60.0, Some(81.0)),
        pane("a", 120.0, Some(78.0)),
        pane("a", 60.0, Some(10.0)),
        Pane { revision: 1, ..pane("a", 120.0, Some(70.0)) },
        Pane { revision: 2, ..pane("a", 120.0, Some(90.0)) },
        Pane { revision: 3, ..pane("a", 120.0, None) },
    ];
    for pane in &panes {
        rules.apply(pane, &mut out);
        let saved = rules.save();
        rules = PaneRules::new("minute", &specs).expect("good rules");
        rules.load(&saved).expect("what was saved");
        assert_eq!(rules.save(), saved);
    }
    let expected =
        ["warm a Firing 60 60 81", "warm a Cleared 120 60 70", "warm a Firing 120 120 90", "warm a Cleared 120 120 90"];
    assert_eq!(told(&out), expected);
}

#[test]
fn a_revision_that_was_judged_before_changes_nothing() {
    let mut rules = PaneRules::new("minute", &[on_window("mean")]).expect("good rules");
    let panes = [pane("a", 60.0, Some(90.0)), Pane { revision: 1, ..pane("a", 60.0, Some(10.0)) }];
    let (mut first, mut again) = (Vec::new(), Vec::new());
    panes.iter().for_each(|pane| rules.apply(pane, &mut first));
    assert_eq!(first.len(), 2, "raised and cleared");
    panes.iter().for_each(|pane| rules.apply(pane, &mut again));
    assert_eq!(again, []);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let mut bad = spec(
        "hot stuff",
        Condition::Threshold { metric: String::new(), op: Operator::Above, value: 5.0, clear: Some(6.0) },
    );
    bad.device_types = vec!["pres".into()];
    bad.message = Some("{device} {oops}".into());
    let mut silent = spec("mute", Condition::Silence { after: Span::ZERO });
    silent.enrich.insert("x".into(), "now()".into());
    let odd = spec("odd", Condition::Zscore { metric: "t".into(), limit: 1.0, samples: 1 });
    let expr = spec("odd", Condition::Expression { expr: "temp >".into() });
    let specs = [bad, silent, odd, expr, on_window("p99")];
    let window: crate::window::WindowSpec =
        rmp_serde::from_slice(&rmp_serde::to_vec_named(&FixedMap::from_iter([("name", "minutes")])).expect("a map"))
            .expect("a window");
    let found = problems(&specs, &types(), std::slice::from_ref(&window));
    let places: Vec<&str> = found.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "rules[0].name",
            "rules[0].when.metric",
            "rules[0].when.clear",
            "rules[0].device_types[0]",
            "rules[0].message",
            "rules[1].when.after",
            "rules[1].enrich",
            "rules[1].enrich.x",
            "rules[2].when.limit",
            "rules[2].when.samples",
            "rules[3].name",
            "rules[3].when.expr",
            "rules[4].when.window",
        ]
    );
    assert_eq!(found[3].hint.as_deref(), Some("did you mean `press`?"));
    assert_eq!(found[12].hint.as_deref(), Some("did you mean `minutes`?"));
    let window = crate::window::WindowSpec { name: "minute".into(), quantiles: vec![0.5, 0.999], ..window };
    let found = problems(&[on_window("p99")], &[], std::slice::from_ref(&window));
    assert_eq!(found[0].hint.as_deref(), Some("it computes count, sum, min, max, mean, p50, p99.9"));
    assert!(problems(&[on_window("p99.9")], &[], &[window]).is_empty());
    assert_eq!(RuleBook::new(specs.to_vec(), &types()).expect_err("bad rules").len(), 12);
}

/// The slow and plain way to judge a threshold.
fn model(levels: Levels, hold: i64, rows: &[(u8, i64, f64)]) -> Vec<(u8, Phase, i64)> {
    let mut out = Vec::new();
    let mut state: std::collections::BTreeMap<u8, (i64, bool)> = Default::default();
    for (device, t, value) in rows.iter().filter(|row| !row.2.is_nan()) {
        let holds = levels.hold(*value, state.contains_key(device));
        match (state.get(device).copied(), holds) {
            (None, true) => {
                state.insert(*device, (*t, hold == 0));
                out.push((*device, if hold == 0 { Phase::Firing } else { Phase::Pending }, *t));
            }
            (Some((since, false)), true) => {
                let since = since.min(*t);
                let fires = *t >= since + hold;
                state.insert(*device, (since, fires));
                if fires {
                    out.push((*device, Phase::Firing, *t));
                }
            }
            (Some((_, fired)), false) => {
                state.remove(device);
                out.push((*device, if fired { Phase::Cleared } else { Phase::Withdrawn }, *t));
            }
            _ => {}
        }
    }
    out.sort_by_key(|(device, ..)| *device);
    out
}

proptest! {
    #[test]
    fn thresholds_agree_with_the_plain_model(
        rows in prop::collection::vec((0u8..3, 0i64..40, prop_oneof![0.0..10.0f64, Just(f64::NAN)]), 1..80),
        hold in 0i64..5,
        clear in prop::option::of(0.0..5.0f64),
        cut in 1usize..80,
    ) {
        let mut rule = spec("r", above(5.0, clear));
        rule.hold = Span::from_secs(hold);
        let mut judge = book(vec![rule]);
        let named: Vec<(&str, f64, f64)> =
            rows.iter().map(|(d, t, v)| (["a", "b", "c"][usize::from(*d)], *t as f64, *v)).collect();
        let mut signals = Vec::new();
        for part in named.chunks(cut) {
            signals.extend(apply(&mut judge, &batch(part).grouped(), 0.0));
        }
        let mut found: Vec<_> =
            signals.iter().map(|s| (s.key.as_bytes()[0] - b'a', s.phase, s.at.0 / 1_000_000_000)).collect();
        found.sort_by_key(|(device, ..)| *device);
        prop_assert_eq!(found, model(Levels { op: Operator::Above, limit: 5.0, clear }, hold, &rows));
    }

    #[test]
    fn saved_state_that_is_damaged_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = book(vec![spec("r", above(5.0, None))]).load(&bytes);
        let _ = PaneRules::new("minute", &[on_window("mean")]).expect("good").load(&bytes);
    }
}
