//! Queries against the plainest way to answer them.

use proptest::prelude::*;

use super::*;
use crate::{Partial, Series};

/// Pieces of rows: device, second, value.
type Input = Vec<Vec<(u8, u32, Option<i8>)>>;

fn input() -> impl Strategy<Value = Input> {
    let row = (0u8..4, 0u32..200_000, prop::option::weighted(0.9, any::<i8>()));
    prop::collection::vec(prop::collection::vec(row, 1..120), 1..5)
}

fn pieces_of(input: &Input) -> Vec<Piece> {
    let mut seq = 0;
    let mut event = |(device, s, value): &(u8, u32, Option<i8>)| {
        seq += 1;
        let mut cells = vec![("other", Cell::I64(3))];
        value.iter().for_each(|value| cells.push(("temperature", Cell::F64(f64::from(*value) / 10.0))));
        Event { device: format!("press-{device}"), ms: T0 + i64::from(*s) * 1000, seq: Some(seq), cells }
    };
    let mut pieces = Vec::new();
    for rows in input {
        let events: Vec<Event> = rows.iter().map(&mut event).collect();
        for batch in batches(&events) {
            let number = pieces.len() as u64 + 1;
            pieces.push(Piece { batch, ..piece(number, &[super::event("x", 0, 0, 0.0)]) });
        }
    }
    pieces
}

async fn filled(input: &Input) -> Lake {
    let lake = open(&memory()).await;
    for (at, piece) in pieces_of(input).iter().enumerate() {
        let number = at as u64 + 1;
        lake.append(std::slice::from_ref(piece), &[taken(number, number)], T0).await.unwrap();
    }
    lake
}

fn naive(input: &Input, series: &Series) -> Vec<(Timestamp, u64, f64)> {
    let mut points = Vec::new();
    for (seq, (device, s, value)) in (1..).zip(input.iter().flatten()) {
        let time = Timestamp::from_millis(T0 + i64::from(*s) * 1000);
        let wanted = format!("press-{device}") == series.device && series.start <= time && time < series.end;
        if let (true, Some(value)) = (wanted, value) {
            points.push((time, seq, f64::from(*value) / 10.0));
        }
    }
    points.sort_by_key(|point| (point.0, point.1));
    points
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn points_and_aggregates_are_those_of_all_rows(
        input in input(), device in 0u8..4, start in 0u32..200_000, length in 1u32..200_000,
        step in 1i64..100_000, limit in 0usize..200, merged in any::<bool>(),
    ) {
        let at = |s: u32| Timestamp::from_millis(T0 + i64::from(s) * 1000);
        let series = Series {
            tenant: (device % 2 == 0).then(|| TENANT.to_owned()),
            device: format!("press-{device}"),
            metric: "temperature".into(),
            start: at(start),
            end: at(start.saturating_add(length)),
        };
        block_on(async {
            let lake = filled(&input).await;
            if merged {
                lake.compact(T0 + 10 * DAY_MS).await.unwrap();
            }
            let manifest = lake.manifest();
            let all = naive(&input, &series);
            let points = lake.points(&manifest, &series, limit).await.unwrap();
            let expected: Vec<_> = all.iter().take(limit).map(|(time, _, value)| (*time, Cell::F64(*value))).collect();
            assert_eq!((points.points, points.more), (expected, all.len() > limit));

            let mut steps: BTreeMap<i64, Partial> = BTreeMap::new();
            for (time, _, value) in &all {
                let number = (time.0 - series.start.0) / (step * 1_000_000_000);
                steps.entry(series.start.0 + number * step * 1_000_000_000).or_default().add(time.0, *value);
            }
            let found = lake.aggregate(&manifest, &series, Some(Span::from_secs(step)), 1_000_000).await.unwrap();
            assert_eq!(found.steps.len(), steps.len());
            for ((start, found), (expected_start, expected)) in found.steps.iter().zip(&steps) {
                assert_eq!(start.0, *expected_start);
                assert_eq!((found.count, found.sum.value()), (expected.count, expected.sum.value()));
                assert_eq!((found.min(), found.max()), (expected.min(), expected.max()));
                assert_eq!((found.first(), found.last()), (expected.first(), expected.last()));
            }
            let few = lake.aggregate(&manifest, &series, Some(Span::from_secs(step)), limit).await.unwrap();
            assert_eq!((&few.steps[..], few.more), (&found.steps[..limit.min(steps.len())], steps.len() > limit));
            let whole = lake.aggregate(&manifest, &series, None, 1).await.unwrap();
            assert_eq!(whole.steps.first().map_or(0, |(_, partial)| partial.count), all.len() as u64);
        });
    }
}

/// A device that sends every ten seconds of a day, so that its hours have sums of their own.
#[test]
fn hours_come_to_the_same_as_their_values() {
    let value = |s: i64| f64::from((s * 7919 % 1013) as i32) / 8.0;
    let seconds: Vec<i64> = (0..86_400).step_by(10).filter(|s| s % 7_000 > 900).collect();
    block_on(async {
        let lake = Lake::open(memory(), Options::default()).await.unwrap();
        let event = |s: &i64| Event {
            device: "press-1".into(),
            ms: T0 + s * 1000,
            seq: Some(*s as u64),
            cells: vec![("other", Cell::I64(1)), ("temperature", Cell::F64(value(*s)))],
        };
        let events: Vec<Event> = seconds.iter().map(event).collect();
        let pieces: Vec<Piece> = (1..)
            .zip(batches(&events))
            .map(|(number, batch)| Piece { batch, ..piece(number, &[super::event("x", 0, 0, 0.0)]) })
            .collect();
        let last = pieces.len() as u64;
        lake.append(&pieces, &[taken(1, last)], T0).await.unwrap();
        lake.compact(T0 + 10 * DAY_MS).await.unwrap();
        let manifest = lake.manifest();
        let footer = lake.footer(&manifest.files[0]).await.unwrap();
        assert_eq!((manifest.files.len(), footer.groups()), (1, 1));
        assert!(footer.hours(0).is_some(), "it pays for a day of a device");
        for (start, end, step) in [
            (0, 86_400, Some(3600)),
            (0, 86_400, Some(7200)),
            (1_234, 80_000, Some(3600)),
            (3600, 7200, Some(3600)),
            (5, 20_000, Some(10_000)),
            (30_000, 30_100, Some(3600)),
            (100, 86_000, Some(60)),
            (7_201, 50_000, None),
        ] {
            let at = |s: i64| Timestamp::from_millis(T0 + s * 1000);
            let (device, metric) = ("press-1".into(), "temperature".into());
            let series = Series { tenant: None, device, metric, start: at(start), end: at(end) };
            let found = lake.aggregate(&manifest, &series, step.map(Span::from_secs), 10_000).await.unwrap();
            let mut expected: BTreeMap<i64, Partial> = BTreeMap::new();
            for s in seconds.iter().filter(|s| (start..end).contains(*s)) {
                let step = step.map_or(0, |step| (s - start) / step * step);
                expected.entry(at(start + step).0).or_default().add(at(*s).0, value(*s));
            }
            let expected: Vec<_> = expected.into_iter().map(|(start, partial)| (Timestamp(start), partial)).collect();
            assert_eq!(found.steps, expected, "{start} to {end} by {step:?}");
        }
    });
}

#[test]
fn a_metric_that_changed_its_type_is_read_in_both() {
    block_on(async {
        let lake = open(&memory()).await;
        let with = |ms: i64, cell: Cell| Event { device: "d".into(), ms: T0 + ms, seq: None, cells: vec![("m", cell)] };
        let first = [with(0, Cell::I64(1)), with(2, Cell::I64(3))];
        let second = [with(1, Cell::F64(2.5)), with(3, Cell::F64(4.5))];
        lake.append(&[piece(1, &first), piece(2, &second)], &[taken(1, 2)], T0).await.unwrap();
        let (start, end) = (Timestamp::MIN, Timestamp::MAX);
        let series = Series { tenant: None, device: "d".into(), metric: "m".into(), start, end };
        let points = lake.points(&lake.manifest(), &series, 10).await.unwrap().points;
        let cells: Vec<Cell> = points.into_iter().map(|(_, cell)| cell).collect();
        assert_eq!(cells, [Cell::I64(1), Cell::F64(2.5), Cell::I64(3), Cell::F64(4.5)]);
        let steps = lake.aggregate(&lake.manifest(), &series, None, 10).await.unwrap();
        assert_eq!(steps.steps[0].1.sum.value(), 11.0);
    });
}
