use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_core::{
    batch::{BatchBuilder, DeviceRef},
    record::{Hlc, LeftOut},
    value::Value,
    window::{Delta, PaneMetric, Panes, Slicer, Whose, WindowEffect},
};
use millpond_store::{Append, Commit, Options, Reader};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{site_panes::of_site, testing::Memory, window::pane_record};

const S: i64 = 1_000_000_000;
const KEEP: Span = Span::from_secs(1_000_000);
/// Nodes and where they are.
const SITES: [&str; 3] = ["a", "a", "b"];

fn origin(node: usize) -> Origin {
    Origin([node as u8 + 1; 16])
}

fn life(node: usize) -> (Origin, Incarnation) {
    (origin(node), Incarnation(1))
}

fn window(json: &str) -> WindowSpec {
    serde_json::from_str(json).expect("it is a window")
}

fn windows() -> Vec<WindowSpec> {
    vec![
        window(r#"{ "name": "each", "size": "10s" }"#),
        window(r#"{ "name": "all", "size": "10s", "by": "site" }"#),
        window(r#"{ "name": "alone", "size": "10s", "by": "node" }"#),
    ]
}

fn rules() -> Vec<RuleSpec> {
    let when = r#"{ "type": "window", "window": "alone", "metric": "t", "aggregate": "max", "op": ">", "value": 1 }"#;
    vec![serde_json::from_str(&format!(r#"{{ "name": "hot", "when": {when} }}"#)).expect("it is a rule")]
}

fn merged() -> Merged {
    Merged::new(&windows(), &rules(), KEEP)
}

/// A journal, which can be read as long as its store is there.
fn journal(node: usize, records: &[Append]) -> (Reader, millpond_store::Store) {
    let memory = Memory::default();
    let device = move || Ok(memory.device("journal"));
    let options = Options { ballast_bytes: 0, ..Options::default() };
    let (mut store, _) = millpond_store::Store::open(Box::new(device), options, origin(node)).expect("it opens");
    let commit = Commit { records: records.to_vec(), ..Commit::default() };
    store.commit(&commit).expect("it is stored");
    (store.reader(), store)
}

fn left_out() -> Append {
    let left = vec![LeftOut { record: 1, device: "d".into(), seqs: vec![1] }];
    let payload = Bytes::from(record::encode(&left));
    let time = Timestamp(0);
    let kind = RecordKind::LeftOut;
    Append { kind, hlc: Hlc::default(), rows: 0, min_time: time, max_time: time, devices: Vec::new(), payload }
}

/// What holds for a reader who saw all that was said: by window, key, end and start.
#[derive(Default)]
struct View(BTreeMap<(String, String, Timestamp, Timestamp), Pane>);

impl View {
    fn see(&mut self, panes: Vec<Pane>) {
        for pane in panes {
            assert!(pane.merged && pane.share.is_none());
            let name = (pane.window.clone(), pane.key.clone(), pane.end, pane.start);
            let next = self.0.get(&name).map_or(0, |known| known.revision + 1);
            assert_eq!(pane.revision, next, "revisions follow each other");
            if let Some(known) = self.0.insert(name, pane.clone()) {
                assert_ne!(known.digest(), pane.digest(), "it was said already");
            }
        }
    }

    /// (key, start, end, open, metrics) of a window. Windows by node have the same key in the end.
    fn of(&self, window: &str) -> Vec<Line> {
        sorted(self.0.values().filter(|pane| pane.window == window).cloned().collect())
    }
}

type Line = (String, Timestamp, Timestamp, bool, String);

fn sorted(panes: Vec<Pane>) -> Vec<Line> {
    let line = |pane: Pane| {
        let key = if pane.window == "alone" { "node".into() } else { pane.key };
        (key, pane.start, pane.end, pane.open, format!("{:?}", pane.metrics))
    };
    let mut lines: Vec<Line> = panes.into_iter().filter(|pane| !pane.is_retraction()).map(line).collect();
    lines.sort();
    lines
}

/// A pane of one slot of a window, with its share.
fn made_up(window: usize, key: u8, slot: i64, values: &[f64]) -> Pane {
    let spec = WindowSpec { by: window::GroupBy::Device, ..windows().swap_remove(window) };
    let mut panes = Panes::new(Arc::new(spec.clone()), 1).with_shares(true);
    let mut slicer = Slicer::new(Arc::new(spec), &[]).expect("a slicer");
    let mut rows = BatchBuilder::default();
    for value in values {
        rows.begin("d");
        rows.time(Timestamp(slot * 10 * S));
        rows.cell("t", Value::F64(*value));
        rows.end();
    }
    let (mut deltas, mut effects) = (Vec::new(), Vec::new());
    for batch in rows.finish() {
        let device = DeviceRef { index: 0, device_type: DeviceRef::UNTYPED };
        slicer.apply(&batch, &[device], None, Timestamp(0), &mut deltas);
    }
    slicer.flush(&mut deltas);
    panes.apply(0, deltas, &mut effects);
    let key = ["each", "site", "node"].map(|name| if name == "each" { format!("d{key}") } else { name.into() });
    let empty = Pane {
        window: windows()[window].name.clone(),
        key: key[window].clone(),
        start: Timestamp(slot * 10 * S),
        end: Timestamp((slot + 1) * 10 * S),
        revision: 0,
        open: false,
        metrics: Vec::new(),
        share: None,
        of: None,
        merged: false,
    };
    match panes.open().into_iter().next() {
        Some(pane) => Pane { metrics: pane.metrics, share: pane.share, ..empty },
        None => empty,
    }
}

/// A record of a node: panes, some of them said in the place of another node of its site; or that events are left out.
fn any_record(of_site: std::ops::Range<usize>) -> impl Strategy<Value = Append> {
    let name = (0usize..3, 0u8..2, 0i64..3);
    let own = (name.clone(), 0u32..4, any::<bool>(), vec(-3i32..4, 0..3)).prop_map(
        |((window, key, slot), revision, open, values)| {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            Pane { revision, open, ..made_up(window, key, slot, &values) }
        },
    );
    // What is said in the place of a node is a function of its records, so of how many of them are known.
    let instead = (name, of_site, 1u64..6).prop_map(|((window, key, slot), node, through)| {
        let values: Vec<f64> = (0..through).map(|at| at as f64 + node as f64 / 8.0).collect();
        let of = Whose { origin: origin(node), incarnation: Incarnation(1), through: Seq(through) };
        Pane { of: Some(of), open: through % 2 == 0, ..made_up(window, key, slot, &values) }
    });
    prop_oneof![
        4 => vec(own, 1..4).prop_map(|panes| pane_record(&panes)),
        2 => vec(instead, 1..3).prop_map(|panes| pane_record(&panes)),
        1 => Just(left_out()),
    ]
}

fn any_journals() -> impl Strategy<Value = Vec<Vec<Append>>> {
    let journal = |of_site| vec(any_record(of_site), 1..7);
    (journal(0..2), journal(0..2), journal(2..3)).prop_map(|(first, second, third)| vec![first, second, third])
}

/// Takes what the journals hold in an order that the picks choose, some of it again.
fn read(merged: &mut Merged, journals: &[Vec<Append>], picks: &[(usize, usize)]) -> View {
    let (mut view, mut next) = (View::default(), vec![0; journals.len()]);
    let rest = (0..journals.len()).flat_map(|node| vec![(node, 0); journals[node].len()]);
    for (node, again) in picks.iter().copied().chain(rest) {
        let node = node % journals.len();
        let mut take = |at: usize| {
            if let Some(row) = journals[node].get(at) {
                let seq = Seq(at as u64 + 1);
                view.see(merged.take(DEFAULT_TENANT, SITES[node], life(node), seq, row.kind, &row.payload));
            }
        };
        take(next[node]);
        next[node] += 1;
        take(again % next[node]);
    }
    view
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_order_of_the_journals_ends_with_the_panes_of_all_of_them(
        journals in any_journals(),
        picks in vec((0usize..3, 0usize..9), 0..20),
    ) {
        let readers: Vec<_> = journals.iter().enumerate().map(|(node, rows)| journal(node, rows)).collect();
        let all: Vec<_> = readers.iter().enumerate().map(|(node, (reader, _))| (reader, life(node))).collect();
        let view = read(&mut merged(), &journals, &picks);
        for spec in windows() {
            prop_assert_eq!(view.of(&spec.name), sorted(of_site(&spec, &all).expect("readable")), "{}", spec.name);
        }
    }

    #[test]
    fn sums_are_those_of_one_node_that_saw_all_events(
        events in vec((0usize..3, 0u32..3, 0i64..60, -1000i32..1000), 1..60),
        picks in vec((0usize..3, 0usize..9), 0..30),
    ) {
        for spec in &windows()[..2] {
            let spec = WindowSpec { lateness: Span::from_secs(3600), ..spec.clone() };
            let mut nodes: Vec<Node> = (0..3).map(|_| Node::new(&spec)).collect();
            let mut one = Node::new(&spec);
            for (node, device, second, value) in &events {
                nodes[*node].event(*device, *second, f64::from(*value) / 7.0);
                one.event(*device, *second, f64::from(*value) / 7.0);
            }
            for node in nodes.iter_mut().chain([&mut one]) {
                (0..3).for_each(|device| node.event(device, 100_000, 1.0));
            }
            let journals: Vec<Vec<Append>> = nodes.into_iter().map(|node| node.journal).collect();
            let mut merged = Merged::new(std::slice::from_ref(&spec), &[], KEEP);
            let early = |lines: Vec<Line>| lines.into_iter().filter(|line| line.2 < Timestamp(90_000 * S)).collect::<Vec<_>>();
            let found = early(read(&mut merged, &journals, &picks).of(&spec.name));
            let (whole, _store) = journal(0, &one.journal);
            let expected = early(sorted(of_site(&spec, &[(&whole, life(0))]).expect("readable")));
            prop_assert!(!expected.is_empty());
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn after_a_restart_only_what_is_new_is_said(
        journals in any_journals(),
        picks in vec((0usize..3, 0usize..9), 0..20),
        before in 0usize..20,
    ) {
        let mut first = merged();
        let (mut view, mut said) = (View::default(), Vec::new());
        let rows = || journals.iter().enumerate().flat_map(|(node, rows)| rows.iter().enumerate().map(move |row| (node, row)));
        for (node, (at, row)) in rows().take(before) {
            let panes = first.take(DEFAULT_TENANT, SITES[node], life(node), Seq(at as u64 + 1), row.kind, &row.payload);
            said.extend(panes.clone());
            view.see(panes);
        }
        let own: Vec<Append> = said.chunks(3).map(pane_record).collect();
        let (own, _store) = journal(9, &own);
        let again = || {
            let mut merged = merged();
            merged.seed(super::said(&own, Timestamp::MIN).expect("readable"));
            merged
        };
        let mut second = again();
        for (node, (at, row)) in rows().take(before) {
            second.learn(DEFAULT_TENANT, SITES[node], life(node), Seq(at as u64 + 1), row.kind, &row.payload);
        }
        prop_assert_eq!(second.news(), vec![]);
        // And when there is more by then.
        let mut third = again();
        for (node, (at, row)) in rows() {
            third.learn(DEFAULT_TENANT, SITES[node], life(node), Seq(at as u64 + 1), row.kind, &row.payload);
        }
        view.see(third.news());
        let other = read(&mut merged(), &journals, &picks);
        for spec in windows() {
            prop_assert_eq!(view.of(&spec.name), other.of(&spec.name));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(kind in prop::sample::select(RecordKind::ALL.to_vec()), bytes in vec(any::<u8>(), 0..200)) {
        let _ = merged().take(DEFAULT_TENANT, "a", life(0), Seq(1), kind, &bytes);
    }
}

/// What a node journals of its windows.
struct Node {
    slicer: Slicer,
    panes: Panes,
    journal: Vec<Append>,
}

impl Node {
    fn new(spec: &WindowSpec) -> Node {
        let spec = Arc::new(spec.clone());
        let slicer = Slicer::new(spec.clone(), &[]).expect("a slicer");
        Node { slicer, panes: Panes::new(spec, 1).with_shares(true), journal: Vec::new() }
    }

    fn event(&mut self, device: u32, second: i64, value: f64) {
        let mut rows = BatchBuilder::default();
        rows.begin(&format!("d{device}"));
        rows.time(Timestamp(second * S));
        rows.cell("t", Value::F64(value));
        rows.end();
        let (mut deltas, mut effects): (Vec<Delta>, Vec<WindowEffect>) = (Vec::new(), Vec::new());
        let device = DeviceRef { index: device, device_type: DeviceRef::UNTYPED };
        self.slicer.apply(&rows.finish()[0], &[device], None, Timestamp(0), &mut deltas);
        self.slicer.flush(&mut deltas);
        self.slicer.tick(Timestamp(0), &mut deltas);
        self.panes.apply(0, deltas, &mut effects);
        let mut fired = Vec::new();
        for effect in effects {
            match effect {
                WindowEffect::Fire(pane) => fired.push(pane),
                WindowEffect::Watermark { key, at } => self.slicer.learn(&key, at),
                WindowEffect::Late(_) => {}
            }
        }
        if !fired.is_empty() {
            self.journal.push(pane_record(&fired));
        }
    }
}

fn closed(key: &str, end: i64) -> Pane {
    let metrics = vec![PaneMetric { name: "t".into(), count: 1, ..PaneMetric::default() }];
    Pane {
        key: key.into(),
        start: Timestamp((end - 10) * S),
        end: Timestamp(end * S),
        metrics,
        ..made_up(0, 0, 0, &[])
    }
}

fn take(merged: &mut Merged, tenant: &str, node: usize, seq: u64, pane: Pane) -> Vec<String> {
    let payload = record::encode(&[pane].as_slice());
    let panes = merged.take(tenant, SITES[node], life(node), Seq(seq), RecordKind::Panes, &payload);
    panes.iter().map(|pane| format!("{} r{}", pane.key, pane.revision)).collect()
}

#[test]
fn panes_of_two_tenants_never_meet() {
    let mut merged = merged();
    assert_eq!(take(&mut merged, DEFAULT_TENANT, 0, 1, closed("d", 10)), ["d r0"]);
    assert_eq!(take(&mut merged, "acme", 2, 1, closed("d", 10)), ["acme/d r0"]);
    assert_eq!(take(&mut merged, DEFAULT_TENANT, 1, 1, closed("acme/d", 10)), [""; 0], "it looks like another's");
    assert_eq!(merged.counters().refused, 1);
}

#[test]
fn what_was_merged_already_is_no_share() {
    assert_eq!(take(&mut merged(), DEFAULT_TENANT, 0, 1, Pane { merged: true, ..closed("d", 10) }), [""; 0]);
}

#[test]
fn a_window_of_each_node_comes_out_only_for_a_rule_and_by_its_node() {
    let alone = || Pane { window: "alone".into(), ..closed("node", 10) };
    let mut with = merged();
    assert_eq!(take(&mut with, DEFAULT_TENANT, 0, 1, alone()), [format!("a/{} r0", origin(0))]);
    assert_eq!(take(&mut with, "acme", 2, 1, alone()), [format!("acme/b/{} r0", origin(2))]);
    assert_eq!(take(&mut Merged::new(&windows(), &[], KEEP), DEFAULT_TENANT, 0, 1, alone()), [""; 0]);
}

#[test]
fn what_is_folded_away_takes_nothing_more_and_that_is_counted() {
    let mut merged = Merged::new(&windows(), &[], Span::from_secs(100));
    assert_eq!(take(&mut merged, DEFAULT_TENANT, 0, 1, closed("d", 10)).len(), 1);
    assert_eq!(take(&mut merged, DEFAULT_TENANT, 0, 2, closed("d", 111)).len(), 1);
    assert_eq!(merged.horizon(), Timestamp(11 * S));
    assert_eq!(take(&mut merged, DEFAULT_TENANT, 1, 1, closed("d", 10)), [""; 0]);
    assert_eq!(take(&mut merged, DEFAULT_TENANT, 1, 2, closed("e", 11)).len(), 1);
    assert_eq!(merged.counters().late, 1);
    assert_eq!(merged.groups.values().map(|group| group.panes.len()).sum::<usize>(), 2);
}

#[test]
fn an_end_beyond_the_clock_closes_nothing() {
    let mut merged = Merged::new(&windows(), &[], Span::from_secs(100));
    merged.clock(Timestamp(1_000 * S));
    assert_eq!(take(&mut merged, DEFAULT_TENANT, 0, 1, closed("d", 1_000_000)).len(), 1);
    assert_eq!(take(&mut merged, DEFAULT_TENANT, 1, 1, closed("d", 10)).len(), 1);
    assert_eq!(merged.counters().late, 0);
}
