//! What stands in the records, rows and answers of peers, once they are kept here: shares of windows, reports of devices, what is left out,
//! what is known of devices, and the state to go on from when a node is gone. Whatever the bytes, nobody panics, and nothing grows beyond
//! what the bytes can tell.
//!
//! The first byte chooses what they are.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use millpond_core::{
    admission::{Admitted, Gate, Known, Policy},
    alert::Alert,
    batch::BatchBuilder,
    block,
    ids::Origin,
    record::{self, DropRange, Hlc, Home, LeftOut},
    rule::{PaneRules, RuleBook, RuleSpec},
    time::Timestamp,
    value::Value,
    window::{LateEvent, Pane, Panes, Slicer, WindowSpec, merge_shares},
};
use millpond_proto::twin::{Reported, Stamp, commands, delta};

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 9 {
        0 => panes(bytes),
        1 => reports(bytes),
        2 => known(bytes),
        3 => gate(bytes),
        4 => slicer(bytes),
        5 => panes_saved(bytes),
        6 => rules(bytes),
        7 => orders(bytes),
        _ => {
            let _ = (record::decode::<Vec<Alert>>(bytes), record::decode::<Vec<LateEvent>>(bytes));
            let _ = (record::decode::<Vec<Home>>(bytes), DropRange::decode(bytes));
            let mut seqs = millpond_core::ranges::RangeSet::default();
            let left = record::decode::<Vec<LeftOut>>(bytes).unwrap_or_default();
            left.iter().flat_map(|left| &left.seqs).for_each(|seq| seqs.insert(*seq, *seq));
            let _ = (seqs.count(), block::device_hashes(bytes));
        }
    }
});

/// All that can be computed.
fn specs() -> Vec<Arc<WindowSpec>> {
    let specs = r#"[
        {"name": "w", "size": "10s", "aggregates": ["count", "sum", "min", "max", "mean", "stddev", "first", "last"],
         "quantiles": [0, 0.5, 0.99, 1]},
        {"name": "w", "size": "10s", "slide": "5s", "kind": "sliding", "by": "site"},
        {"name": "w", "gap": "10s", "kind": "session", "by": "type"}
    ]"#;
    serde_json::from_str::<Vec<WindowSpec>>(specs).expect("they are windows").into_iter().map(Arc::new).collect()
}

fn rules_of() -> Vec<RuleSpec> {
    let rules = r#"[
        {"name": "hot", "when": {"type": "threshold", "metric": "t", "op": ">", "value": 1}},
        {"name": "warm", "when": {"type": "window", "window": "w", "metric": "t", "aggregate": "p99", "op": ">", "value": 1}}
    ]"#;
    serde_json::from_str(rules).expect("they are rules")
}

fn panes(bytes: &[u8]) {
    let Ok(panes) = record::decode::<Vec<Pane>>(bytes) else { return };
    let shares: Vec<&Pane> = panes.iter().collect();
    let mut rules = PaneRules::new("w", &rules_of()).expect("they are rules");
    for spec in specs() {
        for shares in [&shares[..], &[&shares[..], &shares[..]].concat()] {
            if let Some(pane) = merge_shares(&spec, shares) {
                rules.apply(&pane, &mut Vec::new());
            }
        }
        let mut own = Panes::new(spec.clone(), 2).with_shares(true);
        let mut out = Vec::new();
        for pane in &panes {
            own.emitted(pane);
            own.take_back(pane, &mut out);
        }
        own.load(&own.save()).expect("it is its own state");
    }
}

fn reports(bytes: &[u8]) {
    let reports = match record::decode::<Vec<(String, Reported)>>(bytes) {
        Ok(reports) => reports,
        Err(_) => record::decode::<Reported>(bytes).into_iter().map(|said| ("d".to_owned(), said)).collect(),
    };
    let mut mine = Reported::default();
    let patch = serde_json::json!({ "a": { "b": 1 }, "c": [2] });
    let stamp = Stamp { hlc: Hlc(5), origin: Origin([1; 16]), seq: 1 };
    mine.report(stamp, &patch).expect("it is a report");
    let mut clock = Hlc(5);
    for (_, said) in &reports {
        mine.merge(said);
        assert!(!mine.merge(said), "the same again changes nothing");
        clock = mine.latest().map_or(clock, |stamp| clock.max(stamp.hlc));
    }
    let (value, theirs) = (mine.value(), reports.iter().map(|(_, said)| said.value()));
    let deltas: Vec<String> = theirs.map(|other| delta(&value, &other).to_string() + &other.to_string()).collect();
    drop(deltas);
    // What is reported here afterwards is the latest word.
    let stamp = Stamp { hlc: clock.tick(10), origin: Origin([1; 16]), seq: 2 };
    assert!(stamp.hlc > clock);
    if mine.report(stamp, &serde_json::json!({ "a": { "b": 3 } })) == Ok(true) {
        assert_eq!(mine.value()["a"]["b"], 3);
    }
}

fn batch(gate: &mut Gate, device: &str) {
    let mut builder = BatchBuilder::default();
    for seq in [1, 2, u64::MAX] {
        builder.begin(device);
        builder.time(Timestamp(i64::try_from(seq).unwrap_or(i64::MAX)));
        builder.seq(seq);
        builder.cell("t", Value::F64(1.0));
        builder.end();
    }
    for mut batch in builder.finish() {
        let mut out = Admitted::default();
        gate.admit(Timestamp(1_000_000_000), &mut batch, &mut out);
        gate.undo(&batch, &out);
    }
}

fn known(bytes: &[u8]) {
    let Ok(known) = record::decode::<Known>(bytes) else { return };
    let mut gate = Gate::new(Policy::default(), Vec::new(), Vec::new()).expect("it is a policy");
    batch(&mut gate, "press-1");
    for device in ["press-1", known.device.as_str()] {
        gate.learn(&Known { device: device.to_owned(), ..known.clone() }, Timestamp(0));
        if !device.is_empty() && device.len() <= 128 {
            batch(&mut gate, device);
        }
    }
    let _ = gate.all_known().count();
    gate.load(&gate.save()).expect("it is its own state");
}

fn gate(bytes: &[u8]) {
    let mut gate = Gate::new(Policy::default(), Vec::new(), Vec::new()).expect("it is a policy");
    if gate.load(bytes).is_ok() {
        batch(&mut gate, "press-1");
        let _ = gate.all_known().count();
        drop(gate.save());
    }
}

fn slicer(bytes: &[u8]) {
    for spec in specs() {
        let mut slicer = Slicer::new(spec.clone(), &[]).expect("it is a window");
        if slicer.load(bytes).is_ok() {
            let mut deltas = Vec::new();
            slicer.tick(Timestamp(1_000_000_000), &mut deltas);
            slicer.flush(&mut deltas);
            drop(slicer.save());
            let mut panes = Panes::new(spec, 1).with_shares(true);
            panes.apply(0, deltas, &mut Vec::new());
            drop(panes.open());
        }
    }
}

fn panes_saved(bytes: &[u8]) {
    for spec in specs() {
        let mut panes = Panes::new(spec, 2).with_shares(true);
        if panes.load(bytes).is_ok() {
            let mut out = Vec::new();
            panes.apply(0, Vec::new(), &mut out);
            drop(panes.open());
            drop(panes.save());
        }
    }
}

fn rules(bytes: &[u8]) {
    let mut book = RuleBook::new(rules_of(), &[]).expect("they are rules");
    if book.load(bytes).is_ok() {
        book.tick(Timestamp(1_000_000_000), &mut Vec::new());
        drop(book.save());
    }
    let mut rules = PaneRules::new("w", &rules_of()).expect("they are rules");
    if rules.load(bytes).is_ok() {
        drop(rules.save());
    }
}

fn orders(bytes: &[u8]) {
    use commands::{Command, Commands, Entry, Input};
    let mut commands = Commands::new(record::decode::<Vec<Entry>>(bytes).unwrap_or_default());
    let mut effects = Vec::new();
    if let Ok(command) = serde_json::from_slice::<Command>(bytes) {
        let (id, device) = (command.id.clone(), command.device.clone());
        assert!(command.created > Hlc::MAX || command.created.tick(0) > command.created);
        commands.handle(Timestamp(0), Input::Submit(command), &mut effects);
        commands.handle(Timestamp(0), Input::Saved(id.clone()), &mut effects);
        commands.handle(Timestamp(0), Input::DeviceUp(device), &mut effects);
        commands.handle(Timestamp(0), Input::Gone(id), &mut effects);
    }
    commands.handle(Timestamp(i64::MAX), Input::Tick, &mut effects);
}
