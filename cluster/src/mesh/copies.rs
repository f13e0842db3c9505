//! The copies of other nodes' journals that are held here: one file and one worker each, so that they do not wait for each other's disk
//! more than the disk itself makes them.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use millpond_core::{
    ids::{Incarnation, Origin},
    limits::STATE_KEY_BYTES_MAX,
    record::Track,
};
use millpond_env::{Disk, Env, Worker};
use millpond_proto::{
    replication::{Copied, Life, RunKey},
    wire::{self, Checkpoint, Run},
};
use millpond_store::{
    Append, CommitError, OpenDevice, OpenError, Options, Put, Reader, Replica, ReplicaCommit, ReplicaCommitted,
    ReplicaRun, Retention, Table,
};

/// Where the copies lie on a node's disk.
pub const FOLDER: &str = "replicas";
/// What a checkpoint has rows of.
const CHECKPOINT: [Table; 4] = [Table::Checkpoints, Table::Alerts, Table::Devices, Table::Meta];
/// Pages of one copy that are kept in memory.
const CACHE_BYTES: usize = 2 << 20;

/// What a worker has to say.
#[derive(Debug)]
pub enum Done {
    Opened {
        life: Life,
        result: Result<Open, OpenError>,
    },
    /// Runs that were handed over together.
    Stored {
        life: Life,
        runs: Vec<RunKey>,
        result: Result<ReplicaCommitted, CommitError>,
    },
}

/// A copy that can be read and written.
#[derive(Clone, Debug)]
pub struct Open {
    pub replica: Arc<Mutex<Replica>>,
    pub reader: Reader,
    /// What was held on disk when it was opened.
    pub copied: Vec<Copied>,
}

pub struct Copies {
    env: Env,
    retention: Retention,
    tell: Arc<dyn Fn(Done) + Send + Sync>,
    all: BTreeMap<Life, Copy>,
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

    /// Opens the copies that earlier lives left here. Call it where blocking is allowed.
    ///
    /// # Errors
    /// When the folder cannot be listed. A copy that cannot be opened is left alone, and told in the log.
    pub fn found(env: &Env) -> io::Result<Vec<(Life, Open)>> {
        let lives = env.disk.list(FOLDER)?.into_iter().filter_map(|name| life_of(&name));
        let open = |life: Life| match open_shared(&env.disk, life) {
            Ok(open) => Some((life, open)),
            Err(error) => {
                tracing::error!(origin = %life.origin, %error, "the copy of a node's journal could not be opened");
                None
            }
        };
        Ok(lives.filter_map(open).collect())
    }

    /// Begins to open a copy, founding it when there is none; the outcome is told.
    fn open(&mut self, life: Life) {
        if self.all.contains_key(&life) {
            return;
        }
        let worker = self.env.blocking.worker("copy");
        let (disk, tell) = (self.env.disk.clone(), self.tell.clone());
        worker.run(Box::new(move || tell(Done::Opened { life, result: open_shared(&disk, life) })));
        self.all.insert(life, Copy::new(worker, None));
    }

    /// Takes a copy that was found at the start.
    pub fn take(&mut self, life: Life, open: Open) {
        let worker = self.env.blocking.worker("copy");
        self.all.insert(life, Copy::new(worker, Some((open.replica, open.reader))));
    }

    /// It is open from now on.
    pub fn opened(&mut self, life: Life, open: Open) {
        if let Some(copy) = self.all.get_mut(&life) {
            copy.open = Some((open.replica, open.reader));
        }
        self.work(life);
    }

    /// It could not be opened. Returns what waited for it.
    pub fn failed(&mut self, life: Life) -> Vec<RunKey> {
        self.all.remove(&life).map(|copy| copy.runs.iter().map(RunKey::of).collect()).unwrap_or_default()
    }

    pub fn readers(&self) -> impl Iterator<Item = (Life, &Reader)> {
        self.all.iter().filter_map(|(life, copy)| copy.open.as_ref().map(|(_, reader)| (*life, reader)))
    }

    pub fn reader(&self, life: Life) -> Option<&Reader> {
        self.all.get(&life)?.open.as_ref().map(|(_, reader)| reader)
    }

    /// Stores a run; the outcome is told.
    pub fn keep(&mut self, run: Run) {
        let life = RunKey::of(&run).life;
        self.open(life);
        if let Some(copy) = self.all.get_mut(&life) {
            copy.runs.push(run);
        }
        self.work(life);
    }

    /// A newer checkpoint of the origin.
    pub fn keep_checkpoint(&mut self, checkpoint: Checkpoint) {
        let life = Life { origin: checkpoint.origin, incarnation: checkpoint.incarnation };
        self.open(life);
        if let Some(copy) = self.all.get_mut(&life) {
            copy.checkpoint = Some(checkpoint);
        }
        self.work(life);
    }

    /// A commit is over, well or not.
    pub fn done(&mut self, life: Life) {
        if let Some(copy) = self.all.get_mut(&life) {
            copy.busy = false;
        }
        self.work(life);
    }

    fn work(&mut self, life: Life) {
        let Some(copy) = self.all.get_mut(&life) else { return };
        let Some((replica, _)) = copy.open.clone() else { return };
        if copy.busy {
            return;
        }
        copy.take_checkpoint(&replica);
        if copy.runs.is_empty() && copy.puts.is_empty() {
            return;
        }
        copy.busy = true;
        let runs = std::mem::take(&mut copy.runs);
        let keys: Vec<RunKey> = runs.iter().map(RunKey::of).collect();
        let commit = ReplicaCommit {
            runs: runs.into_iter().map(replica_run).collect(),
            puts: std::mem::take(&mut copy.puts),
            retain: Some(self.retention),
            now_ms: self.env.wall().as_millis(),
            ..ReplicaCommit::default()
        };
        let tell = self.tell.clone();
        copy.worker.run(Box::new(move || {
            let result = replica.lock().unwrap_or_else(PoisonError::into_inner).commit(&commit);
            tell(Done::Stored { life, runs: keys, result });
        }));
    }
}

impl Copy {
    fn new(worker: Box<dyn Worker>, open: Option<(Arc<Mutex<Replica>>, Reader)>) -> Copy {
        Copy { worker, open, busy: false, runs: Vec::new(), puts: Vec::new(), checkpoint: None }
    }

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
        self.puts.extend(self.checkpoint.take().into_iter().flat_map(puts_of));
    }
}

/// The rows of a checkpoint that a copy takes. Of others none gets to the disk, or they would hold up the records that come with them.
fn puts_of(checkpoint: Checkpoint) -> impl Iterator<Item = Put> {
    checkpoint.rows.into_iter().filter_map(|(table, key, value)| {
        let table = CHECKPOINT.into_iter().find(|known| *known as u8 == table)?;
        let fits = (1..=STATE_KEY_BYTES_MAX).contains(&key.len());
        fits.then(|| Put { table, key: key.to_vec(), value: Some(value) })
    })
}

/// The last number up to which nothing is missing.
fn prefix(mut ranges: impl Iterator<Item = (u64, u64)>) -> u64 {
    ranges.next().filter(|(first, _)| *first <= 1).map_or(0, |(_, last)| last)
}

pub(crate) fn replica_run(run: Run) -> ReplicaRun {
    let append = |record: wire::Record| {
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
    ReplicaRun {
        track: run.track,
        first: run.first,
        last: run.last,
        records: run.records.into_iter().map(append).collect(),
    }
}

/// The rows that a copy needs to go on in its origin's place, as of one moment.
///
/// # Errors
/// When the journal cannot be read.
pub fn checkpoint_rows(reader: &Reader) -> Result<Vec<(u8, Bytes, Bytes)>, millpond_store::ReadError> {
    let mut rows = Vec::new();
    for table in CHECKPOINT {
        reader.range(table, b"", |key, value| {
            rows.push((table as u8, Bytes::copy_from_slice(key), value));
            std::ops::ControlFlow::Continue(())
        })?;
    }
    Ok(rows)
}

fn open_shared(disk: &Arc<dyn Disk>, life: Life) -> Result<Open, OpenError> {
    open_at(disk, path_of(life), life)
}

/// Opens a copy, founding it when there is none. Blocks.
///
/// # Errors
/// When the file is damaged or holds something else.
pub(crate) fn open_at(disk: &Arc<dyn Disk>, path: String, life: Life) -> Result<Open, OpenError> {
    let disk = disk.clone();
    let device: OpenDevice = Box::new(move || disk.open(&path));
    let options = Options { cache_bytes: CACHE_BYTES, ..Options::default() };
    let (replica, _) = Replica::open(device, options, life.origin, life.incarnation)?;
    let held = replica.held();
    let copied = |track| Copied { life, track, covered: held.track(track).clone(), floor: held.floor(track) };
    let copied = Track::ALL.into_iter().map(copied).collect();
    let reader = replica.reader();
    Ok(Open { replica: Arc::new(Mutex::new(replica)), reader, copied })
}

fn path_of(life: Life) -> String {
    format!("{FOLDER}/{}-{}.redb", life.origin, life.incarnation.0)
}

/// Whose journal a file in [`FOLDER`] is a copy of.
pub fn life_of(name: &str) -> Option<Life> {
    let (origin, incarnation) = name.strip_suffix(".redb")?.split_once('-')?;
    Some(Life { origin: Origin::from_hex(origin)?, incarnation: Incarnation(incarnation.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use millpond_core::ids::Seq;

    use super::*;

    #[test]
    fn of_a_checkpoint_only_rows_are_kept_that_a_copy_takes() {
        let row = |table: u8, key: usize| (table, Bytes::from(vec![7; key]), Bytes::from_static(b"state"));
        let alerts = Table::Alerts as u8;
        let rows = vec![
            row(alerts, 3),
            row(alerts, 0),
            row(alerts, STATE_KEY_BYTES_MAX + 1),
            row(Table::DeadLetters as u8, 3),
            row(Table::Documents as u8, 3),
            row(u8::MAX, 3),
        ];
        let checkpoint = Checkpoint { origin: Origin([1; 16]), incarnation: Incarnation(1), cursor: Seq(1), rows };
        let kept: Vec<(Table, usize)> = puts_of(checkpoint).map(|put| (put.table, put.key.len())).collect();
        assert_eq!(kept, [(Table::Alerts, 3)]);
    }
}
