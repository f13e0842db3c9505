//! A set of sequence numbers that are mostly consecutive: what somebody holds of a journal.

use std::collections::BTreeMap;

/// Disjoint ranges that do not touch, both ends inclusive. Costs memory per range, not per number.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// First → last.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds `first..=last`; what was in stays in. An empty range adds nothing.
    pub fn insert(&mut self, mut first: u64, mut last: u64) {
        if first > last {
            return;
        }
        if let Some((&before, &end)) = self.ranges.range(..=first).next_back()
            && end >= first.saturating_sub(1)
        {
            first = before;
            last = last.max(end);
        }
        while let Some((&after, &end)) = self.ranges.range(first..=last.saturating_add(1)).next() {
            self.ranges.remove(&after);
            last = last.max(end);
        }
        self.ranges.insert(first, last);
    }

    /// Takes `first..=last` out; what was not in stays out.
    pub fn remove(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        if let Some((&before, &end)) = self.ranges.range(..first).next_back()
            && end >= first
        {
            self.ranges.insert(before, first - 1);
            if end > last {
                self.ranges.insert(last + 1, end);
            }
        }
        while let Some((&after, &end)) = self.ranges.range(first..=last).next() {
            self.ranges.remove(&after);
            if end > last {
                self.ranges.insert(last + 1, end);
            }
        }
    }

    /// Adds all of another set.
    pub fn merge(&mut self, other: &RangeSet) {
        other.iter().for_each(|(first, last)| self.insert(first, last));
    }

    pub fn contains(&self, number: u64) -> bool {
        self.range_of(number).is_some()
    }

    /// The range that holds `number`.
    pub fn range_of(&self, number: u64) -> Option<(u64, u64)> {
        self.ranges.range(..=number).next_back().map(|(&first, &end)| (first, end)).filter(|(_, end)| *end >= number)
    }

    /// Whether all of `first..=last` is in.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        first > last || self.range_of(first).is_some_and(|(_, end)| end >= last)
    }

    /// The numbers of `first..=last` that are not in the set, as ranges from the lowest on.
    pub fn gaps(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        if first > last {
            return gaps;
        }
        let start = self.range_of(first).map_or(first, |(start, _)| start);
        let mut at = Some(first);
        for (&from, &to) in self.ranges.range(start..=last) {
            if let Some(at) = at.filter(|at| *at < from) {
                gaps.push((at, from - 1));
            }
            at = to.checked_add(1);
        }
        if let Some(at) = at.filter(|at| *at <= last) {
            gaps.push((at, last));
        }
        gaps
    }

    /// What is in both.
    pub fn intersection(&self, other: &RangeSet) -> RangeSet {
        let mut both = RangeSet::default();
        for (first, last) in self.iter() {
            let start = other.range_of(first).map_or(first, |(start, _)| start);
            for (&from, &to) in other.ranges.range(start..=last) {
                both.insert(from.max(first), to.min(last));
            }
        }
        both
    }

    /// The largest number up to which everything from 1 on is in; 0 when 1 is not.
    pub fn prefix_end(&self) -> u64 {
        self.range_of(1).map_or(0, |(_, end)| end)
    }

    /// The largest number; 0 when the set is empty.
    pub fn last(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// How many numbers are in.
    pub fn count(&self) -> u64 {
        self.iter().map(|(first, last)| (last - first).saturating_add(1)).fold(0, u64::saturating_add)
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + ExactSizeIterator + '_ {
        self.ranges.iter().map(|(&first, &last)| (first, last))
    }
}

impl FromIterator<(u64, u64)> for RangeSet {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> RangeSet {
        let mut set = RangeSet::default();
        ranges.into_iter().for_each(|(first, last)| set.insert(first, last));
        set
    }
}

/// As in `1-10 12-12`.
impl std::fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("{")?;
        for (at, (first, last)) in self.iter().enumerate() {
            write!(f, "{}{first}-{last}", if at == 0 { "" } else { " " })?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn both(ranges: &[(bool, u64, u64)]) -> (RangeSet, BTreeSet<u64>) {
        let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
        for &(add, first, more) in ranges {
            if add {
                set.insert(first, first + more);
                model.extend(first..=first + more);
            } else {
                set.remove(first, first + more);
                model.retain(|number| !(first..=first + more).contains(number));
            }
        }
        (set, model)
    }

    fn steps() -> impl Strategy<Value = Vec<(bool, u64, u64)>> {
        prop::collection::vec((prop::bool::weighted(0.75), 0u64..60, 0u64..9), 0..20)
    }

    fn numbers(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<u64> {
        ranges.flat_map(|(first, last)| first..=last).collect()
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(steps in steps(), first in 0u64..70, more in 0u64..70) {
            let (set, model) = both(&steps);
            for number in 0..80 {
                prop_assert_eq!(set.contains(number), model.contains(&number));
            }
            let last = first + more;
            let expected: Vec<u64> = (first..=last).filter(|number| !model.contains(number)).collect();
            prop_assert_eq!(set.covers(first, last), expected.is_empty());
            prop_assert_eq!(numbers(set.gaps(first, last).into_iter()), expected);
            prop_assert_eq!(set.gaps(first + 1, first), []);
            prop_assert_eq!(set.last(), model.last().copied().unwrap_or(0));
            prop_assert_eq!(set.prefix_end(), (1..).take_while(|number| model.contains(number)).last().unwrap_or(0));
            prop_assert_eq!(set.count(), model.len() as u64);
            prop_assert_eq!(numbers(set.iter()), model.into_iter().collect::<Vec<_>>());
            // Ranges never touch: there is one form for one set.
            let ranges: Vec<(u64, u64)> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }

        #[test]
        fn sets_are_joined_and_cut(a in steps(), b in steps()) {
            let ((a, model_a), (b, model_b)) = (both(&a), both(&b));
            prop_assert_eq!(numbers(a.intersection(&b).iter()), model_a.intersection(&model_b).copied().collect::<Vec<_>>());
            let mut union = a.clone();
            union.merge(&b);
            prop_assert_eq!(numbers(union.iter()), model_a.union(&model_b).copied().collect::<Vec<_>>());
            prop_assert_eq!(a.iter().collect::<RangeSet>(), a);
        }
    }

    #[test]
    fn the_largest_numbers_are_numbers_like_others() {
        let mut set = RangeSet::default();
        set.insert(u64::MAX - 1, u64::MAX);
        set.insert(0, 0);
        assert_eq!(set.gaps(0, u64::MAX), [(1, u64::MAX - 2)]);
        assert_eq!(set.gaps(u64::MAX, u64::MAX), []);
        set.remove(u64::MAX, u64::MAX);
        assert_eq!(set.gaps(5, u64::MAX), [(5, u64::MAX - 2), (u64::MAX, u64::MAX)]);
    }
}
