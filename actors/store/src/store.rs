//! The writer.

use std::{
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use millpond_core::{
    disk::BlockDevice,
    ids::{Incarnation, Origin, Seq},
    record::DropRange,
};
use redb::{Database, Durability, ReadableDatabase, TableError, WriteTransaction};

use crate::{
    commit::{Commit, CommitError, Committed, Shed},
    device::{Backend, OpenDevice, Watch},
    fault::Fault,
    layout::Author,
    options::Options,
    reader::Reader,
    salvage,
    tables::{SCHEMA_VERSION, STORE, names},
    transaction::{self, Identity},
    usage::Usage,
};

/// The one writer of a file. Dropping it closes the file; readers then get [`ReadError::Closed`](crate::ReadError).
///
/// After a failure of the device the store opens it again by itself and undoes what was not committed. Reads that were
/// under way end with an error; a [`Reader`] works again with its next call.
pub struct Store {
    shared: Arc<Shared>,
    open: OpenDevice,
    options: Options,
    identity: Identity,
    usage: Usage,
    /// How often this process reopened the file after a failure.
    reopened: u32,
    ballast: bool,
    health: Health,
}

#[derive(Debug)]
enum Health {
    Good,
    /// The database is closed.
    Closed(String),
    Corrupt(String),
}

/// What writer and readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub db: RwLock<Option<Database>>,
    pub watch: Arc<Watch>,
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
}

/// The store is not open. The file is as it was unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store's file cannot be opened")]
    Device(#[source] io::Error),
    /// There is no room for the few pages that opening writes, not even after the store gave up what it holds back.
    #[error("the disk is full: the store needs about 100 kB to open")]
    Full(#[source] io::Error),
    #[error("the store's file is damaged ({detail}); `millpond journal repair` saves what can be read")]
    Corrupt { detail: String },
    #[error("the store was written by a newer Millpond (schema {found}, this one knows {known})")]
    TooNew { found: u32, known: u32 },
}

impl Store {
    /// Opens the file, or founds a store of the origin `fresh` in an empty one. The identity and this opening are
    /// durable when it returns.
    pub fn open(open: OpenDevice, options: Options, fresh: Origin) -> Result<(Store, Opened), OpenError> {
        let device = open().map_err(OpenError::Device)?;
        salvage::clear_unfinished(device.as_ref()).map_err(OpenError::Device)?;
        let watch = Arc::new(Watch::default());
        let (db, repaired) = open_database(device, watch.clone(), &options).map_err(open_error)?;
        let found = load(&db, &watch).map_err(open_error)?;
        if let Some(Found { schema, .. }) = found
            && schema > SCHEMA_VERSION
        {
            return Err(OpenError::TooNew { found: schema, known: SCHEMA_VERSION });
        }
        let created = found.is_none();
        let found = found.unwrap_or_else(|| Found::fresh(fresh));
        let shared = Arc::new(Shared { db: RwLock::new(Some(db)), watch });
        let Found { mut identity, usage, ballast, .. } = found;
        identity.boots += 1;
        let health = Health::Good;
        let mut store = Store { shared, open, options, identity, usage, reopened: 0, ballast, health };
        store.announce(created)?;
        let (origin, incarnation, next_seq) = (identity.origin, identity.incarnation, store.usage.next_seq);
        Ok((store, Opened { origin, incarnation, next_seq, created, repaired }))
    }

    /// A reader of this store; clones are cheap.
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// The state after the last commit.
    pub fn usage(&self) -> Usage {
        Usage { file_bytes: self.shared.watch.len(), ..self.usage }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Makes all of `commit` durable, or nothing of it. See [`CommitError`] for what each failure leaves.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed, CommitError> {
        transaction::check(commit).map_err(|detail| CommitError::Refused { detail })?;
        self.recover()?;
        let Some(shed) = &commit.shed else {
            return self.write(commit).map_err(|fault| self.commit_error(fault, Vec::new()));
        };
        self.shared.watch.keep_len(true);
        // What was given up before has left room in the file; nothing more goes while that lasts.
        if shed.only_when_full {
            match self.write(commit) {
                Err(Fault::Full(_)) => {}
                result => {
                    self.shared.watch.keep_len(false);
                    return result.map_err(|fault| self.commit_error(fault, Vec::new()));
                }
            }
        }
        let shed = self.make_room(commit, shed);
        let result = match &shed {
            Ok(_) => self.write(commit),
            Err(_) => Err(Fault::Closed),
        };
        self.shared.watch.keep_len(false);
        let shed = shed?;
        let result = match result {
            Err(Fault::Full(_)) => self.write(commit),
            other => other,
        };
        match result {
            Ok(mut committed) => {
                committed.dropped.splice(0..0, shed);
                Ok(committed)
            }
            Err(fault) => Err(self.commit_error(fault, shed)),
        }
    }

    fn write(&mut self, commit: &Commit) -> Result<Committed, Fault> {
        let (author, limits) = (self.author(commit.now_ms), self.options.dead_letters);
        self.run(|txn, usage| transaction::write(txn, usage, author, commit, limits))
    }

    /// Gives up values for a full disk, in a transaction of its own; when even that finds no room, the ballast goes.
    ///
    /// Closing the database before and after cuts the free end off the file, holes and all: what is free then has its space
    /// on the disk.
    fn make_room(&mut self, commit: &Commit, shed: &Shed) -> Result<Vec<DropRange>, CommitError> {
        self.reopen();
        self.recover()?;
        let before = self.usage.journal_bytes();
        let mut result = self.shed_once(commit, shed);
        if let Err(Fault::Full(_)) = result {
            // There may be room on the disk after all, only none in the file.
            self.shared.watch.keep_len(false);
            result = self.shed_once(commit, shed);
            self.shared.watch.keep_len(true);
        }
        if let Err(Fault::Full(_)) = result
            && self.ballast
        {
            self.reopen();
            if self.drop_ballast().is_ok() {
                result = self.shed_once(commit, shed);
            }
        }
        self.reopen();
        self.recover()?;
        self.reopen();
        self.recover()?;
        let dropped = result.map_err(|fault| self.commit_error(fault, Vec::new()))?;
        let freed = before.saturating_sub(self.usage.journal_bytes());
        if !self.ballast && freed >= 2 * self.options.ballast_bytes as u64 {
            let options = self.options;
            // Without success the next shedding tries again.
            self.ballast = self.run(|txn, _| transaction::set_ballast(txn, &options, true)).is_ok();
            self.recover()?;
        }
        Ok(dropped)
    }

    fn shed_once(&mut self, commit: &Commit, shed: &Shed) -> Result<Vec<DropRange>, Fault> {
        let author = self.author(commit.now_ms);
        self.run(|txn, usage| transaction::shed(txn, usage, author, commit, shed))
    }

    fn drop_ballast(&mut self) -> Result<(), Fault> {
        let options = self.options;
        self.run(|txn, _| transaction::set_ballast(txn, &options, false))?;
        self.ballast = false;
        Ok(())
    }

    /// Writes identity and opening before anything else may happen.
    fn announce(&mut self, created: bool) -> Result<(), OpenError> {
        let (identity, options) = (self.identity, self.options);
        let body = |txn: &WriteTransaction, usage: &mut Usage| {
            if created {
                transaction::found(txn, identity, usage)?;
                return transaction::set_ballast(txn, &options, true);
            }
            txn.open_table(STORE)?.insert(names::IDENTITY, identity.encode().as_slice())?;
            Ok(())
        };
        let mut result = self.run(body);
        if let Err(Fault::Full(_)) = result
            && self.ballast
            && self.drop_ballast().is_ok()
        {
            result = self.run(body);
        }
        self.ballast |= created;
        result.map_err(open_error)
    }

    /// Runs one durable transaction. On failure the database is open again as it was before, or `health` says not.
    fn run<T>(&mut self, body: impl FnOnce(&WriteTransaction, &mut Usage) -> Result<T, Fault>) -> Result<T, Fault> {
        if let Health::Closed(detail) = &self.health {
            return Err(Fault::Io(io::Error::other(detail.clone())));
        }
        let mut usage = self.usage;
        usage.commits += 1;
        self.shared.watch.take_full();
        let mut done = None;
        let result = self.transact(&mut usage, body, &mut done);
        let Err(fault) = result else {
            self.usage = usage;
            return done.ok_or_else(|| Fault::corrupt("a transaction ended without a result"));
        };
        if let Fault::Corrupt(detail) = &fault {
            self.health = Health::Corrupt(detail.clone());
            return Err(fault);
        }
        let full = self.shared.watch.take_full();
        self.reopen();
        match done {
            // The failure came after the transaction was durable.
            Some(value) if self.usage.commits == usage.commits => Ok(value),
            _ => Err(match fault {
                Fault::Io(error) if full => Fault::Full(io::Error::new(io::ErrorKind::StorageFull, error)),
                other => other,
            }),
        }
    }

    fn transact<T>(
        &self,
        usage: &mut Usage,
        body: impl FnOnce(&WriteTransaction, &mut Usage) -> Result<T, Fault>,
        done: &mut Option<T>,
    ) -> Result<(), Fault> {
        let mut txn = {
            let db = self.shared.db.read().unwrap_or_else(PoisonError::into_inner);
            db.as_ref().ok_or(Fault::Closed)?.begin_write()?
        };
        txn.set_durability(Durability::Immediate)?;
        txn.set_quick_repair(self.shared.watch.len() > self.options.quick_repair_above);
        let value = body(&txn, usage)?;
        txn.open_table(STORE)?.insert(names::USAGE, usage.encode().as_slice())?;
        *done = Some(value);
        txn.commit()?;
        Ok(())
    }

    /// Closes the database and opens it again at the last good commit.
    fn reopen(&mut self) {
        let mut db = self.shared.db.write().unwrap_or_else(PoisonError::into_inner);
        drop(db.take());
        self.reopened += 1;
        let again = || {
            let device = (self.open)().map_err(Fault::io)?;
            let (db, _) = open_database(device, self.shared.watch.clone(), &self.options)?;
            // In a file that was never founded there is nothing to load.
            let found = load(&db, &self.shared.watch)?;
            Ok((db, found))
        };
        match again() {
            Ok((reopened, found)) => {
                *db = Some(reopened);
                if let Some(found) = found {
                    (self.usage, self.ballast) = (found.usage, found.ballast);
                }
                self.health = Health::Good;
            }
            Err(Fault::Corrupt(detail)) => self.health = Health::Corrupt(detail),
            Err(fault) => self.health = Health::Closed(fault.detail()),
        }
    }

    /// Makes the store usable after an earlier failure, if it can be.
    fn recover(&mut self) -> Result<(), CommitError> {
        if matches!(self.health, Health::Closed(_)) {
            self.reopen();
        }
        match &self.health {
            Health::Good => Ok(()),
            Health::Closed(detail) => Err(CommitError::Unusable { detail: detail.clone() }),
            Health::Corrupt(detail) => Err(CommitError::Corrupt { detail: detail.clone() }),
        }
    }

    fn commit_error(&self, fault: Fault, shed: Vec<DropRange>) -> CommitError {
        match (&self.health, fault) {
            (Health::Corrupt(detail), _) => CommitError::Corrupt { detail: detail.clone() },
            (Health::Closed(detail), _) => CommitError::Unusable { detail: detail.clone() },
            (Health::Good, Fault::Full(source)) => CommitError::Full { shed, source },
            (Health::Good, Fault::Io(source)) => CommitError::Io { shed, source },
            (Health::Good, other) => CommitError::Io { shed, source: io::Error::other(other.detail()) },
        }
    }

    fn author(&self, written_ms: i64) -> Author {
        let Identity { origin, incarnation, boots } = self.identity;
        // Ten bits for reopenings: past a thousand of them in one run of the process the last are not told apart.
        let opening = (boots << 10) | self.reopened.min(1023);
        Author { origin, incarnation, opening, written_ms }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.db.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("identity", &self.identity).field("health", &self.health).finish_non_exhaustive()
    }
}

/// What a file says of itself.
pub(crate) struct Found {
    pub schema: u32,
    pub identity: Identity,
    pub usage: Usage,
    pub ballast: bool,
}

impl Found {
    fn fresh(origin: Origin) -> Found {
        let identity = Identity { origin, incarnation: Incarnation(1), boots: 0 };
        Found { schema: SCHEMA_VERSION, identity, usage: transaction::empty_usage(), ballast: false }
    }
}

/// Opens the database on a device. The second value says whether redb had to read the whole file.
pub(crate) fn open_database(
    device: Box<dyn BlockDevice>,
    watch: Arc<Watch>,
    options: &Options,
) -> Result<(Database, bool), Fault> {
    let backend = Backend::attach(device, watch).map_err(Fault::io)?;
    let repaired = Arc::new(AtomicBool::new(false));
    let flag = repaired.clone();
    let db = Database::builder()
        .set_cache_size(options.cache_bytes)
        .set_repair_callback(move |_| flag.store(true, Ordering::Release))
        .create_with_backend(backend)?;
    Ok((db, repaired.load(Ordering::Acquire)))
}

/// Reads the rows of the table `store`; `None` when the file was never founded. With a newer schema only the version is
/// right, the rest is left empty.
pub(crate) fn load(db: &Database, watch: &Watch) -> Result<Option<Found>, Fault> {
    let txn = db.begin_read()?;
    let store = match txn.open_table(STORE) {
        Ok(store) => store,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let row = |name: &'static str| -> Result<Vec<u8>, Fault> {
        let row = store.get(name)?.ok_or_else(|| Fault::corrupt(format!("the row `{name}` is missing")))?;
        Ok(row.value().to_vec())
    };
    let schema = row(names::SCHEMA)?;
    let schema =
        schema.try_into().map(u32::from_le_bytes).map_err(|_| Fault::corrupt("the schema version is damaged"))?;
    if schema > SCHEMA_VERSION {
        return Ok(Some(Found { schema, ..Found::fresh(Origin::default()) }));
    }
    let identity = Identity::decode(&row(names::IDENTITY)?)?;
    let usage = Usage::decode(&row(names::USAGE)?, watch.len())?;
    let ballast = store.get(names::BALLAST)?.is_some();
    Ok(Some(Found { schema, identity, usage, ballast }))
}

fn open_error(fault: Fault) -> OpenError {
    match fault {
        Fault::Full(error) => OpenError::Full(error),
        Fault::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            OpenError::Corrupt { detail: error.to_string() }
        }
        Fault::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            OpenError::Corrupt { detail: "the file is shorter than what it holds".to_owned() }
        }
        Fault::Io(error) => OpenError::Device(error),
        Fault::Corrupt(detail) => OpenError::Corrupt { detail },
        Fault::Closed => OpenError::Device(io::Error::other("the store was closed")),
    }
}
