use millpond_core::{
    block,
    dead_letter::{DeadLetter, PayloadFormat, Reason},
    record::{self, Class, DropRange, DropReason, RecordKind},
    time::{Span, Timestamp},
};
use millpond_store::{Commit, Retention, RetentionRule};

use super::{
    stage::{batch, second, value},
    *,
};
use crate::{
    checks,
    promise::Promise::{NothingLost, NothingTwice},
    scenario::{Fault, Injection, Range},
    witness::Sent,
};

/// All but reading 7 of `d1` is stored.
fn without_the_seventh() -> Stage {
    let mut stage = Stage::empty();
    stage.events(&batch("d1", (1..=200).filter(|n| *n != 7)), 200);
    stage.events(&batch("d2", 1..=200), 200);
    stage
}

#[test]
fn nothing_is_lost_when_everything_is_stored() {
    assert_eq!(said(&mut Stage::honest(), NothingLost), [""; 0]);
    assert_eq!(said(&mut Stage::honest(), NothingTwice), [""; 0]);
    let (_, found) = checks::check(&Stage::honest().evidence);
    assert_eq!((found.stored, found.panes, found.alerts, found.receipts), (400, 38, 1, 0));
}

#[test]
fn an_acknowledged_reading_that_is_nowhere_is_lost() {
    let said = said(&mut without_the_seventh(), NothingLost);
    assert_eq!(said.len(), 1, "{said:?}");
    let example = "d1 seq 7, stamped 0:00:07, measured at 0:00:07, acknowledged at 0:00:11";
    assert!(
        said[0].starts_with("1 of 400 acknowledged readings are nowhere") && said[0].ends_with(example),
        "{said:?}"
    );
}

#[test]
fn what_was_not_acknowledged_may_be_missing() {
    let mut stage = without_the_seventh();
    stage.sent(0, 7).acked = Sent::NEVER;
    assert_eq!(said(&mut stage, NothingLost), [""; 0]);
}

#[test]
fn a_reading_in_a_dead_letter_is_not_lost() {
    let mut payload = Vec::new();
    block::encode(&batch("d1", [7]), &mut payload);
    let json = format!("{{\"ts\":1,\"seq\":7,\"vibration\":{}}}", value(7));
    for (format, payload) in [(PayloadFormat::Block, payload), (PayloadFormat::Json, json.into_bytes())] {
        let mut stage = without_the_seventh();
        let letter = DeadLetter {
            received: Timestamp(T0),
            reason: Reason::FutureTime,
            detail: String::new(),
            device: "d1".to_owned(),
            login: String::new(),
            door: "mqtt".to_owned(),
            format,
            payload,
        };
        stage.commit(&Commit { dead_letters: vec![record::encode(&letter).into()], ..Commit::default() });
        assert_eq!(said(&mut stage, NothingLost), [""; 0], "{format:?}");
    }
}

#[test]
fn what_was_acknowledged_before_the_disk_was_lost_is_gone() {
    let mut stage = without_the_seventh();
    let mut wipe = |at: i64| {
        let fault = Fault::Wipe { node: "edge".to_owned(), down: Range(Span(0), Span(0)) };
        stage.evidence.injections = vec![Injection { at_ns: second(at).0, operations: None, fault }];
        said(&mut stage, NothingLost).len()
    };
    assert_eq!((wipe(12), wipe(10)), (0, 1));
}

#[test]
fn an_altered_reading_is_not_as_it_was_sent() {
    let mut stage = Stage::honest();
    stage.sent(1, 30).digest ^= 1;
    let said = said(&mut stage, NothingLost);
    assert!(
        said.len() == 1 && said[0].starts_with("1 readings are not stored as they were sent: d2 seq 30"),
        "{said:?}"
    );
}

#[test]
fn an_event_that_nobody_sent_is_a_stranger() {
    let mut stage = Stage::honest();
    stage.events(&batch("d3", [1]), 200);
    let said = said(&mut stage, NothingLost);
    assert!(said.len() == 1 && said[0].contains("never sent: d3 seq Some(1)"), "{said:?}");
}

/// The oldest records are given up by a quota.
fn with_a_quota() -> Stage {
    let mut stage = Stage::honest();
    let mut rules = [RetentionRule::default(); 4];
    rules[Class::Raw as usize].max_bytes = stage.node().journal.as_ref().unwrap().usage().class(Class::Raw).bytes / 2;
    stage.commit(&Commit { retain: Some(Retention { rules }), ..Commit::default() });
    stage
}

#[test]
fn receipts_cover_what_was_given_up() {
    let mut stage = with_a_quota();
    assert_eq!(said(&mut stage, NothingLost), [""; 0]);
    let (_, found) = checks::check(&stage.evidence);
    assert!(found.dropped >= 200 && found.stored + found.dropped == 400, "{found:?}");
}

#[test]
fn a_reading_younger_than_the_oldest_left_cannot_have_been_given_up() {
    let mut stage = Stage::empty();
    stage.sent(0, 5).acked = Sent::NEVER;
    stage.events(&batch("d1", 1..=20), 20);
    stage.events(&batch("d1", (21..=200).filter(|n| *n != 100)), 200);
    stage.events(&batch("d2", 1..=200), 200);
    let mut rules = [RetentionRule::default(); 4];
    rules[Class::Raw as usize].max_age_ms = 100_000;
    stage.commit(&Commit { retain: Some(Retention { rules }), now_ms: T0 / 1_000_000 + 150_000, ..Commit::default() });
    let said = said(&mut stage, NothingLost);
    assert!(said.len() == 1 && said[0].contains("the oldest go first: d1 seq 100,"), "{said:?}");
}

#[test]
fn a_receipt_must_be_counted_by_the_store_and_lie_where_records_are_gone() {
    let mut stage = Stage::honest();
    let receipt = DropRange { class: Class::Raw, first: 1, last: 2, records: 2, events: 10, reason: DropReason::Quota };
    stage.append(RecordKind::DropRange, 0, receipt.encode(), 200);
    let said = said(&mut stage, NothingLost);
    assert!(
        said.len() == 2 && said[0].contains("has given") && said[1].contains("the store counts 0 records"),
        "{said:?}"
    );
}

#[test]
fn numbers_without_record_and_receipt_are_gaps() {
    let mut said = checks::tally::Findings::new(NothingLost, "edge");
    let mut journal = checks::journal::Journal { next_seq: 8, ..Default::default() };
    for seq in [1, 2, 4, 7] {
        journal.records.insert(seq);
    }
    let receipt =
        DropRange { class: Class::Raw, first: 3, last: 3, records: 1, events: 10, reason: DropReason::Damaged };
    journal.receipts.push(receipt);
    checks::nothing_lost::numbers(&journal, &mut said);
    let said = said.finish();
    assert!(said.len() == 1 && said[0].detail.ends_with("no receipt: 5 to 6"), "{said:?}");
}

#[test]
fn a_record_that_cannot_be_read_is_lost() {
    let mut stage = Stage::honest();
    stage.append(RecordKind::Events, 1, b"rubbish".to_vec(), 200);
    let lost = said(&mut stage, NothingLost);
    assert!(lost.len() == 1 && lost[0].contains("cannot be read"), "{lost:?}");
    stage.node().journal = Err("no such file".to_owned());
    assert_eq!(said(&mut stage, NothingLost), ["the journal cannot be read: no such file"]);
}

#[test]
fn a_reading_that_is_stored_twice_is_found() {
    let mut stage = Stage::honest();
    stage.events(&batch("d1", [30]), 200);
    let said = said(&mut stage, NothingTwice);
    assert!(said.len() == 1 && said[0].starts_with("1 readings are stored twice: d1 seq 30 at 0:00:30"), "{said:?}");
}

#[test]
fn a_pane_is_said_once_and_its_next_revision_says_something_else() {
    let mut stage = Stage::honest();
    let pane = Stage::all_panes("d1").remove(3);
    stage.panes(std::slice::from_ref(&pane));
    let again = said(&mut stage, NothingTwice);
    assert!(
        again.len() == 1 && again[0].contains("ten of d1 from 0:00:30 to 0:00:40, revision 0 after 0"),
        "{again:?}"
    );
    let mut stage = Stage::honest();
    stage.panes(&[millpond_core::window::Pane { revision: 1, ..pane }]);
    let same = said(&mut stage, NothingTwice);
    assert!(same.len() == 1 && same[0].contains("the same again"), "{same:?}");
}
