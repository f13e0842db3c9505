//! From a run that breaks a promise to the least that still breaks it. Pure: whoever calls says, for each candidate, whether it does.
//!
//! [`minimise`] is the delta debugging of Zeller and Hildebrandt (*Simplifying and Isolating Failure-Inducing Input*, 2002). What
//! it returns is 1-minimal when it is not cut short: without any single one of its items the promise holds.

use millpond_core::time::Span;

/// Removes items as long as `fails` says that what is left still fails. `items` itself is taken to fail.
pub fn minimise<T: Clone>(items: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    if items.is_empty() || fails(&[]) {
        return Vec::new();
    }
    let mut left = items.to_vec();
    let mut parts = 2;
    while left.len() >= 2 {
        let size = left.len().div_ceil(parts);
        let cuts: Vec<(usize, usize)> =
            (0..left.len()).step_by(size).map(|from| (from, (from + size).min(left.len()))).collect();
        let part = cuts.iter().map(|(from, to)| left[*from..*to].to_vec()).find(|part| fails(part));
        if let Some(part) = part {
            (left, parts) = (part, 2);
            continue;
        }
        // With two parts, the rest of one is the other.
        let rests = cuts.iter().filter(|_| cuts.len() > 2).map(|(from, to)| [&left[..*from], &left[*to..]].concat());
        if let Some(rest) = rests.into_iter().find(|rest| fails(rest)) {
            (left, parts) = (rest, (parts - 1).max(2));
            continue;
        }
        if parts >= left.len() {
            break;
        }
        parts = (2 * parts).min(left.len());
    }
    left
}

/// The shortest time between `least` and `whole`, to within a sixteenth of `whole`, at which `fails` says yes; `whole` is taken to
/// fail.
pub fn shorten(least: Span, whole: Span, mut fails: impl FnMut(Span) -> bool) -> Span {
    let step = (whole.0 / 16).max(1);
    let (mut low, mut high) = (least.0, whole.0);
    while high - low > step {
        let middle = low + (high - low) / 2;
        if fails(Span(middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Span(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_items_that_matter_together_are_left() {
        let all: Vec<u32> = (0..100).collect();
        let check = |needed: &[u32]| {
            let mut tries = 0;
            let left = minimise(&all, |items| {
                tries += 1;
                needed.iter().all(|item| items.contains(item))
            });
            assert_eq!(left, needed);
            assert!(tries < 200, "{tries} tries for {needed:?}");
        };
        check(&[]);
        check(&[41]);
        check(&[0, 99]);
        check(&[3, 50, 51, 97]);
    }

    #[test]
    fn what_needs_everything_stays_whole() {
        let all = [1, 2, 3, 4, 5];
        assert_eq!(minimise(&all, |items| items.len() == all.len()), all);
        assert_eq!(minimise(&[7], |items| items.len() == 1), [7]);
    }

    #[test]
    fn time_is_shortened_to_just_after_the_failure() {
        let minute = Span::from_secs(60);
        let found = shorten(Span::ZERO, minute, |span| span >= Span::from_secs(20));
        assert!(found >= Span::from_secs(20) && found <= Span::from_secs(24), "{found}");
        assert_eq!(shorten(Span::ZERO, minute, |_| false), minute);
    }
}
