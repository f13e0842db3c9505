//! Where each record of a life has gone: the sum is always the whole.
//!
//! Every number up to the head stands for one record, and belongs to one track. The cloud knows of a number that it *has* it, or that it is
//! covered on both tracks without a record: then the site had nothing to give there, because the record was passed over by the terms, or
//! given up before it could be delivered, for a reason that a drop range tells. The rest is still at the site.

use std::collections::BTreeMap;

use millpond_core::{
    ids::Seq,
    record::{DropRange, DropReason},
};
use serde::{Deserialize, Serialize};

use super::Head;
use crate::RangeSet;

/// What was told of a life besides its records. It is stored with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The name of the life's node, for people.
    pub name: String,
    pub head: Head,
    /// Nothing of the records up to here will be left out any more, and all that was left out of them has come.
    #[serde(default)]
    pub settled: Seq,
    /// The same of these records, once the results up to the second number have come.
    #[serde(default)]
    pub settles: Option<(Seq, Seq)>,
    /// Records that the terms keep at the site.
    pub passed: u64,
    /// Records that the site has given up, delivered or not, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Up to here the results were applied, in their order.
    pub applied: Seq,
    /// Records that cannot be read.
    #[serde(default)]
    pub quarantined: u64,
    /// How far the wall clock of the life's node was ahead of the cloud's, in ms, when it was heard last.
    #[serde(default)]
    pub clock_ahead_ms: i64,
}

/// A line of the ledger. The parts add up to `records`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// All records of the life that are known of.
    pub records: u64,
    pub delivered: u64,
    /// Stayed at the site by its terms with the cloud: only what was computed from them comes.
    pub aggregated: u64,
    /// Given up at the site before they could be delivered, by reason.
    pub expired: BTreeMap<String, u64>,
    /// Delivered, but not readable; part of `delivered`.
    pub quarantined: u64,
    /// Neither there nor accounted for.
    pub missing: u64,
    /// Not delivered yet.
    pub at_site: u64,
}

impl Line {
    pub fn sum(&self) -> u64 {
        self.delivered + self.aggregated + self.expired.values().sum::<u64>() + self.missing + self.at_site
    }
}

/// The word for a reason in the ledger.
pub fn reason_name(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Age => "age",
        DropReason::Quota => "quota",
        DropReason::DiskFull => "disk_full",
        DropReason::Damaged => "damaged",
    }
}

impl Account {
    pub fn heard(&mut self, head: Head, wall_ms: i64) {
        self.head.head = self.head.head.max(head.head);
        self.head.settled = self.head.settled.max(head.settled);
        if self.settles.is_none() && head.settled > self.settled {
            self.settles = Some((head.settled, head.head));
        }
        self.head.wall_ms = head.wall_ms;
        self.clock_ahead_ms = head.wall_ms.saturating_sub(wall_ms);
    }

    /// All results up to here have come.
    pub fn settle(&mut self, results: u64) {
        if let Some((settled, _)) = self.settles.filter(|(_, needs)| needs.0 <= results) {
            (self.settled, self.settles) = (settled, None);
        }
    }

    /// A drop range is applied, once.
    pub fn dropped(&mut self, range: &DropRange) {
        *self.dropped.entry(reason_name(range.reason).to_owned()).or_default() += range.records;
    }

    /// The line of a life of which these numbers are covered, by track, and `delivered` records came.
    pub fn line(&self, covered: [&RangeSet; 2], delivered: u64) -> Line {
        let head = self.head.head.0.max(covered[0].last()).max(covered[1].last());
        let both = covered[0].intersection(covered[1]).count();
        let open = head - both;
        // While one track is behind, what came of the other one lies beyond what is covered on both.
        let early = delivered.saturating_sub(both).min(open);
        let closed = both.saturating_sub(delivered);
        let aggregated = self.passed.min(closed);
        let left = closed - aggregated;
        let known: u64 = self.dropped.values().sum();
        let mut expired = BTreeMap::new();
        let mut spread = left.min(known);
        for (reason, records) in &self.dropped {
            let part = spread.min(*records);
            spread -= part;
            if part > 0 {
                expired.insert(reason.clone(), part);
            }
        }
        Line {
            records: head,
            delivered,
            aggregated,
            quarantined: self.quarantined,
            missing: left - left.min(known),
            at_site: open - early,
            expired,
        }
    }
}
