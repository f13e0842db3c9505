//! The open file under a store or a replica: durable transactions, and what happens when the device fails.

use std::{
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use millpond_core::{
    disk::BlockDevice,
    ids::{Incarnation, Origin},
    record::DropRange,
};
use redb::{Database, Durability, ReadableDatabase, TableError, WriteTransaction};

use crate::{
    commit::{CommitError, Shed},
    device::{Backend, OpenDevice, Watch},
    fault::Fault,
    held::Held,
    layout::Author,
    options::Options,
    reader::Reader,
    salvage,
    tables::{SCHEMA_VERSION, STORE, names},
    transaction::{self, Identity},
    usage::Usage,
};

/// A file of which this process is the one writer. Dropping it closes the file.
pub(crate) struct File {
    shared: Arc<Shared>,
    open: OpenDevice,
    pub options: Options,
    pub identity: Identity,
    pub state: State,
    /// How often this process reopened the file after a failure.
    reopened: u32,
    ballast: bool,
    health: Health,
}

/// What every transaction keeps up to date. It is loaded again when one fails.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub usage: Usage,
    /// Of the copy of another node's journal; `None` in a journal of one's own.
    pub held: Option<Held>,
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
    /// It belongs to another journal than the one asked for.
    #[error("the file holds something else: {detail}")]
    Foreign { detail: String },
    #[error("the store was written by a newer Millpond (schema {found}, this one knows {known})")]
    TooNew { found: u32, known: u32 },
}

/// How a file was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenedFile {
    pub created: bool,
    pub repaired: bool,
}

impl File {
    /// Opens the file, or founds one with what `fresh` says. Identity and this opening are durable when it returns.
    /// `accept` refuses what somebody else founded.
    pub fn open(
        open: OpenDevice,
        options: Options,
        fresh: Found,
        accept: impl FnOnce(&Found) -> Result<(), OpenError>,
    ) -> Result<(File, OpenedFile), OpenError> {
        let device = open().map_err(OpenError::Device)?;
        salvage::clear_unfinished(device.as_ref()).map_err(OpenError::Device)?;
        let watch = Arc::new(Watch::default());
        let (db, repaired) = open_database(device, watch.clone(), &options).map_err(open_error)?;
        let found = load(&db, &watch).map_err(open_error)?;
        if let Some(found) = &found {
            if found.schema > SCHEMA_VERSION {
                return Err(OpenError::TooNew { found: found.schema, known: SCHEMA_VERSION });
            }
            accept(found)?;
        }
        let created = found.is_none();
        let Found { mut identity, state, ballast, .. } = found.unwrap_or(fresh);
        let shared = Arc::new(Shared { db: RwLock::new(Some(db)), watch });
        identity.boots += 1;
        let mut file = File { shared, open, options, identity, state, reopened: 0, ballast, health: Health::Good };
        file.announce(created)?;
        Ok((file, OpenedFile { created, repaired }))
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// The state after the last commit.
    pub fn usage(&self) -> Usage {
        Usage { file_bytes: self.shared.watch.len(), ..self.state.usage }
    }

    /// Runs `write` in a durable transaction, giving up what `shed` says when there is no room.
    ///
    /// `make_room` gives up values in a transaction of its own. `write` may be called again when it failed for want of room.
    /// Comes back with what was given up.
    pub fn commit<T>(
        &mut self,
        shed: Option<&Shed>,
        make_room: impl Fn(&WriteTransaction, &mut State, Author) -> Result<Vec<DropRange>, Fault>,
        write: impl Fn(&WriteTransaction, &mut State, Author) -> Result<T, Fault>,
        now_ms: i64,
    ) -> Result<(T, Vec<DropRange>), CommitError> {
        self.recover()?;
        let Some(shed) = shed else {
            let written = self.run(now_ms, &write).map_err(|fault| self.commit_error(fault, Vec::new()))?;
            return Ok((written, Vec::new()));
        };
        self.shared.watch.keep_len(true);
        // What was given up before has left room in the file; nothing more goes while that lasts.
        if shed.only_when_full {
            match self.run(now_ms, &write) {
                Err(Fault::Full(_)) => {}
                result => {
                    self.shared.watch.keep_len(false);
                    let written = result.map_err(|fault| self.commit_error(fault, Vec::new()))?;
                    return Ok((written, Vec::new()));
                }
            }
        }
        let shed = self.make_room(make_room, now_ms);
        let result = match &shed {
            Ok(_) => self.run(now_ms, &write),
            Err(_) => Err(Fault::Closed),
        };
        self.shared.watch.keep_len(false);
        let shed = shed?;
        let result = match result {
            Err(Fault::Full(_)) => self.run(now_ms, &write),
            other => other,
        };
        match result {
            Ok(written) => Ok((written, shed)),
            Err(fault) => Err(self.commit_error(fault, shed)),
        }
    }

    /// Gives up values for a full disk, in a transaction of its own; when even that finds no room, the ballast goes.
    ///
    /// Closing the database before and after cuts the free end off the file, holes and all: what is free then has its space
    /// on the disk.
    fn make_room(
        &mut self,
        shed: impl Fn(&WriteTransaction, &mut State, Author) -> Result<Vec<DropRange>, Fault>,
        now_ms: i64,
    ) -> Result<Vec<DropRange>, CommitError> {
        self.reopen();
        self.recover()?;
        let before = self.state.usage.journal_bytes();
        let mut result = self.run(now_ms, &shed);
        if let Err(Fault::Full(_)) = result {
            // There may be room on the disk after all, only none in the file.
            self.shared.watch.keep_len(false);
            result = self.run(now_ms, &shed);
            self.shared.watch.keep_len(true);
        }
        if let Err(Fault::Full(_)) = result
            && self.ballast
        {
            self.reopen();
            if self.drop_ballast().is_ok() {
                result = self.run(now_ms, &shed);
            }
        }
        self.reopen();
        self.recover()?;
        self.reopen();
        self.recover()?;
        let dropped = result.map_err(|fault| self.commit_error(fault, Vec::new()))?;
        let freed = before.saturating_sub(self.state.usage.journal_bytes());
        if !self.ballast && freed >= 2 * self.options.ballast_bytes as u64 {
            let options = self.options;
            // Without success the next shedding tries again.
            self.ballast = self.run(now_ms, |txn, _, _| transaction::set_ballast(txn, &options, true)).is_ok();
            self.recover()?;
        }
        Ok(dropped)
    }

    fn drop_ballast(&mut self) -> Result<(), Fault> {
        let options = self.options;
        self.run(0, |txn, _, _| transaction::set_ballast(txn, &options, false))?;
        self.ballast = false;
        Ok(())
    }

    /// Writes identity and opening before anything else may happen.
    fn announce(&mut self, created: bool) -> Result<(), OpenError> {
        let (identity, options) = (self.identity, self.options);
        let body = |txn: &WriteTransaction, state: &mut State, _: Author| {
            if created {
                transaction::found(txn, identity, state)?;
                return transaction::set_ballast(txn, &options, true);
            }
            transaction::state_tables(txn)?;
            txn.open_table(STORE)?.insert(names::IDENTITY, identity.encode().as_slice())?;
            Ok(())
        };
        let mut result = self.run(0, body);
        if let Err(Fault::Full(_)) = result
            && self.ballast
            && self.drop_ballast().is_ok()
        {
            result = self.run(0, body);
        }
        self.ballast |= created;
        result.map_err(open_error)
    }

    /// Runs one durable transaction. On failure the database is open again as it was before, or `health` says not.
    fn run<T>(
        &mut self,
        now_ms: i64,
        body: impl FnOnce(&WriteTransaction, &mut State, Author) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if let Health::Closed(detail) = &self.health {
            return Err(Fault::Io(io::Error::other(detail.clone())));
        }
        let author = self.author(now_ms);
        let mut state = self.state.clone();
        state.usage.commits += 1;
        self.shared.watch.take_full();
        let mut done = None;
        let result = self.transact(&mut state, |txn, state| body(txn, state, author), &mut done);
        let Err(fault) = result else {
            self.state = state;
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
            Some(value) if self.state.usage.commits == state.usage.commits => Ok(value),
            _ => Err(match fault {
                Fault::Io(error) if full => Fault::Full(io::Error::new(io::ErrorKind::StorageFull, error)),
                other => other,
            }),
        }
    }

    fn transact<T>(
        &self,
        state: &mut State,
        body: impl FnOnce(&WriteTransaction, &mut State) -> Result<T, Fault>,
        done: &mut Option<T>,
    ) -> Result<(), Fault> {
        let mut txn = {
            let db = self.shared.db.read().unwrap_or_else(PoisonError::into_inner);
            db.as_ref().ok_or(Fault::Closed)?.begin_write()?
        };
        txn.set_durability(Durability::Immediate)?;
        txn.set_quick_repair(self.shared.watch.len() > self.options.quick_repair_above);
        let value = body(&txn, state)?;
        txn.open_table(STORE)?.insert(names::USAGE, state.usage.encode().as_slice())?;
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
                    (self.state, self.ballast) = (found.state, found.ballast);
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

impl Drop for File {
    fn drop(&mut self) {
        self.shared.db.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("identity", &self.identity).field("health", &self.health).finish_non_exhaustive()
    }
}

/// What a file says of itself.
pub(crate) struct Found {
    pub schema: u32,
    pub identity: Identity,
    pub state: State,
    pub ballast: bool,
}

impl Found {
    /// Of a file that holds nothing yet.
    pub fn fresh(origin: Origin, incarnation: Incarnation, held: Option<Held>) -> Found {
        let identity = Identity { origin, incarnation, boots: 0 };
        let state = State { usage: transaction::empty_usage(), held };
        Found { schema: SCHEMA_VERSION, identity, state, ballast: false }
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
        return Ok(Some(Found { schema, ..Found::fresh(Origin::default(), Incarnation(1), None) }));
    }
    let identity = Identity::decode(&row(names::IDENTITY)?)?;
    let usage = Usage::decode(&row(names::USAGE)?, watch.len())?;
    let ballast = store.get(names::BALLAST)?.is_some();
    let held = Held::load(&txn, &store)?;
    Ok(Some(Found { schema, identity, state: State { usage, held }, ballast }))
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
