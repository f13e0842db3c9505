use super::*;
use crate::{
    limits::WINDOW_PARTS_MAX,
    time::Span,
    window::testing::{Rig, everything, line, ms, session, sliding, tumbling},
};

fn late_by(ms: i64, spec: WindowSpec) -> WindowSpec {
    WindowSpec { lateness: Span::from_millis(ms), ..spec }
}

fn by(by: GroupBy, spec: WindowSpec) -> WindowSpec {
    WindowSpec { by, ..spec }
}

#[test]
fn late_event_fires_the_pane_again() {
    let mut rig = Rig::new(late_by(20, tumbling(10)), 1);
    rig.push(&[(0, 1, 1.0)]);
    rig.push(&[(0, 15, 2.0)]);
    rig.push(&[(0, 2, 4.0), (0, 3, 8.0)]);
    rig.push(&[(0, 29, 16.0)]);
    rig.push(&[(0, 30, 32.0), (0, 4, 64.0)]);
    rig.push(&[(0, 5, 128.0)]);
    assert_eq!(
        rig.lines(),
        [
            "d0 0..10 n=1 sum=1 r0",
            "d0 0..10 n=3 sum=13 r1",
            "d0 10..20 n=1 sum=2 r0",
            // Judged by the watermark before its batch, which is 28.
            "d0 0..10 n=4 sum=77 r2",
            "d0 20..30 n=1 sum=16 r0",
        ]
    );
    assert_eq!(rig.late.len(), 1);
    assert_eq!((rig.late[0].time, rig.late[0].metrics.clone()), (ms(5), vec![("x".to_owned(), 128.0)]));
}

#[test]
fn a_late_event_counts_for_the_windows_that_are_still_open() {
    let mut rig = Rig::new(sliding(20, 10), 1);
    rig.push(&[(0, 5, 1.0)]);
    rig.push(&[(0, 15, 2.0)]);
    rig.push(&[(0, 6, 4.0)]);
    rig.push(&[(0, 40, 0.0)]);
    assert_eq!(rig.lines(), ["d0 -10..10 n=1 sum=1 r0", "d0 0..20 n=3 sum=7 r0", "d0 10..30 n=1 sum=2 r0"]);
    assert!(rig.late.is_empty());
}

#[test]
fn sessions_that_are_joined_are_retracted() {
    let mut rig = Rig::new(late_by(100, session(10)), 1);
    rig.push(&[(0, 0, 1.0)]);
    rig.push(&[(0, 18, 2.0)]);
    rig.push(&[(0, 40, 4.0)]);
    rig.push(&[(0, 9, 8.0)]);
    rig.push(&[(0, 9, 16.0)]);
    assert_eq!(
        rig.lines(),
        [
            "d0 0..10 n=1 sum=1 r0",
            "d0 18..28 n=1 sum=2 r0",
            "d0 18..28 retracted r1",
            "d0 0..10 retracted r1",
            "d0 0..28 n=3 sum=11 r2",
            "d0 0..28 n=4 sum=27 r3",
        ]
    );
    assert_eq!(rig.view().into_values().map(|pane| line(&pane)).collect::<Vec<_>>(), ["d0 0..28 n=4 sum=27 r3"]);
}

#[test]
fn an_idle_device_has_its_open_pane_said_and_loses_nothing() {
    let mut rig = Rig::new(tumbling(10), 1);
    rig.push_at(ms(1000), &[(0, 1, 1.0)]);
    rig.tick(ms(30_999));
    assert!(rig.fired.is_empty());
    rig.tick(ms(31_000));
    rig.tick(ms(90_000));
    rig.push_at(ms(100_000), &[(0, 2, 2.0)]);
    rig.push_at(ms(100_001), &[(0, 12, 4.0)]);
    assert_eq!(rig.lines(), ["d0 0..10 n=1 sum=1 r0 open", "d0 0..10 n=2 sum=3 r1"]);
    assert!(rig.late.is_empty());
}

#[test]
fn a_pane_that_was_closed_by_what_is_left_out_is_said_as_it_stands() {
    let mut before = Rig::new(tumbling(10), 1);
    before.push(&[(0, 1, 1.0), (0, 2, 2.0)]);
    before.push(&[(0, 12, 4.0)]);
    assert_eq!(before.lines(), ["d0 0..10 n=2 sum=3 r0"]);
    let mut after = Rig::new(tumbling(10), 1);
    after.panes.emitted(&before.fired[0]);
    after.push(&[(0, 1, 1.0)]);
    after.flush();
    assert!(after.fired.is_empty());
    let mut effects = Vec::new();
    after.panes.take_back(&before.fired[0], &mut effects);
    after.take(effects);
    after.push(&[(0, 12, 4.0)]);
    assert_eq!(after.lines(), ["d0 0..10 n=1 sum=1 r1 open", "d0 0..10 n=1 sum=1 r2"]);
}

#[test]
fn updates_are_said_once_for_each_change() {
    let mut rig = Rig::new(WindowSpec { emit: Emit::Update, ..tumbling(10) }, 1);
    rig.push(&[(0, 1, 1.0)]);
    rig.tick(ms(1));
    rig.tick(ms(2));
    rig.push(&[(0, 2, 2.0)]);
    rig.push(&[(0, 3, 4.0)]);
    rig.tick(ms(3));
    rig.push(&[(0, 12, 8.0)]);
    rig.tick(ms(4));
    let expected = [
        "d0 0..10 n=1 sum=1 r0 open",
        "d0 0..10 n=3 sum=7 r1 open",
        "d0 0..10 n=3 sum=7 r2",
        "d0 10..20 n=1 sum=8 r0 open",
    ];
    assert_eq!(rig.lines(), expected);
}

#[test]
fn a_group_waits_for_the_slowest_device_of_any_shard() {
    let mut rig = Rig::new(by(GroupBy::Node, tumbling(10)), 2);
    rig.push(&[(0, 1, 1.0), (1, 2, 2.0)]);
    rig.push(&[(0, 35, 4.0)]);
    rig.tick(ms(0));
    assert!(rig.fired.is_empty(), "{:?}", rig.lines());
    rig.push(&[(1, 9, 8.0)]);
    rig.push(&[(1, 21, 16.0)]);
    rig.tick(ms(0));
    assert_eq!(rig.lines(), ["node 0..10 n=3 sum=11 r0"]);
    assert_eq!(rig.watermarks.last().unwrap().1, Timestamp(ms(21).0 - 1));
    rig.push(&[(1, 9, 32.0)]);
    assert_eq!(rig.late.len(), 1);
    assert_eq!((rig.late[0].key.as_str(), rig.late[0].device.as_str()), ("node", "d1"));
}

#[test]
fn an_idle_device_does_not_hold_its_group_back_and_a_silent_shard_does() {
    let mut rig = Rig::new(by(GroupBy::Node, tumbling(10)), 2);
    rig.push_at(ms(0), &[(0, 1, 1.0), (1, 1, 1.0)]);
    rig.push_at(ms(20_000), &[(0, 55, 1.0)]);
    let mut deltas = Vec::new();
    rig.slicers[0].tick(ms(29_999), &mut deltas);
    let mut effects = Vec::new();
    rig.panes.apply(0, deltas, &mut effects);
    assert!(effects.is_empty(), "the other shard has not been heard");
    rig.tick(ms(29_999));
    assert!(rig.fired.is_empty());
    rig.tick(ms(30_000));
    assert_eq!(rig.lines(), ["node 0..10 n=2 sum=2 r0"]);
}

#[test]
fn groups_are_device_types() {
    let mut rig = Rig::new(by(GroupBy::Type, tumbling(10)), 2);
    rig.push(&[(0, 1, 1.0), (1, 1, 2.0), (2, 1, 4.0), (3, 1, 8.0)]);
    rig.push(&[(0, 11, 0.0), (1, 11, 0.0), (2, 12, 0.0)]);
    rig.tick(ms(0));
    rig.tick(ms(0));
    assert_eq!(rig.lines(), ["press 0..10 n=2 sum=5 r0"], "oven d3 is at 1 ms yet");
}

#[test]
fn a_late_event_of_a_group_fires_again_at_the_next_tick() {
    let mut rig = Rig::new(by(GroupBy::Node, late_by(50, tumbling(10))), 2);
    rig.push(&[(0, 1, 1.0), (1, 2, 2.0)]);
    rig.push(&[(0, 30, 0.0), (1, 30, 0.0)]);
    rig.tick(ms(0));
    rig.tick(ms(0));
    rig.push(&[(0, 3, 4.0), (1, 4, 8.0)]);
    rig.tick(ms(0));
    assert_eq!(rig.lines(), ["node 0..10 n=2 sum=3 r0", "node 0..10 n=3 sum=7 r1", "node 0..10 n=4 sum=15 r2"]);
}

#[test]
fn rows_judged_before_a_shard_learned_the_watermark_are_not_lost() {
    let spec = by(GroupBy::Node, tumbling(10));
    let mut rig = Rig::new(spec, 2);
    rig.push(&[(0, 1, 1.0), (1, 2, 2.0)]);
    rig.push(&[(0, 30, 0.0), (1, 30, 0.0)]);
    // Shard 1 is asked before anything of the new watermark has come back to it, and takes one more row.
    let mut effects = Vec::new();
    for shard in 0..2 {
        let mut deltas = Vec::new();
        rig.slicers[shard].tick(ms(0), &mut deltas);
        rig.panes.apply(shard, deltas, &mut effects);
    }
    rig.push(&[(1, 3, 4.0)]);
    for effect in effects {
        match effect {
            WindowEffect::Fire(pane) => rig.fired.push(pane),
            WindowEffect::Watermark { key, at } => rig.slicers.iter_mut().for_each(|slicer| slicer.learn(&key, at)),
            WindowEffect::Late(event) => rig.late.push(event),
        }
    }
    rig.tick(ms(0));
    assert_eq!(rig.lines(), ["node 0..10 n=2 sum=3 r0", "node 0..10 n=3 sum=7 r1"]);
    assert!(rig.late.is_empty());
}

#[test]
fn a_device_far_behind_cannot_hold_more_than_the_bound() {
    let mut rig = Rig::new(by(GroupBy::Node, tumbling(1)), 1);
    rig.push(&[(0, 0, 1.0)]);
    let count = WINDOW_PARTS_MAX as i64 + 100;
    let ahead: Vec<_> = (1..=count).map(|time| (1, time, 1.0)).collect();
    rig.push(&ahead);
    rig.flush();
    assert!(rig.panes.keys["node"].bound_is_kept());
    assert!(rig.fired.len() >= 100);
    assert_eq!(rig.panes.left_out() + rig.panes.open().len() as u64 + rig.fired.len() as u64, count as u64 + 1);
}

#[test]
fn panes_are_forgotten() {
    for spec in [tumbling(10), sliding(20, 5), session(3)] {
        let mut rig = Rig::new(late_by(30, spec), 1);
        for n in 0..500 {
            rig.push(&[(0, n * 7, 1.0), (1, n * 7, 1.0)]);
        }
        let size = rig.panes.save().len() + rig.slicers[0].save().len();
        for n in 500..5000 {
            rig.push(&[(0, n * 7, 1.0), (1, n * 7, 1.0)]);
        }
        let grown = rig.panes.save().len() + rig.slicers[0].save().len();
        assert!(grown < size * 3 / 2, "{size} bytes became {grown}");
    }
}

#[test]
fn aggregates_are_those_of_a_textbook() {
    let spec = everything(tumbling(1000));
    let mut rig = Rig::new(spec, 1);
    rig.push(&[(0, 30, 4.0), (0, 10, 2.0), (0, 20, 4.0), (0, 40, 4.0), (0, 50, 5.0), (0, 60, 5.0)]);
    rig.push(&[(0, 70, 7.0), (0, 80, 9.0)]);
    rig.push(&[(0, 2000, 0.0)]);
    let pane = &rig.fired[0];
    let get = |name: &str| pane.aggregate("x", name).unwrap();
    assert_eq!(["count", "sum", "min", "max", "mean", "first", "last"].map(get), [8.0, 40.0, 2.0, 9.0, 5.0, 2.0, 9.0]);
    assert!((get("stddev") - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
    assert!((get("p50") - 4.0).abs() < 0.04);
    assert!((get("p99") - 9.0).abs() < 0.09);
    assert_eq!(["p98", "p", "median", "px"].map(|name| pane.aggregate("x", name)), [None; 4]);
    let bytes = rmp_serde::to_vec_named(pane).unwrap();
    assert_eq!(rmp_serde::from_slice::<Pane>(&bytes).unwrap(), *pane);
}
