use millpond_core::time::Span;

use super::{stage::second, *};
use crate::{
    checks,
    promise::Promise::{HealthIsHonest, StaysBounded},
    scenario::{Fault, Injection, Range},
    witness::{Answer, Sent},
};

#[track_caller]
fn check(said: &[String], expected: &str) {
    assert!(said.len() == 1 && said[0].contains(expected), "{said:?} does not say {expected:?}");
}

/// The honest stage with one size at one time.
fn bounded(edit: impl FnOnce(&mut crate::evidence::Sample)) -> Vec<String> {
    let mut stage = Stage::honest();
    edit(&mut stage.node().samples[3]);
    said(&mut stage, StaysBounded)
}

fn note(sample: &mut crate::evidence::Sample, metric: &str, value: f64) {
    sample.metrics.insert(metric.to_owned(), value);
}

#[test]
fn sizes_stay_within_their_limits() {
    assert_eq!(bounded(|sample| sample.disk_used = 1 << 30), [""; 0]);
    check(
        &bounded(|sample| sample.disk_used = (2 << 30) + 1),
        "at 0:01:30 2147483649 bytes of disk are in use, of a disk of 2147483648",
    );
    check(&bounded(|sample| note(sample, "millpond_in_flight_bytes", 2e7)), "between sockets and journal");
    check(&bounded(|sample| sample.buffered = 1 << 30), "wait in the network");
    check(&bounded(|sample| note(sample, "millpond_mqtt_connections", 13.0)), "MQTT connections");
}

#[test]
fn a_class_and_the_file_stay_within_retention() {
    let mut stage = Stage::honest();
    let retention = &mut stage.node().config.retention;
    for class in [&mut retention.raw, &mut retention.pane, &mut retention.state, &mut retention.alert] {
        class.max_bytes = 1 << 20;
    }
    stage.node().samples[0].disk_used = 100 << 20;
    check(&said(&mut stage, StaysBounded), "by the limits of retention no more than 73400320");
    stage.node().samples[0].disk_used = 0;
    let payload = vec![0; 3 << 20];
    stage.append(millpond_core::record::RecordKind::Alerts, 0, payload, 100);
    check(&said(&mut stage, StaysBounded), "class alert has 3146");
}

/// The honest stage with another answer at 2:31, and what was done at a time.
fn answered(answer: Answer, fault_at: Option<i64>) -> Vec<String> {
    let mut stage = Stage::honest();
    stage.evidence.witness.probes[5].answer = answer;
    if let Some(at) = fault_at {
        let fault = Fault::Kill { node: "edge".to_owned(), down: Range::exactly(Span::from_secs(10)) };
        stage.evidence.injections = vec![Injection { at_ns: second(at).0, operations: None, fault }];
    }
    said(&mut stage, HealthIsHonest)
}

#[test]
fn a_node_without_trouble_is_ready() {
    let not_ready = || Answer::Said { status: 503, body: "rebuilding".to_owned() };
    check(&answered(Answer::Silent, None), "had no answer though nothing was wrong: 0:02:31");
    check(&answered(not_ready(), None), "503 at 0:02:31: rebuilding");
    assert_eq!(answered(Answer::Silent, Some(100)), [""; 0]);
    assert_eq!(answered(not_ready(), Some(100)), [""; 0]);
    check(&answered(Answer::Silent, Some(60)), "0:02:31");
}

#[test]
fn a_node_that_refuses_says_so() {
    let mut stage = Stage::honest();
    for sample in 4..8 {
        note(&mut stage.node().samples[sample], "millpond_journal_refusing", 1.0);
    }
    assert_eq!(said(&mut stage, HealthIsHonest), [""; 0], "what it takes speaks for it");
    for n in 101..=200 {
        (0..2).for_each(|device| stage.sent(device, n).acked = second(250));
    }
    check(&said(&mut stage, HealthIsHonest), "`ready` while new events were refused: at 0:02:01");
    for probe in 4..8 {
        stage.evidence.witness.probes[probe].answer = Answer::Said { status: 503, body: String::new() };
    }
    assert_eq!(said(&mut stage, HealthIsHonest), [""; 0]);
}

#[test]
fn a_ready_node_acknowledges_within_a_minute() {
    let mut stage = Stage::honest();
    stage.sent(1, 100).acked = second(160);
    assert_eq!(said(&mut stage, HealthIsHonest), [""; 0]);
    stage.sent(1, 100).acked = Sent::NEVER;
    check(&said(&mut stage, HealthIsHonest), "d2 seq 100, stamped 0:01:40, measured at 0:01:40, acknowledged at never");
    // Readings of the first minute, in which the node starts, come first.
    stage.sent(1, 50).acked = second(250);
    assert_eq!(said(&mut stage, HealthIsHonest), [""; 0]);
}

#[test]
fn a_run_that_shows_less_than_it_claims_fails() {
    let mut stage = Stage::honest();
    stage.evidence.scenario.promises = Vec::new();
    stage.evidence.scenario.expect.events_stored = 400;
    assert_eq!(checks::check(&stage.evidence).0, []);
    stage.evidence.scenario.expect.events_stored = 401;
    let (broken, _) = checks::check(&stage.evidence);
    assert!(broken.len() == 1 && broken[0].promise.is_none(), "{broken:?}");
    assert!(broken[0].detail.ends_with("400 events stored, at least 401 were expected"), "{broken:?}");
}
