//! The journal's actor: it gathers units of all parties into commits, hands them to the thread that owns the database, and tells each
//! party what became of its units. It also keeps the rhythm of checkpoints.
//!
//! A checkpoint is a consistent cut (Chandy and Lamport, 1985): between two commits the journal sends a *barrier* down the same
//! mailboxes as its verdicts. Shards save their state as of the last commit before it and pass it on; windows and alerts wait for it from all
//! whom they hear. When every part has come, the parts and the cursor that they are valid at are written in one commit.

pub mod group;
pub mod saved;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::{
    ids::Seq,
    planted::{self, Bug},
    record::{Class, Hlc},
    time::Span,
};
use millpond_env::{Env, Mono, Worker};
use millpond_store::{Append, Commit, CommitError, Committed, Put, Shed, Store, Table};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::{
    health::Pulse,
    metrics::JournalMetrics,
    plane::{Party, Plane},
    settings::Settings,
    site::Site,
};
use group::{Group, Next, Room, Weighed};
use saved::{CheckpointRow, Saved, part_key};

/// A checkpoint that is not complete after this is given up; the next one starts anew.
const CHECKPOINT_TIMEOUT: Span = Span::from_secs(60);
const TICK: Span = Span::from_millis(250);
const RETAIN_EVERY: Span = Span::from_secs(1);
/// What gives way for a full disk at least, so that not every commit has to ask again.
const SHED_BYTES_MIN: u64 = 1 << 20;

/// What one party wants on disk, all or nothing, in its order.
#[derive(Debug)]
pub struct Unit {
    pub party: Party,
    /// Counts the units of the party, so that it knows which one a verdict is about.
    pub no: u64,
    /// The plane that the party belongs to; verdicts for a plane that is gone are dropped.
    pub generation: u64,
    pub class: Class,
    pub work: Work,
    pub bytes: usize,
    /// Told whether it is on disk.
    pub done: Option<oneshot::Sender<bool>>,
    /// How much of the work is in the commit that is under way.
    lent: [usize; 4],
}

/// The content of a unit: shares of a [`Commit`].
#[derive(Debug, Default)]
pub struct Work {
    /// The journal stamps `hlc`.
    pub records: Vec<Append>,
    pub puts: Vec<Put>,
    pub dead_letters: Vec<Bytes>,
    pub forget_dead_letters: Vec<u64>,
}

impl Unit {
    pub fn new(party: Party, no: u64, generation: u64, class: Class, work: Work) -> Unit {
        let records = work.records.iter().map(|record| record.payload.len());
        let puts = work.puts.iter().map(|put| put.key.len() + put.value.as_ref().map_or(0, Bytes::len));
        let letters = work.dead_letters.iter().map(Bytes::len);
        let bytes = records.chain(puts).chain(letters).sum();
        Unit { party, no, generation, class, work, bytes, done: None, lent: [0; 4] }
    }

    /// Work of somebody who needs no verdict.
    pub fn other(class: Class, work: Work) -> Unit {
        Unit::new(Party::Other, 0, 0, class, work)
    }

    /// The same, for somebody who waits until it is on disk.
    pub fn awaited(class: Class, work: Work, done: oneshot::Sender<bool>) -> Unit {
        Unit { done: Some(done), ..Unit::other(class, work) }
    }

    fn lend(&mut self, commit: &mut Commit) {
        let work = &mut self.work;
        self.lent = [work.records.len(), work.puts.len(), work.dead_letters.len(), work.forget_dead_letters.len()];
        commit.records.append(&mut work.records);
        commit.puts.append(&mut work.puts);
        commit.dead_letters.append(&mut work.dead_letters);
        commit.forget_dead_letters.append(&mut work.forget_dead_letters);
    }
}

impl Weighed for Unit {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn class(&self) -> Class {
        self.class
    }
}

/// What became of the units of one party in one commit: numbers and whether they are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub units: Vec<u64>,
    pub stored: bool,
    /// The last record of the journal by then.
    pub through: Seq,
}

pub enum JournalMsg {
    Append(Unit),
    /// A part of the checkpoint with this number.
    Part {
        checkpoint: u64,
        name: String,
        state: Bytes,
    },
    Done(Outcome),
    /// There is a new data plane; verdicts and barriers go to it from now on.
    Plane(Arc<Plane>),
    /// Free and total bytes of the file system.
    Space {
        free: u64,
        total: u64,
    },
    /// Answered when all that was queued before is committed or refused.
    Drain(oneshot::Sender<()>),
    /// Makes a checkpoint now; answered when it is on disk or was given up.
    Checkpoint(oneshot::Sender<bool>),
    Tick,
}

/// Result of a commit, with the units that it held.
pub struct Outcome {
    units: Vec<Unit>,
    gave_way: bool,
    result: Result<Committed, CommitError>,
    took: Span,
}

pub struct Journal;

pub struct Arguments {
    pub env: Env,
    pub settings: Arc<Settings>,
    pub store: Arc<Mutex<Store>>,
    pub hlc: Hlc,
    /// The start had to replay events that no checkpoint holds.
    pub replayed: bool,
    pub next_seq: Seq,
    pub metrics: JournalMetrics,
    pub pulse: Arc<Pulse>,
    pub site: Arc<Site>,
}

pub struct State {
    env: Env,
    settings: Arc<Settings>,
    store: Arc<Mutex<Store>>,
    worker: Box<dyn Worker>,
    group: Group<Unit>,
    plane: Option<Arc<Plane>>,
    hlc: Hlc,
    /// Sequence number of the last record that is on disk.
    committed: Seq,
    waking_at: Option<Mono>,
    drains: Vec<oneshot::Sender<()>>,
    checkpoints: Checkpoints,
    saved: Saved,
    retained_at: Mono,
    /// Where the journal stood then.
    retained_head: Seq,
    metrics: JournalMetrics,
    pulse: Arc<Pulse>,
    site: Arc<Site>,
}

#[derive(Default)]
struct Checkpoints {
    last_id: u64,
    open: Option<OpenCheckpoint>,
    made_at: Mono,
    bytes_since: u64,
    /// What was replayed at the start is to be saved, or a box that loses its power again and again would replay more each time.
    behind: bool,
    wanted: Vec<oneshot::Sender<bool>>,
}

struct OpenCheckpoint {
    id: u64,
    generation: u64,
    cursor: Seq,
    hlc: Hlc,
    started: Mono,
    missing: Vec<String>,
    parts: BTreeMap<String, Bytes>,
    /// It is on its way to the disk, and what will be there then.
    kept: Option<Saved>,
}

#[async_trait]
impl Actor for Journal {
    type Msg = JournalMsg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<JournalMsg>, args: Arguments) -> Result<State, ActorProcessingErr> {
        crate::every(&args.env, TICK, me, || JournalMsg::Tick);
        let reader = args.store.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).reader();
        let may_give_way = args.settings.store.when_full == crate::settings::WhenFull::DropOldest;
        Ok(State {
            worker: args.env.blocking.worker("journal"),
            group: Group::new(args.settings.store.linger, may_give_way),
            plane: None,
            hlc: args.hlc,
            committed: Seq(args.next_seq.0 - 1),
            waking_at: None,
            drains: Vec::new(),
            checkpoints: Checkpoints { made_at: args.env.now(), behind: args.replayed, ..Checkpoints::default() },
            saved: Saved::read(&reader)?,
            retained_at: Mono(0),
            retained_head: Seq(0),
            env: args.env,
            settings: args.settings,
            store: args.store,
            metrics: args.metrics,
            pulse: args.pulse,
            site: args.site,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<JournalMsg>,
        msg: JournalMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.env.schedule_point().await;
        match msg {
            JournalMsg::Append(unit) => state.append(unit),
            JournalMsg::Done(outcome) => state.done(outcome, &me),
            JournalMsg::Part { checkpoint, name, state: part } => state.part(checkpoint, name, part),
            JournalMsg::Plane(plane) => {
                state.plane = Some(plane);
                state.checkpoints.give_up();
            }
            JournalMsg::Space { free, total } => state.space(free, total),
            JournalMsg::Drain(reply) => state.drains.push(reply),
            JournalMsg::Checkpoint(reply) => {
                state.checkpoints.wanted.push(reply);
                state.barrier_if_due();
            }
            JournalMsg::Tick => state.tick(&me),
        }
        state.commit_if_due(&me);
        state.answer_drains();
        Ok(())
    }
}

impl State {
    fn append(&mut self, unit: Unit) {
        if let Some(refused) = self.group.push(self.env.now(), unit) {
            self.metrics.refused.inc();
            self.tell(vec![refused], false);
        }
    }

    fn commit_if_due(&mut self, me: &ActorRef<JournalMsg>) {
        match self.group.next(self.env.now()) {
            Next::Commit { units, give_way } => self.commit(units, give_way, me),
            Next::WaitUntil(at) if self.waking_at.is_none_or(|other| at < other) => {
                self.waking_at = Some(at);
                let (timer, me) = (self.env.clock.timer(at), me.clone());
                self.env.spawn(async move {
                    timer.await;
                    let _ = me.cast(JournalMsg::Tick);
                });
            }
            Next::WaitUntil(_) | Next::Nothing => {}
        }
    }

    fn commit(&mut self, mut units: Vec<Unit>, give_way: bool, me: &ActorRef<JournalMsg>) {
        let wall_ms = self.env.wall().as_millis();
        let mut commit = Commit { now_ms: wall_ms, ..Commit::default() };
        for unit in &mut units {
            for record in &mut unit.work.records {
                self.hlc = self.hlc.tick(wall_ms);
                record.hlc = self.hlc;
            }
            unit.lend(&mut commit);
        }
        let now = self.env.now();
        if give_way || now.since(self.retained_at) >= RETAIN_EVERY {
            self.retained_at = now;
            let mut retention = crate::retention_of(&self.settings.retention);
            // What no other node has does not go for its age alone; quota and a full disk still have their way.
            let copied = self.settings.membership.is_none_or(|membership| membership.replicas == 0)
                || self.site.confirmed() >= self.retained_head;
            if !copied {
                retention.rules.iter_mut().for_each(|rule| rule.max_age_ms = i64::MAX);
            }
            self.retained_head = self.committed;
            commit.retain = Some(retention);
        }
        let bytes: usize = units.iter().map(|unit| unit.bytes).sum();
        commit.shed = give_way.then(|| Shed::when_full((2 * bytes as u64).max(SHED_BYTES_MIN)));
        let (store, clock, me) = (self.store.clone(), self.env.clock.clone(), me.clone());
        self.metrics.commit_units.observe(units.len() as f64);
        self.worker.run(Box::new(move || {
            let started = clock.now();
            let result = store.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).commit(&commit);
            let took = clock.now().since(started);
            if result.is_err() {
                give_back(&mut units, commit);
            }
            let _ = me.cast(JournalMsg::Done(Outcome { units, gave_way: give_way, result, took }));
        }));
    }

    fn done(&mut self, outcome: Outcome, me: &ActorRef<JournalMsg>) {
        let now = self.env.now();
        self.metrics.commit_seconds.observe(outcome.took.as_secs_f64());
        match outcome.result {
            Ok(committed) => {
                self.pulse.beat(now);
                self.committed = Seq((committed.first.0 + committed.records).saturating_sub(1)).max(self.committed);
                self.metrics.committed(&committed);
                self.checkpoints.bytes_since += committed.bytes;
                if self.group.room() != Room::Enough {
                    tracing::info!(committed = committed.records, "the journal has room again");
                }
                self.group.committed(now);
                self.env.trace.event("committed", &self.committed.0.to_le_bytes());
                self.site.committed(self.committed);
                if outcome.units.iter().any(|unit| unit.party == Party::Checkpoint) {
                    let saved = self.checkpoints.open.as_mut().and_then(|open| open.kept.take());
                    self.checkpoints.done(true, now);
                    if let Some(saved) = saved {
                        saved.current.iter().for_each(|row| self.site.saved(Seq(row.cursor)));
                        self.saved = saved;
                    }
                }
                self.tell(outcome.units, true);
                self.barrier_if_due();
            }
            Err(CommitError::Full { .. }) => {
                tracing::warn!(outcome.gave_way, "the disk is full (MP0401)");
                self.metrics.full.inc();
                self.set_back(now, outcome.units, outcome.gave_way);
                self.pulse.beat(now);
            }
            Err(error @ (CommitError::Io { .. } | CommitError::Unusable { .. })) => {
                tracing::error!(%error, "a commit failed; events are refused until one succeeds (MP0405)");
                self.pulse.fail(error.to_string());
                self.set_back(now, outcome.units, true);
            }
            Err(error) => {
                tracing::error!(%error, "a commit failed; its units are refused (MP0402)");
                self.metrics.failed.inc();
                self.checkpoints.give_up();
                self.pulse.fail(error.to_string());
                self.group.committed(now);
                self.tell(outcome.units, false);
            }
        }
        self.show_room();
        self.commit_if_due(me);
    }

    /// Health and metrics say what the queue does.
    fn show_room(&self) {
        self.metrics.refusing.set(i64::from(matches!(self.group.room(), Room::Refusing { .. })));
        self.pulse.set_room(self.group.room());
    }

    /// A commit that left nothing behind: what can be sent again is refused, the rest is tried again.
    fn set_back(&mut self, now: Mono, units: Vec<Unit>, gave_way: bool) {
        self.checkpoints.give_up();
        let refused = self.group.failed_full(now, units, gave_way);
        self.metrics.refused.inc_by(refused.len() as u64);
        self.tell(refused, false);
    }

    /// One verdict per party and commit.
    fn tell(&self, units: Vec<Unit>, stored: bool) {
        let mut verdicts: BTreeMap<Party, Verdict> = BTreeMap::new();
        for unit in units {
            if let Some(done) = unit.done {
                let _ = done.send(stored);
            }
            if self.plane.as_ref().is_some_and(|plane| plane.generation == unit.generation)
                && unit.party.hears_verdicts()
            {
                let fresh = Verdict { units: Vec::new(), stored, through: self.committed };
                verdicts.entry(unit.party).or_insert(fresh).units.push(unit.no);
            }
        }
        if let Some(plane) = &self.plane {
            for (party, verdict) in verdicts {
                plane.tell(party, verdict);
            }
        }
    }

    fn space(&mut self, free: u64, total: u64) {
        let reserve = self.settings.store.min_free_bytes.min(total / 20);
        self.metrics.disk_free.set(free as i64);
        self.group.space(self.env.now(), free >= reserve);
        self.show_room();
    }

    fn tick(&mut self, me: &ActorRef<JournalMsg>) {
        let now = self.env.now();
        if self.waking_at.is_some_and(|at| at <= now) {
            self.waking_at = None;
        }
        if self.group.is_idle() {
            self.pulse.beat(now);
        }
        let (disk, me) = (self.env.disk.clone(), me.clone());
        self.env.blocking.run(Box::new(move || {
            if let Ok(space) = disk.space() {
                let _ = me.cast(JournalMsg::Space { free: space.free, total: space.total });
            }
        }));
        if self.checkpoints.open.as_ref().is_some_and(|open| now.since(open.started) > CHECKPOINT_TIMEOUT) {
            tracing::warn!("a checkpoint was not complete in time and is given up");
            self.checkpoints.give_up();
        }
        self.keep_checkpoint();
        self.barrier_if_due();
    }

    /// Sends a barrier between two commits: what was told before it is in the checkpoint, what comes after it is not.
    fn barrier_if_due(&mut self) {
        let (now, settings) = (self.env.now(), &self.settings.checkpoint);
        let checkpoints = &mut self.checkpoints;
        let by_time = now.since(checkpoints.made_at) >= settings.every && checkpoints.bytes_since > 0;
        let by_bytes = checkpoints.bytes_since >= settings.after_bytes;
        let due = by_time || by_bytes || checkpoints.behind || !checkpoints.wanted.is_empty();
        let Some(plane) = self.plane.as_ref().filter(|_| due && checkpoints.open.is_none()) else { return };
        checkpoints.last_id += 1;
        checkpoints.bytes_since = 0;
        checkpoints.open = Some(OpenCheckpoint {
            id: checkpoints.last_id,
            generation: plane.generation,
            cursor: self.committed,
            hlc: self.hlc,
            started: now,
            missing: plane.part_names(),
            parts: BTreeMap::new(),
            kept: None,
        });
        plane.barrier(checkpoints.last_id);
    }

    fn part(&mut self, checkpoint: u64, name: String, part: Bytes) {
        let Some(open) = self.checkpoints.open.as_mut().filter(|open| open.id == checkpoint) else { return };
        open.missing.retain(|missing| *missing != name);
        open.parts.insert(name, part);
        self.keep_checkpoint();
    }

    /// Writes a checkpoint that is complete, once the site allows it.
    fn keep_checkpoint(&mut self) {
        let Some(open) = self.checkpoints.open.as_mut() else { return };
        if open.kept.is_some() || !open.missing.is_empty() || !self.site.may_keep() {
            return;
        }
        let (checkpoint, generation) = (open.id, open.generation);
        let parts = std::mem::take(&mut open.parts);
        let row = CheckpointRow {
            cursor: open.cursor.0,
            shards: self.settings.shards as u32,
            parts: parts.keys().cloned().collect(),
            hlc: open.hlc.0,
            slot: 0,
        };
        let saved = self.saved.next(row, self.site.settled());
        if planted::is(Bug::CursorOutsideTransaction) {
            let commit = Commit { puts: saved.puts(), now_ms: self.env.wall().as_millis(), ..Commit::default() };
            let store = self.store.clone();
            self.worker.run(Box::new(move || {
                let _ = store.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).commit(&commit);
            }));
        }
        let slot = saved.current.as_ref().map_or(0, |row| row.slot);
        let mut puts: Vec<Put> = parts
            .into_iter()
            .map(|(name, part)| Put { table: Table::Checkpoints, key: part_key(slot, &name), value: Some(part) })
            .collect();
        puts.extend(saved.puts());
        open.kept = Some(saved);
        // The unit goes to the end of the queue: all that the parts rely on is committed with it or before it.
        let work = Work { puts, ..Work::default() };
        let unit = Unit::new(Party::Checkpoint, checkpoint, generation, Class::State, work);
        self.group.push(self.env.now(), unit);
    }

    fn answer_drains(&mut self) {
        if self.group.is_idle() {
            self.drains.drain(..).for_each(|reply| {
                let _ = reply.send(());
            });
        }
    }
}

/// Each unit gets back what it had lent to a commit that failed.
fn give_back(units: &mut [Unit], commit: Commit) {
    let (mut records, mut puts) = (commit.records.into_iter(), commit.puts.into_iter());
    let (mut letters, mut forget) = (commit.dead_letters.into_iter(), commit.forget_dead_letters.into_iter());
    for unit in units {
        let [of_records, of_puts, of_letters, of_forget] = unit.lent;
        unit.work.records.extend(records.by_ref().take(of_records));
        unit.work.puts.extend(puts.by_ref().take(of_puts));
        unit.work.dead_letters.extend(letters.by_ref().take(of_letters));
        unit.work.forget_dead_letters.extend(forget.by_ref().take(of_forget));
    }
}

impl Checkpoints {
    fn done(&mut self, made: bool, now: Mono) {
        self.open = None;
        if made {
            self.behind = false;
            self.made_at = now;
        }
        for reply in self.wanted.drain(..) {
            let _ = reply.send(made);
        }
    }

    fn give_up(&mut self) {
        if self.open.take().is_some() {
            for reply in self.wanted.drain(..) {
                let _ = reply.send(false);
            }
        }
    }
}
