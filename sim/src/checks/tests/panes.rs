use millpond_core::{
    batch::BatchBuilder,
    record::{self, RecordKind},
    time::Timestamp,
    window::{LateEvent, Pane},
};

use millpond_store::{Commit, Put, Table};

use super::{
    stage::{batch, pane, row, value},
    *,
};
use crate::{checks, promise::Promise::PanesAgree};

/// The honest stage, with the panes of `d1` changed by `edit`.
fn with(edit: impl FnOnce(&mut Vec<Pane>)) -> Vec<String> {
    let mut stage = Stage::without_panes();
    let mut panes = Stage::all_panes("d1");
    edit(&mut panes);
    stage.panes(&panes);
    stage.panes(&Stage::all_panes("d2"));
    said(&mut stage, PanesAgree)
}

#[track_caller]
fn check(said: &[String], expected: &str) {
    assert!(said.len() == 1 && said[0].contains(expected), "{said:?} does not say {expected:?}");
}

#[test]
fn panes_of_the_stored_events_agree() {
    let mut stage = Stage::honest();
    assert_eq!(said(&mut stage, PanesAgree), [""; 0]);
    assert_eq!(checks::check(&stage.evidence).1.panes_compared, 38);
}

#[test]
fn each_aggregate_is_compared() {
    check(&with(|panes| panes[4].metrics[0].count += 1), "it counts 11 (+0), not 10 (+0)");
    check(
        &with(|panes| panes[4].metrics[0].sum = Some(20.0)),
        "ten of d1 from 0:00:40 to 0:00:50, revision 0: of vibration, its sum is 20, not",
    );
    check(&with(|panes| panes[4].metrics[0].mean = Some(2.0)), "its mean is 2");
    check(&with(|panes| panes[4].metrics[0].min = Some(2.0)), "its min is 2");
    check(&with(|panes| panes[4].metrics[0].max = Some(f64::NAN)), "its max is NaN");
    check(&with(|panes| panes[4].metrics[0].name = "noise".to_owned()), "no event has it");
}

#[test]
fn a_window_whose_time_is_past_has_a_pane_that_is_closed() {
    check(
        &with(|panes| drop(panes.remove(4))),
        "1 windows have no pane though their time is past: ten of d1 from 0:00:40",
    );
    check(&with(|panes| panes[4].open = true), "still said to be open");
    assert_eq!(with(|panes| drop(panes.pop())), [""; 0], "the last one may be on its way");
}

#[test]
fn a_pane_that_no_event_explains_is_found() {
    check(&with(|panes| panes.push(pane("d1", 400, 1..=3))), "1 panes have no stored events: ten of d1 from 0:06:40");
    check(&with(|panes| panes.push(pane("d1", 190, 190..=199))), "closed before their time: ten of d1 from 0:03:10");
    let mut open = pane("d1", 190, 190..=199);
    open.open = true;
    assert_eq!(with(|panes| panes.push(open)), [""; 0]);
    check(&with(|panes| panes[0].window = "eleven".to_owned())[..1], "no window of the configuration");
}

#[test]
fn the_newest_revision_holds() {
    let mut wrong = pane("d1", 40, 40..=48);
    wrong.revision = 1;
    check(&with(|panes| panes.push(wrong)), "revision 1: of vibration, it counts 9");
}

#[test]
fn a_stored_event_from_the_future_is_found() {
    let mut stage = Stage::honest();
    let mut builder = BatchBuilder::default();
    row(&mut builder, "d2", 201, T0 + 86_400_000_000_000, 2.0);
    stage.events(&builder.finish().remove(0), 200);
    check(&said(&mut stage, PanesAgree)[..1], "from the future: d2 at 24:00:00, ");
}

fn late(device: &str, n: i64) -> Vec<u8> {
    let event = LateEvent {
        window: "ten".to_owned(),
        key: device.to_owned(),
        device: device.to_owned(),
        time: Timestamp(T0 + n * 1_000_000_000),
        metrics: vec![("vibration".to_owned(), value(n))],
    };
    record::encode(&vec![event])
}

/// Reading 41 of `d1` comes after reading 60, when its window has fired and takes nothing more; the pane is with it or without.
fn out_of_order(with: bool) -> Stage {
    let mut stage = Stage::empty();
    stage.events(&batch("d1", (1..=60).filter(|n| *n != 41)), 60);
    stage.events(&batch("d1", std::iter::once(41).chain(61..=200)), 200);
    stage.events(&batch("d2", 1..=200), 200);
    let mut panes = Stage::all_panes("d1");
    if !with {
        let metric = &mut panes[4].metrics[0];
        let sum = metric.sum.unwrap() - value(41);
        (metric.count, metric.sum, metric.mean) = (9, Some(sum), Some(sum / 9.0));
    }
    stage.panes(&panes);
    stage.panes(&Stage::all_panes("d2"));
    stage
}

#[test]
fn a_late_event_has_a_reason_and_is_in_no_pane() {
    let mut honest = out_of_order(false);
    honest.append(RecordKind::Late, 0, late("d1", 41), 200);
    assert_eq!(said(&mut honest, PanesAgree), [""; 0]);
    let mut counted = out_of_order(true);
    counted.append(RecordKind::Late, 0, late("d1", 41), 200);
    check(&said(&mut counted, PanesAgree), "it counts 10 (+0), not 9 (+0)");
}

#[test]
fn an_event_is_late_only_if_it_is_and_then_it_is_said() {
    let mut stage = Stage::honest();
    stage.append(RecordKind::Late, 0, late("d1", 41), 200);
    check(&said(&mut stage, PanesAgree), "late without a reason: d1 at 0:00:41 for window ten, 1 times");
    check(&said(&mut out_of_order(false), PanesAgree), "were not called late: d1 at 0:00:41");
}

/// `window` in place of the one by device, and no panes but `panes`.
fn of_window(window: &str, panes: &[Pane]) -> Vec<String> {
    let mut stage = Stage::without_panes();
    stage.node().config.windows = vec![toml::from_str(window).unwrap()];
    stage.panes(panes);
    said(&mut stage, PanesAgree)
}

fn of_node(start: i64, end: i64, readings: std::ops::RangeInclusive<i64>) -> Pane {
    let mut pane = pane("node", start, readings);
    pane.end = Timestamp(T0 + end * 1_000_000_000);
    let metric = &mut pane.metrics[0];
    (metric.count, metric.sum) = (2 * metric.count, metric.sum.map(|sum| 2.0 * sum));
    pane
}

#[test]
fn windows_of_the_node_hold_the_events_of_all_devices() {
    let window = "name = \"ten\"\nsize = \"100s\"\nby = \"node\"";
    // The run begins at a multiple of 100 s.
    let honest = of_node(0, 100, 1..=99);
    assert_eq!(of_window(window, std::slice::from_ref(&honest)), [""; 0]);
    let mut wrong = honest;
    wrong.metrics[0].count -= 1;
    check(&of_window(window, &[wrong]), "ten of node from 0:00:00 to 0:01:40, revision 0: of vibration, it counts 197");
    check(&of_window(window, &[of_node(100, 200, 100..=199)])[1..], "closed before their time");
}

#[test]
fn sliding_windows_hold_an_event_several_times() {
    let window = "name = \"ten\"\nsize = \"100s\"\nslide = \"50s\"\nkind = \"sliding\"\nby = \"node\"";
    let honest = [of_node(-50, 50, 1..=49), of_node(0, 100, 1..=99), of_node(50, 150, 50..=149)];
    assert_eq!(of_window(window, &honest), [""; 0]);
    check(&of_window(window, &honest[..1]), "ten of node from 0:00:00 to 0:01:40");
}

#[test]
fn a_session_lasts_until_nothing_comes_for_its_gap() {
    let window = "name = \"ten\"\ngap = \"5s\"\nkind = \"session\"";
    let mut stage = Stage::empty();
    stage.node().config.windows = vec![toml::from_str(window).unwrap()];
    stage.events(&batch("d1", (1..=40).chain(60..=61)), 61);
    stage.events(&batch("d1", 62..=200), 200);
    let session = |from: i64, to: i64| {
        let mut pane = pane("d1", from, from..=to);
        pane.end = Timestamp(T0 + (to + 5) * 1_000_000_000);
        pane
    };
    stage.panes(&[session(1, 40)]);
    assert_eq!(said(&mut stage, PanesAgree), [""; 0]);
    stage.panes(&[session(60, 61)]);
    check(&said(&mut stage, PanesAgree), "1 panes have no stored events: ten of d1 from 0:01:00");
}

#[test]
fn a_filter_keeps_events_out() {
    let window = "name = \"ten\"\nsize = \"100s\"\nby = \"node\"\nfilter = \"vibration > 9.0\"";
    assert_eq!(of_window(window, &[of_node(0, 100, 50..=79)]), [""; 0]);
    check(&of_window(window, &[of_node(0, 100, 1..=99)]), "it counts 198 (+0), not 60 (+0)");
}

#[test]
fn windows_of_a_device_whose_record_was_left_out_are_not_compared() {
    let mut stage = Stage::honest();
    // The first record is one of `d1`.
    let key = [&b"poison/"[..], &1u64.to_be_bytes()].concat();
    let put = Put { table: Table::Meta, key, value: Some(Default::default()) };
    stage.commit(&Commit { puts: vec![put], ..Commit::default() });
    stage.panes(&[Pane { revision: 1, ..pane("d1", 40, 40..=48) }]);
    assert_eq!(said(&mut stage, PanesAgree), [""; 0]);
    stage.panes(&[Pane { revision: 1, ..pane("d2", 40, 40..=48) }]);
    check(&said(&mut stage, PanesAgree), "ten of d2 from 0:00:40");
}
