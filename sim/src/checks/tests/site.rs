//! Two nodes of a site: `d1` sends its first 99 readings to `edge` and the others to `west`, which has those of `d2` too.

use std::ops::ControlFlow;

use bytes::Bytes;
use millpond_actors::settings::Ack;
use millpond_core::{
    disk::BlockDevice,
    ids::{Origin, Seq},
    record::{self, Class, Hlc, Home, LeftOut, RecordKind, Track},
    time::{Span, Timestamp},
    window::Whose,
};
use millpond_store::{Append, Options, Replica, ReplicaCommit, ReplicaRun};

use super::stage::{Memory, Stage, batch, pane, second};
use crate::{
    checks,
    evidence::{CopyEvidence, Life},
    promise::Promise,
    scenario::{Fault, Injection, Range, Scenario},
    witness::Sent,
};

const SCENARIO: &str = r#"
name = "by_hand"
about = "Written down, not played."
duration = "200s"
settle = "100s"

[[node]]
name = "edge"
site = "mill"

[[node]]
name = "west"
site = "mill"

[[fleet]]
node = "edge"
others = ["west"]
devices = 2
"#;

const EDGE: usize = 0;
const WEST: usize = 1;

/// What of a journal goes into a copy: `None` leaves a record out.
pub type Edit = fn(u64, Append) -> Option<Append>;

pub struct Pair {
    pub edge: Stage,
    pub west: Stage,
}

impl Pair {
    pub fn honest() -> Pair {
        let mut edge = Stage::empty_of(Origin([1; 16]));
        let mut west = Stage::empty_of(Origin([2; 16]));
        home(&mut edge, "d1", 1, 1);
        edge.events(&batch("d1", 1..=99), 99);
        let first =
            std::iter::once(pane("d1", 0, 1..=9)).chain((1..9).map(|n| pane("d1", n * 10, n * 10..=n * 10 + 9)));
        let mut panes: Vec<_> = first.collect();
        // Nobody closes it here: the device went away.
        panes.push(millpond_core::window::Pane { open: true, ..pane("d1", 90, 90..=99) });
        edge.panes(&panes);
        home(&mut west, "d2", 1, 1);
        west.events(&batch("d2", 1..=200), 200);
        home(&mut west, "d1", 2, 100);
        west.events(&batch("d1", 100..=200), 200);
        west.panes(&Stage::all_panes("d2"));
        west.panes(&Stage::all_panes("d1")[10..]);
        Pair { edge, west }
    }

    /// With copies as they should be.
    pub fn stage(self) -> Stage {
        self.with_copies(|_, append| Some(append), |_, append| Some(append))
    }

    /// `of_edge` is what `west` has of the journal of `edge`.
    fn with_copies(mut self, of_edge: Edit, of_west: Edit) -> Stage {
        let (at_west, at_edge) = (copy(&mut self.edge, of_edge), copy(&mut self.west, of_west));
        self.edge.node().copies.push(at_edge);
        self.west.node().copies.push(at_west);
        let mut stage = self.edge;
        stage.evidence.scenario = Scenario::parse(SCENARIO).unwrap();
        let mut node = self.west.evidence.nodes.remove(0);
        node.name = "west".to_owned();
        stage.evidence.nodes.push(node);
        for node in &mut stage.evidence.nodes {
            node.config.site.ack = Ack::Site;
        }
        stage
    }
}

fn home(stage: &mut Stage, device: &str, moves: u64, at: i64) {
    stage.append(RecordKind::Homes, 0, record::encode(&vec![Home { device: device.to_owned(), moves }]), at);
}

fn copy(stage: &mut Stage, edit: Edit) -> CopyEvidence {
    let (life, records, last) = records(stage, edit);
    CopyEvidence { life, replica: Ok(replica(life, records, last)) }
}

/// What a journal holds, and the last number that it gave.
pub fn records(stage: &mut Stage, edit: Edit) -> (Life, Vec<(Seq, Append)>, Seq) {
    let (life, mut records) = (stage.node().life, Vec::new());
    let reader = stage.node().reader().unwrap();
    for class in Class::ALL {
        let scan = reader.scan(class, Seq(0), |row| {
            let append = Append {
                kind: row.kind,
                hlc: row.hlc,
                rows: row.rows,
                min_time: row.min_time,
                max_time: row.max_time,
                devices: Vec::new(),
                payload: Bytes::copy_from_slice(row.payload),
            };
            records.extend(edit(row.seq.0, append).map(|append| (row.seq, append)));
            ControlFlow::Continue(())
        });
        scan.unwrap();
    }
    records.sort_by_key(|(seq, _)| *seq);
    let last = Seq(reader.stats().unwrap().next_seq.0 - 1);
    (life, records, last)
}

/// A copy that covers all up to `last`.
pub fn replica(life: Life, records: Vec<(Seq, Append)>, last: Seq) -> Replica {
    replica_at(life, records, last, 1)
}

/// The same, written when the clock said so.
pub fn replica_at(life: Life, records: Vec<(Seq, Append)>, last: Seq, now_ms: i64) -> Replica {
    let open = Box::new(|| Ok(Box::new(Memory::default()) as Box<dyn BlockDevice>));
    let (mut replica, _) = Replica::open(open, Options::default(), life.0, life.1).unwrap();
    let runs = Track::ALL.map(|track| ReplicaRun {
        track,
        first: Seq(1),
        last,
        records: records.iter().filter(|(_, record)| record.kind.class().track() == track).cloned().collect(),
    });
    replica.commit(&ReplicaCommit { runs: runs.to_vec(), now_ms, ..ReplicaCommit::default() }).unwrap();
    replica
}

/// What is said of a promise of the site; nothing else may be said.
#[track_caller]
pub fn said(stage: &mut Stage, promise: Promise) -> Vec<String> {
    stage.evidence.scenario.promises = vec![promise];
    let (broken, _) = checks::check(&stage.evidence);
    let of_site = broken.into_iter().map(|broken| {
        assert_eq!((broken.promise, &*broken.node), (Some(promise), "mill"), "{}", broken.detail);
        broken.detail
    });
    of_site.collect()
}

#[track_caller]
pub fn check(said: &[String], expected: &str) {
    assert!(said.len() == 1 && said[0].contains(expected), "{said:?} does not say {expected:?}");
}

#[test]
fn an_honest_site_keeps_its_promises() {
    for promise in Promise::ALL {
        assert_eq!(said(&mut Pair::honest().stage(), promise), [""; 0], "{promise:?}");
    }
    let (_, found) = checks::check(&Pair::honest().stage().evidence);
    assert_eq!((found.stored_again, found.stored), (0, 400));
}

#[test]
fn a_reading_may_be_in_any_journal_but_in_one_it_must_be() {
    let mut pair = Pair::honest();
    pair.west = Stage::empty_of(Origin([2; 16]));
    pair.west.events(&batch("d2", 1..=200), 200);
    pair.west.events(&batch("d1", 101..=200), 200);
    check(
        &said(&mut pair.stage(), Promise::NothingLost),
        "1 of 400 readings that the site acknowledged are nowhere in it",
    );
}

#[test]
fn what_was_acknowledged_for_the_site_is_in_its_copies() {
    let lacking: Edit = |_, append| (append.kind != RecordKind::Events).then_some(append);
    let mut stage = Pair::honest().with_copies(lacking, |_, append| Some(append));
    check(
        &said(&mut stage, Promise::NothingLost),
        "99 readings that were acknowledged for the site are not in as many",
    );
    stage.evidence.nodes[EDGE].config.site.ack = Ack::Local;
    assert_eq!(said(&mut stage, Promise::NothingLost), [""; 0], "it promised less");
}

#[test]
fn a_journal_that_is_gone_stands_in_its_copies() {
    let wipe = Injection { at_ns: second(150).0, fault: wiped("edge"), operations: None };
    let mut stage = Pair::honest().stage();
    let another = Stage::empty_of(Origin([1; 16])).evidence.nodes.remove(0);
    stage.evidence.nodes[EDGE].journal = another.journal;
    stage.evidence.nodes[EDGE].life.1.0 += 1 << 16;
    stage.evidence.injections.push(wipe);
    assert_eq!(said(&mut stage, Promise::NothingLost), [""; 0]);
    stage.evidence.nodes[WEST].copies.clear();
    check(&said(&mut stage, Promise::NothingLost), "99 of 400 readings");
    stage.evidence.nodes[EDGE].config.site.ack = Ack::Local;
    assert_eq!(said(&mut stage, Promise::NothingLost), [""; 0], "it went with the disk");
}

fn wiped(node: &str) -> Fault {
    Fault::Wipe { node: node.to_owned(), down: Range(Span::from_secs(1), Span::from_secs(1)) }
}

fn stored_again() -> Stage {
    stored_again_and([true, false])
}

/// Reading 99 stands in both journals, and is left out by those that say so.
fn stored_again_and([edge, west]: [bool; 2]) -> Stage {
    let mut pair = Pair::honest();
    pair.west.events(&batch("d1", 99..=99), 120);
    for (stage, leaves) in [(&mut pair.edge, edge), (&mut pair.west, west)] {
        let left = |record| LeftOut { record, device: "d1".to_owned(), seqs: vec![99] };
        let all: Vec<LeftOut> = (1..10).map(left).collect();
        if leaves {
            stage.append(RecordKind::LeftOut, 0, record::encode(&all), 121);
        }
    }
    pair.stage()
}

#[test]
fn a_reading_stands_in_one_journal() {
    check(&said(&mut stored_again(), Promise::NothingTwice), "1 readings are stored by two nodes");
}

#[test]
fn a_reading_that_stands_in_two_journals_counts_at_one_of_them() {
    let told = |leaves| said(&mut stored_again_and(leaves), Promise::NothingTwice).join("; ");
    assert!(told([false, false]).contains("1 readings are stored by two nodes and count at both"));
    assert!(told([true, true]).contains("1 readings are stored by two nodes and count at none"));
    for leaves in [[true, false], [false, true]] {
        assert!(!told(leaves).contains("count at"), "{leaves:?}");
    }
}

#[test]
fn a_reading_that_nobody_could_ask_for_may_be_there_twice() {
    let cut = |at: i64| Injection {
        at_ns: second(at).0,
        fault: Fault::Partition {
            node: "edge".to_owned(),
            whom: None,
            only: None,
            lasts: Range(Span::from_secs(10), Span::from_secs(10)),
        },
        operations: None,
    };
    let excused = |at: i64, acked: bool| {
        let mut stage = stored_again();
        stage.sent(0, 99).acked = if acked { second(101) } else { Sent::NEVER };
        // The copy at west is older than all that: without it nobody knew.
        stage.evidence.nodes[WEST].copies.clear();
        stage.evidence.injections.push(cut(at));
        let said = said(&mut stage, Promise::NothingTwice);
        let (_, found) = checks::check(&stage.evidence);
        (said.is_empty(), found.stored_again)
    };
    assert_eq!(excused(110, false), (true, 1));
    assert_eq!(excused(110, true), (false, 0), "it was acknowledged");
    assert_eq!(excused(20, false), (false, 0), "the node could be asked");
    let stranded = |cut_off: &str, at: &str| {
        let mut stage = stored_again();
        stage.sent(0, 99).acked = second(101);
        stage.evidence.nodes[WEST].copies.clear();
        let mut cut = cut(110);
        if let Fault::Partition { node, .. } = &mut cut.fault {
            *node = cut_off.to_owned();
        }
        stage.evidence.injections.push(cut);
        stage.evidence.witness.stranded.insert((0, 99), [at.to_owned()].into());
        said(&mut stage, Promise::NothingTwice).is_empty()
    };
    assert!(stranded("west", "west"), "it was under way to the second node");
    assert!(!stranded("edge", "west"), "the second node could ask, and hear that the device had gone");
    assert!(!stranded("west", "edge"), "it was never sent there");
    let mut known = stored_again();
    known.sent(0, 99).acked = Sent::NEVER;
    known.evidence.injections.push(cut(110));
    check(&said(&mut known, Promise::NothingTwice), "the second one could have known");
}

#[test]
fn the_panes_of_the_site_are_those_of_all_its_readings() {
    let mut pair = Pair::honest();
    let mut wrong = pane("d1", 20, 20..=28);
    wrong.revision = 1;
    pair.edge.panes(&[wrong]);
    let mut stage = pair.stage();
    stage.evidence.scenario.promises = vec![Promise::PanesAgree];
    let (broken, _) = checks::check(&stage.evidence);
    let of_site: Vec<_> = broken.iter().filter(|broken| broken.node == "mill").collect();
    assert!(of_site.len() == 1 && of_site[0].detail.contains("it counts 9 (+0), not 10 (+0)"), "{broken:?}");
}

#[test]
fn a_share_that_was_said_in_the_place_of_a_node_gives_way_to_its_own() {
    let mut pair = Pair::honest();
    let (origin, incarnation) = pair.edge.node().life;
    let of = Some(Whose { origin, incarnation, through: Seq(1) });
    let adopted = millpond_core::window::Pane { revision: 7, open: true, of, ..pane("d1", 20, 20..=25) };
    pair.west.panes(&[adopted]);
    assert_eq!(said(&mut pair.stage(), Promise::PanesAgree), [""; 0]);
    let mut pair = Pair::honest();
    let further = millpond_core::window::Pane { open: true, of, ..pane("d1", 20, 20..=30) };
    pair.west.panes(std::slice::from_ref(&further));
    check(&said(&mut pair.stage(), Promise::PanesAgree), "it counts 11 (+0), not 10 (+0)");
    // Whoever said it did not know what the node left out since.
    let mut pair = Pair::honest();
    pair.west.panes(&[further]);
    pair.edge.append(RecordKind::LeftOut, 0, record::encode(&Vec::<LeftOut>::new()), 131);
    assert!(!said(&mut pair.stage(), Promise::PanesAgree).join("; ").contains("it counts 11"));
}

#[test]
fn results_reach_every_node_and_events_those_that_were_asked() {
    let without: Edit = |seq, append| (seq != 1).then_some(append);
    let mut stage = Pair::honest().with_copies(without, |_, append| Some(append));
    let told = said(&mut stage, Promise::Converges);
    assert!(told[0].contains("1 results of other nodes did not arrive: at west, record 1 (state)"), "{told:?}");
    let without: Edit = |_, append| (append.kind != RecordKind::Events).then_some(append);
    let mut stage = Pair::honest().with_copies(without, |_, append| Some(append));
    check(
        &said(&mut stage, Promise::Converges),
        "1 records of events are on fewer other nodes than were asked for: record 2 of edge",
    );
}

#[test]
fn nodes_agree_on_homes_and_panes() {
    let without: Edit = |_, append| (append.kind != RecordKind::Homes).then_some(append);
    let mut stage = Pair::honest().with_copies(|_, append| Some(append), without);
    let told = said(&mut stage, Promise::Converges);
    assert!(told.iter().any(|what| what.contains("devices are at home at different nodes")), "{told:?}");
    let without: Edit = |_, append| (append.kind != RecordKind::Panes).then_some(append);
    let mut stage = Pair::honest().with_copies(without, |_, append| Some(append));
    let told = said(&mut stage, Promise::Converges);
    assert!(told.iter().any(|what| what.contains("panes are told differently by two nodes")), "{told:?}");
}

#[test]
fn a_node_that_is_down_has_not_converged() {
    let mut stage = Pair::honest().stage();
    stage.evidence.nodes[WEST].up = vec![(second(0), second(250))];
    check(&said(&mut stage, Promise::Converges), "only 1 were up for the last minute");
}

#[test]
fn a_copy_covers_what_it_has_and_what_there_is() {
    let mut stage = Pair::honest().with_copies(|seq, append| (seq != 2).then_some(append), |_, append| Some(append));
    check(
        &said(&mut stage, Promise::LedgerCloses),
        "1 records are not in copies that cover their numbers: at west, record 2",
    );
    let mut stage = Pair::honest().stage();
    let life = stage.evidence.nodes[EDGE].life;
    stage.evidence.nodes[WEST].copies[0].replica = Ok(replica(life, Vec::new(), Seq(9)));
    let told = said(&mut stage, Promise::LedgerCloses);
    assert!(told[0].contains("copies cover numbers that their origins have not given"), "{told:?}");
    stage.evidence.nodes[WEST].copies[0].replica = Err("it is damaged".to_owned());
    check(&said(&mut stage, Promise::LedgerCloses), "1 copies cannot be read: at west");
}

#[test]
fn nobody_speaks_for_another() {
    let altered: Edit = |seq, append| Some(if seq == 2 { Append { hlc: Hlc(7), ..append } } else { append });
    let mut stage = Pair::honest().with_copies(altered, |_, append| Some(append));
    check(
        &said(&mut stage, Promise::NobodyImpersonates),
        "1 records in copies are not what their origins wrote: at west, record 2",
    );

    let mut stage = Pair::honest().stage();
    let life = stage.evidence.nodes[EDGE].life;
    let made_up = Append {
        kind: RecordKind::Homes,
        hlc: Hlc(7),
        rows: 0,
        min_time: Timestamp::MAX,
        max_time: Timestamp::MIN,
        devices: Vec::new(),
        payload: record::encode(&Vec::<Home>::new()).into(),
    };
    stage.evidence.nodes[WEST].copies[0].replica = Ok(replica(life, vec![(Seq(9), made_up)], Seq(9)));
    check(&said(&mut stage, Promise::NobodyImpersonates), "1 records in copies were never written by their origins");

    let mut stage = Pair::honest().stage();
    let mut stranger = Stage::empty_of(Origin([3; 16]));
    stranger.events(&batch("d1", 1..=1), 1);
    stage.evidence.nodes[WEST].copies.push(copy(&mut stranger, |_, append| Some(append)));
    check(&said(&mut stage, Promise::NobodyImpersonates), "1 copies are of journals of nobody in the site");
}
