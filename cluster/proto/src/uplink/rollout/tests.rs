use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::uplink::orders::{State, Text, head_of};

const MINUTE: i64 = 60_000;

fn plan(head: &str) -> Plan {
    Plan {
        tenant: "default".into(),
        sites: vec!["plant-*".into()],
        head: head.into(),
        canary: Canary::One,
        watch_ms: 10 * MINUTE,
        patience_ms: 2 * MINUTE,
        alerts_per_minute: Some(5.0),
    }
}

/// A cloud with sites of one node each, which do as they are told.
struct Cloud {
    rollouts: Rollouts,
    now: i64,
    /// Starts and alerts of each site's node.
    nodes: BTreeMap<String, (u64, u64)>,
    /// Goes up when the nodes work with others.
    definitions: u64,
    out: Vec<Effect>,
}

impl Cloud {
    fn new(sites: &[&str]) -> Cloud {
        let (rollouts, nodes) = (Rollouts::default(), BTreeMap::new());
        let mut cloud = Cloud { rollouts, now: 1, nodes, definitions: 1, out: Vec::new() };
        for site in sites {
            cloud.rollouts.site(site, "default");
            cloud.rollouts.came(cloud.now, site, "n1", &mut cloud.out);
            cloud.nodes.insert((*site).to_owned(), (1, 0));
        }
        cloud
    }

    fn begin(&mut self, plan: Plan) -> u64 {
        match self.rollouts.begin(self.now, plan, &mut self.out) {
            Begun::Rollout(number) => number,
            Begun::Known(number) => panic!("rollout {number} has brought it"),
        }
    }

    fn say(&mut self, site: &str, state: State, problems: &[&str]) {
        let (number, head) = self.rollouts.wanted(site);
        let (boot, alerts) = self.nodes[site];
        let problems = problems.iter().map(|one| (*one).to_owned()).collect();
        let head = head.to_owned();
        let definitions = self.definitions;
        let outcome = Outcome { number, head, state, problems, alerts, boot, definitions, ..Outcome::default() };
        self.rollouts.said(self.now, site, "n1", outcome, &mut self.out);
    }

    /// All sites say that they work with what they are to run, for so long.
    fn work(&mut self, ms: i64) {
        let until = self.now + ms;
        while self.now < until {
            self.now += 5_000;
            for site in self.nodes.keys().cloned().collect::<Vec<_>>() {
                self.say(&site, State::Applied, &[]);
            }
            self.rollouts.tick(self.now, &mut self.out);
        }
    }

    fn step(&self, number: u64) -> Step {
        self.rollouts.rollouts[&number].step
    }

    fn why(&self, number: u64) -> &str {
        &self.rollouts.rollouts[&number].why
    }

    fn canary(&self, number: u64) -> String {
        self.rollouts.rollouts[&number].canaries.first().cloned().expect("one was chosen")
    }

    fn with(&self, head: &str) -> usize {
        self.nodes.keys().filter(|site| self.rollouts.wanted(site).1 == head).count()
    }
}

const PLANTS: [&str; 4] = ["plant-1", "plant-2", "plant-3", "plant-4"];

#[test]
fn a_good_head_goes_to_one_site_and_then_to_all() {
    let mut cloud = Cloud::new(&[&PLANTS[..], &["office"]].concat());
    let number = cloud.begin(plan("good"));
    assert_eq!((cloud.step(number), cloud.with("good")), (Step::Canary, 1));
    cloud.work(9 * MINUTE);
    assert_eq!((cloud.step(number), cloud.with("good")), (Step::Canary, 1));
    cloud.work(2 * MINUTE);
    assert_eq!((cloud.step(number), cloud.with("good")), (Step::Done, 4));
    assert_eq!(cloud.rollouts.wanted("office"), (0, ""));
}

#[test]
fn a_share_of_the_sites_can_be_first() {
    let mut cloud = Cloud::new(&PLANTS);
    let number = cloud.begin(Plan { canary: Canary::Share(30.0), ..plan("good") });
    assert_eq!(cloud.with("good"), 2);
    let mut again = Cloud::new(&PLANTS);
    again.begin(Plan { canary: Canary::Share(30.0), ..plan("good") });
    assert_eq!(again.rollouts.rollouts[&number].canaries, cloud.rollouts.rollouts[&number].canaries);
    let mut cloud = Cloud::new(&PLANTS);
    let number = cloud.begin(Plan { canary: Canary::Site("plant-3".into()), ..plan("good") });
    assert_eq!(cloud.canary(number), "plant-3");
}

#[test]
fn nothing_begins_before_a_site_is_there() {
    let mut cloud = Cloud::new(&[]);
    let number = cloud.begin(plan("good"));
    assert_eq!(cloud.step(number), Step::Staged);
    cloud.rollouts.site("plant-9", "default");
    cloud.rollouts.came(cloud.now, "plant-9", "n1", &mut cloud.out);
    assert_eq!(cloud.step(number), Step::Canary);
}

#[test]
fn a_canary_that_rejects_it_is_believed() {
    let mut cloud = Cloud::new(&PLANTS);
    let good = cloud.begin(plan("good"));
    cloud.work(11 * MINUTE);
    let bad = cloud.begin(plan("bad"));
    let canary = cloud.canary(bad);
    cloud.say(&canary, State::Rejected, &["rules hot: no such window"]);
    assert_eq!((cloud.step(bad), cloud.with("good")), (Step::Returned, 4));
    assert_eq!(cloud.why(bad), format!("{canary} rejected rules hot: no such window"));
    assert_eq!(cloud.rollouts.wanted(&canary), (good, "good"));
}

#[test]
fn a_canary_that_starts_again_and_again_loses_it() {
    let mut cloud = Cloud::new(&PLANTS);
    let bad = cloud.begin(plan("bad"));
    let canary = cloud.canary(bad);
    for _ in 0..evidence::STARTS_MAX {
        assert_eq!(cloud.step(bad), Step::Canary);
        cloud.work(10_000);
        cloud.nodes.get_mut(&canary).expect("known").0 += 1;
    }
    cloud.work(10_000);
    assert_eq!((cloud.step(bad), cloud.with("bad")), (Step::Returned, 0));
    assert!(cloud.why(bad).contains("started 3 times"), "{}", cloud.why(bad));
}

#[test]
fn a_silent_canary_loses_it() {
    let mut cloud = Cloud::new(&PLANTS);
    let number = cloud.begin(plan("slow"));
    cloud.now += 2 * MINUTE;
    cloud.rollouts.tick(cloud.now, &mut cloud.out);
    assert_eq!(cloud.step(number), Step::Canary);
    cloud.now += 1;
    cloud.rollouts.tick(cloud.now, &mut cloud.out);
    assert_eq!(cloud.step(number), Step::Returned);
    assert!(cloud.why(number).contains("not reported within 120s"), "{}", cloud.why(number));
    // One that has got it and never says that it works with it is no better.
    let number = cloud.begin(plan("stuck"));
    for _ in 0..30 {
        let canary = cloud.canary(number);
        cloud.say(&canary, State::Received, &[]);
        cloud.now += 5_000;
    }
    assert_eq!(cloud.step(number), Step::Returned);
}

#[test]
fn a_canary_that_raises_too_many_alerts_loses_it() {
    let mut cloud = Cloud::new(&PLANTS);
    let number = cloud.begin(plan("noisy"));
    let canary = cloud.canary(number);
    // What was raised before counts for nothing.
    cloud.nodes.get_mut(&canary).expect("known").1 = 1_000;
    cloud.work(10_000);
    cloud.nodes.get_mut(&canary).expect("known").1 += 5;
    cloud.work(10_000);
    assert_eq!(cloud.step(number), Step::Canary);
    cloud.nodes.get_mut(&canary).expect("known").1 += 1;
    cloud.work(10_000);
    assert_eq!(cloud.step(number), Step::Returned);
    assert!(cloud.why(number).contains("raised 6 alerts"), "{}", cloud.why(number));
}

#[test]
fn what_fired_before_the_order_came_to_a_node_counts() {
    let mut cloud = Cloud::new(&["plant-1"]);
    cloud.begin(plan("good"));
    cloud.nodes.get_mut("plant-1").expect("known").1 = 40;
    cloud.work(11 * MINUTE);
    // Another node of the site has written the texts, and alerts fire before this one hears of the order.
    let number = cloud.begin(plan("noisy"));
    (cloud.definitions, cloud.nodes.get_mut("plant-1").expect("known").1) = (2, 6);
    cloud.say("plant-1", State::Received, &[]);
    cloud.say("plant-1", State::Applied, &[]);
    cloud.now += 1_000;
    cloud.rollouts.tick(cloud.now, &mut cloud.out);
    assert_eq!(cloud.step(number), Step::Returned);
    assert!(cloud.why(number).contains("raised 6 alerts"), "{}", cloud.why(number));
}

#[test]
fn a_start_neither_forgets_alerts_nor_counts_them_twice() {
    let mut cloud = Cloud::new(&["plant-1"]);
    cloud.begin(plan("good"));
    cloud.work(11 * MINUTE);
    let number = cloud.begin(plan("better"));
    cloud.definitions = 2;
    let alerts = |cloud: &mut Cloud, boot, definitions, alerts| {
        (cloud.definitions, *cloud.nodes.get_mut("plant-1").expect("known")) = (definitions, (boot, alerts));
        cloud.say("plant-1", State::Applied, &[]);
        cloud.rollouts.at("plant-1", number).expect("known").alerts
    };
    assert_eq!(alerts(&mut cloud, 1, 2, 2), 2);
    assert_eq!(alerts(&mut cloud, 2, 2, 4), 4, "two fired while it was not connected");
    // It has not come to its definitions yet, and then it has.
    assert_eq!(alerts(&mut cloud, 3, 1, 40), 4);
    assert_eq!(alerts(&mut cloud, 3, 2, 1), 5);
}

#[test]
fn the_same_head_is_not_rolled_out_twice() {
    let mut cloud = Cloud::new(&PLANTS);
    let number = cloud.begin(plan("good"));
    assert_eq!(cloud.rollouts.begin(cloud.now, plan("good"), &mut cloud.out), Begun::Known(number));
    let other = cloud.begin(plan("better"));
    assert_eq!(cloud.step(number), Step::Replaced);
    assert_eq!(cloud.rollouts.undo(cloud.now, other, &mut cloud.out), Ok(()));
    assert_eq!(cloud.rollouts.undo(cloud.now, other, &mut cloud.out), Err(UndoError::Over(other)));
    assert_eq!(cloud.rollouts.undo(cloud.now, 99, &mut cloud.out), Err(UndoError::Unknown(99)));
    assert_eq!(cloud.with(""), 4);
}

#[test]
fn who_was_away_gets_what_is_current() {
    let mut cloud = Cloud::new(&PLANTS);
    cloud.rollouts.went("plant-2", "n1");
    let away = cloud.nodes.remove("plant-2").expect("known");
    let number = cloud.begin(plan("good"));
    cloud.work(11 * MINUTE);
    assert_eq!(cloud.step(number), Step::Done);
    cloud.nodes.insert("plant-2".to_owned(), away);
    assert_eq!(cloud.rollouts.wanted("plant-2"), (number, "good"));
}

#[test]
fn a_tenants_rollout_leaves_the_others_alone() {
    let mut cloud = Cloud::new(&PLANTS);
    cloud.rollouts.site("plant-1", "acme");
    cloud.begin(Plan { canary: Canary::Share(100.0), ..plan("good") });
    assert_eq!(cloud.rollouts.wanted("plant-1"), (0, ""));
    assert_eq!(cloud.with("good"), 3);
}

#[test]
fn the_first_node_that_is_there_writes_and_all_have_to_work_with_it() {
    let mut cloud = Cloud::new(&["plant-1"]);
    cloud.rollouts.came(cloud.now, "plant-1", "n0", &mut cloud.out);
    assert_eq!(cloud.rollouts.writer("plant-1"), Some("n0"));
    let number = cloud.begin(plan("good"));
    cloud.say("plant-1", State::Applied, &[]);
    assert_eq!(cloud.rollouts.at("plant-1", number).expect("known").state, Some(State::Received));
    cloud.rollouts.went("plant-1", "n0");
    assert_eq!(cloud.rollouts.at("plant-1", number).expect("known").state, Some(State::Applied));
    assert_eq!(cloud.rollouts.writer("plant-1"), Some("n1"));
}

#[test]
fn heads_name_texts_in_any_order() {
    let text = |name: &str, text: &str| Text { kind: "rules".into(), name: name.into(), text: text.into() };
    let (a, b) = (text("a", "1"), text("b", "2"));
    assert_eq!(head_of(&[a.clone(), b.clone()]), head_of(&[b.clone(), a.clone()]));
    assert_ne!(head_of(std::slice::from_ref(&a)), head_of(&[a, b]));
    assert_ne!(head_of(&[text("ab", "c")]), head_of(&[text("a", "bc")]));
    assert_eq!(head_of(&[]), "");
}

#[derive(Clone, Debug)]
enum Act {
    Begin(u8, u8),
    Undo(u64),
    Say { site: usize, state: u8, alerts: u64, start: bool },
    Went(usize),
    Came(usize),
    Pass(i64),
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => (0..4u8, 0..3u8).prop_map(|(head, canary)| Act::Begin(head, canary)),
        1 => (0..8u64).prop_map(Act::Undo),
        12 => (0..4usize, 0..8u8, 0..3u64, prop::bool::weighted(0.1))
            .prop_map(|(site, state, alerts, start)| Act::Say { site, state, alerts, start }),
        1 => (0..4usize).prop_map(Act::Went),
        2 => (0..4usize).prop_map(Act::Came),
        6 => (0..200_000i64).prop_map(Act::Pass),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 0..120)
}

/// What must be true whatever happens.
fn holds(cloud: &Cloud, over: &mut BTreeMap<u64, Step>) {
    for rollout in cloud.rollouts.all() {
        let has: Vec<&str> =
            PLANTS.iter().copied().filter(|site| cloud.rollouts.wanted(site).0 == rollout.number).collect();
        match rollout.step {
            Step::Staged | Step::Returned | Step::Replaced => assert!(has.is_empty(), "{rollout:?} reaches {has:?}"),
            Step::Canary => assert!(has.iter().all(|site| rollout.canaries.contains(*site)), "{rollout:?}: {has:?}"),
            Step::Everywhere | Step::Done => {
                let watched = rollout.watched_ms.expect("the canaries worked with it");
                assert!(rollout.since_ms >= watched + rollout.plan.watch_ms, "{rollout:?}");
            }
        }
        assert_eq!(rollout.why.is_empty(), rollout.step != Step::Returned, "{rollout:?}");
        if let Some(before) = over.get(&rollout.number) {
            assert_eq!(*before, rollout.step, "it is over");
        }
        if rollout.step.is_over() {
            over.insert(rollout.number, rollout.step);
        }
    }
}

proptest! {
    #[test]
    fn no_site_has_what_no_canary_has_proved(acts in acts()) {
        let (mut cloud, mut over, mut kept) = (Cloud::new(&PLANTS), BTreeMap::new(), Vec::new());
        for act in acts {
            match act {
                Act::Begin(head, canary) => {
                    let canary = [Canary::One, Canary::Share(50.0), Canary::Site("plant-2".into())][canary as usize].clone();
                    let _ = cloud.rollouts.begin(cloud.now, Plan { canary, ..plan(&format!("h{head}")) }, &mut cloud.out);
                }
                Act::Undo(number) => drop(cloud.rollouts.undo(cloud.now, number, &mut cloud.out)),
                Act::Say { site, state, alerts, start } => {
                    let node = cloud.nodes.get_mut(PLANTS[site]).expect("known");
                    *node = if start { (node.0 + 1, alerts) } else { (node.0, node.1 + alerts) };
                    let state = match state { 0 => State::Rejected, 1 | 2 => State::Received, _ => State::Applied };
                    cloud.say(PLANTS[site], state, &["no"]);
                }
                Act::Went(site) => cloud.rollouts.went(PLANTS[site], "n1"),
                Act::Came(site) => cloud.rollouts.came(cloud.now, PLANTS[site], "n1", &mut cloud.out),
                Act::Pass(ms) => cloud.now += ms,
                Act::Restart => {
                    let kept = serde_json::to_vec(&cloud.rollouts).expect("JSON");
                    cloud.rollouts = serde_json::from_slice(&kept).expect("what was kept");
                    cloud.rollouts.wake(cloud.now);
                }
            }
            cloud.rollouts.tick(cloud.now, &mut cloud.out);
            holds(&cloud, &mut over);
            // Whoever changed what is to be kept has said so.
            let now: Vec<Rollout> = cloud.rollouts.all().cloned().collect();
            prop_assert!(cloud.out.contains(&Effect::Keep) || now == kept);
            cloud.out.clear();
            kept = now;
        }
    }

    #[test]
    fn what_a_site_says_is_bounded(problems in prop::collection::vec(".{0,800}", 0..100)) {
        let mut cloud = Cloud::new(&["plant-1"]);
        let number = cloud.begin(plan("x"));
        let outcome = Outcome { number, head: "x".into(), state: State::Rejected, problems, ..Outcome::default() };
        cloud.rollouts.said(cloud.now, "plant-1", "n1", outcome, &mut cloud.out);
        let kept = cloud.rollouts.at("plant-1", number).expect("known").problems;
        prop_assert!(kept.len() <= 64 && kept.iter().all(|line| line.len() <= 512));
    }
}
