use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::rule::{Condition, Operator};

fn rule(name: &str) -> RuleSpec {
    RuleSpec {
        name: name.into(),
        when: Condition::Threshold { metric: "temp".into(), op: Operator::Above, value: 80.0, clear: None },
        hold: Span::ZERO,
        severity: Severity::Critical,
        device_types: Vec::new(),
        quiet: Span::from_secs(300),
        message: None,
        enrich: BTreeMap::new(),
        shadow: false,
    }
}

fn s(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1_000_000_000)
}

fn signal(key: &str, phase: Phase, at: i64, since: i64) -> Signal {
    let (rule, key, metric) = ("hot".into(), key.into(), "temp".into());
    Signal { rule, key, phase, at: s(at), since: s(since), metric, value: 81.5, peak: 90.0, facts: Vec::new() }
}

fn alerts() -> Alerts {
    Alerts::new(&[rule("hot")], AlertSettings::default())
}

/// What was told, as `state key` for changes and `kind key/total` for notifications.
fn told(effects: &[AlertEffect]) -> Vec<String> {
    let line = |effect: &AlertEffect| match effect {
        AlertEffect::Changed(alert) => format!("{} {}", alert.state.name(), alert.key),
        AlertEffect::Forget(_) => "forget".to_owned(),
        AlertEffect::Notify(note) => match note.kind {
            NotificationKind::Digest => format!("DIGEST {}", note.total),
            kind => format!("{kind:?} {}", note.alerts[0].key).to_uppercase(),
        },
    };
    effects.iter().map(line).collect()
}

fn handle(alerts: &mut Alerts, now: i64, signal: Signal) -> Vec<String> {
    let mut out = Vec::new();
    alerts.handle(s(now), signal, &mut out);
    told(&out)
}

fn tick(alerts: &mut Alerts, now: i64) -> (Vec<String>, Timestamp) {
    let mut out = Vec::new();
    let next = alerts.tick(s(now), &mut out);
    (told(&out), next)
}

fn only(alerts: &Alerts) -> Alert {
    let all = alerts.list(&AlertFilter { state: None, rule: None, key: None, limit: 10 });
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

use Phase::{Cleared, Firing, Pending, Withdrawn};

#[test]
fn an_alert_fires_and_is_resolved() {
    let mut alerts = alerts();
    assert_eq!(handle(&mut alerts, 100, signal("a", Pending, 5, 5)), ["pending a"]);
    assert_eq!(handle(&mut alerts, 101, signal("a", Firing, 9, 5)), ["firing a", "FIRING A"]);
    let alert = only(&alerts);
    assert_eq!((alert.since, alert.fired, alert.notified), (s(5), Some(s(9)), Some(s(101))));
    assert_eq!(alert.message, "temp of a is 81.5 (> 80)");
    assert_eq!(handle(&mut alerts, 110, signal("a", Cleared, 20, 5)), ["resolved a", "RESOLVED A"]);
    let alert = only(&alerts);
    assert_eq!((alert.state, alert.resolved, alert.peak), (AlertState::Resolved, Some(s(20)), 90.0));
    assert_eq!(alerts.get(&alert.id), Some(&alert));
}

#[test]
fn a_pending_alert_that_is_withdrawn_is_not_kept() {
    let mut alerts = alerts();
    handle(&mut alerts, 100, signal("a", Pending, 5, 5));
    assert_eq!(handle(&mut alerts, 101, signal("a", Withdrawn, 6, 5)), ["resolved a", "forget"]);
    assert!(alerts.list(&AlertFilter { state: None, rule: None, key: None, limit: 10 }).is_empty());
}

#[test]
fn a_second_firing_within_the_quiet_is_kept_but_not_told() {
    let mut alerts = alerts();
    handle(&mut alerts, 100, signal("a", Firing, 1, 1));
    handle(&mut alerts, 110, signal("a", Cleared, 2, 1));
    assert_eq!(handle(&mut alerts, 120, signal("a", Firing, 3, 3)), ["firing a"]);
    assert_eq!(alerts.open().next().map(|alert| alert.repeats), Some(1));
    assert_eq!(handle(&mut alerts, 130, signal("a", Cleared, 4, 3)), ["resolved a"]);
    assert_eq!(handle(&mut alerts, 130, signal("b", Firing, 4, 4)), ["firing b", "FIRING B"]);
    assert_eq!(handle(&mut alerts, 401, signal("a", Firing, 5, 5)), ["firing a", "FIRING A"]);
    assert_eq!(alerts.counters().quieted, 1);
}

#[test]
fn what_still_fires_at_the_end_of_the_quiet_is_told() {
    let mut alerts = alerts();
    handle(&mut alerts, 100, signal("a", Firing, 1, 1));
    handle(&mut alerts, 110, signal("a", Cleared, 2, 1));
    handle(&mut alerts, 120, signal("a", Firing, 3, 3));
    assert_eq!(tick(&mut alerts, 399), (vec![], s(400)));
    assert_eq!(tick(&mut alerts, 400).0, ["firing a", "FIRING A"]);
    assert_eq!(handle(&mut alerts, 500, signal("a", Cleared, 9, 3)), ["resolved a", "RESOLVED A"]);
}

#[test]
fn a_clock_that_steps_back_keeps_nobody_quiet_for_long() {
    let mut alerts = alerts();
    handle(&mut alerts, 100_000, signal("a", Firing, 1, 1));
    handle(&mut alerts, 100_001, signal("a", Cleared, 2, 1));
    assert_eq!(handle(&mut alerts, 100_002, signal("a", Firing, 3, 3)), ["firing a"]);
    assert_eq!(tick(&mut alerts, 5).0, ["firing a", "FIRING A"]);
    assert_eq!(handle(&mut alerts, 6, signal("a", Cleared, 4, 3)).len(), 2);
    assert_eq!(handle(&mut alerts, 400, signal("a", Firing, 5, 5)), ["firing a", "FIRING A"]);
}

#[test]
fn an_acknowledged_alert_goes_on_firing() {
    let mut alerts = alerts();
    handle(&mut alerts, 100, signal("a", Firing, 1, 1));
    let id = only(&alerts).id;
    let mut out = Vec::new();
    assert_eq!(alerts.acknowledge(s(105), &id, "eva", &mut out), Ok(()));
    assert_eq!(alerts.acknowledge(s(106), &id, "bob", &mut out), Ok(()));
    assert_eq!(told(&out), ["firing a"]);
    let alert = only(&alerts);
    assert_eq!(alert.acknowledged, Some(Acknowledged { by: "eva".into(), at: s(105) }));
    handle(&mut alerts, 110, signal("a", Cleared, 2, 1));
    assert_eq!(alerts.acknowledge(s(111), &id, "eva", &mut out), Err(ActionError::NotFiring));
    assert_eq!(alerts.acknowledge(s(111), "x", "eva", &mut out), Err(ActionError::Unknown("x".into())));
}

#[test]
fn an_alert_resolved_by_hand_comes_back_only_after_its_condition_has_cleared() {
    let mut alerts = alerts();
    handle(&mut alerts, 100, signal("a", Firing, 1, 1));
    let id = only(&alerts).id;
    let mut out = Vec::new();
    assert_eq!(alerts.resolve(s(105), &id, "eva", &mut out), Ok(()));
    assert_eq!(told(&out), ["resolved a", "RESOLVED A"]);
    assert_eq!(only(&alerts).resolved_by.as_deref(), Some("eva"));
    assert!(handle(&mut alerts, 106, signal("a", Firing, 1, 1)).is_empty());
    assert!(
        handle(&mut alerts, 106, signal("a", Firing, 2, 2)).is_empty(),
        "raised anew by rules that lost their state"
    );
    let mut again = reload(&alerts);
    for alerts in [&mut alerts, &mut again] {
        assert_eq!(handle(alerts, 1000, signal("a", Cleared, 7, 1)), ["resolved a"]);
        assert_eq!(only(alerts).cleared, Some(s(7)));
        assert_eq!(handle(alerts, 1001, signal("a", Firing, 8, 8)), ["firing a", "FIRING A"]);
    }
    assert_eq!(handle(&mut reload(&again), 2000, signal("a", Cleared, 9, 8)), ["resolved a", "RESOLVED A"]);
}

fn reload(alerts: &Alerts) -> Alerts {
    let stored = alerts.open().chain(alerts.resolved.values()).filter(|alert| alert.fired.is_some());
    let bytes: Vec<Vec<u8>> = stored.map(|alert| rmp_serde::to_vec_named(alert).expect("an alert")).collect();
    let mut fresh = Alerts::new(&[rule("hot")], alerts.settings.clone());
    fresh.load(bytes.iter().map(|bytes| rmp_serde::from_slice(bytes).expect("what was saved")).collect());
    fresh
}

#[test]
fn signals_that_are_said_again_change_nothing() {
    let script = [
        signal("a", Pending, 1, 1),
        signal("a", Firing, 2, 1),
        signal("a", Cleared, 3, 1),
        signal("a", Firing, 4, 4),
        signal("a", Cleared, 5, 4),
        signal("a", Pending, 6, 6),
        signal("a", Firing, 7, 6),
    ];
    let mut alerts = alerts();
    script.iter().for_each(|signal| drop(handle(&mut alerts, 100, signal.clone())));
    let mut restarted = reload(&alerts);
    for alerts in [&mut alerts, &mut restarted] {
        for signal in &script {
            assert_eq!(handle(alerts, 900, signal.clone()), Vec::<String>::new(), "{signal:?}");
        }
        assert_eq!(alerts.open().count(), 1);
    }
}

#[test]
fn the_end_of_a_raising_that_was_lost_resolves_the_alert_that_is_open() {
    let mut alerts = alerts();
    handle(&mut alerts, 100, signal("a", Firing, 10, 10));
    assert!(handle(&mut alerts, 101, signal("a", Cleared, 9, 9)).is_empty(), "it ended before this one began");
    assert!(handle(&mut alerts, 101, signal("a", Firing, 11, 11)).is_empty());
    assert_eq!(handle(&mut alerts, 102, signal("a", Cleared, 12, 11)), ["resolved a", "RESOLVED A"]);
}

#[test]
fn a_storm_becomes_digests() {
    let settings = AlertSettings { storm_count: 3, ..AlertSettings::default() };
    let mut alerts = Alerts::new(&[rule("hot")], settings);
    let notes = |effects: Vec<String>| {
        effects.into_iter().filter(|line| line.starts_with(|c: char| c.is_uppercase())).collect::<Vec<_>>()
    };
    let mut told = Vec::new();
    for n in 0..100 {
        told.extend(notes(handle(&mut alerts, 100, signal(&format!("d{n:02}"), Firing, 1, 1))));
    }
    assert_eq!(told, ["FIRING D00", "FIRING D01", "FIRING D02"]);
    assert!(notes(handle(&mut alerts, 110, signal("d50", Cleared, 2, 1))).is_empty());
    assert_eq!(tick(&mut alerts, 159), (vec![], s(160)));
    let (effects, _) = tick(&mut alerts, 160);
    assert_eq!(notes(effects), ["DIGEST 97"]);
    assert_eq!(alerts.open().filter(|alert| alert.digested).count(), 96);
    assert!(notes(handle(&mut alerts, 161, signal("d51", Cleared, 2, 1))).is_empty(), "it was never told of by itself");
    assert_eq!(notes(handle(&mut alerts, 161, signal("d00", Cleared, 2, 1))), ["RESOLVED D00"]);
    // The storm has passed.
    assert_eq!(notes(handle(&mut alerts, 300, signal("e", Firing, 3, 3))), ["FIRING E"]);
}

#[test]
fn a_crash_before_the_digest_loses_nobody() {
    let settings = AlertSettings { storm_count: 1, ..AlertSettings::default() };
    let mut alerts = Alerts::new(&[rule("hot")], settings);
    for key in ["a", "b", "c"] {
        handle(&mut alerts, 100, signal(key, Firing, 1, 1));
    }
    let mut restarted = reload(&alerts);
    let (effects, next) = tick(&mut restarted, 300);
    assert_eq!(effects, ["firing b", "FIRING B"]);
    assert_eq!(next, s(360));
    assert_eq!(tick(&mut restarted, 360).0, ["firing c", "DIGEST 1"]);
}

#[test]
fn alerts_of_rules_that_were_removed_are_resolved() {
    let mut alerts = alerts();
    handle(&mut alerts, 100, signal("a", Firing, 1, 1));
    let stored = only(&alerts);
    let mut without = Alerts::new(&[rule("cold")], AlertSettings::default());
    without.load(vec![stored]);
    assert_eq!(tick(&mut without, 200).0, ["resolved a", "RESOLVED A"]);
    assert!(handle(&mut without, 201, signal("a", Firing, 5, 5)).is_empty());
}

#[test]
fn resolved_alerts_are_forgotten_in_time_and_in_number() {
    let settings = AlertSettings { keep_resolved_max: 100, ..AlertSettings::default() };
    let mut alerts = Alerts::new(&[rule("hot")], settings);
    let mut forgotten = 0;
    for n in 0..150 {
        handle(&mut alerts, 100 + n, signal("a", Firing, 2 * n, 2 * n));
        let effects = handle(&mut alerts, 100 + n, signal("a", Cleared, 2 * n + 1, 2 * n));
        forgotten += effects.iter().filter(|line| *line == "forget").count();
    }
    assert_eq!((forgotten, alerts.counters().forgotten_early), (50, 50));
    let (effects, next) = tick(&mut alerts, 100 + 149 + 7 * 86_400);
    assert_eq!(effects.len(), 99);
    assert_eq!(next, Timestamp(s(100 + 149 + 7 * 86_400).0 + 1));
}

#[test]
fn settings_outside_their_bounds_are_refused() {
    assert!(AlertSettings::default().problems().is_empty());
    let bad = AlertSettings { storm_count: 0, digest_every: Span::ZERO, ..AlertSettings::default() };
    let places: Vec<_> = bad.problems().into_iter().map(|problem| problem.place).collect();
    assert_eq!(places, ["alerts.storm_count", "alerts.digest_every"]);
}

/// Something that happens to the alerts.
#[derive(Clone, Debug)]
enum Step {
    /// The condition of a key goes on by one stage, or ends.
    Up(u8),
    Down(u8),
    Wait(i64),
    Resolve(u8),
    Acknowledge(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0u8..4).prop_map(Step::Up),
        4 => (0u8..4).prop_map(Step::Down),
        3 => (1i64..200).prop_map(Step::Wait),
        1 => (0u8..4).prop_map(Step::Resolve),
        1 => (0u8..4).prop_map(Step::Acknowledge),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// The world around the alerts: the rules' stages, the store, and what has been told.
struct World {
    alerts: Alerts,
    now: i64,
    /// Per key: when it began to hold, and whether it fires.
    held: BTreeMap<u8, (i64, bool)>,
    by_hand: std::collections::BTreeSet<u8>,
    store: BTreeMap<String, Alert>,
    notes: Vec<Notification>,
    script: Vec<(i64, Signal)>,
    resolutions: BTreeMap<String, u32>,
}

impl World {
    fn new() -> World {
        let settings = AlertSettings {
            storm_count: 3,
            storm_window: Span::from_secs(30),
            digest_every: Span::from_secs(40),
            ..AlertSettings::default()
        };
        World {
            alerts: Alerts::new(&[rule("hot")], settings),
            now: 1000,
            held: BTreeMap::new(),
            by_hand: Default::default(),
            store: BTreeMap::new(),
            notes: Vec::new(),
            script: Vec::new(),
            resolutions: BTreeMap::new(),
        }
    }

    fn signal(&mut self, key: u8, phase: Phase, since: i64) {
        self.now += 1;
        let signal = signal(&key.to_string(), phase, self.now, since);
        self.script.push((self.now, signal.clone()));
        let mut out = Vec::new();
        self.alerts.handle(s(self.now), signal, &mut out);
        self.take(out);
    }

    fn take(&mut self, effects: Vec<AlertEffect>) {
        for effect in effects {
            match effect {
                AlertEffect::Changed(alert) => {
                    let before = self.store.insert(alert.id.clone(), alert.clone());
                    let was_open = before.is_none_or(|before| before.state != AlertState::Resolved);
                    if alert.state == AlertState::Resolved && alert.fired.is_some() && was_open {
                        *self.resolutions.entry(alert.id).or_default() += 1;
                    }
                }
                AlertEffect::Forget(id) => drop(self.store.remove(&id)),
                AlertEffect::Notify(note) => self.notes.push(note),
            }
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Up(key) => match self.held.get(&key).copied() {
                None => {
                    let since = self.now + 1;
                    let fires = since % 2 == 0;
                    self.held.insert(key, (since, fires));
                    self.signal(key, if fires { Firing } else { Pending }, since);
                }
                Some((since, false)) => {
                    self.held.insert(key, (since, true));
                    self.signal(key, Firing, since);
                }
                Some((_, true)) => {}
            },
            Step::Down(key) => {
                if let Some((since, fired)) = self.held.remove(&key) {
                    self.signal(key, if fired { Cleared } else { Withdrawn }, since);
                    self.by_hand.remove(&key);
                }
            }
            Step::Wait(seconds) => {
                self.now += seconds;
                let mut out = Vec::new();
                let next = self.alerts.tick(s(self.now), &mut out);
                assert!(next > s(self.now));
                self.take(out);
            }
            Step::Resolve(key) | Step::Acknowledge(key) => {
                let id = self.alerts.open().find(|alert| *alert.key == *key.to_string()).map(|alert| alert.id.clone());
                let Some(id) = id else { return };
                let mut out = Vec::new();
                if matches!(step, Step::Acknowledge(_)) {
                    let _ = self.alerts.acknowledge(s(self.now), &id, "eva", &mut out);
                } else if self.alerts.resolve(s(self.now), &id, "eva", &mut out).is_ok() {
                    self.by_hand.insert(key);
                }
                self.take(out);
            }
            Step::Restart => {
                self.alerts = Alerts::new(&[rule("hot")], self.alerts.settings.clone());
                self.alerts.load(self.store.values().cloned().collect());
            }
        }
    }

    /// Invariants 1, 3 and 4: what is open is what fires or is pending, except what was resolved by hand.
    fn agrees(&self) {
        let open: Vec<(&str, bool)> =
            self.alerts.open().map(|alert| (&*alert.key, alert.state == AlertState::Firing)).collect();
        let keys: Vec<String> = self.held.keys().map(u8::to_string).collect();
        let expected: Vec<(&str, bool)> = self
            .held
            .iter()
            .zip(&keys)
            .filter(|((key, _), _)| !self.by_hand.contains(key))
            .map(|((_, (_, fires)), key)| (key.as_str(), *fires))
            .collect();
        assert_eq!(open, expected);
        assert!(self.resolutions.values().all(|times| *times == 1), "resolved more than once");
        for alert in self.store.values() {
            let same = self.alerts.get(&alert.id).expect("what is stored is known");
            assert_eq!(same, alert);
        }
    }

    /// Invariants 5 to 7.
    fn told_rightly(&self) {
        let firing: Vec<&Notification> =
            self.notes.iter().filter(|note| note.kind == NotificationKind::Firing).collect();
        for (at, note) in firing.iter().enumerate() {
            let within = |span: Span| firing[..at].iter().filter(move |other| note.at.since(other.at) < span);
            let same = within(Span::from_secs(300)).filter(|other| other.alerts[0].key == note.alerts[0].key).count();
            assert_eq!(same, 0, "told twice within its quiet");
        }
        let mut ids: Vec<&str> = self.notes.iter().map(|note| note.id.as_str()).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "the same thing told twice");
        for note in self.notes.iter().filter(|note| note.kind == NotificationKind::Resolved) {
            let told = firing.iter().any(|firing| firing.alerts[0].id == note.alerts[0].id);
            assert!(told, "a resolution of what nobody knew");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn life_cycles_keep_their_invariants(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
            world.agrees();
        }
        world.told_rightly();
    }

    #[test]
    fn handling_a_prefix_twice_is_handling_it_once(steps in steps(), cut in 0usize..80, restart in any::<bool>()) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.run(step));
        let script = world.script;
        let cut = cut.min(script.len());
        let fresh = || Alerts::new(&[rule("hot")], AlertSettings::default());
        let run = |alerts: &mut Alerts, part: &[(i64, Signal)], notes: &mut Vec<String>| {
            let mut out = Vec::new();
            part.iter().for_each(|(now, signal)| alerts.handle(s(*now), signal.clone(), &mut out));
            notes.extend(out.iter().filter_map(|effect| match effect {
                AlertEffect::Notify(note) => Some(note.id.clone()),
                _ => None,
            }));
        };
        let (mut once, mut notes_once) = (fresh(), Vec::new());
        run(&mut once, &script, &mut notes_once);
        let (mut twice, mut notes_twice) = (fresh(), Vec::new());
        run(&mut twice, &script[..cut], &mut notes_twice);
        if restart {
            twice = reload(&twice);
        }
        run(&mut twice, &script[..cut], &mut notes_twice);
        run(&mut twice, &script[cut..], &mut notes_twice);
        prop_assert_eq!(notes_once, notes_twice);
        let all = AlertFilter { state: None, rule: None, key: None, limit: 1000 };
        let facts = |alerts: &Alerts| -> Vec<_> {
            alerts.list(&all).into_iter().map(|a| (a.id.clone(), a.state, a.since, a.fired, a.resolved, a.cleared)).collect()
        };
        prop_assert_eq!(facts(&once), facts(&twice));
    }
}
