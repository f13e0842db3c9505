//! Many machines on a pretend site, driven by random steps.

use millpond_core::{
    planted::{self, Bug},
    record::Track,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::site::{Seen, Site, Step};

fn step() -> impl Strategy<Value = Step> {
    let node = 0..6usize;
    let track = prop::bool::ANY.prop_map(|raw| if raw { Track::Raw } else { Track::Results });
    prop_oneof![
        8 => (node.clone(), prop::collection::vec(any::<bool>(), 1..30)).prop_map(|(at, records)| Step::Write { at, records }),
        10 => (1..1500u64).prop_map(|ms| Step::Wait { ms }),
        3 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Cut { a, b }),
        2 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Mend { a, b }),
        2 => node.clone().prop_map(|at| Step::Crash { at }),
        3 => node.clone().prop_map(|at| Step::Start { at }),
        1 => node.clone().prop_map(|at| Step::Wipe { at }),
        1 => (node.clone(), node.clone(), track).prop_map(|(at, of, track)| Step::Drop { at, of, track }),
        2 => (node.clone(), node.clone(), node).prop_map(|(at, of, to)| Step::Forge { at, of, to }),
    ]
}

fn steps() -> impl Strategy<Value = (u64, usize, Vec<Step>)> {
    (any::<u64>(), 2..6usize, prop::collection::vec(step(), 1..80))
}

fn rehearse(dice: u64, nodes: usize, steps: &[Step]) -> Result<Seen, String> {
    let mut site = Site::new(nodes, dice);
    site.take(&Step::Wait { ms: 2000 })?;
    for step in steps {
        site.take(step)?;
    }
    site.settle()?;
    Ok(site.seen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 3000, ..ProptestConfig::default() })]
    #[test]
    fn everybody_ends_with_what_they_are_to_hold((dice, nodes, steps) in steps()) {
        if let Err(what) = rehearse(dice, nodes, &steps) {
            prop_assert!(false, "{}", what);
        }
    }
}

/// How many of a number of runs, the same every time, go wrong; and what happened in the others.
fn failures(bug: Option<Bug>, runs: usize) -> (Vec<String>, Seen) {
    planted::plant(bug);
    let (mut runner, mut wrong, mut total) = (TestRunner::deterministic(), Vec::new(), Seen::default());
    for _ in 0..runs {
        let (dice, nodes, steps) = steps().new_tree(&mut runner).expect("steps").current();
        match rehearse(dice, nodes, &steps) {
            Ok(seen) => {
                total.fetches += seen.fetches;
                total.kept_live += seen.kept_live;
                total.confirmed += seen.confirmed;
                total.ignored += seen.ignored;
            }
            Err(what) => wrong.push(what),
        }
    }
    planted::plant(None);
    (wrong, total)
}

#[test]
fn the_runs_are_not_quiet() {
    let (wrong, seen) = failures(None, 40);
    assert_eq!(wrong, [] as [String; 0]);
    assert!(seen.fetches > 400 && seen.kept_live > 400 && seen.confirmed > 100 && seen.ignored > 10, "{seen:?}");
}

#[test]
fn who_does_not_announce_is_found() {
    let (wrong, _) = failures(Some(Bug::ForgetToAnnounce), 40);
    assert!(wrong.iter().any(|what| what.contains("lacks")), "{wrong:?}");
}

#[test]
fn who_believes_anybody_is_found() {
    let (wrong, _) = failures(Some(Bug::SkipIdentityCheck), 40);
    assert!(wrong.iter().any(|what| what.contains("never wrote")), "{wrong:?}");
}
