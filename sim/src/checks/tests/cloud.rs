//! A cloud, and a site of one node, `edge`, that delivers to it.

use std::{ops::ControlFlow, sync::Arc};

use millpond_cluster::cloud::ACCOUNT;
use millpond_core::{
    batch::Batch,
    block,
    ids::{Origin, RecordId, Seq},
    record::{self, Class, DropRange, DropReason, Home, RecordKind},
    window::Pane,
};
use millpond_lake::{Lake, Options as LakeOptions, Piece, Taken};
use millpond_proto::uplink::{Head, account::Account};
use millpond_store::{Append, Put, Replica, ReplicaCommit, Table};

use super::{
    site::{Edit, check, records, replica, replica_at},
    stage::{Stage, T0, batch, pane},
};
use crate::{
    checks,
    evidence::{Given, GivenRecord, LakeEvidence, NodeEvidence, OtherCopy},
    promise::Promise,
    scenario::Scenario,
    witness::Counted,
    world::{bucket::at_once, core::Instant},
};

const SCENARIO: &str = r#"
name = "by_hand"
about = "Written down, not played."
duration = "200s"
settle = "100s"

[[node]]
name = "edge"
site = "mill"
trusts = [{ site = "cloud", classes = ["alert", "state", "pane", "raw"], uplink = true }]

[[node]]
name = "above"
site = "cloud"
cloud = true
trusts = [{ site = "mill", classes = [] }]

[[fleet]]
node = "edge"
devices = 2
"#;

const ALL: Edit = |_, append| Some(append);
const ABOVE: usize = 1;

/// What stands in the cloud besides the records.
struct Told {
    edit: Edit,
    /// The last number that is covered, when it is not that of the journal.
    last: Option<u64>,
    account: fn(&mut Account),
}

const HONEST: Told = Told { edit: ALL, last: None, account: |_| {} };

/// A journal with the panes of both devices.
fn edge() -> Stage {
    let mut edge = Stage::empty_of(Origin([1; 16]));
    for device in ["d1", "d2"] {
        let homes = vec![Home { device: device.to_owned(), moves: 1 }];
        edge.append(RecordKind::Homes, 0, record::encode(&homes), 1);
        for n in (1..=200).step_by(5) {
            edge.events(&batch(device, n..n + 5), n + 5);
        }
        edge.panes(&Stage::all_panes(device));
    }
    edge
}

fn with_cloud(mut edge: Stage, told: &Told) -> Stage {
    let (life, all, last) = records(&mut edge, told.edit);
    let last = told.last.map_or(last, Seq);
    let kept: Vec<(Seq, Append)> = all.into_iter().filter(|(seq, _)| *seq <= last).collect();
    let results = kept.iter().filter(|(_, record)| record.kind.class() != Class::Raw);
    let records = results.map(|(seq, _)| GivenRecord { seq: seq.0, of: Vec::new() }).collect();
    let mut account = Account { name: "edge".to_owned(), ..Account::default() };
    account.head = Head { head: last, settled: last, wall_ms: 0 };
    (told.account)(&mut account);
    let mut above = Stage::empty_of(Origin([9; 16])).evidence.nodes.remove(0);
    above.name = "above".to_owned();
    above.config.windows.clear();
    let replica = Ok(accounted(replica(life, kept, last), &account));
    above.others = vec![OtherCopy { site: "mill".to_owned(), life, replica }];
    above.given = vec![Given { boot: (1, 0), site: "mill".to_owned(), life, records }];
    edge.evidence.nodes.push(above);
    edge.evidence.scenario = Scenario::parse(SCENARIO).unwrap();
    edge
}

fn accounted(mut replica: Replica, account: &Account) -> Replica {
    let put = Put { table: Table::Meta, key: ACCOUNT.to_vec(), value: Some(record::encode(account).into()) };
    replica.commit(&ReplicaCommit { puts: vec![put], now_ms: 1, ..ReplicaCommit::default() }).unwrap();
    replica
}

/// What is said of a promise of the cloud; nothing else may be said.
#[track_caller]
fn said(stage: &mut Stage, promise: Promise) -> Vec<String> {
    stage.evidence.scenario.promises = vec![promise];
    let (broken, _) = checks::check(&stage.evidence);
    let of_cloud = broken.into_iter().map(|broken| {
        assert_eq!((broken.promise, &*broken.node), (Some(promise), "above"), "{}", broken.detail);
        broken.detail
    });
    of_cloud.collect()
}

fn above(stage: &mut Stage) -> &mut NodeEvidence {
    &mut stage.evidence.nodes[ABOVE]
}

fn given(stage: &mut Stage) -> &mut Vec<Given> {
    &mut above(stage).given
}

const OF_CLOUDS: [Promise; 4] =
    [Promise::LedgerCloses, Promise::CausalOrder, Promise::EdgeAndCloudAgree, Promise::KeepsToTerms];

#[test]
fn an_honest_cloud_keeps_its_promises() {
    for promise in OF_CLOUDS {
        assert_eq!(said(&mut with_cloud(edge(), &HONEST), promise), [""; 0], "{promise:?}");
    }
    let (_, found) = checks::check(&with_cloud(edge(), &HONEST).evidence);
    assert!(found.in_cloud > 80 && found.given == 4 && found.agreed > 30, "{found:?}");
}

#[test]
fn a_record_that_did_not_come_is_missed() {
    let mut stage = with_cloud(edge(), &Told { last: Some(80), ..HONEST });
    check(&said(&mut stage, Promise::LedgerCloses)[..1], "records of mill are on a disk there and not in the cloud");
    let without: Edit = |seq, append| (seq != 7).then_some(append);
    let told = said(&mut with_cloud(edge(), &Told { edit: without, ..HONEST }), Promise::LedgerCloses);
    assert!(told[0].contains("1 records of mill are not in copies that cover their numbers: record 7"), "{told:?}");
    assert!(told.iter().any(|what| what.contains("1 of 84 records are missing")), "{told:?}");
    assert!(told.iter().any(|what| what.contains("readings that mill has acknowledged do not count")), "{told:?}");
}

#[test]
fn what_was_written_in_the_last_moments_may_be_on_its_way() {
    let mut late = edge();
    late.append(RecordKind::Homes, 0, record::encode(&Vec::<Home>::new()), 290);
    assert_eq!(said(&mut with_cloud(late, &Told { last: Some(84), ..HONEST }), Promise::LedgerCloses), [""; 0]);
}

#[test]
fn a_record_in_the_cloud_is_the_one_that_its_origin_wrote() {
    let altered: Edit = |seq, append| Some(if seq == 1 { Append { hlc: record::Hlc(7), ..append } } else { append });
    let told = said(&mut with_cloud(edge(), &Told { edit: altered, ..HONEST }), Promise::LedgerCloses);
    check(&told, "1 records of mill are not what their origins wrote: record 1 (state)");
}

#[test]
fn an_account_says_what_is_there() {
    let wrong = |account: fn(&mut Account)| {
        said(&mut with_cloud(edge(), &Told { account, ..HONEST }), Promise::LedgerCloses).join("; ")
    };
    let ahead = wrong(|account| account.head.head = Seq(90));
    assert!(ahead.is_empty(), "nobody has what it speaks of: {ahead}");
    let mut stage = with_cloud(edge(), &Told { last: Some(80), account: |a| a.head.head = Seq(84), ..HONEST });
    let told = said(&mut stage, Promise::LedgerCloses).join("; ");
    assert!(told.contains("4 of 84 records are said to be at the site, at most 0 are"), "{told}");
}

/// The journal has given up its records 2 and 3, and says so.
fn with_receipt(account: fn(&mut Account)) -> Vec<String> {
    let mut edge = edge();
    let range = DropRange { class: Class::Raw, first: 2, last: 3, records: 2, events: 10, reason: DropReason::Quota };
    edge.append(RecordKind::DropRange, 0, range.encode(), 150);
    let without: Edit = |seq, append| (seq != 2 && seq != 3).then_some(append);
    let mut stage = with_cloud(edge, &Told { edit: without, account, ..HONEST });
    // The journal still has them, which is no matter of the account.
    said(&mut stage, Promise::LedgerCloses).into_iter().filter(|what| what.contains("accounts")).collect()
}

#[test]
fn what_was_given_up_has_a_receipt() {
    let account: fn(&mut Account) = |account| {
        account.dropped.insert("quota".to_owned(), 2);
    };
    assert_eq!(with_receipt(account), [""; 0]);
    check(&with_receipt(|_| {}), "2 of 85 records are missing");
}

#[test]
fn results_are_told_in_their_order_and_none_is_left_out() {
    let told = |edit: fn(&mut Vec<Given>)| {
        let mut stage = with_cloud(edge(), &HONEST);
        edit(given(&mut stage));
        said(&mut stage, Promise::CausalOrder)
    };
    // What is told too late was passed over as well.
    let swapped = told(|given| given[0].records.swap(1, 2));
    assert!(swapped[0].contains("results were told twice or out of order"), "{swapped:?}");
    check(&told(|given| drop(given[0].records.remove(1))), "1 results were passed over");
    check(&told(|given| drop(given[0].records.pop())), "1 of");
    // Told again after a restart, from an earlier point on; but not twice by one program.
    let again = |boot: u32| {
        let mut stage = with_cloud(edge(), &HONEST);
        let mut more = given(&mut stage)[0].clone();
        more.records.remove(0);
        more.boot.0 = boot;
        given(&mut stage).push(more);
        said(&mut stage, Promise::CausalOrder)
    };
    assert_eq!(again(2), [""; 0]);
    check(&again(1), "results were told twice");
    // A restart is no reason to begin beyond what was told.
    let beyond = told(|given| {
        let mut rest = given[0].clone();
        rest.records.drain(..2);
        rest.boot.0 = 2;
        given[0].records.truncate(1);
        given.push(rest);
    });
    check(&beyond, "1 results were passed over");
}

#[test]
fn what_was_said_in_the_place_of_another_life_comes_after_it() {
    let order = |first: bool| {
        let mut stage = with_cloud(edge(), &HONEST);
        let mut mate = Stage::empty_of(Origin([2; 16]));
        mate.panes(&[pane("d1", 0, 1..=9)]);
        let (life, all, last) = records(&mut mate, ALL);
        let other = Given {
            boot: (1, 0),
            site: "mill".to_owned(),
            life,
            records: vec![GivenRecord { seq: 1, of: Vec::new() }],
        };
        above(&mut stage).others.push(OtherCopy {
            site: "mill".to_owned(),
            life,
            replica: Ok(replica(life, all, last)),
        });
        given(&mut stage)[0].records[1].of.push((life, 1));
        let at = if first { 0 } else { 1 };
        given(&mut stage).insert(at, other);
        said(&mut stage, Promise::CausalOrder)
    };
    assert_eq!(order(true), [""; 0]);
    check(&order(false), "1 results were told before what they were computed from");
}

#[test]
fn the_cloud_tells_the_panes_that_the_site_tells() {
    let older: Edit = |_, append| (append.kind != RecordKind::Panes || append.rows == 0).then_some(append);
    let mut edge = edge();
    edge.panes(&[Pane { revision: 1, ..pane("d1", 20, 20..=28) }]);
    // The revision did not come.
    let told =
        said(&mut with_cloud(edge, &Told { edit: older, last: Some(84), account: |_| {} }), Promise::EdgeAndCloudAgree);
    check(&told, "1 panes of mill are told differently by the cloud: ten of d1");
}

#[test]
fn what_is_new_comes_in_time() {
    let written = |at_s: i64| {
        let mut stage = with_cloud(edge(), &HONEST);
        let mut again = edge();
        let (life, all, last) = records(&mut again, ALL);
        let copy = replica_at(life, all, last, T0 / 1_000_000 + at_s * 1000);
        above(&mut stage).others[0].replica = Ok(copy);
        said(&mut stage, Promise::LiveFirst)
    };
    assert_eq!(written(0), [""; 0]);
    // Those of the first minute are not asked for, and those of the end came in time.
    let late = written(200);
    assert!(late.len() == 1 && late[0].contains("readings of mill were new and came late"), "{late:?}");
}

/// The last record that is archived.
const ARCHIVED: u64 = 30;

/// What is said when the cloud has archived its first records, of each of which `edit` says what the lake holds.
#[track_caller]
fn archived(edit: fn(u64, Batch) -> Option<Batch>, answer: u64) -> Vec<String> {
    let mut stage = with_cloud(edge(), &HONEST);
    let copy = &above(&mut stage).others[0];
    let ((origin, incarnation), site) = (copy.life, Arc::<str>::from("mill"));
    let mut pieces = Vec::new();
    let scanned = copy.replica.as_ref().unwrap().reader().scan(Class::Raw, Seq(1), |row| {
        let batch = block::Decoder::new().decode(row.payload).unwrap();
        if let Some(batch) = edit(row.seq.0, batch).filter(|_| row.seq.0 <= ARCHIVED) {
            let record = RecordId { origin, incarnation, seq: row.seq };
            let site = Arc::clone(&site);
            pieces.push(Piece { tenant: "default".into(), site, record, batch, left_out: Vec::new() });
        }
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    let lake = at_once(Lake::open(Arc::new(object_store::memory::InMemory::new()), LakeOptions::default()));
    let lake = lake.unwrap();
    at_once(lake.append(&pieces, &[Taken { site, origin, incarnation, first: 1, last: ARCHIVED }], 1)).unwrap();
    above(&mut stage).lake = Some(LakeEvidence { lake: Ok(lake), store: Default::default() });
    let (at, node) = (Instant(299_000_000_000), "above".to_owned());
    stage.evidence.witness.counted = vec![Counted { at, node, device: 0, answer: Ok(answer) }];
    said(&mut stage, Promise::OnceInTheLake)
}

#[test]
fn each_reading_counts_once_in_the_lake_or_in_the_copy() {
    assert_eq!(archived(|_, batch| Some(batch), 200), [""; 0]);
    check(&archived(|_, batch| Some(batch), 345), "1 questions for readings of mill were answered with other numbers");
    // The ledger has the record, and the lake has not what is in it.
    let told = archived(|seq, batch| (seq != 7).then_some(batch), 195);
    check(&told, "5 readings of mill are not in the lake, whose ledger has their records: d1 seq 26 in record 7");
    let other = archived(|seq, own| Some(if seq == 7 { batch("d1", 31..36) } else { own }), 200);
    assert!(
        other.len() == 2 && other[1].contains("5 readings in the lake were written by nobody in mill"),
        "{other:?}"
    );
    let twice = |seq: u64, own: Batch| Some(if seq == 7 { batch("d1", (26..31).chain(26..31)) } else { own });
    check(&archived(twice, 205), "5 readings of mill are in the lake more than once");
}
