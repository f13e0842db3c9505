//! What the store holds, in one row that every commit keeps up to date.

use millpond_core::{
    ids::Seq,
    record::{Class, DropReason},
};

use crate::{fault::Fault, layout::u64_at};

/// The state of the store at a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Length of the file; it may have holes and free pages inside.
    pub file_bytes: u64,
    /// Commits since the file was created.
    pub commits: u64,
    /// What the next record will get.
    pub next_seq: Seq,
    /// Indexed by `Class as usize`.
    pub classes: [ClassUsage; 4],
    pub dead_letters: DeadLetterUsage,
}

impl Usage {
    pub fn class(&self, class: Class) -> &ClassUsage {
        &self.classes[class as usize]
    }

    pub(crate) fn class_mut(&mut self, class: Class) -> &mut ClassUsage {
        &mut self.classes[class as usize]
    }

    /// Bytes of journal values in all classes.
    pub fn journal_bytes(&self) -> u64 {
        self.classes.iter().map(|class| class.bytes).sum()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassUsage {
    pub values: u64,
    pub records: u64,
    pub events: u64,
    /// Bytes of values, with headers.
    pub bytes: u64,
    /// First and last record that are there; both 0 when none is.
    pub first_seq: Seq,
    pub last_seq: Seq,
    /// When the oldest and the newest value were written, in ms since 1970; both 0 when there is none.
    pub oldest_ms: i64,
    pub newest_ms: i64,
    /// What was ever given up, by reason (`DropReason as usize`).
    pub dropped: [Dropped; 4],
}

impl ClassUsage {
    pub fn dropped_for(&self, reason: DropReason) -> Dropped {
        self.dropped[reason as usize]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub records: u64,
    pub events: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterUsage {
    pub count: u64,
    pub bytes: u64,
    /// What the next dead letter will get; ids start at 1.
    pub next_id: u64,
    /// Pushed out by newer ones, ever.
    pub dropped: u64,
    pub dropped_bytes: u64,
    /// Every id up to this one is gone.
    pub dropped_through: u64,
}

/// ```text
/// u64 each, little-endian: commits, next sequence number, the six numbers of dead letters,
/// then per class: values, records, events, bytes, first, last, oldest, newest, 4 × (records, events) dropped;
/// and the CRC32 (u32) of all that.
/// ```
const NUMBERS: usize = 8 + 4 * 16;

impl Usage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let dead = &self.dead_letters;
        let mut numbers = vec![self.commits, self.next_seq.0];
        numbers.extend([dead.count, dead.bytes, dead.next_id, dead.dropped, dead.dropped_bytes, dead.dropped_through]);
        for class in &self.classes {
            numbers.extend([class.values, class.records, class.events, class.bytes, class.first_seq.0]);
            numbers.extend([class.last_seq.0, class.oldest_ms as u64, class.newest_ms as u64]);
            numbers.extend(class.dropped.iter().flat_map(|dropped| [dropped.records, dropped.events]));
        }
        debug_assert_eq!(numbers.len(), NUMBERS);
        let mut out: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(row: &[u8], file_bytes: u64) -> Result<Usage, Fault> {
        let damaged = || Fault::corrupt("the row that counts what the store holds is damaged");
        let (numbers, crc) = row.split_at_checked(NUMBERS * 8).ok_or_else(damaged)?;
        if crc32fast::hash(numbers).to_le_bytes() != *crc {
            return Err(damaged());
        }
        let mut at = 0;
        let mut next = || {
            at += 8;
            u64_at(numbers, at - 8)
        };
        let mut usage = Usage { file_bytes, commits: next(), next_seq: Seq(next()), ..Usage::default() };
        usage.dead_letters = DeadLetterUsage {
            count: next(),
            bytes: next(),
            next_id: next(),
            dropped: next(),
            dropped_bytes: next(),
            dropped_through: next(),
        };
        for class in &mut usage.classes {
            *class = ClassUsage {
                values: next(),
                records: next(),
                events: next(),
                bytes: next(),
                first_seq: Seq(next()),
                last_seq: Seq(next()),
                oldest_ms: next() as i64,
                newest_ms: next() as i64,
                dropped: std::array::from_fn(|_| Dropped { records: next(), events: next() }),
            };
        }
        Ok(usage)
    }
}
