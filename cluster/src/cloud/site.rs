//! The actor of one site: it owns the ledger of the site's lives.
//!
//! What arrives of a life waits until the worker of its copy is free; then all of it goes to the disk in one transaction, with the account
//! of the life, and after that the receipts leave. What is held already, or came twice, is dropped by its number inside the transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use millpond_core::{
    ids::{Origin, Seq},
    planted::{self, Bug},
    record::{self, Class, Track},
    time::Span,
    window::WindowSpec,
};
use millpond_env::{Mono, Worker};
use millpond_proto::{
    RangeSet,
    replication::{Life, RunKey},
    sites::terms::class_of,
    uplink::{Brought, Delivery, LIVES_MAX, Lane, RANGES_MAX, Receipt, Sent, account::Account},
    wire::Stored,
};
use millpond_store::{Put, Reader, ReplicaCommit, ReplicaCommitted, Retention, Table, Usage};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};

use super::{Inner, LifeLine, applying, archive::Archivable, sinks::Ready};
use crate::mesh::copies;

/// The row of the account in the copy's [`Table::Meta`].
pub const ACCOUNT: &[u8] = b"cloud/account";
/// How often records that are archived and old go from a copy.
const RETAIN_EVERY: Span = Span::from_secs(60);
const MEASURE_EVERY: Span = Span::from_secs(1);
/// A node that has not delivered itself for so long is not waited for.
const ABSENCE: Span = Span::from_secs(86_400);

pub(super) enum SiteMsg {
    /// What is here of the site.
    Ledger(oneshot::Sender<Vec<Brought>>),
    Begin(Begin),
    Arrived(Box<Arrived>),
    /// A stream is over.
    End(u64),
    Opened(Life, Box<Result<Opened, String>>),
    Committed(Life, Box<Result<(ReplicaCommitted, Usage), String>>),
    /// The lives of which results can be applied.
    ToApply(oneshot::Sender<applying::Due>),
    Applied(Life, applying::Done),
    Lines(oneshot::Sender<Vec<LifeLine>>),
    ToArchive(oneshot::Sender<Vec<Archivable>>),
    /// The archive has all events of a life up to here.
    Archived(Life, Seq),
    /// Up to where each life can be handed on.
    Ready(oneshot::Sender<Vec<Ready>>),
    /// What is archived shall go from the copies now. Answered when it has.
    Purge(oneshot::Sender<()>),
}

/// Somebody wants to deliver a lane of a life.
pub(super) struct Begin {
    pub life: Life,
    pub lane: Lane,
    pub from: Origin,
    pub name: String,
    pub windows: Vec<WindowSpec>,
    /// The number of the stream, or why nothing of it is wanted.
    pub reply: oneshot::Sender<Result<u64, Receipt>>,
}

pub(super) struct Arrived {
    pub life: Life,
    pub lane: Lane,
    pub delivery: Delivery,
    /// Given back when it is on disk, and this is dropped.
    pub _credit: Option<OwnedSemaphorePermit>,
    pub receipts: mpsc::UnboundedSender<Receipt>,
}

/// A copy and what its file says.
pub(super) struct Opened {
    open: copies::Open,
    account: Account,
    usage: Usage,
}

pub(super) struct Site;

pub(super) struct State {
    cloud: Arc<Inner>,
    site: String,
    me: ActorRef<SiteMsg>,
    lives: BTreeMap<Life, Entry>,
    streams: BTreeMap<u64, (Life, Origin)>,
    next_stream: u64,
    /// Results may be there to be applied.
    apply: Arc<Notify>,
    /// Classes that must not be stored here.
    kept_out: Vec<Class>,
    /// When the ledger was added up for the gauges.
    measured_at: Mono,
}

struct Entry {
    worker: Box<dyn Worker>,
    open: Option<(copies::Open, Reader)>,
    account: Account,
    covered: [RangeSet; 2],
    usage: Usage,
    queue: Vec<Arrived>,
    /// The account is different from what is on disk.
    unsaved: bool,
    busy: Option<Busy>,
    by: BTreeMap<Origin, BTreeSet<u64>>,
    idle_since: Mono,
    /// The archive has all events up to here: older ones may go.
    archived: Seq,
    retained_at: Mono,
}

/// What a commit under way will confirm.
struct Busy {
    waiting: Vec<(Option<Stored>, Arrived)>,
    before: Account,
}

#[async_trait]
impl Actor for Site {
    type Msg = SiteMsg;
    type State = State;
    type Arguments = (Arc<Inner>, String);

    async fn pre_start(
        &self,
        me: ActorRef<SiteMsg>,
        (cloud, site): (Arc<Inner>, String),
    ) -> Result<State, ActorProcessingErr> {
        let known: Vec<Life> = cloud
            .shelf
            .all()
            .into_iter()
            .filter(|(name, _)| *name == site)
            .flat_map(|(_, lives)| lives.into_iter().map(|(life, _)| life))
            .collect();
        let apply = Arc::new(Notify::new());
        cloud.env.spawn(applying::apply(cloud.clone(), site.clone(), me.clone(), apply.clone()));
        let (lives, streams) = (BTreeMap::new(), BTreeMap::new());
        let (kept_out, measured_at) = (cloud.settings.kept_out(&site), cloud.env.now());
        let mut state = State { cloud, site, me, lives, streams, next_stream: 1, apply, kept_out, measured_at };
        known.into_iter().for_each(|life| state.open(life));
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<SiteMsg>, msg: SiteMsg, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.cloud.env.schedule_point().await;
        match msg {
            SiteMsg::Ledger(reply) => drop(reply.send(state.brought())),
            SiteMsg::Begin(begin) => state.begin(begin),
            SiteMsg::Arrived(arrived) => state.arrived(*arrived),
            SiteMsg::End(stream) => state.end(stream),
            SiteMsg::Opened(life, opened) => state.opened(life, *opened),
            SiteMsg::Committed(life, result) => state.committed(life, *result),
            SiteMsg::ToApply(reply) => drop(reply.send(state.due())),
            SiteMsg::Applied(life, done) => state.applied(life, done),
            SiteMsg::Lines(reply) => drop(reply.send(state.lines())),
            SiteMsg::ToArchive(reply) => drop(reply.send(state.to_archive())),
            SiteMsg::Archived(life, through) => state.archived(life, through),
            SiteMsg::Ready(reply) => drop(reply.send(state.ready())),
            SiteMsg::Purge(reply) => state.purge(reply),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<SiteMsg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        // Whoever applies has ended when nobody answers.
        state.apply.notify_one();
        Ok(())
    }
}

impl State {
    /// Opens the copy of a life, which founds it when there is none.
    fn open(&mut self, life: Life) {
        if self.lives.contains_key(&life) {
            return;
        }
        let worker = self.cloud.env.blocking.worker("site");
        let (shelf, site, me) = (self.cloud.shelf.clone(), self.site.clone(), self.me.clone());
        worker.run(Box::new(move || {
            let opened = shelf.copy(&site, life).and_then(read_account);
            let _ = me.cast(SiteMsg::Opened(life, Box::new(opened)));
        }));
        let entry = Entry {
            worker,
            open: None,
            account: Account::default(),
            covered: Default::default(),
            usage: Usage::default(),
            queue: Vec::new(),
            unsaved: false,
            busy: None,
            by: BTreeMap::new(),
            idle_since: self.cloud.env.now(),
            archived: Seq(0),
            retained_at: self.cloud.env.now(),
        };
        self.lives.insert(life, entry);
    }

    fn opened(&mut self, life: Life, opened: Result<Opened, String>) {
        match opened {
            Ok(Opened { open, account, usage }) => {
                let Some(entry) = self.lives.get_mut(&life) else { return };
                for copied in &open.copied {
                    entry.covered[copied.track as usize] = copied.covered.clone();
                }
                // What came with the first words is newer than the file.
                let name = std::mem::take(&mut entry.account.name);
                entry.account = account;
                if !name.is_empty() && entry.account.name != name {
                    (entry.account.name, entry.unsaved) = (name, true);
                }
                entry.usage = usage;
                let reader = open.reader.clone();
                entry.open = Some((open, reader));
                self.apply.notify_one();
                self.work(life);
            }
            Err(why) => {
                tracing::error!(site = self.site, origin = %life.origin, why, "the copy of a journal could not be opened");
                if let Some(entry) = self.lives.remove(&life) {
                    entry.queue.iter().for_each(|arrived| refuse(arrived, &why));
                }
            }
        }
    }

    fn brought(&self) -> Vec<Brought> {
        let now = self.cloud.env.now();
        let open = self.lives.iter().filter(|(_, entry)| entry.open.is_some());
        let brought = |(life, entry): (&Life, &Entry)| {
            let ranges = |track: Track| {
                let covered = &entry.covered[track as usize];
                covered.iter().skip(covered.len().saturating_sub(RANGES_MAX)).collect()
            };
            let by = entry.by_whom(*life);
            let idle = if by.is_some() { 0 } else { now.since(entry.idle_since).0 / 1_000_000 };
            Brought {
                origin: life.origin,
                incarnation: life.incarnation,
                ranges: [ranges(Track::Results), ranges(Track::Raw)],
                by,
                idle_ms: idle.max(0) as u64,
            }
        };
        open.map(brought).collect()
    }

    fn begin(&mut self, begin: Begin) {
        let Begin { life, lane, from, name, windows, reply } = begin;
        if !self.lives.contains_key(&life) && self.lives.len() >= LIVES_MAX {
            let why = format!("the site has {LIVES_MAX} journals here already");
            let _ = reply.send(Err(Receipt::Refused { why }));
            return;
        }
        self.open(life);
        let Some(entry) = self.lives.get_mut(&life) else { return };
        // The life's own node goes before everybody else.
        if from != life.origin && entry.by_whom(life).is_some_and(|by| by != from) {
            let _ = reply.send(Err(Receipt::Taken { retry_ms: 2_000 }));
            return;
        }
        if !name.is_empty() && entry.account.name != name {
            (entry.account.name, entry.unsaved) = (name, true);
        }
        let stream = self.next_stream;
        self.next_stream += 1;
        entry.by.entry(from).or_default().insert(stream);
        self.streams.insert(stream, (life, from));
        if lane == Lane::Results && from == life.origin {
            self.keep_windows(windows);
        }
        let _ = reply.send(Ok(stream));
        self.measure();
    }

    fn keep_windows(&self, windows: Vec<WindowSpec>) {
        let (env, shelf, site) = (self.cloud.env.clone(), self.cloud.shelf.clone(), self.site.clone());
        self.cloud.env.spawn(async move {
            let name = site.clone();
            if let Some(Err(error)) = env.unblock(move || shelf.keep_windows(&name, windows)).await {
                tracing::warn!(site, %error, "the windows of a site could not be kept");
            }
        });
    }

    fn end(&mut self, stream: u64) {
        let Some((life, from)) = self.streams.remove(&stream) else { return };
        let now = self.cloud.env.now();
        if let Some(entry) = self.lives.get_mut(&life) {
            if let Some(streams) = entry.by.get_mut(&from) {
                streams.remove(&stream);
                if streams.is_empty() {
                    entry.by.remove(&from);
                }
            }
            if entry.by.is_empty() {
                entry.idle_since = now;
            }
        }
        self.measure();
    }

    fn arrived(&mut self, mut arrived: Arrived) {
        let life = arrived.life;
        if !self.lives.contains_key(&life) {
            return refuse(&arrived, "it is not open");
        }
        if let Delivery::Sent(sent) = &arrived.delivery {
            let key = RunKey::of(&sent.run);
            if key.life != life || key.track != arrived.lane.track() || !sent.is_sound() {
                self.cloud.measures.refused.with_label_values(&[&self.site]).inc();
                return refuse(&arrived, "a run that is not of its lane, or makes no sense");
            }
        }
        self.keep_out(&mut arrived);
        if planted::is(Bug::ReceiptBeforeCommit)
            && let Delivery::Sent(sent) = &arrived.delivery
        {
            let _ = arrived.receipts.send(Receipt::Stored(stored_of(sent)));
        }
        if let Some(entry) = self.lives.get_mut(&life) {
            entry.queue.push(arrived);
        }
        self.work(life);
    }

    /// What is bound to another region counts as kept at the site, and never comes to this disk.
    fn keep_out(&self, arrived: &mut Arrived) {
        if self.kept_out.is_empty() {
            return;
        }
        let Delivery::Sent(sent) = &mut arrived.delivery else { return };
        let mut passed: RangeSet = sent.passed.iter().copied().collect();
        sent.run.records.retain(|record| {
            let stays = self.kept_out.contains(&class_of(record.kind));
            if stays {
                passed.insert(record.seq.0, record.seq.0);
            }
            !stays
        });
        sent.passed = passed.iter().collect();
    }

    /// Commits what has come, when nothing else of the life is being committed.
    fn work(&mut self, life: Life) {
        let (wall, now) = (self.cloud.env.wall(), self.cloud.env.now());
        let Some(entry) = self.lives.get_mut(&life) else { return };
        let Some((open, _)) = &entry.open else { return };
        if entry.busy.is_some() || (entry.queue.is_empty() && !entry.unsaved) {
            return;
        }
        let before = entry.account.clone();
        let (mut runs, mut waiting, mut covered) = (Vec::new(), Vec::new(), entry.covered.clone());
        for mut arrived in std::mem::take(&mut entry.queue) {
            match &mut arrived.delivery {
                // It was unpacked where it came in.
                Delivery::Packed(_) => {}
                Delivery::Head(head) => {
                    entry.account.heard(*head, wall.as_millis());
                    waiting.push((None, arrived));
                }
                Delivery::Sent(sent) => {
                    let (track, first, last) = (sent.run.track as usize, sent.run.first.0, sent.run.last.0);
                    let fresh: RangeSet = covered[track].gaps(first, last).into_iter().collect();
                    let passed: RangeSet = sent.passed.iter().copied().collect();
                    entry.account.passed += fresh.intersection(&passed).count();
                    covered[track].insert(first, last);
                    let stored = stored_of(sent);
                    let empty = sent.run.records.is_empty();
                    let run = millpond_proto::wire::Run {
                        records: std::mem::take(&mut sent.run.records),
                        ..sent.run.clone()
                    };
                    if !fresh.is_empty() || !empty {
                        runs.push(copies::replica_run(run));
                    }
                    waiting.push((Some(stored), arrived));
                }
            }
        }
        entry.account.settle(covered[Track::Results as usize].prefix_end());
        if runs.is_empty() && entry.account == before && !entry.unsaved {
            // Nothing but what is known already.
            waiting.into_iter().for_each(|(stored, arrived)| confirm(stored, &arrived));
            return;
        }
        let puts =
            vec![Put { table: Table::Meta, key: ACCOUNT.to_vec(), value: Some(record::encode(&entry.account).into()) }];
        entry.unsaved = false;
        entry.busy = Some(Busy { waiting, before });
        let retains = entry.archived > Seq(0) && now.since(entry.retained_at) >= RETAIN_EVERY;
        let retain = retains.then(|| self.cloud.retention);
        if retains {
            entry.retained_at = now;
        }
        let keep_from = Some(entry.archived.next());
        let commit =
            ReplicaCommit { runs, puts, retain, keep_from, now_ms: wall.as_millis(), ..ReplicaCommit::default() };
        let (replica, me) = (open.replica.clone(), self.me.clone());
        entry.worker.run(Box::new(move || {
            let mut replica = replica.lock().unwrap_or_else(PoisonError::into_inner);
            let result = replica.commit(&commit).map_err(|error| error.to_string());
            let result = result.map(|committed| (committed, replica.usage()));
            drop(replica);
            let _ = me.cast(SiteMsg::Committed(life, Box::new(result)));
        }));
    }

    fn committed(&mut self, life: Life, result: Result<(ReplicaCommitted, Usage), String>) {
        let Some(entry) = self.lives.get_mut(&life) else { return };
        let Some(Busy { waiting, before }) = entry.busy.take() else { return };
        match result {
            Ok((committed, usage)) => {
                let events = |usage: &Usage| usage.class(Class::Raw).events;
                let site = [&*self.site];
                self.cloud.measures.records.with_label_values(&site).inc_by(committed.records);
                let more = events(&usage).saturating_sub(events(&entry.usage));
                self.cloud.measures.events.with_label_values(&site).inc_by(more);
                if committed.covered.is_empty() && waiting.iter().any(|(stored, _)| stored.is_some()) {
                    self.cloud.measures.twice.with_label_values(&site).inc();
                }
                for (track, first, last) in &committed.covered {
                    entry.covered[*track as usize].insert(first.0, last.0);
                }
                entry.usage = usage;
                waiting.into_iter().for_each(|(stored, arrived)| confirm(stored, &arrived));
                if committed.covered.iter().any(|(track, ..)| *track == Track::Results) {
                    self.apply.notify_one();
                }
                self.work(life);
            }
            Err(why) => {
                tracing::error!(site = self.site, origin = %life.origin, why, "what a site delivered could not be stored");
                entry.account = before;
                entry.unsaved = true;
                waiting.iter().for_each(|(_, arrived)| refuse(arrived, &why));
                // It is tried again with what is delivered next.
            }
        }
        // Commits may be thousands a second.
        if self.cloud.env.now().since(self.measured_at) >= MEASURE_EVERY {
            self.measure();
        }
    }

    fn to_archive(&self) -> Vec<Archivable> {
        let now = self.cloud.env.now();
        let archivable = |(life, entry): (&Life, &Entry)| {
            let (_, reader) = entry.open.as_ref()?;
            let silent = entry.by_whom(*life) != Some(life.origin) && now.since(entry.idle_since) >= ABSENCE;
            let through = if silent { u64::MAX - 1 } else { entry.account.settled.0 };
            let all: RangeSet = [(1, through)].into_iter().filter(|(first, last)| first <= last).collect();
            let sure = entry.covered[Track::Raw as usize].intersection(&all);
            Some(Archivable { life: *life, reader: reader.clone(), sure })
        };
        self.lives.iter().filter_map(archivable).collect()
    }

    fn archived(&mut self, life: Life, through: Seq) {
        if let Some(entry) = self.lives.get_mut(&life) {
            entry.archived = entry.archived.max(through);
        }
    }

    fn ready(&self) -> Vec<Ready> {
        let ready = |(life, entry): (&Life, &Entry)| {
            let (_, reader) = entry.open.as_ref()?;
            let raw = entry.covered[Track::Raw as usize].prefix_end().min(entry.account.settled.0);
            Some(Ready { life: *life, reader: reader.clone(), results: entry.account.applied, raw: Seq(raw) })
        };
        self.lives.iter().filter_map(ready).collect()
    }

    /// Each copy is told by its own worker, in its turn.
    fn purge(&self, reply: oneshot::Sender<()>) {
        let done = Arc::new(Mutex::new(Some(reply)));
        let mut retention = Retention::default();
        retention.rules[Class::Raw as usize].max_age_ms = -1;
        let now_ms = self.cloud.env.wall().as_millis();
        for entry in self.lives.values().filter(|entry| entry.archived > Seq(0)) {
            let Some((open, _)) = &entry.open else { continue };
            let (replica, done) = (open.replica.clone(), done.clone());
            let (retain, keep_from) = (Some(retention), Some(entry.archived.next()));
            let commit = ReplicaCommit { retain, keep_from, now_ms, ..ReplicaCommit::default() };
            entry.worker.run(Box::new(move || {
                let purged = replica.lock().unwrap_or_else(PoisonError::into_inner).commit(&commit);
                if let Err(error) = purged {
                    tracing::warn!(%error, "what is archived could not be removed from a copy");
                }
                // Who drops it last has done the last.
                drop(done);
            }));
        }
        drop(done);
    }

    fn due(&self) -> applying::Due {
        let mut due = applying::Due::default();
        for (life, entry) in &self.lives {
            let Some((_, reader)) = &entry.open else { continue };
            let through = Seq(entry.covered[Track::Results as usize].prefix_end());
            due.applied.insert(*life, entry.account.applied);
            if entry.account.applied < through {
                due.lives.push((*life, reader.clone(), entry.account.applied.next(), through));
            }
        }
        due
    }

    fn applied(&mut self, life: Life, done: applying::Done) {
        let Some(entry) = self.lives.get_mut(&life) else { return };
        entry.account.applied = entry.account.applied.max(done.through);
        done.dropped.iter().for_each(|range| entry.account.dropped(range));
        entry.account.quarantined += done.unreadable;
        entry.unsaved = true;
        // It goes to the disk with what comes next: what was applied after that is applied again after a restart.
        if !done.dropped.is_empty() {
            self.work(life);
        }
    }

    fn lines(&self) -> Vec<LifeLine> {
        let line = |(life, entry): (&Life, &Entry)| {
            let class = |class: &millpond_store::ClassUsage| {
                class.records + class.dropped.iter().map(|dropped| dropped.records).sum::<u64>()
            };
            let delivered = entry.usage.classes.iter().map(class).sum();
            LifeLine {
                life: *life,
                account: entry.account.clone(),
                line: entry.account.line([&entry.covered[0], &entry.covered[1]], delivered),
                by: entry.by_whom(*life),
                applied: entry.account.applied.0,
            }
        };
        self.lives.iter().map(line).collect()
    }

    fn measure(&mut self) {
        self.measured_at = self.cloud.env.now();
        self.cloud.measures.show(&self.site, &self.lines());
    }
}

impl Entry {
    fn by_whom(&self, life: Life) -> Option<Origin> {
        let own = self.by.contains_key(&life.origin).then_some(life.origin);
        own.or_else(|| self.by.keys().next().copied())
    }
}

fn read_account(open: copies::Open) -> Result<Opened, String> {
    let account = account_of(&open.reader)?;
    let usage = open.reader.stats().map_err(|error| error.to_string())?;
    Ok(Opened { open, account, usage })
}

/// The account that a copy holds, an empty one before the first commit.
///
/// # Errors
/// When the copy cannot be read.
pub fn account_of(copy: &Reader) -> Result<Account, String> {
    let row = copy.get(Table::Meta, ACCOUNT).map_err(|error| error.to_string())?;
    let account = row.map(|row| record::decode(&row)).transpose().map_err(|error| error.to_string())?;
    Ok(account.unwrap_or_default())
}

fn stored_of(sent: &Sent) -> Stored {
    let run = &sent.run;
    Stored { origin: run.origin, incarnation: run.incarnation, track: run.track, first: run.first, last: run.last }
}

fn confirm(stored: Option<Stored>, arrived: &Arrived) {
    if let Some(stored) = stored {
        let _ = arrived.receipts.send(Receipt::Stored(stored));
    }
}

fn refuse(arrived: &Arrived, why: &str) {
    let _ = arrived.receipts.send(Receipt::Refused { why: why.to_owned() });
}
