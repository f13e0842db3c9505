//! Fewer points that look like all of them: for charts, which have fewer pixels than a device has readings.
//!
//! Both take points by time and say which of them to keep, by number; they are functions of the points alone. Points that are no number
//! are kept by nobody. With as many points allowed as there are, all that are numbers are kept.

/// Largest triangle, three buckets (Steinarsson, "Downsampling time series for visual representation", 2013): of each of `count` − 2 stretches
/// of as many points the one is kept that makes the largest triangle with the one kept before it and the mean of the stretch behind it;
/// and the first and the last point.
pub fn lttb(points: &[(f64, f64)], count: usize) -> Vec<usize> {
    let all = numbers(points);
    if all.len() <= count || count < 3 {
        return all.into_iter().take(if count < 3 { count } else { usize::MAX }).collect();
    }
    let inner = all.len() - 2;
    // Stretches lie between the first and the last point, without gaps.
    let bound = |stretch: usize| 1 + stretch * inner / (count - 2);
    let mut kept = vec![all[0]];
    for stretch in 0..count - 2 {
        let (from, to) = (bound(stretch), bound(stretch + 1));
        let behind = if stretch + 1 == count - 2 { &all[all.len() - 1..] } else { &all[to..bound(stretch + 2)] };
        let mean =
            |f: fn(&(f64, f64)) -> f64| behind.iter().map(|at| f(&points[*at]) / behind.len() as f64).sum::<f64>();
        let (next, before) = ((mean(|point| point.0), mean(|point| point.1)), points[kept[kept.len() - 1]]);
        let area = |at: usize| {
            let (time, value) = points[at];
            ((before.0 - next.0) * (value - before.1) - (before.0 - time) * (next.1 - before.1)).abs()
        };
        let largest = all[from..to].iter().copied().reduce(|best, at| if area(at) > area(best) { at } else { best });
        kept.extend(largest);
    }
    kept.push(all[all.len() - 1]);
    kept
}

/// The least and the greatest value of each of `count` / 2 stretches of as many points: no peak is lost.
pub fn min_max(points: &[(f64, f64)], count: usize) -> Vec<usize> {
    let all = numbers(points);
    if all.len() <= count || count < 2 {
        return all.into_iter().take(if count < 2 { count } else { usize::MAX }).collect();
    }
    let stretches = count / 2;
    let mut kept = Vec::with_capacity(count);
    for stretch in 0..stretches {
        let part = &all[stretch * all.len() / stretches..(stretch + 1) * all.len() / stretches];
        let value = |at: &usize| points[*at].1;
        let least = part.iter().copied().min_by(|a, b| value(a).total_cmp(&value(b)));
        let greatest = part.iter().copied().max_by(|a, b| value(a).total_cmp(&value(b)));
        let (Some(least), Some(greatest)) = (least, greatest) else { continue };
        kept.push(least.min(greatest));
        if least != greatest {
            kept.push(least.max(greatest));
        }
    }
    kept
}

fn numbers(points: &[(f64, f64)]) -> Vec<usize> {
    (0..points.len()).filter(|at| points[*at].1.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_is_in_order_and_no_more_than_allowed(
            values in vec(prop_oneof![9 => -1e3..1e3f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)], 0..300),
            count in 0usize..120,
        ) {
            let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(at, value)| (at as f64, *value)).collect();
            let all = numbers(&points);
            for kept in [lttb(&points, count), min_max(&points, count)] {
                prop_assert!(kept.len() <= count && kept.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(kept.iter().all(|at| points[*at].1.is_finite()));
                prop_assert!(all.len() > count || kept == all);
            }
            if count >= 3 && all.len() > count {
                let kept = lttb(&points, count);
                prop_assert_eq!((kept.len(), kept.first(), kept.last()), (count, all.first(), all.last()));
            }
            if count >= 2 && !all.is_empty() {
                let greatest = |some: &[usize]| some.iter().map(|at| points[*at].1).fold(f64::NEG_INFINITY, f64::max);
                let least = |some: &[usize]| some.iter().map(|at| points[*at].1).fold(f64::INFINITY, f64::min);
                let kept = min_max(&points, count);
                prop_assert_eq!((greatest(&kept), least(&kept)), (greatest(&all), least(&all)));
            }
        }
    }

    #[test]
    fn a_peak_stands_out() {
        let mut points: Vec<(f64, f64)> = (0..1000).map(|at| (f64::from(at), 0.0)).collect();
        points[437].1 = 9.0;
        assert!(lttb(&points, 20).contains(&437) && min_max(&points, 20).contains(&437));
    }
}
