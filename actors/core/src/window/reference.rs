//! Windows by device as a reader of Flink's documentation would write them down: every window keeps all of its values. The engine must
//! agree with this on any input.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    testing::{self, Event, Rig, ms},
    *,
};
use crate::time::{Span, Timestamp};

/// One device, one kind of window; all in ms, as the golden files are.
#[derive(Default)]
struct Model {
    /// By (end, start): values, and whether it has fired.
    windows: BTreeMap<(i64, i64), (Vec<f64>, bool)>,
    high: Option<i64>,
    fired: Vec<String>,
    late: Vec<(i64, f64)>,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Size and slide; or the gap.
    aligned: Option<(i64, i64)>,
    gap: i64,
    bound: i64,
    lateness: i64,
}

impl Rules {
    fn spec(&self) -> WindowSpec {
        let spec = match self.aligned {
            Some((size, slide)) if size == slide => testing::tumbling(size),
            Some((size, slide)) => testing::sliding(size, slide),
            None => testing::session(self.gap),
        };
        WindowSpec { bound: Span::from_millis(self.bound), lateness: Span::from_millis(self.lateness), ..spec }
    }

    fn watermark(&self, high: Option<i64>) -> i64 {
        high.map_or(i64::MIN / 2, |high| high - self.bound - 1)
    }

    fn dropped(&self, end: i64, watermark: i64) -> bool {
        end - 1 + self.lateness <= watermark
    }
}

impl Model {
    fn push(&mut self, rules: Rules, events: &[(i64, f64)]) {
        let before = rules.watermark(self.high);
        let mut changed = Vec::new();
        for (time, value) in events {
            let windows = match rules.aligned {
                Some((size, slide)) => {
                    let last = time.div_euclid(slide) * slide;
                    (0..)
                        .map(|n| last - n * slide)
                        .take_while(|start| start + size > *time)
                        .map(|s| (s + size, s))
                        .collect()
                }
                None => vec![self.session(rules, *time, before)],
            };
            let open: Vec<_> = windows.into_iter().filter(|(end, _)| !rules.dropped(*end, before)).collect();
            if open.is_empty() {
                self.late.push((*time, *value));
            }
            for window in open {
                self.windows.entry(window).or_default().0.push(*value);
                changed.push(window);
            }
        }
        self.high = self.high.max(events.iter().map(|(time, _)| *time).max());
        let after = rules.watermark(self.high);
        for ((end, start), (values, fired)) in &mut self.windows {
            if end - 1 <= after && (!*fired || changed.contains(&(*end, *start))) {
                *fired = true;
                self.fired.push(format!("{start}..{end} n={} sum={}", values.len(), values.iter().sum::<f64>()));
            }
        }
        // A session that is closed for good is no longer there to join; other windows are only not asked for again.
        if rules.aligned.is_none() {
            self.windows.retain(|(end, _), _| !rules.dropped(*end, after));
        }
    }

    /// The session that an event joins or makes; those that it connects become one.
    fn session(&mut self, rules: Rules, time: i64, before: i64) -> (i64, i64) {
        let (mut start, mut end) = (time, time + rules.gap);
        let touching: Vec<_> =
            self.windows.keys().filter(|(e, s)| *s <= time + rules.gap && *e >= time).copied().collect();
        for (e, s) in &touching {
            (start, end) = (start.min(*s), end.max(*e));
        }
        if !rules.dropped(end, before) {
            let values: Vec<f64> = touching.iter().filter_map(|at| self.windows.remove(at)).flat_map(|w| w.0).collect();
            self.windows.insert((end, start), (values, false));
        }
        (end, start)
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let aligned = prop_oneof![
        (1i64..40).prop_map(|size| Some((size, size))),
        (1i64..40, 1i64..40).prop_map(|(a, b)| Some((a.max(b), a.min(b)))),
        Just(None),
    ];
    (aligned, 1i64..20, 0i64..30, prop_oneof![Just(0i64), 0i64..60]).prop_map(|(aligned, gap, bound, lateness)| Rules {
        aligned,
        gap,
        bound,
        lateness,
    })
}

/// Time goes on, more or less, and sometimes jumps.
fn input() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let event = (0u32..3, -40i64..15, -80i32..80, prop_oneof![20 => Just(0i64), 1 => 0i64..200]);
    prop::collection::vec(prop::collection::vec(event, 1..6), 1..40).prop_map(|batches| {
        let mut now = -50;
        let event = |(device, offset, value, jump): (u32, i64, i32, i64)| {
            now += 2 + jump;
            (device, now + offset, f64::from(value) / 8.0)
        };
        let mut event = event;
        batches.into_iter().map(|batch| batch.into_iter().map(&mut event).collect()).collect()
    })
}

/// What the model says of an input, for all devices: lines of panes, and late events.
fn expected(rules: Rules, batches: &[Vec<Event>]) -> (Vec<String>, Vec<(u32, i64, f64)>) {
    let (mut fired, mut late) = (Vec::new(), Vec::new());
    for device in 0..3 {
        let mut model = Model::default();
        for batch in batches {
            let own: Vec<_> =
                batch.iter().filter(|(d, ..)| *d == device).map(|(_, time, value)| (*time, *value)).collect();
            if !own.is_empty() {
                model.push(rules, &own);
            }
        }
        fired.extend(model.fired.into_iter().map(|line| format!("d{device} {line}")));
        late.extend(model.late.into_iter().map(|(time, value)| (device, time, value)));
    }
    fired.sort();
    late.sort_by(|a, b| a.partial_cmp(b).unwrap());
    (fired, late)
}

fn late(rig: &Rig) -> Vec<(u32, i64, f64)> {
    let mut late: Vec<(u32, i64, f64)> = rig
        .late
        .iter()
        .map(|event| (event.device[1..].parse().unwrap(), event.time.as_millis(), event.metrics[0].1))
        .collect();
    late.sort_by(|a, b| a.partial_cmp(b).unwrap());
    late
}

/// What fired, without revisions and retractions.
fn fired(rig: &Rig) -> Vec<String> {
    let without_revision = |line: String| line.rsplit_once(" r").map(|(line, _)| line.to_owned()).unwrap_or(line);
    let mut fired: Vec<String> =
        rig.lines().into_iter().map(without_revision).filter(|line| !line.ends_with("retracted")).collect();
    fired.sort();
    fired
}

/// Ends the input: an event of each device so late that everything before it closes for good.
fn with_end(mut batches: Vec<Vec<Event>>) -> Vec<Vec<Event>> {
    batches.push((0..3).map(|device| (device, 1_000_000, 0.0)).collect());
    batches
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_the_model(rules in rules(), batches in input(), shards in 1usize..3, flush_every in 1usize..9) {
        let batches = with_end(batches);
        let mut rig = Rig::new(rules.spec(), shards);
        for (n, batch) in batches.iter().enumerate() {
            rig.push(batch);
            if n % flush_every == 3 {
                rig.flush();
            }
            if n % flush_every == 2 {
                let saved = rig.save();
                rig.load(&saved);
            }
        }
        let (panes, late_events) = expected(rules, &batches);
        prop_assert_eq!(late(&rig), late_events);
        if rules.aligned.is_some() {
            prop_assert_eq!(fired(&rig), panes);
        } else {
            // A session that the model fires again unchanged is said once.
            let mut panes = panes;
            panes.dedup();
            prop_assert_eq!(fired(&rig), panes);
        }
    }

    #[test]
    fn recovery_says_what_was_not_said_and_nothing_twice(
        rules in rules(), batches in input(), checkpoint in 0usize..40, crash in 0usize..40, shards in 1usize..3,
    ) {
        let batches = with_end(batches);
        let (checkpoint, crash) = (checkpoint.min(crash).min(batches.len()), crash.min(batches.len()));
        let mut undisturbed = Rig::new(rules.spec(), shards);
        batches.iter().for_each(|batch| undisturbed.push(batch));

        let mut rig = Rig::new(rules.spec(), shards);
        batches[..checkpoint].iter().for_each(|batch| rig.push(batch));
        if checkpoint % 2 == 0 {
            rig.flush();
        }
        let saved = rig.save();
        let (fired, late) = (rig.fired.len(), rig.late.len());
        batches[checkpoint..crash].iter().for_each(|batch| rig.push(batch));
        rig.load(&saved);
        for pane in &rig.fired[fired..] {
            rig.panes.emitted(pane);
        }
        for event in &rig.late[late..] {
            rig.panes.emitted_late(event);
        }
        batches[checkpoint..].iter().for_each(|batch| rig.push(batch));
        prop_assert_eq!(rig.view(), undisturbed.view());
        let (mut all, mut expected) = (rig.lines(), undisturbed.lines());
        all.sort();
        expected.sort();
        prop_assert_eq!(all, expected);
        prop_assert_eq!(self::late(&rig), self::late(&undisturbed));
    }

    #[test]
    fn order_batches_and_shards_do_not_show(
        rules in rules(),
        events in prop::collection::vec((0u32..4, 0i64..300, any::<u64>()), 1..80),
        by in prop_oneof![Just(GroupBy::Device), Just(GroupBy::Type), Just(GroupBy::Node)],
        splits in any::<[u64; 3]>(),
    ) {
        let spec = testing::everything(WindowSpec { by, bound: Span::from_secs(2), ..rules.spec() });
        let run = |shards: usize, seed: u64| {
            let mut events = events.clone();
            let scatter = |n: u64| (n ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            events.sort_by_key(|(device, time, bits)| scatter(*bits ^ *time as u64 ^ u64::from(*device) << 40));
            let mut rig = Rig::new(spec.clone(), shards);
            let mut rest = &events[..];
            while !rest.is_empty() {
                let (batch, more) = rest.split_at((1 + scatter(rest.len() as u64) % 9).min(rest.len() as u64) as usize);
                let event = |(device, time, bits): &(u32, i64, u64)| (*device, *time, f64::from_bits(*bits));
                rig.push(&batch.iter().map(event).collect::<Vec<_>>());
                rest = more;
                match scatter(rest.len() as u64) % 5 {
                    0 => rig.tick(ms(0)),
                    1 => rig.flush(),
                    _ => {}
                }
            }
            let end: Vec<Event> = (0..4).map(|device| (device, 1_000_000, 0.0)).collect();
            rig.push(&end);
            rig.tick(ms(0));
            rig.tick(ms(0));
            let panes: Vec<Pane> = rig.view().into_values().map(|pane| Pane { revision: 0, ..pane }).collect();
            (panes, rig.late.len())
        };
        let (panes, late) = run(1, 0);
        prop_assert_eq!(late, 0);
        prop_assert!(!panes.is_empty());
        // Compared by their bytes: two panes that print alike may differ in the last bit or in the sign of a zero.
        let bytes = rmp_serde::to_vec_named(&panes).unwrap();
        for (shards, seed) in [(1, splits[0]), (2, splits[1]), (3, splits[2])] {
            let (other, late) = run(shards, seed);
            prop_assert_eq!(late, 0);
            prop_assert_eq!(&rmp_serde::to_vec_named(&other).unwrap(), &bytes, "{:?} {:?}", other, panes);
        }
    }
}

#[test]
fn times_at_the_ends_of_the_range_do_no_harm() {
    for spec in [testing::tumbling(1000), testing::sliding(5000, 700), testing::session(300)] {
        let mut rig = Rig::new(WindowSpec { lateness: Span::from_secs(60), ..spec }, 1);
        let times = [0, i64::MAX, i64::MIN + 1, i64::MAX - 1, 5, i64::MIN];
        for time in times {
            let mut batch = testing::batch(&[(0, 0, 1.0), (0, 1, 2.0)]);
            batch.times = vec![Timestamp(time), Timestamp(time)];
            let devices = testing::devices(&batch, |n| n);
            let (mut deltas, mut effects) = (Vec::new(), Vec::new());
            rig.slicers[0].apply(&batch, &devices, None, ms(0), &mut deltas);
            rig.slicers[0].tick(Timestamp(time), &mut deltas);
            rig.panes.apply(0, deltas, &mut effects);
        }
        let saved = rig.save();
        rig.load(&saved);
    }
}
