//! The writer of a node's own journal.

use millpond_core::ids::{Incarnation, Origin, Seq};

use crate::{
    commit::{Commit, CommitError, Committed},
    device::OpenDevice,
    file::{File, Found, OpenError, OpenedFile},
    options::Options,
    reader::Reader,
    transaction,
    usage::Usage,
};

/// The one writer of a file. Dropping it closes the file; readers then get [`ReadError::Closed`](crate::ReadError).
///
/// After a failure of the device the store opens it again by itself and undoes what was not committed. Reads that were
/// under way end with an error; a [`Reader`] works again with its next call.
#[derive(Debug)]
pub struct Store {
    file: File,
}

/// What was found in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub next_seq: Seq,
    /// The file was new; the identity is durable by now.
    pub created: bool,
    /// The file had not been closed cleanly and was read through.
    pub repaired: bool,
    /// How often the file was opened by a process; raised durably by this opening.
    pub boots: u32,
}

impl Store {
    /// Opens the file, or founds a store of the origin `fresh` in an empty one. The identity and this opening are
    /// durable when it returns.
    ///
    /// A copy of another node's journal can be opened for reading; it refuses every commit.
    pub fn open(open: OpenDevice, options: Options, fresh: Origin) -> Result<(Store, Opened), OpenError> {
        let fresh = Found::fresh(fresh, options.fresh_incarnation, None);
        let (file, OpenedFile { created, repaired }) = File::open(open, options, fresh, |_| Ok(()))?;
        let (origin, incarnation) = (file.identity.origin, file.identity.incarnation);
        let (next_seq, boots) = (file.state.usage.next_seq, file.identity.boots);
        Ok((Store { file }, Opened { origin, incarnation, next_seq, created, repaired, boots }))
    }

    /// A reader of this store; clones are cheap.
    pub fn reader(&self) -> Reader {
        self.file.reader()
    }

    /// The state after the last commit.
    pub fn usage(&self) -> Usage {
        self.file.usage()
    }

    pub fn options(&self) -> &Options {
        &self.file.options
    }

    /// Makes all of `commit` durable, or nothing of it. See [`CommitError`] for what each failure leaves.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed, CommitError> {
        transaction::check(commit).map_err(|detail| CommitError::Refused { detail })?;
        if self.file.state.held.is_some() {
            let detail = "this is a copy of another node's journal".into();
            return Err(CommitError::Refused { detail });
        }
        let limits = self.file.options.dead_letters;
        let (mut committed, shed) = self.file.commit(
            commit.shed.as_ref(),
            |txn, state, author| match &commit.shed {
                Some(shed) => transaction::shed(txn, &mut state.usage, author, commit, shed),
                None => Ok(Vec::new()),
            },
            |txn, state, author| transaction::write(txn, &mut state.usage, author, commit, limits),
            commit.now_ms,
        )?;
        committed.dropped.splice(0..0, shed);
        Ok(committed)
    }
}
