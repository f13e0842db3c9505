use proptest::prelude::*;
use serde_json::json;

use super::{
    commands::{Command, CommandId, Commands, Effect, Entry, Input, OPEN_MAX, Status},
    *,
};
use millpond_core::{record, time::Timestamp};

fn stamp(hlc: u64, origin: u8, seq: u64) -> Stamp {
    Stamp { hlc: Hlc(hlc), origin: Origin([origin; 16]), seq }
}

#[test]
fn the_later_report_holds_leaf_by_leaf() {
    let mut reported = Reported::default();
    assert_eq!(reported.report(stamp(2, 1, 1), &json!({"speed": 5, "net": {"rssi": -60, "ip": "10.0.0.2"}})), Ok(true));
    assert_eq!(reported.report(stamp(1, 9, 9), &json!({"speed": 4})), Ok(false));
    assert_eq!(reported.report(stamp(3, 1, 2), &json!({"net": {"ip": null, "rssi": -61}})), Ok(true));
    assert_eq!(reported.value(), json!({"speed": 5, "net": {"rssi": -61}}));
    assert_eq!(reported.latest(), Some(stamp(3, 1, 2)));
    assert_eq!(reported.report(stamp(4, 1, 3), &json!(5)), Err(Refused::NotAnObject));
    let many: Map<String, Json> = (0..LEAVES_MAX).map(|number| (format!("k{number}"), json!(1))).collect();
    assert_eq!(reported.report(stamp(4, 1, 3), &Json::Object(many)), Err(Refused::TooMuch));
}

#[test]
fn what_was_reported_is_read_back_from_its_bytes() {
    let mut reported = Reported::default();
    reported.report(stamp(2, 1, 1), &json!({"a/b": {"~": [1, null]}})).expect("fine");
    let bytes = record::encode(&reported);
    assert_eq!(record::decode(&bytes), Ok(reported));
}

#[test]
fn what_a_report_changed_is_enough_to_know_it() {
    let mut before = Reported::default();
    before.report(stamp(1, 1, 1), &json!({"net": {"rssi": -60, "ip": "10.0.0.2"}, "speed": 5})).expect("fine");
    let mut after = before.clone();
    after.report(stamp(2, 1, 2), &json!({"net": "down"})).expect("fine");
    let change = after.written(stamp(2, 1, 2));
    assert_eq!(merged(&before, &change), after);
    assert!(after.written(stamp(3, 1, 3)).is_empty());
}

fn leaf() -> impl Strategy<Value = Json> {
    prop_oneof![Just(Json::Null), (0..3i64).prop_map(Json::from), Just(json!([1]))]
}

fn object() -> impl Strategy<Value = Json> {
    let nested = leaf().prop_recursive(3, 12, 3, |inner| {
        proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| Json::Object(map.into_iter().collect()))
    });
    proptest::collection::btree_map("[a-c]", nested, 0..3).prop_map(|map| Json::Object(map.into_iter().collect()))
}

/// A state after a few reports, whose stamps may be the same as in another one.
fn state() -> impl Strategy<Value = Reported> {
    proptest::collection::vec((0..4u64, 0..2u8, 0..2u64, object()), 0..4).prop_map(|reports| {
        let mut reported = Reported::default();
        for (hlc, origin, seq, patch) in reports {
            reported.report(stamp(hlc, origin, seq), &patch).expect("fine");
        }
        reported
    })
}

/// RFC 7396.
fn patched(mut target: Json, patch: &Json) -> Json {
    let Json::Object(fields) = patch else { return patch.clone() };
    if !target.is_object() {
        target = json!({});
    }
    let object = target.as_object_mut().expect("made one");
    for (name, value) in fields {
        let old = object.remove(name).unwrap_or(Json::Null);
        if !value.is_null() {
            object.insert(name.clone(), patched(old, value));
        }
    }
    target
}

fn merged(a: &Reported, b: &Reported) -> Reported {
    let mut merged = a.clone();
    merged.merge(b);
    merged
}

proptest! {
    #[test]
    fn merging_does_not_depend_on_order_grouping_or_repetition(a in state(), b in state(), c in state()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
        let mut all = merged(&a, &b);
        prop_assert!(!all.merge(&b));
    }

    #[test]
    fn a_device_that_does_its_delta_has_none_left(desired in object(), reported in object()) {
        let todo = delta(&desired, &reported);
        let after = patched(reported.clone(), &todo);
        prop_assert_eq!(delta(&desired, &after), json!({}));
        prop_assert_eq!(delta(&desired, &patched(reported, &desired)), json!({}));
    }

    #[test]
    fn bytes_that_are_no_report_are_refused_quietly(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(reported) = record::decode::<Reported>(&bytes) {
            reported.value();
        }
    }
}

/// As a node says it that has made it up.
fn made_up(key: &str, hlc: u64, value: &str) -> Reported {
    let leaf = json!({ "stamp": { "hlc": hlc, "origin": vec![9u8; 16], "seq": 1 }, "value": value });
    serde_json::from_value(json!({ key: leaf })).expect("it is a report")
}

#[test]
fn a_report_from_beyond_all_clocks_does_not_count() {
    let mut reported = Reported::default();
    assert!(!reported.merge(&made_up("/a", u64::MAX, "1")));
    assert!(!reported.merge(&made_up("/a", 1, &"1".repeat(LEAF_BYTES_MAX + 1))));
    assert!(!reported.merge(&made_up(&"/a".repeat(LEAF_BYTES_MAX), 1, "1")));
    assert_eq!((reported.latest(), reported.merge(&made_up("/a", 1, "1"))), (None, true));
}

#[test]
fn a_report_is_no_deeper_than_json_can_be() {
    let mut reported = Reported::default();
    // Thousands of objects inside each other: whoever let go of them would run out of stack.
    assert!(reported.merge(&made_up(&"/a".repeat(8_000), 1, "1")));
    assert_eq!(reported.value(), json!({}));
    assert!(reported.merge(&made_up(&"/a".repeat(100), 1, "1")));
    assert!(reported.value().pointer(&"/a".repeat(100)).is_some());
}

#[test]
fn a_delta_names_what_is_not_as_it_should_be() {
    let check = |desired: Json, reported: Json, expected: Json| assert_eq!(delta(&desired, &reported), expected);
    check(
        json!({"a": 1, "b": {"c": 2, "d": 3}}),
        json!({"a": 1, "b": {"c": 2, "d": 4}, "own": 1}),
        json!({"b": {"d": 3}}),
    );
    check(json!({"a": null, "b": null}), json!({"a": 1}), json!({"a": null}));
    check(json!({"a": {"b": null}}), json!({}), json!({}));
    check(json!({"a": {"b": 1}}), json!({"a": 5}), json!({"a": {"b": 1}}));
    check(json!({"a": [1, 2]}), json!({"a": [2, 1]}), json!({"a": [1, 2]}));
}

fn command(id: &str, device: &str, deadline_ms: i64, created: u64) -> Command {
    Command {
        id: CommandId(id.to_string()),
        device: device.to_string(),
        name: "restart".to_string(),
        body: json!({}),
        deadline: Timestamp::from_millis(deadline_ms),
        created: Hlc(created),
    }
}

fn give(commands: &mut Commands, ms: i64, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    commands.handle(Timestamp::from_millis(ms), input, &mut effects);
    effects
}

fn answered(id: &str, answer: Result<Json, String>) -> Input {
    Input::Answered { id: CommandId(id.to_string()), device: "press".to_string(), answer }
}

#[test]
fn a_command_waits_for_its_device_and_is_confirmed_once() {
    let mut commands = Commands::default();
    let (id, restart) = (CommandId("1".to_string()), command("1", "press", 9_000, 1));
    let entry = Entry { command: restart.clone(), status: Status::Queued };
    assert_eq!(give(&mut commands, 0, Input::Submit(restart.clone())), [Effect::Save(id.clone(), Some(entry))]);
    assert_eq!(give(&mut commands, 1, Input::DeviceUp("press".to_string())), [], "not on disk yet");
    assert_eq!(give(&mut commands, 2, Input::Saved(id.clone())), [Effect::Deliver(restart.clone())]);
    assert_eq!(give(&mut commands, 3, Input::Submit(restart.clone())), [], "known");
    assert_eq!(give(&mut commands, 4, Input::DeviceDown("press".to_string())), []);
    assert_eq!(give(&mut commands, 5, Input::DeviceUp("press".to_string())), [Effect::Deliver(restart)]);
    let done = Status::Delivered(json!("ok"));
    let [Effect::Save(_, Some(entry))] = &give(&mut commands, 6, answered("1", Ok(json!("ok"))))[..] else { panic!() };
    assert_eq!(entry.status, done);
    assert_eq!(give(&mut commands, 7, answered("1", Err("late".to_string()))), []);
    assert_eq!(give(&mut commands, 8, Input::Saved(id.clone())), [Effect::Confirm(id.clone(), done.clone())]);
    assert_eq!(give(&mut commands, 20_000, Input::Tick), []);
    assert_eq!(commands.status(&id), Some(&done));
    assert_eq!(commands.open("press").count(), 0);
}

#[test]
fn a_command_expires_at_its_deadline_wherever_it_is() {
    let mut commands = Commands::default();
    for (id, device) in [("1", "press"), ("2", "away")] {
        give(&mut commands, 0, Input::Submit(command(id, device, 1_000, 1)));
        give(&mut commands, 0, Input::Saved(CommandId(id.to_string())));
    }
    give(&mut commands, 1, Input::DeviceUp("press".to_string()));
    assert_eq!(give(&mut commands, 999, Input::Tick), []);
    let effects = give(&mut commands, 1_000, Input::DeviceUp("away".to_string()));
    assert_eq!(effects.len(), 2, "both expire, none is delivered: {effects:?}");
    assert_eq!(give(&mut commands, 1_001, answered("1", Ok(json!(1)))), []);
    let confirmed = give(&mut commands, 1_002, Input::Saved(CommandId("1".to_string())));
    assert_eq!(confirmed, [Effect::Confirm(CommandId("1".to_string()), Status::Expired)]);
    let refused = give(&mut commands, 1_003, Input::Submit(command("3", "press", 1_003, 1)));
    assert_eq!(refused, [Effect::Refuse(CommandId("3".to_string()))]);
}

#[test]
fn after_a_start_what_was_open_is_delivered_in_order() {
    let sent = |id: &str, created, status| Entry { command: command(id, "press", 9_000, created), status };
    let saved =
        [sent("b", 1, Status::Sent), sent("a", 2, Status::Queued), sent("c", 0, Status::Failed("worn".to_string()))];
    let mut commands = Commands::new(saved);
    let effects = give(&mut commands, 1, Input::DeviceUp("press".to_string()));
    let order: Vec<_> = effects.iter().map(|effect| matches!(effect, Effect::Deliver(it) if it.id.0 == "b")).collect();
    assert_eq!(order, [true, false]);
}

#[test]
fn a_command_that_another_node_has_is_delivered_there() {
    let mut commands = Commands::default();
    let id = CommandId("1".to_string());
    give(&mut commands, 0, Input::Submit(command("1", "press", 9_000, 1)));
    give(&mut commands, 0, Input::Saved(id.clone()));
    assert_eq!(give(&mut commands, 1, Input::Gone(id.clone())), [Effect::Save(id.clone(), None)]);
    assert_eq!(give(&mut commands, 2, Input::DeviceUp("press".to_string())), []);
    assert_eq!(give(&mut commands, 9_000, Input::Tick), []);
    assert_eq!((commands.status(&id), commands.devices().count()), (None, 0));
}

#[test]
fn a_device_has_a_bounded_number_of_open_commands() {
    let mut commands = Commands::default();
    for number in 0..OPEN_MAX {
        give(&mut commands, 0, Input::Submit(command(&number.to_string(), "press", 9_000, number as u64)));
    }
    let refused = give(&mut commands, 0, Input::Submit(command("more", "press", 9_000, 1)));
    assert_eq!(refused, [Effect::Refuse(CommandId("more".to_string()))]);
}

#[derive(Clone, Debug)]
enum Step {
    Submit(u8),
    Saved,
    Up(u8),
    Down(u8),
    Answer(u8, bool),
    Pass(u16),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12u8).prop_map(Step::Submit),
        Just(Step::Saved),
        Just(Step::Saved),
        (0..2u8).prop_map(Step::Up),
        (0..2u8).prop_map(Step::Down),
        (0..12u8, any::<bool>()).prop_map(|(id, done)| Step::Answer(id, done)),
        (0..600u16).prop_map(Step::Pass),
        Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn outcomes_come_once_and_nothing_is_delivered_late_or_unsaved(steps in proptest::collection::vec(step(), 0..80)) {
        let mut commands = Commands::default();
        let mut disk: BTreeMap<CommandId, Entry> = BTreeMap::new();
        let mut saves: std::collections::VecDeque<(CommandId, Option<Entry>)> = Default::default();
        let mut confirmed: BTreeMap<CommandId, Status> = BTreeMap::new();
        let mut ms = 0i64;
        for step in steps {
            let device = |id: u8| if id.is_multiple_of(2) { "press" } else { "oven" };
            let input = match step {
                Step::Submit(id) => Input::Submit(command(&id.to_string(), device(id), ms + 300 + i64::from(id) * 40, u64::from(id))),
                Step::Saved => {
                    let Some((id, entry)) = saves.pop_front() else { continue };
                    match entry {
                        Some(entry) => drop(disk.insert(id.clone(), entry)),
                        None => drop(disk.remove(&id)),
                    }
                    Input::Saved(id)
                }
                Step::Up(id) => Input::DeviceUp(device(id).to_string()),
                Step::Down(id) => Input::DeviceDown(device(id).to_string()),
                Step::Answer(id, done) => Input::Answered {
                    id: CommandId(id.to_string()),
                    device: device(id).to_string(),
                    answer: if done { Ok(json!(1)) } else { Err("no".to_string()) },
                },
                Step::Pass(by) => {
                    ms += i64::from(by);
                    Input::Tick
                }
                Step::Restart => {
                    commands = Commands::new(disk.values().cloned());
                    saves.clear();
                    continue;
                }
            };
            for effect in give(&mut commands, ms, input) {
                match effect {
                    Effect::Save(id, entry) => saves.push_back((id, entry)),
                    Effect::Deliver(command) => {
                        prop_assert!(command.deadline > Timestamp::from_millis(ms));
                        prop_assert!(disk.get(&command.id).is_some_and(|entry| entry.status == Status::Queued));
                    }
                    Effect::Confirm(id, status) => {
                        prop_assert_eq!(disk.get(&id).map(|entry| &entry.status), Some(&status));
                        prop_assert!(confirmed.insert(id, status).is_none());
                    }
                    Effect::Refuse(_) => {}
                }
            }
        }
    }
}
