//! A set of sequence numbers that are mostly consecutive.

use std::collections::BTreeMap;

/// Disjoint runs that do not touch: first → last, both inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeqSet {
    runs: BTreeMap<u64, u64>,
}

impl SeqSet {
    /// Adds `first..=last`; what was in stays in. An empty range adds nothing.
    pub fn insert(&mut self, mut first: u64, mut last: u64) {
        if first > last {
            return;
        }
        if let Some((&before, &end)) = self.runs.range(..=first).next_back()
            && end >= first.saturating_sub(1)
        {
            first = before;
            last = last.max(end);
        }
        while let Some((&after, &end)) = self.runs.range(first..=last.saturating_add(1)).next() {
            self.runs.remove(&after);
            last = last.max(end);
        }
        self.runs.insert(first, last);
    }

    pub fn contains(&self, seq: u64) -> bool {
        self.runs.range(..=seq).next_back().is_some_and(|(_, end)| *end >= seq)
    }

    /// The numbers of `first..=last` that are not in the set, as runs.
    pub fn gaps(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = first;
        for (&start, &end) in &self.runs {
            if start > last || at > last {
                break;
            }
            if start > at {
                gaps.push((at, start - 1));
            }
            at = at.max(end.saturating_add(1));
        }
        if at <= last {
            gaps.push((at, last));
        }
        gaps
    }

    /// The largest number; 0 when the set is empty.
    pub fn last(&self) -> u64 {
        self.runs.last_key_value().map_or(0, |(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(ranges in prop::collection::vec((1u64..60, 0u64..6), 0..20)) {
            let (mut set, mut model) = (SeqSet::default(), BTreeSet::new());
            for (first, more) in ranges {
                set.insert(first, first + more);
                model.extend(first..=first + more);
            }
            for seq in 0..70 {
                prop_assert_eq!(set.contains(seq), model.contains(&seq));
            }
            let missing: Vec<u64> = set.gaps(1, 69).into_iter().flat_map(|(a, b)| a..=b).collect();
            let expected: Vec<u64> = (1..=69).filter(|seq| !model.contains(seq)).collect();
            prop_assert_eq!(missing, expected);
            prop_assert_eq!(set.last(), model.last().copied().unwrap_or(0));
        }
    }
}
