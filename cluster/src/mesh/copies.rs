//! The copies of other nodes' journals that are held here: one file and one worker each, so that they do not wait for each other's disk
//! more than the disk itself makes them.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    record::Track,
};
use millpond_env::{Env, Worker};
use millpond_proto::wire::{Checkpoint, Run};
use millpond_store::{
    Append, CommitError, OpenDevice, OpenError, Options, Put, Reader, Replica, ReplicaCommit, ReplicaCommitted,
    ReplicaRun, Retention, Table,
};

const FOLDER: &str = "replicas";
/// Pages of one copy that are kept in memory.
const CACHE_BYTES: usize = 2 << 20;

/// Whose journal, and in which life.
pub type Key = (Origin, Incarnation);

/// What a worker has to say.
#[derive(Debug)]
pub enum Done {
    Opened { key: Key, result: Result<Box<Open>, OpenError> },
    Stored { key: Key, result: Result<ReplicaCommitted, CommitError> },
}

/// A copy that can be read and written.
#[derive(Debug)]
pub struct Open {
    pub replica: Arc<Mutex<Replica>>,
    pub reader: Reader,
    /// Ranges that are held, per track.
    pub held: BTreeMap<Track, Vec<(u64, u64)>>,
}

pub struct Copies {
    env: Env,
    retention: Retention,
    tell: Arc<dyn Fn(Done) + Send + Sync>,
    all: BTreeMap<Key, Copy>,
}

struct Copy {
    worker: Box<dyn Worker>,
    open: Option<(Arc<Mutex<Replica>>, Reader)>,
    busy: bool,
    runs: Vec<Run>,
    puts: Vec<Put>,
    /// The newest checkpoint that came; it is stored once everything up to its cursor is held.
    checkpoint: Option<Checkpoint>,
}

impl Copies {
    pub fn new(env: Env, retention: Retention, tell: Arc<dyn Fn(Done) + Send + Sync>) -> Copies {
        Copies { env, retention, tell, all: BTreeMap::new() }
    }

    /// The copies that earlier lives left here.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn found(env: &Env) -> io::Result<Vec<Key>> {
        Ok(env.disk.list(FOLDER)?.iter().filter_map(|name| key_of(name)).collect())
    }

    /// Begins to open a copy, founding it when there is none; the outcome is told.
    pub fn open(&mut self, key: Key) {
        if self.all.contains_key(&key) {
            return;
        }
        let worker = self.env.blocking.worker("copy");
        let (disk, tell, path) = (self.env.disk.clone(), self.tell.clone(), path_of(key));
        worker.run(Box::new(move || {
            let device: OpenDevice = Box::new(move || disk.open(&path));
            let options = Options { cache_bytes: CACHE_BYTES, ..Options::default() };
            let result = Replica::open(device, options, key.0, key.1).map(|(replica, _)| {
                let held = |track| (track, replica.held().track(track).iter().collect());
                let held = Track::ALL.into_iter().map(held).collect();
                let reader = replica.reader();
                Box::new(Open { replica: Arc::new(Mutex::new(replica)), reader, held })
            });
            tell(Done::Opened { key, result });
        }));
        let (runs, puts) = (Vec::new(), Vec::new());
        self.all.insert(key, Copy { worker, open: None, busy: false, runs, puts, checkpoint: None });
    }

    /// It is open from now on.
    pub fn opened(&mut self, key: Key, open: &Open) {
        if let Some(copy) = self.all.get_mut(&key) {
            copy.open = Some((open.replica.clone(), open.reader.clone()));
        }
        self.work(key);
    }

    /// It could not be opened; what waited for it will be asked for again.
    pub fn failed(&mut self, key: Key) {
        self.all.remove(&key);
    }

    pub fn readers(&self) -> impl Iterator<Item = (Key, &Reader)> {
        self.all.iter().filter_map(|(key, copy)| copy.open.as_ref().map(|(_, reader)| (*key, reader)))
    }

    pub fn reader(&self, key: Key) -> Option<&Reader> {
        self.all.get(&key)?.open.as_ref().map(|(_, reader)| reader)
    }

    /// Stores a run; the outcome is told.
    pub fn keep(&mut self, run: Run) {
        let key = (run.origin, run.incarnation);
        self.open(key);
        if let Some(copy) = self.all.get_mut(&key) {
            copy.runs.push(run);
        }
        self.work(key);
    }

    /// A newer checkpoint of the origin.
    pub fn keep_checkpoint(&mut self, checkpoint: Checkpoint) {
        let key = (checkpoint.origin, checkpoint.incarnation);
        self.open(key);
        if let Some(copy) = self.all.get_mut(&key) {
            copy.checkpoint = Some(checkpoint);
        }
        self.work(key);
    }

    /// A commit is over, well or not.
    pub fn done(&mut self, key: Key) {
        if let Some(copy) = self.all.get_mut(&key) {
            copy.busy = false;
        }
        self.work(key);
    }

    fn work(&mut self, key: Key) {
        let Some(copy) = self.all.get_mut(&key) else { return };
        let Some((replica, _)) = copy.open.clone() else { return };
        if copy.busy {
            return;
        }
        copy.take_checkpoint(&replica);
        if copy.runs.is_empty() && copy.puts.is_empty() {
            return;
        }
        copy.busy = true;
        let runs = std::mem::take(&mut copy.runs).into_iter().map(replica_run).collect();
        let commit = ReplicaCommit {
            runs,
            puts: std::mem::take(&mut copy.puts),
            retain: Some(self.retention),
            now_ms: self.env.wall().as_millis(),
            ..ReplicaCommit::default()
        };
        let tell = self.tell.clone();
        copy.worker.run(Box::new(move || {
            let result = replica.lock().unwrap_or_else(PoisonError::into_inner).commit(&commit);
            tell(Done::Stored { key, result });
        }));
    }
}

impl Copy {
    /// A state is of use only with all the records before it: what is missing then cannot be told from what is contained.
    fn take_checkpoint(&mut self, replica: &Mutex<Replica>) {
        let Some(checkpoint) = &self.checkpoint else { return };
        let complete = {
            let replica = replica.lock().unwrap_or_else(PoisonError::into_inner);
            Track::ALL.into_iter().all(|track| prefix(replica.held().track(track).iter()) >= checkpoint.cursor.0)
        };
        if !complete {
            return;
        }
        for (table, key, value) in self.checkpoint.take().map(|checkpoint| checkpoint.rows).unwrap_or_default() {
            let Some(table) = Table::ALL.into_iter().find(|known| *known as u8 == table) else { continue };
            self.puts.push(Put { table, key: key.to_vec(), value: Some(value) });
        }
    }
}

/// The last number up to which nothing is missing.
fn prefix(mut ranges: impl Iterator<Item = (u64, u64)>) -> u64 {
    ranges.next().filter(|(first, _)| *first <= 1).map_or(0, |(_, last)| last)
}

fn replica_run(run: Run) -> ReplicaRun {
    let append = |record: millpond_proto::wire::Record| {
        let append = Append {
            kind: record.kind,
            hlc: record.hlc,
            rows: record.rows,
            min_time: record.min_time,
            max_time: record.max_time,
            devices: Vec::new(),
            payload: record.payload,
        };
        (record.seq, append)
    };
    ReplicaRun { track: run.track, first: run.first, last: run.last, records: run.records.into_iter().map(append).collect() }
}

/// The rows that a copy needs to go on in its origin's place, as of one moment.
///
/// # Errors
/// When the journal cannot be read.
pub fn checkpoint_rows(reader: &Reader) -> Result<Vec<(u8, Bytes, Bytes)>, millpond_store::ReadError> {
    let mut rows = Vec::new();
    for table in [Table::Checkpoints, Table::Alerts, Table::Devices, Table::Meta] {
        reader.range(table, b"", |key, value| {
            rows.push((table as u8, Bytes::copy_from_slice(key), value));
            std::ops::ControlFlow::Continue(())
        })?;
    }
    Ok(rows)
}

fn path_of((origin, incarnation): Key) -> String {
    format!("{FOLDER}/{origin}-{}.redb", incarnation.0)
}

fn key_of(name: &str) -> Option<Key> {
    let (origin, incarnation) = name.strip_suffix(".redb")?.split_once('-')?;
    Some((Origin::from_hex(origin)?, Incarnation(incarnation.parse().ok()?)))
}

/// The highest sequence number in some ranges.
pub fn head(ranges: &[(u64, u64)]) -> Seq {
    Seq(ranges.last().map_or(0, |(_, last)| *last))
}
