use proptest::{collection::vec, prelude::*};

use super::*;

fn at_ms(ms: u64) -> Now {
    Now(ms * 1_000_000)
}

fn wall(days: i64, seconds: i64) -> Timestamp {
    Timestamp((days * DAY + seconds) * SECOND)
}

fn rated(rate: u64) -> Budget {
    Budget::new(BudgetSpec { rate: Some(rate), ..BudgetSpec::default() })
}

/// Lets a lane have what it may of so much; returns how much.
fn go(budget: &mut Budget, now: Now, wall: Timestamp, lane: Lane, want: u64) -> u64 {
    let allowed = budget.allow(now, wall, lane, want);
    assert!(allowed.bytes <= want);
    assert_eq!(allowed.again_at.is_some(), allowed.bytes < want, "who must wait knows how long");
    assert!(allowed.again_at.is_none_or(|again| again > now));
    budget.spent(lane, allowed.bytes);
    allowed.bytes
}

proptest! {
    #[test]
    fn no_more_leaves_than_the_rate_over_any_interval(
        rate in 100u64..1_000_000,
        steps in vec((0u64..3_000, 0usize..5, 0u64..2_000_000), 1..60),
    ) {
        let mut budget = rated(rate);
        let (mut now, mut left) = (0, Vec::new());
        for (pause, lane, want) in steps {
            now += pause;
            left.push((now, go(&mut budget, at_ms(now), wall(1, 0), Lane::ALL[lane], want)));
        }
        for from in 0..left.len() {
            let mut sum = 0;
            for (at, bytes) in &left[from..] {
                sum += bytes;
                let most = rate as u128 * u128::from(at - left[from].0 + 1_000) / 1_000 + 1;
                prop_assert!(u128::from(sum) <= most, "{sum} of at most {most}");
            }
        }
    }

    #[test]
    fn what_a_lane_is_sure_of_it_gets(
        rate in 100u64..1_000_000,
        lane in 0usize..5,
        others in vec((0u64..500, 0usize..5, 0u64..100_000), 0..200),
        besides in 0u64..10_000,
    ) {
        let (mut budget, lane) = (rated(rate), Lane::ALL[lane]);
        let mut now = 0;
        for (pause, other, want) in others {
            now += pause;
            go(&mut budget, at_ms(now), wall(1, 0), Lane::ALL[other], want);
        }
        budget.carried(at_ms(now), wall(1, 0), besides);
        let sure = budget.sure(lane);
        // Asked for as a delivery asks: again and again for all of it.
        let got = (0..20_000).find(|_| {
            let allowed = budget.allow(at_ms(now), wall(1, 0), lane, sure);
            now = allowed.again_at.map_or(now, |again| again.0.div_ceil(1_000_000));
            allowed.bytes == sure
        });
        prop_assert!(got.is_some(), "{sure} bytes of {rate} a second never came");
    }

    #[test]
    fn every_lane_that_wants_something_gets_its_floor(
        rate in 1_000u64..100_000,
        wanting in vec(any::<bool>(), 5),
        every_ms in 40u64..400,
        message in 500u64..4_000,
    ) {
        let (mut budget, mut got) = (rated(rate), [0u64; 5]);
        let seconds = 40;
        // The messages go whole, larger than allowed or not.
        for at in (0..seconds * 1_000).step_by(every_ms as usize) {
            for lane in Lane::ALL.into_iter().rev().filter(|lane| wanting[*lane as usize]) {
                while budget.allow(at_ms(at), wall(1, 0), lane, message).bytes > 0 {
                    budget.spent(lane, message);
                    got[lane as usize] += message;
                }
            }
        }
        for lane in Lane::ALL.into_iter().filter(|lane| wanting[*lane as usize]) {
            let floor = rate * lane.floor() / 100 * (seconds - 1);
            prop_assert!(got[lane as usize] + message >= floor, "{}: {} of {floor}", lane.name(), got[lane as usize]);
        }
        let most = rate * (seconds + 1) + 5 * message;
        prop_assert!(got.iter().sum::<u64>() <= most);
        if wanting.contains(&true) {
            prop_assert!(got.iter().sum::<u64>() * 100 >= rate * seconds * 80, "the line is used: {got:?} of {}", rate * seconds);
        }
    }

    #[test]
    fn a_day_has_its_bytes_once_however_the_clock_jumps(
        per_day in 1u64..100_000,
        metered in 1.0f64..4.0,
        steps in vec((0u64..7_200, -5i64..6, any::<bool>(), 0usize..5, 0u64..50_000), 1..80),
    ) {
        let spec = BudgetSpec { per_day: Some(per_day), metered, ..BudgetSpec::default() };
        let mut budget = Budget::new(spec);
        let (mut seconds, mut skew, mut of_day) = (0u64, 0i64, Vec::<(u64, u64)>::new());
        for (pause, jump, jumps, lane, want) in steps {
            seconds += pause;
            if jumps {
                skew += jump * 43_200;
            }
            let now = Timestamp((100 * DAY + seconds as i64 + skew) * SECOND);
            let bytes = go(&mut budget, at_ms(seconds * 1_000), now, Lane::ALL[lane], want);
            if lane < 2 {
                prop_assert_eq!(bytes, want, "alerts and state always leave");
            } else {
                of_day.push((seconds, bytes));
            }
        }
        // Of three days in a row the one in the middle is at least so long.
        for (from, _) in &of_day {
            let stretch = of_day.iter().filter(|(at, _)| (*from..from + 20 * 3600).contains(at)).map(|(_, bytes)| bytes);
            prop_assert!(stretch.sum::<u64>() as f64 * metered <= 2.0 * per_day as f64 + 1.0);
        }
    }
}

#[test]
fn without_bounds_everything_goes_at_once() {
    let mut budget = Budget::new(BudgetSpec::default());
    for lane in Lane::ALL {
        let all = Allowed { bytes: u64::MAX, again_at: None };
        assert_eq!(budget.allow(Now(0), wall(1, 0), lane, u64::MAX), all);
        budget.spent(lane, u64::MAX);
    }
}

#[test]
fn the_first_lane_that_wants_has_what_is_left_of_the_rate() {
    let mut budget = rated(1_000);
    let mut got = [0; 5];
    for at in (0..20_000).step_by(50) {
        for lane in [Lane::Backlog, Lane::Live, Lane::Pane] {
            got[lane as usize] += go(&mut budget, at_ms(at), wall(1, 0), lane, 1_000);
        }
    }
    let [.., pane, live, backlog] = got;
    assert!((1_900..2_300).contains(&live) && (900..1_500).contains(&backlog), "{got:?}");
    assert!(pane > 15_000, "{got:?}");
}

#[test]
fn a_lane_alone_has_the_whole_rate() {
    let (mut budget, mut got) = (rated(1_000), 0);
    for at in (0..20_000).step_by(50) {
        got += go(&mut budget, at_ms(at), wall(1, 0), Lane::Backlog, 1_000);
    }
    assert!((19_500..=21_000).contains(&got), "{got}");
}

#[test]
fn a_day_that_is_used_up_says_since_when_until_the_next_one() {
    let spec = BudgetSpec { per_day: Some(1_000), ..BudgetSpec::default() };
    let mut budget = Budget::new(spec.clone());
    let hour = |hour: i64| (Now(hour as u64 * 3_600 * 1_000_000_000), wall(10, hour * 3_600));
    let (now, time) = hour(6);
    assert_eq!(go(&mut budget, now, time, Lane::Alert, 400), 400);
    assert_eq!(go(&mut budget, now, time, Lane::Live, 5_000), 600);
    assert_eq!(budget.exhausted(), None);
    let (now, time) = hour(7);
    assert_eq!(go(&mut budget, now, time, Lane::Pane, 10), 0);
    assert_eq!(budget.exhausted(), Some(time));
    assert_eq!(go(&mut budget, now, time, Lane::State, 10), 10);
    let saved = budget.saved().expect("a day has begun");
    let mut again = Budget::new(spec);
    again.restore(saved);
    assert_eq!(go(&mut again, Now(5), hour(23).1, Lane::Live, 10), 0, "a restart gives nothing");
    assert_eq!(again.exhausted(), Some(time));
    assert_eq!(go(&mut again, Now(5 + 3_700 * 1_000_000_000), wall(11, 100), Lane::Live, 10), 10, "it is another day");
    assert_eq!(again.exhausted(), None);
    let (now, time) = hour(25);
    assert_eq!(go(&mut budget, now, time, Lane::Live, 10), 10, "and for who was up all the time");
}

#[test]
fn a_clock_that_was_years_ahead_takes_a_day_at_most() {
    let mut budget = Budget::new(BudgetSpec { per_day: Some(10), ..BudgetSpec::default() });
    assert_eq!(go(&mut budget, Now(0), wall(9_000, 60), Lane::Live, 100), 10);
    let (mut days, mut seconds) = (0, 0);
    while go(&mut budget, at_ms(seconds * 1_000), wall(100, seconds as i64), Lane::Live, 100) == 0 {
        (seconds, days) = (seconds + 600, seconds / 86_400);
    }
    assert_eq!(days, 0);
}

#[test]
fn the_backlog_keeps_to_its_hours() {
    let schedule = vec!["22:00-05:30".to_owned(), "12:00-13:00".to_owned()];
    let spec = BudgetSpec { schedule, offset: Span::from_secs(3_600), ..BudgetSpec::default() };
    let mut budget = Budget::new(spec);
    let mut goes =
        |hour: i64, minute: i64, lane| budget.allow(Now(0), wall(5, hour * 3_600 + minute * 60), lane, 1).bytes == 1;
    assert!(goes(21, 0, Lane::Backlog) && goes(4, 29, Lane::Backlog) && goes(11, 30, Lane::Backlog));
    assert!(!goes(20, 59, Lane::Backlog) && !goes(4, 30, Lane::Backlog) && !goes(12, 0, Lane::Backlog));
    assert!(goes(15, 0, Lane::Live));
}

#[test]
fn what_is_carried_besides_counts() {
    let spec = BudgetSpec { rate: Some(1_000), per_day: Some(10_000), ..BudgetSpec::default() };
    let mut budget = Budget::new(spec);
    budget.carried(at_ms(0), wall(1, 0), 9_000);
    assert_eq!(budget.saved().map(|day| day.used), Some(9_000));
    // The floors are there; what is shared is owed.
    assert_eq!(go(&mut budget, at_ms(0), wall(1, 0), Lane::Live, 1_000), 100);
    assert_eq!(go(&mut budget, at_ms(1_000), wall(1, 1), Lane::Live, 1_000), 100);
    assert_eq!(go(&mut budget, at_ms(30_000), wall(1, 30), Lane::Live, 800), 550, "and is paid in time");
    assert_eq!(go(&mut budget, at_ms(31_000), wall(1, 31), Lane::Live, 1_000), 250, "what is left of the day");
    assert_eq!(go(&mut budget, at_ms(60_000), wall(1, 60), Lane::Live, 1_000), 0, "the day's are used up");
    assert_eq!(go(&mut budget, at_ms(60_000), wall(1, 60), Lane::Alert, 100), 100);
}
