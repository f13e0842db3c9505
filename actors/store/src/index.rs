//! What is known of each value without reading it: one row per value of the journal, for queries by time and device
//! and for retention.
//!
//! ```text
//!  0  8  first event time, ns         40  8  last sequence number
//!  8  8  last event time, ns          48  1  filter: 0 none, every device may be inside; 1 here; 2 in table `bloom`
//! 16  8  written at, ms               49  …  filter, at most 32 bytes
//! 24  8  events
//! 32  4  records
//! 36  4  bytes of the value
//! ```

use millpond_core::{ids::Seq, time::Timestamp};

use crate::{
    fault::Fault,
    layout::{u32_at, u64_at},
};

const FIXED: usize = 49;
const INLINE_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexRow {
    pub min_time: Timestamp,
    pub max_time: Timestamp,
    pub written_ms: i64,
    pub events: u64,
    pub records: u32,
    pub bytes: u32,
    pub last: Seq,
    pub filter: Filter,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    None,
    Inline(Vec<u8>),
    /// In the table `bloom` under the same sequence number.
    Apart,
}

impl IndexRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + INLINE_MAX);
        out.extend_from_slice(&self.min_time.0.to_le_bytes());
        out.extend_from_slice(&self.max_time.0.to_le_bytes());
        out.extend_from_slice(&self.written_ms.to_le_bytes());
        out.extend_from_slice(&self.events.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.last.0.to_le_bytes());
        match &self.filter {
            Filter::None => out.push(0),
            Filter::Inline(filter) => {
                out.push(1);
                out.extend_from_slice(filter);
            }
            Filter::Apart => out.push(2),
        }
        out
    }

    pub fn decode(row: &[u8]) -> Result<IndexRow, Fault> {
        if row.len() < FIXED || row.len() > FIXED + INLINE_MAX {
            return Err(Fault::corrupt(format!("a row of the index has {} bytes", row.len())));
        }
        Ok(IndexRow {
            min_time: Timestamp(u64_at(row, 0) as i64),
            max_time: Timestamp(u64_at(row, 8) as i64),
            written_ms: u64_at(row, 16) as i64,
            events: u64_at(row, 24),
            records: u32_at(row, 32),
            bytes: u32_at(row, 36),
            last: Seq(u64_at(row, 40)),
            filter: match row[48] {
                0 => Filter::None,
                1 => Filter::Inline(row[FIXED..].to_vec()),
                2 => Filter::Apart,
                other => return Err(Fault::corrupt(format!("a row of the index has a filter of kind {other}"))),
            },
        })
    }

    /// Where a filter of this size is kept.
    pub fn fits_inline(filter: &[u8]) -> bool {
        filter.len() <= INLINE_MAX
    }

    /// Whether events of `start..end` (half open) may be inside.
    pub fn overlaps(&self, start: Timestamp, end: Timestamp) -> bool {
        self.min_time <= self.max_time && self.min_time < end && self.max_time >= start
    }
}
