//! What goes into the store in one durable transaction, and what comes back.

use std::io;

use bytes::Bytes;
use millpond_core::{
    ids::Seq,
    record::{Class, DropRange, Hlc, RecordKind},
    time::Timestamp,
};

use crate::tables::Table;

/// All or nothing: records, state, dead letters and what may be deleted, made durable together.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Appended in this order with consecutive sequence numbers.
    pub records: Vec<Append>,
    /// Applied in this order; a later one of the same key wins.
    pub puts: Vec<Put>,
    /// Rejected input, encoded by the caller. Each gets the next id.
    pub dead_letters: Vec<Bytes>,
    /// Ids of dead letters to delete. Those that are not there are passed over.
    pub forget_dead_letters: Vec<u64>,
    /// What to delete for age and quota. `None` deletes nothing.
    pub retain: Option<Retention>,
    /// What to give up first because the disk is full.
    pub shed: Option<Shed>,
    /// The node's wall clock in milliseconds since 1970, by which ages are judged.
    pub now_ms: i64,
}

/// One record to append.
#[derive(Clone, Debug)]
pub struct Append {
    pub kind: RecordKind,
    pub hlc: Hlc,
    /// Events in the payload; 0 for kinds that hold none.
    pub rows: u32,
    /// Event time of what the payload holds, both inclusive. `min_time > max_time` stands for "no time at all": such a
    /// record is found by no query by time.
    pub min_time: Timestamp,
    pub max_time: Timestamp,
    /// Hashes of the devices in the payload, repeats allowed. Empty means not known: any query may look inside.
    pub devices: Vec<u64>,
    pub payload: Bytes,
}

/// Sets or deletes one entry of a state table.
#[derive(Clone, Debug)]
pub struct Put {
    pub table: Table,
    /// 1 to 1,024 bytes.
    pub key: Vec<u8>,
    /// `None` deletes. Any size: what does not fit one value is split inside.
    pub value: Option<Bytes>,
}

/// Bounds of each class, indexed by `Class as usize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub rules: [RetentionRule; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// Bytes of journal values the class may use. A full class is cut a 256th below it, so that receipts stay rare.
    pub max_bytes: u64,
    /// Shedding for a full disk leaves the class at least this.
    pub floor_bytes: u64,
    /// Values older than this, in milliseconds since they were written, go.
    pub max_age_ms: i64,
}

impl Default for RetentionRule {
    fn default() -> RetentionRule {
        RetentionRule { max_bytes: u64::MAX, floor_bytes: 0, max_age_ms: i64::MAX }
    }
}

/// Gives up the oldest values of a class after the other until so many bytes are free inside the file.
///
/// It happens in a transaction of its own before the rest of the commit: pages become free only with a commit, and
/// it must need as little room as possible. The file is closed and opened around it to cut off its free end, so reads that
/// are under way end with [`ReadError::Closed`](crate::ReadError) and are to be called again. What is given up leaves a receipt with the reason `DiskFull` even when the
/// rest of the commit fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    /// Bytes of journal values to give up.
    pub bytes: u64,
    /// Classes in the order in which they give way, each down to its floor in [`Commit::retain`].
    pub order: Vec<Class>,
    /// Nothing goes while the commit finds room in the file as it is; the file does not grow for it.
    pub only_when_full: bool,
}

impl Shed {
    pub fn new(bytes: u64) -> Shed {
        Shed { bytes, order: vec![Class::Raw, Class::Pane, Class::State, Class::Alert], only_when_full: false }
    }

    /// Gives something up only when the commit finds no room in the file.
    pub fn when_full(bytes: u64) -> Shed {
        Shed { only_when_full: true, ..Shed::new(bytes) }
    }
}

/// The transaction is on stable storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Sequence number of the first of [`Commit::records`]; the others follow without gaps. With no records: the
    /// number the next record will get.
    pub first: Seq,
    /// Records of the commit, without receipts.
    pub records: u64,
    /// Bytes of journal values written, with headers and receipts.
    pub bytes: u64,
    /// Id of the first of [`Commit::dead_letters`]; the others follow.
    pub first_dead_letter: u64,
    /// Receipts that this commit and its shedding wrote.
    pub dropped: Vec<DropRange>,
    /// Dead letters that were pushed out by newer ones.
    pub dead_letters_dropped: u64,
}

/// Nothing of the commit is in the store, now or after a crash. What it leaves:
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// No space left. The store is usable; `shed` holds the receipts of what was given up before, if any.
    #[error("the disk is full; nothing of the commit was stored")]
    Full {
        shed: Vec<DropRange>,
        #[source]
        source: io::Error,
    },
    /// The device failed. The store reopened it and is usable.
    #[error("the disk failed; nothing of the commit was stored")]
    Io {
        shed: Vec<DropRange>,
        #[source]
        source: io::Error,
    },
    /// The file is damaged. Nothing more is accepted; what is readable stays readable. Repair the file.
    #[error("the store is damaged: {detail}")]
    Corrupt { detail: String },
    /// The device failed and could not be opened again. Every later commit tries again before anything else. Whether
    /// this commit is in the store is not known until one of them returns or the store is opened anew.
    #[error("the store could not be reopened after a failure: {detail}")]
    Unusable { detail: String },
    /// The commit breaks a bound. The store is as it was.
    #[error("the commit is refused: {detail}")]
    Refused { detail: String },
}
