//! Fewer points that look the same.

use millpond_core::time::Timestamp;

type Point = (Timestamp, f64);

/// At most `n` points, the first and the last among them: of each stretch the one that makes the largest triangle with its neighbours
/// (Steinarsson, "Downsampling Time Series for Visual Representation", 2013). NaN is never chosen over a number.
pub fn lttb(points: &[Point], n: usize) -> Vec<Point> {
    if points.len() <= n {
        return points.to_vec();
    }
    match n {
        0 => return Vec::new(),
        1 => return vec![points[0]],
        2 => return vec![points[0], points[points.len() - 1]],
        _ => {}
    }
    let inner = points.len() - 2;
    // Bucket b of n − 2 has the points from edge(b) up to edge(b + 1).
    let edge = |bucket: usize| 1 + (bucket as u128 * inner as u128 / (n - 2) as u128) as usize;
    let mut chosen = vec![points[0]];
    let mut last = points[0];
    for bucket in 0..n - 2 {
        let next = &points[edge(bucket + 1)..edge(bucket + 2).min(points.len()).max(edge(bucket + 1) + 1)];
        let ahead = mean(next);
        let area = |point: &Point| {
            let (x, y) = (seconds(point.0, last.0), point.1 - last.1);
            let (far_x, far_y) = (ahead.0 + seconds(next[0].0, last.0), ahead.1 - last.1);
            (x * far_y - far_x * y).abs()
        };
        let bucket = &points[edge(bucket)..edge(bucket + 1)];
        let rank = |point: &Point| Some(area(point)).filter(|area| !area.is_nan()).unwrap_or(-1.0);
        let mut best = bucket[0];
        for point in bucket {
            let better = rank(point).total_cmp(&rank(&best)).is_gt();
            if better || (best.1.is_nan() && !point.1.is_nan()) {
                best = *point;
            }
        }
        chosen.push(best);
        last = best;
    }
    chosen.push(points[points.len() - 1]);
    chosen
}

/// At most `n` points: of each of n / 2 stretches the least and the greatest, in the order of time.
pub fn min_max(points: &[Point], n: usize) -> Vec<Point> {
    if points.len() <= n {
        return points.to_vec();
    }
    let stretches = n / 2;
    let edge = |stretch: usize| (stretch as u128 * points.len() as u128 / stretches.max(1) as u128) as usize;
    let mut chosen = Vec::with_capacity(n);
    for stretch in 0..stretches {
        let part = &points[edge(stretch)..edge(stretch + 1)];
        let (mut least, mut greatest) = (0, 0);
        for (at, point) in part.iter().enumerate() {
            let is_number = |of: usize| !part[of].1.is_nan();
            if point.1 < part[least].1 || (!is_number(least) && is_number(at)) {
                least = at;
            }
            if point.1 > part[greatest].1 || (!is_number(greatest) && is_number(at)) {
                greatest = at;
            }
        }
        chosen.push(part[least.min(greatest)]);
        if least != greatest {
            chosen.push(part[least.max(greatest)]);
        }
    }
    chosen
}

fn seconds(later: Timestamp, earlier: Timestamp) -> f64 {
    (i128::from(later.0) - i128::from(earlier.0)) as f64 / 1e9
}

/// Mean time, in seconds after the first, and mean value of the numbers.
fn mean(points: &[Point]) -> (f64, f64) {
    let count = points.len() as f64;
    let numbers = points.iter().map(|point| point.1).filter(|value| !value.is_nan());
    let numbers_count = numbers.clone().count().max(1) as f64;
    let time = points.iter().map(|point| seconds(point.0, points[0].0)).sum::<f64>() / count;
    (time, numbers.map(|value| value / numbers_count).sum())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(values: &[f64]) -> Vec<Point> {
        values.iter().zip(0i64..).map(|(value, at)| (Timestamp::from_millis(at * 1000), *value)).collect()
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_of_the_series_and_in_its_order(
            values in prop::collection::vec(prop::num::f64::ANY, 0..300), n in 0usize..40,
        ) {
            let points = series(&values);
            for chosen in [lttb(&points, n), min_max(&points, n)] {
                prop_assert!(chosen.len() <= n);
                prop_assert!(chosen.windows(2).all(|pair| pair[0].0 < pair[1].0));
                let is_of_it = |point: &Point| points.iter().any(|of| of.0 == point.0 && of.1.to_bits() == point.1.to_bits());
                prop_assert!(chosen.iter().all(is_of_it));
                prop_assert!(points.len() > n || chosen.len() == points.len());
            }
            if n >= 2 && !points.is_empty() {
                let chosen = lttb(&points, n);
                prop_assert_eq!(chosen[0].0, points[0].0);
                prop_assert_eq!(chosen[chosen.len() - 1].0, points[points.len() - 1].0);
                prop_assert_eq!(chosen.len(), points.len().min(n));
            }
        }

        #[test]
        fn the_extremes_are_never_lost(values in prop::collection::vec(-1e9f64..1e9, 1..300), n in 2usize..40) {
            let points = series(&values);
            let extremes = |points: &[Point]| {
                let values = || points.iter().map(|point| point.1);
                (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max))
            };
            prop_assert_eq!(extremes(&min_max(&points, n)), extremes(&points));
        }
    }

    #[test]
    fn a_peak_is_seen() {
        let mut values = vec![1.0; 1000];
        values[617] = 50.0;
        let points = series(&values);
        assert!(lttb(&points, 20).contains(&points[617]));
        assert!(min_max(&points, 20).contains(&points[617]));
    }
}
