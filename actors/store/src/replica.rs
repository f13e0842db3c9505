//! The writer of a copy of another node's journal.
//!
//! A copy is a file of its own for each (origin, incarnation), with the tables and values of a journal. Its records come
//! in runs, in any order and more than once: what is covered already is left out, so that no record is there twice, and
//! a value never reaches across the end of a run, so that the values of a class never interleave.

use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    record::{DropRange, Track},
};

use crate::{
    commit::{Append, CommitError, Put, Retention, Shed},
    device::OpenDevice,
    file::{File, Found, OpenError, OpenedFile},
    held::Held,
    options::Options,
    reader::Reader,
    store::Opened,
    usage::Usage,
};

mod write;

/// The one writer of a copy. It behaves like a [`Store`](crate::Store) when the device fails.
#[derive(Debug)]
pub struct Replica {
    file: File,
}

/// All or nothing, like a [`Commit`](crate::Commit).
#[derive(Clone, Debug, Default)]
pub struct ReplicaCommit {
    /// In any order; of what they say twice, or what is held already, nothing is stored again.
    pub runs: Vec<ReplicaRun>,
    /// State of the origin. Applied in this order; a later one of the same key wins.
    pub puts: Vec<Put>,
    /// What to delete for age and quota, oldest first. Ages count from when a record was copied.
    pub retain: Option<Retention>,
    /// Records from here on are not deleted by [`retain`](Self::retain).
    pub keep_from: Option<Seq>,
    /// What to give up first because the disk is full.
    pub shed: Option<Shed>,
    /// This node's wall clock in milliseconds since 1970.
    pub now_ms: i64,
}

/// All records of a track from `first` to `last`, both inclusive, that their origin still has.
#[derive(Clone, Debug)]
pub struct ReplicaRun {
    pub track: Track,
    pub first: Seq,
    pub last: Seq,
    /// In the order of their numbers, of which some may be missing. Unknown devices are looked up in the blocks.
    pub records: Vec<(Seq, Append)>,
}

/// The transaction is on stable storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaCommitted {
    /// Ranges that are covered now and were not before: track, first, last.
    pub covered: Vec<(Track, Seq, Seq)>,
    /// Records stored.
    pub records: u64,
    /// Bytes of journal values written, with headers.
    pub bytes: u64,
    /// What retention and shedding gave up. Only counted: a copy has no numbers for receipts of its own.
    pub dropped: Vec<DropRange>,
}

impl Replica {
    /// Opens the copy of a journal, or founds an empty one in an empty file.
    ///
    /// # Errors
    /// As for a store, and [`OpenError::Foreign`] when the file holds another journal than this one.
    pub fn open(
        open: OpenDevice,
        options: Options,
        origin: Origin,
        incarnation: Incarnation,
    ) -> Result<(Replica, Opened), OpenError> {
        let fresh = Found::fresh(origin, incarnation, Some(Held::default()));
        let accept = |found: &Found| {
            let theirs = found.identity;
            if found.state.held.is_some() && (theirs.origin, theirs.incarnation) == (origin, incarnation) {
                return Ok(());
            }
            let what = if found.state.held.is_some() { "a copy of" } else { "" };
            let detail = format!("{what} the journal of {}, incarnation {}", theirs.origin, theirs.incarnation.0);
            Err(OpenError::Foreign { detail: detail.trim_start().to_owned() })
        };
        let (file, OpenedFile { created, repaired }) = File::open(open, options, fresh, accept)?;
        let (next_seq, boots) = (file.state.usage.next_seq, file.identity.boots);
        Ok((Replica { file }, Opened { origin, incarnation, next_seq, created, repaired, boots }))
    }

    /// A reader of the copy; clones are cheap.
    pub fn reader(&self) -> Reader {
        self.file.reader()
    }

    /// What is covered after the last commit.
    ///
    /// # Panics
    /// Never: only copies are opened.
    pub fn held(&self) -> &Held {
        self.file.state.held.as_ref().expect("a file without it is not opened as a copy")
    }

    /// The state after the last commit. The next number is the one behind everything that is covered.
    pub fn usage(&self) -> Usage {
        self.file.usage()
    }

    /// Makes all of `commit` durable, or nothing of it. See [`CommitError`] for what each failure leaves.
    pub fn commit(&mut self, commit: &ReplicaCommit) -> Result<ReplicaCommitted, CommitError> {
        write::check(commit).map_err(|detail| CommitError::Refused { detail })?;
        let (mut committed, shed) = self.file.commit(
            commit.shed.as_ref(),
            |txn, state, _| write::shed(txn, state, commit),
            |txn, state, author| write::write(txn, state, author, commit),
            commit.now_ms,
        )?;
        committed.dropped.splice(0..0, shed);
        Ok(committed)
    }
}
