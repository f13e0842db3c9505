use super::*;
use crate::{
    batch::BatchBuilder,
    time::Span,
    value::Value,
    window::{
        Aggregate, Pane, PaneMetric,
        testing::{self, Rig, batch, devices, ms, session, tumbling, types},
    },
};

fn apply(slicer: &mut Slicer, batch: &Batch, rows: Option<&[bool]>) -> Vec<Delta> {
    let mut out = Vec::new();
    slicer.apply(batch, &devices(batch, |n| n), rows, ms(0), &mut out);
    out
}

/// The only pane of a window of 10 s after these batches of device 0.
fn pane(spec: WindowSpec, batches: Vec<Batch>) -> Pane {
    let mut rig = Rig::new(spec, 1);
    let mut effects = Vec::new();
    for batch in batches {
        let deltas = apply(&mut rig.slicers[0], &batch, None);
        rig.panes.apply(0, deltas, &mut effects);
    }
    rig.flush();
    let mut open = rig.panes.open();
    assert_eq!(open.len(), 1, "{open:?}");
    open.swap_remove(0)
}

fn row(builder: &mut BatchBuilder, time: i64, cells: &[(&str, Value<'_>)]) {
    builder.begin("d0");
    builder.time(ms(time));
    for (name, value) in cells {
        builder.cell(name, *value);
    }
    builder.end();
}

fn names(pane: &Pane) -> Vec<(&str, u64)> {
    pane.metrics.iter().map(|metric| (metric.name.as_str(), metric.count)).collect()
}

#[test]
fn numbers_of_all_types_are_aggregated_and_text_is_not() {
    let mut builder = BatchBuilder::default();
    for n in 0..20 {
        let on = Value::Bool(n % 4 == 0);
        row(&mut builder, n, &[("on", on), ("n", Value::I64(n)), ("f", Value::F64(0.5)), ("s", Value::Text("x"))]);
    }
    let pane = pane(tumbling(10_000), builder.finish());
    assert_eq!(names(&pane), [("f", 20), ("n", 20), ("on", 20)]);
    assert_eq!(["f", "n", "on"].map(|metric| pane.aggregate(metric, "sum")), [Some(10.0), Some(190.0), Some(5.0)]);
    assert_eq!(pane.aggregate("n", "max"), Some(19.0));
    assert_eq!(pane.aggregate("s", "count"), None);
}

#[test]
fn gaps_are_not_values() {
    let mut batch = batch(&[(0, 1, 1.0), (0, 2, 2.0), (0, 3, 4.0)]);
    batch.columns[0].present = Some(vec![true, false, true]);
    let pane = pane(tumbling(10_000), vec![batch]);
    assert_eq!((pane.aggregate("x", "count"), pane.aggregate("x", "sum")), (Some(2.0), Some(5.0)));
}

#[test]
fn values_that_are_not_finite_are_counted_apart() {
    let events: Vec<_> = [1.0, f64::NAN, 2.0, f64::INFINITY, f64::NEG_INFINITY, 3.0]
        .into_iter()
        .enumerate()
        .map(|(n, value)| (0, n as i64, value))
        .collect();
    let pane = pane(testing::everything(tumbling(10_000)), vec![batch(&events)]);
    let PaneMetric { count, skipped, sum, min, max, first, last, .. } = &pane.metrics[0];
    assert_eq!((*count, *skipped), (3, 3));
    assert_eq!([sum, min, max, first, last].map(|value| *value), [6.0, 1.0, 3.0, 1.0, 3.0].map(Some));
}

#[test]
fn only_the_metrics_asked_for_are_aggregated() {
    let spec = WindowSpec { metrics: vec!["b".to_owned(), "zz".to_owned()], ..tumbling(10_000) };
    let mut builder = BatchBuilder::default();
    row(&mut builder, 1, &[("a", Value::F64(1.0)), ("b", Value::F64(2.0))]);
    row(&mut builder, 2, &[("b", Value::F64(3.0)), ("c", Value::F64(4.0))]);
    row(&mut builder, 3, &[("c", Value::F64(5.0))]);
    assert_eq!(names(&pane(spec, builder.finish())), [("b", 2)]);
}

#[test]
fn a_device_may_change_its_metrics() {
    let mut builder = BatchBuilder::default();
    row(&mut builder, 1, &[("m", Value::F64(1.0)), ("z", Value::F64(f64::NAN))]);
    row(&mut builder, 2, &[("z", Value::F64(3.0)), ("a", Value::F64(2.0))]);
    row(&mut builder, 3, &[("m", Value::F64(5.0))]);
    let pane = pane(testing::everything(tumbling(10_000)), builder.finish());
    assert_eq!(names(&pane), [("a", 1), ("m", 2), ("z", 1)]);
    assert_eq!(pane.metrics[2].skipped, 1);
    assert_eq!((pane.aggregate("m", "first"), pane.aggregate("m", "last")), (Some(1.0), Some(5.0)));
}

#[test]
fn metrics_beyond_the_limit_are_left_out_and_counted() {
    let mut slicer = Slicer::new(Arc::new(tumbling(10_000)), &types()).unwrap();
    for n in 0..crate::limits::WINDOW_METRICS_MAX + 7 {
        let mut builder = BatchBuilder::default();
        row(&mut builder, n as i64, &[(&format!("m{n}"), Value::F64(1.0))]);
        apply(&mut slicer, &builder.finish()[0], None);
    }
    assert_eq!(slicer.left_out(), 7);
    let mut out = Vec::new();
    slicer.flush(&mut out);
    assert_eq!(out[0].parts[0].metrics.len(), crate::limits::WINDOW_METRICS_MAX);
}

#[test]
fn masked_rows_move_the_watermark_only() {
    let mut rig = Rig::new(tumbling(10), 1);
    let batch = batch(&[(0, 1, 1.0), (0, 2, 2.0), (0, 50, 4.0)]);
    let deltas = apply(&mut rig.slicers[0], &batch, Some(&[true, false, false]));
    let mut effects = Vec::new();
    rig.panes.apply(0, deltas, &mut effects);
    let lines: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            crate::window::WindowEffect::Fire(pane) => testing::line(pane),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(lines, ["d0 0..10 n=1 sum=1 r0"]);
}

#[test]
fn devices_of_other_types_take_no_part() {
    let spec = WindowSpec { device_types: vec!["oven".to_owned()], ..tumbling(10) };
    let mut rig = Rig::new(spec, 1);
    rig.push(&[(0, 1, 1.0), (1, 1, 1.0)]);
    rig.push(&[(0, 20, 1.0), (1, 20, 1.0)]);
    assert_eq!(rig.lines(), ["d1 0..10 n=1 sum=1 r0"]);
}

#[test]
fn an_unknown_device_type_is_a_problem() {
    let spec = WindowSpec { device_types: vec!["ofen".to_owned()], ..tumbling(10) };
    let problems = Slicer::new(Arc::new(spec), &types()).map(drop).unwrap_err();
    assert_eq!(problems[0].place, "device_types[0]");
    assert_eq!(problems[0].hint.as_deref(), Some("did you mean `oven`?"));
}

#[test]
fn rows_without_a_time_have_that_of_receipt() {
    let mut rig = Rig::new(tumbling(10), 1);
    let mut batch = batch(&[(0, 0, 1.0), (0, 0, 2.0)]);
    batch.times = vec![crate::batch::UNTIMED; 2];
    let mut out = Vec::new();
    rig.slicers[0].apply(&batch, &devices(&batch, |n| n), None, ms(35), &mut out);
    rig.slicers[0].flush(&mut out);
    let part = &out.iter().flat_map(|delta| &delta.parts).next().unwrap();
    assert_eq!((part.start, part.end), (ms(30), ms(40)));
}

#[test]
fn devices_are_known_again_by_name_whatever_their_number() {
    let spec = Arc::new(tumbling(10));
    let mut slicer = Slicer::new(spec.clone(), &types()).unwrap();
    apply(&mut slicer, &batch(&[(0, 1, 1.0), (1, 2, 2.0)]), None);
    let mut loaded = Slicer::new(spec, &types()).unwrap();
    loaded.load(&slicer.save()).unwrap();
    let more = batch(&[(1, 3, 4.0), (0, 3, 8.0), (2, 3, 16.0)]);
    let mut out = Vec::new();
    loaded.apply(&more, &devices(&more, |n| 7 - n), None, ms(0), &mut out);
    loaded.flush(&mut out);
    let sums: Vec<_> = out.iter().map(|delta| (&*delta.key, delta.parts[0].metrics[0].stats.sum.value())).collect();
    assert_eq!(sums, [("d0", 9.0), ("d1", 6.0), ("d2", 16.0)]);
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let slicer = |spec: WindowSpec| Slicer::new(Arc::new(spec), &types()).unwrap();
    let bytes = slicer(tumbling(10)).save();
    assert!(matches!(slicer(tumbling(20)).load(&bytes), Err(crate::window::CheckpointError::Definition)));
    assert!(matches!(slicer(session(10)).load(&bytes), Err(crate::window::CheckpointError::Definition)));
    assert!(matches!(slicer(tumbling(10)).load(&[9]), Err(crate::window::CheckpointError::Version(9))));
    for end in 0..bytes.len() {
        assert!(slicer(tumbling(10)).load(&bytes[..end]).is_err());
    }
    let later = WindowSpec { bound: Span::from_secs(9), aggregates: vec![Aggregate::Mean], ..tumbling(10) };
    slicer(later).load(&bytes).unwrap();
}

#[test]
fn definitions_tell_all_their_problems() {
    let check = |spec: WindowSpec, places: &[&str]| {
        let problems = spec.problems();
        let got: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(got, places, "{problems:?}");
    };
    check(tumbling(10), &[]);
    check(testing::sliding(10, 3), &[]);
    check(session(10), &[]);
    check(tumbling(0), &["size"]);
    check(WindowSpec { name: "a b".to_owned(), size: None, ..tumbling(1) }, &["name", "size"]);
    check(testing::sliding(10, 11), &["slide"]);
    check(WindowSpec { slide: Some(Span::from_secs(1)), ..session(10) }, &["slide"]);
    check(WindowSpec { gap: Some(Span::from_secs(1)), ..tumbling(10) }, &["gap"]);
    check(WindowSpec { lateness: Span(-1), idle_after: Span(0), ..tumbling(10) }, &["lateness", "idle_after"]);
    check(WindowSpec { quantiles: vec![0.5, 99.0, f64::NAN], ..tumbling(10) }, &["quantiles[1]", "quantiles[2]"]);
    check(WindowSpec { aggregates: vec![], ..tumbling(10) }, &["aggregates"]);
    check(
        WindowSpec { metrics: vec!["a".into(), "a".into(), String::new()], ..tumbling(10) },
        &["metrics[1]", "metrics[2]"],
    );
    check(testing::sliding(3_600_000, 1), &["slide"]);
    check(WindowSpec { emit: Emit::Update, ..testing::sliding(1000, 1) }, &["emit"]);
}
