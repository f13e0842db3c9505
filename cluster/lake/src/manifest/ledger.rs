//! Whose records the lake holds. A record counts in the lake exactly when it stands here.

use std::{collections::BTreeMap, sync::Arc};

use millpond_core::{
    ids::{Incarnation, Origin, RecordId},
    ranges::RangeSet,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One life of one node of a site: records are counted within it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    pub site: Arc<str>,
    #[serde(with = "hex")]
    pub origin: Origin,
    pub incarnation: Incarnation,
}

impl Source {
    pub fn of(site: &Arc<str>, record: &RecordId) -> Source {
        Source { site: site.clone(), origin: record.origin, incarnation: record.incarnation }
    }
}

/// Records of events by source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger(BTreeMap<Source, RangeSet>);

impl Ledger {
    pub fn has(&self, source: &Source, record: u64) -> bool {
        self.0.get(source).is_some_and(|taken| taken.contains(record))
    }

    pub fn covers(&self, source: &Source, first: u64, last: u64) -> bool {
        first > last || self.0.get(source).is_some_and(|taken| taken.covers(first, last))
    }

    /// What of `first..=last` is missing.
    pub fn gaps(&self, source: &Source, first: u64, last: u64) -> Vec<(u64, u64)> {
        match self.0.get(source) {
            Some(taken) => taken.gaps(first, last),
            None if first > last => Vec::new(),
            None => vec![(first, last)],
        }
    }

    pub fn of(&self, source: &Source) -> Option<&RangeSet> {
        self.0.get(source)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Source, &RangeSet)> {
        self.0.iter()
    }

    pub(crate) fn take(&mut self, source: &Source, first: u64, last: u64) {
        self.0.entry(source.clone()).or_default().insert(first, last);
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    source: Source,
    taken: Vec<(u64, u64)>,
}

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.iter().map(|(source, taken)| Line { source: source.clone(), taken: taken.iter().collect() }),
        )
    }
}

impl<'de> Deserialize<'de> for Ledger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ledger, D::Error> {
        let lines = Vec::<Line>::deserialize(deserializer)?;
        Ok(Ledger(lines.into_iter().map(|line| (line.source, line.taken.into_iter().collect())).collect()))
    }
}

mod hex {
    use super::*;

    pub fn serialize<S: Serializer>(origin: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(origin)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Origin, D::Error> {
        let text = String::deserialize(deserializer)?;
        Origin::from_hex(&text).ok_or_else(|| de::Error::custom("an origin is 32 hexadecimal digits"))
    }
}
