use millpond_core::{
    alert::{Alert, AlertState, Notification, NotificationKind},
    record,
    rule::Severity,
    time::{Span, Timestamp},
};
use millpond_store::{Commit, Put, Table};

use super::{
    stage::{alert, notified, second},
    *,
};
use crate::{
    checks,
    promise::Promise::AlertsOnce,
    scenario::{Fault, Injection, Range},
};

#[track_caller]
fn check(stage: &mut Stage, expected: &str) {
    let said = said(stage, AlertsOnce);
    assert!(said.len() == 1 && said[0].contains(expected), "{said:?} does not say {expected:?}");
}

#[test]
fn an_alert_that_fires_resolves_and_is_told_is_fine() {
    let mut stage = Stage::honest();
    assert_eq!(said(&mut stage, AlertsOnce), [""; 0]);
    stage.evidence.witness.notifications.push(notified(90, "a1-firing", "worn"));
    assert_eq!(said(&mut stage, AlertsOnce), [""; 0], "delivery is at least once");
    assert_eq!(checks::check(&stage.evidence).1.repeated_notifications, 1);
}

#[test]
fn an_alert_never_goes_back() {
    let mut stage = Stage::honest();
    stage.alerts(&[alert(AlertState::Firing)]);
    check(&mut stage, "went back to an earlier state: worn of d1 since 0:00:50 was resolved, then firing");
}

#[test]
fn an_id_is_of_one_alert() {
    let mut stage = Stage::honest();
    stage.alerts(&[Alert { since: Timestamp(T0), ..alert(AlertState::Resolved) }]);
    check(&mut stage, "share their id");
}

#[test]
fn of_a_rule_and_a_device_one_alert_is_open() {
    let mut stage = Stage::empty();
    let other = Alert { id: "a2".to_owned(), notified: None, ..alert(AlertState::Firing) };
    stage.alerts(&[Alert { notified: None, ..alert(AlertState::Firing) }]);
    stage.alerts(&[other]);
    let said = said(&mut stage, AlertsOnce);
    assert!(said[0].contains("began while another"), "{said:?}");
}

#[test]
fn the_table_has_what_the_journal_has() {
    let mut stage = Stage::honest();
    let unjournaled = Alert { id: "a2".to_owned(), ..alert(AlertState::Resolved) };
    let (key, value) = (b"a2".to_vec(), Some(record::encode(&unjournaled).into()));
    stage.commit(&Commit { puts: vec![Put { table: Table::Alerts, key, value }], ..Commit::default() });
    check(&mut stage, "not in the journal as the table has them");
}

#[test]
fn a_notification_that_comes_again_says_the_same() {
    let mut stage = Stage::honest();
    stage.evidence.witness.notifications.push(notified(90, "a1-firing", "worn out"));
    check(&mut stage, "a1-firing to people.example at 0:00:55 and, otherwise, at 0:01:30");
}

#[test]
fn what_should_have_been_told_was_told_or_waits_for_a_receiver_that_is_not_there() {
    let mut stage = Stage::honest();
    stage.evidence.witness.notifications.pop();
    check(&mut stage, "never taken by their receiver, and wait no more: a1-resolved");
    let waiting = Notification {
        id: "a1-resolved".to_owned(),
        kind: NotificationKind::Resolved,
        at: Timestamp(T0),
        rule: "worn".into(),
        severity: Severity::Warning,
        alerts: Vec::new(),
        total: 1,
        message: String::new(),
    };
    let (key, value) = (b"people/1".to_vec(), Some(record::encode(&waiting).into()));
    stage.commit(&Commit { puts: vec![Put { table: Table::Outbox, key, value }], ..Commit::default() });
    stage.evidence.ended.1 = second(1000);
    check(&mut stage, "still wait though their receiver was there: a1-resolved");
    let lasts = Range::exactly(Span::from_secs(300));
    let fault = Fault::FailingReceiver { receiver: "people.example".to_owned(), lasts };
    stage.evidence.injections = vec![Injection { at_ns: second(600).0, operations: None, fault }];
    assert_eq!(said(&mut stage, AlertsOnce), [""; 0]);
}

#[test]
fn a_machine_that_breaks_raises_one_alert() {
    let mut none = Stage::empty();
    for n in (1..=200).step_by(5) {
        none.events(&stage::batch("d1", n..n + 5), n + 5);
    }
    check(
        &mut none,
        "machines broke and no alert fired: d1 broke from 0:00:50 to 0:01:20; rule worn fired 0 times, though it held for 29s",
    );
    let mut two = Stage::honest();
    two.alerts(&[Alert { id: "a2".to_owned(), notified: None, ..alert(AlertState::Resolved) }]);
    check(&mut two, "more alerts than they broke");
}
