//! Two nodes of a site with documents on their disks, and what operators were told.

use millpond_core::{ids::Origin, record};
use millpond_proto::{
    Now,
    documents::{Documents, Effect, Input, Kind},
    twin::{Reported, Stamp},
};
use millpond_store::{Commit, Put, Table};
use serde_json::json;

use super::{
    site::{Pair, check, said},
    stage::{Stage, T0, second},
};
use crate::{
    promise::Promise::TwinNeverLost,
    scenario::What,
    witness::{Change, Sent},
};

/// A change of one key by way of a node: when it was asked for and acknowledged, in seconds.
fn change(what: What, node: &str, asked: i64, acked: Option<i64>) -> Change {
    let key = if matches!(what, What::Desired | What::Reported) { "key-1" } else { "" };
    let acked = acked.map_or(Sent::NEVER, second);
    Change { what, name: "press".to_owned(), key: key.to_owned(), node: node.to_owned(), asked: second(asked), acked }
}

/// Writes to a disk what a node knows after these edits.
fn documents(stage: &mut Stage, edits: impl FnOnce(&mut Documents)) {
    let mut documents = Documents::new(Origin([7; 16]), 1, []);
    edits(&mut documents);
    let mut effects = Vec::new();
    documents.handle(Now(10_000_000_000), Input::Tick, &mut effects);
    let rows = effects.into_iter().filter_map(|effect| match effect {
        Effect::Save { rows, .. } => Some(rows),
        _ => None,
    });
    let puts = rows.flatten().map(|(key, value)| Put { table: Table::Documents, key, value: value.map(Into::into) });
    stage.commit(&Commit { puts: puts.collect(), ..Commit::default() });
}

fn desired(stage: &mut Stage, value: usize) {
    documents(stage, |documents| {
        documents.set_desired(Now(0), T0 / 1_000_000, "press", &json!({ "key-1": value })).unwrap();
    });
}

/// Both nodes say this of what a device should be, and this was asked for.
fn both(value: Option<usize>, changes: &[Change]) -> Stage {
    let mut pair = Pair::honest();
    for stage in [&mut pair.edge, &mut pair.west] {
        value.into_iter().for_each(|value| desired(stage, value));
    }
    let mut stage = pair.stage();
    stage.evidence.witness.changes = changes.to_vec();
    stage
}

#[test]
fn an_acknowledged_change_is_there() {
    let changes = [change(What::Desired, "edge", 10, Some(11))];
    assert_eq!(said(&mut both(Some(0), &changes), TwinNeverLost), [""; 0]);
    check(&said(&mut both(None, &changes), TwinNeverLost), "2 changes that were acknowledged are gone");
    let unanswered = [change(What::Desired, "edge", 10, None)];
    for value in [None, Some(0)] {
        assert_eq!(said(&mut both(value, &unanswered), TwinNeverLost), [""; 0], "{value:?}");
    }
}

#[test]
fn the_later_change_holds() {
    let at = |node: &str, asked| change(What::Desired, node, asked, Some(asked + 1));
    let one_node = [at("edge", 10), at("edge", 12)];
    check(&said(&mut both(Some(0), &one_node), TwinNeverLost), "are gone");
    assert_eq!(said(&mut both(Some(1), &one_node), TwinNeverLost), [""; 0]);
    // Of what two nodes took within a second either may be the later one by their clocks.
    let two_nodes = [at("edge", 10), at("west", 12)];
    for value in [0, 1] {
        assert_eq!(said(&mut both(Some(value), &two_nodes), TwinNeverLost), [""; 0], "{value}");
    }
    let mut far = both(Some(0), &[at("edge", 10), at("west", 14)]);
    check(&said(&mut far, TwinNeverLost), "are gone");
    // Unless a clock is as wrong as that.
    far.evidence.nodes[0].clock_errors.push((second(1), 5_000_000_000));
    assert_eq!(said(&mut far, TwinNeverLost), [""; 0]);
    // A change that was not acknowledged may come late.
    let unanswered = [change(What::Desired, "edge", 10, None), at("edge", 30)];
    assert_eq!(said(&mut both(Some(0), &unanswered), TwinNeverLost), [""; 0]);
}

#[test]
fn nodes_say_what_somebody_said_and_all_the_same() {
    let changes = [10, 12].map(|at| change(What::Desired, "edge", at, None));
    check(&said(&mut both(Some(7), &changes), TwinNeverLost), "2 things are what nobody said");
    let mut pair = Pair::honest();
    desired(&mut pair.edge, 0);
    desired(&mut pair.west, 1);
    let mut stage = pair.stage();
    stage.evidence.witness.changes = changes.to_vec();
    check(
        &said(&mut stage, TwinNeverLost),
        "1 things are told differently by two nodes: desired press key-1 is Some(0)",
    );
}

#[test]
fn registry_rules_and_reports_count_as_well() {
    let changes = [What::Registry, What::Rules, What::Reported].map(|what| change(what, "edge", 10, Some(11)));
    let mut pair = Pair::honest();
    let mut reported = Reported::default();
    reported.report(Stamp::default(), &json!({ "key-1": 2 })).unwrap();
    for stage in [&mut pair.edge, &mut pair.west] {
        documents(stage, |documents| {
            documents.set_device(Now(0), 1, "press", &json!({ "place": 0 })).unwrap();
            documents.put_text(Now(0), 1, Kind::Rules, "press", &crate::floor::rule(1)).unwrap();
        });
        let put = Put { table: Table::Twins, key: b"press".to_vec(), value: Some(record::encode(&reported).into()) };
        stage.commit(&Commit { puts: vec![put], ..Commit::default() });
    }
    let mut stage = pair.stage();
    stage.evidence.witness.changes = changes.to_vec();
    assert_eq!(said(&mut stage, TwinNeverLost), [""; 0]);
    let mut nothing = both(None, &changes);
    check(&said(&mut nothing, TwinNeverLost), "6 changes that were acknowledged are gone");
}
