//! The root supervisor: starts the tree, and carries out its strategies.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millpond_core::{ids::Seq, problem::SpecProblem, record::Class, time::Span};
use millpond_env::Env;
use millpond_gateway::{broker::Broker, tap::Tap};
use millpond_store::{Put, Reader, Store};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::{
    alert::{self, AlertActor},
    device::{self, Directory, DirectoryMsg, quarantine_put},
    front::Front,
    health::Pulse,
    journal::{self, Journal, JournalMsg, Unit, Work},
    metrics::Metrics,
    notifier::{self, Notifier, NotifierMsg},
    plane::Plane,
    recovery::{self, Recovered, RecoveryError},
    settings::{Current, Settings},
    shard::{
        self, Shard,
        core::{ShardCore, Trips},
    },
    site::Site,
    tree::{Branch, Failures, Strategy, TREE},
    window::{self, Window, WindowCore, WindowMsg},
};

/// How long the journal may take to settle before the data plane is rebuilt over it.
const DRAIN_TIMEOUT: Span = Span::from_secs(10);
/// Records that may be set aside in one recovery before the node gives up.
const POISON_MAX: usize = 64;

pub struct Root;

pub struct Arguments {
    pub env: Env,
    pub settings: Arc<Settings>,
    pub current: Current,
    pub store: Arc<Mutex<Store>>,
    pub reader: Reader,
    pub next_seq: Seq,
    pub front: Arc<Front>,
    pub broker: Arc<Broker>,
    pub tap: Arc<Tap>,
    pub metrics: Arc<Metrics>,
    pub pulse: Arc<Pulse>,
    pub site: Arc<Site>,
}

pub enum RootMsg {
    /// Who the long-lived actors are.
    Refs(oneshot::Sender<Refs>),
    /// Replaces the data plane by one that is recovered anew; answered when it is up.
    Rebuild(oneshot::Sender<()>),
    /// The same with the windows, rules, device types and schemas of these settings.
    Reconfigure(Box<Settings>, oneshot::Sender<Result<(), Vec<SpecProblem>>>),
    /// Stops the data plane, makes a last checkpoint, and lets the journal settle.
    Stop(oneshot::Sender<()>),
}

/// The actors that others talk to.
#[derive(Clone)]
pub struct Refs {
    pub journal: ActorRef<JournalMsg>,
    pub directory: ActorRef<DirectoryMsg>,
}

pub struct State {
    args: Arguments,
    ended: Option<oneshot::Sender<String>>,
    journal: ActorRef<JournalMsg>,
    directory: ActorRef<DirectoryMsg>,
    notifier: ActorRef<NotifierMsg>,
    plane: Option<Arc<Plane>>,
    members: Vec<(ActorId, Branch, ActorCell)>,
    failures: [Failures; TREE.len()],
    generation: u64,
    /// The definitions are those that the site agreed on.
    agreed: bool,
    stopping: bool,
}

#[async_trait]
impl Actor for Root {
    type Msg = RootMsg;
    type State = State;
    /// The sender is told why when the node has ended by itself.
    type Arguments = (Arguments, oneshot::Sender<String>);

    async fn pre_start(
        &self,
        me: ActorRef<RootMsg>,
        (args, ended): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let recovered = recover(&args, None).await?;
        let (journal, _) = me.spawn_linked(None, Journal, journal_arguments(&args, &recovered)).await?;
        let (directory, _) = me.spawn_linked(None, Directory, directory_arguments(&args, &journal)).await?;
        let (notifier, _) = me.spawn_linked(None, Notifier, notifier_arguments(&args, &journal)).await?;
        let members = vec![
            (journal.get_id(), Branch::Journal, journal.get_cell()),
            (directory.get_id(), Branch::Directory, directory.get_cell()),
            (notifier.get_id(), Branch::Notifier, notifier.get_cell()),
        ];
        let mut state = State {
            args,
            ended: Some(ended),
            journal,
            directory,
            notifier,
            plane: None,
            members,
            failures: Default::default(),
            generation: 0,
            agreed: false,
            stopping: false,
        };
        state.start_plane(&me, recovered).await?;
        Ok(state)
    }

    async fn handle(&self, me: ActorRef<RootMsg>, msg: RootMsg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match msg {
            RootMsg::Rebuild(reply) => {
                if !state.stopping {
                    state.rebuild_or_end(&me).await;
                }
                let _ = reply.send(());
            }
            RootMsg::Reconfigure(settings, reply) => {
                let _ = reply.send(state.reconfigure(&me, *settings).await);
            }
            RootMsg::Refs(reply) => {
                let _ = reply.send(Refs { journal: state.journal.clone(), directory: state.directory.clone() });
            }
            RootMsg::Stop(reply) => {
                state.stopping = true;
                state.settle().await;
                let _ = reply.send(());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(cell, error) = event else { return Ok(()) };
        let Some(at) = state.members.iter().position(|(id, _, _)| *id == cell.get_id()) else { return Ok(()) };
        let (_, branch, _) = state.members.remove(at);
        if state.stopping {
            return Ok(());
        }
        tracing::error!(?branch, %error, "an actor failed");
        state.args.metrics.restarts(branch).inc();
        match state.failures[branch as usize].judge(branch, state.args.env.now()) {
            Strategy::NodeEnds => state.end(format!("{branch:?} failed: {error}")),
            Strategy::OneForOne => state.restart(branch, &me).await?,
            Strategy::OneForAll => state.rebuild_or_end(&me).await,
        }
        Ok(())
    }
}

impl State {
    async fn restart(&mut self, branch: Branch, me: &ActorRef<RootMsg>) -> Result<(), ActorProcessingErr> {
        let member = match branch {
            Branch::Directory => {
                let arguments = directory_arguments(&self.args, &self.journal);
                self.directory = me.spawn_linked(None, Directory, arguments).await?.0;
                (self.directory.get_id(), branch, self.directory.get_cell())
            }
            Branch::Notifier => {
                let arguments = notifier_arguments(&self.args, &self.journal);
                self.notifier = me.spawn_linked(None, Notifier, arguments).await?.0;
                (self.notifier.get_id(), branch, self.notifier.get_cell())
            }
            Branch::Journal | Branch::Plane => return Ok(()),
        };
        self.members.push(member);
        Ok(())
    }

    async fn rebuild_or_end(&mut self, me: &ActorRef<RootMsg>) {
        if let Err(error) = self.rebuild_plane(me).await {
            self.end(format!("the data plane could not be rebuilt: {error}"));
        }
    }

    /// Windows that are new begin with the records after the last checkpoint; those that stay as they are go on.
    async fn reconfigure(&mut self, me: &ActorRef<RootMsg>, wanted: Settings) -> Result<(), Vec<SpecProblem>> {
        let Settings { device_types, schemas, windows, rules, .. } = wanted;
        let settings = Settings { device_types, schemas, windows, rules, ..(*self.args.settings).clone() };
        ShardCore::new(&settings, &Trips::default())?;
        (0..settings.windows.len()).try_for_each(|index| WindowCore::new(&settings, index).map(|_| ()))?;
        if self.stopping {
            return Ok(());
        }
        self.args.settings = Arc::new(settings);
        self.agreed = true;
        self.args.current.set(self.args.settings.clone());
        tracing::info!("the data plane goes on with other definitions");
        self.rebuild_or_end(me).await;
        Ok(())
    }

    async fn rebuild_plane(&mut self, me: &ActorRef<RootMsg>) -> Result<(), ActorProcessingErr> {
        self.args.front.hold();
        self.args.pulse.rebuilding(true);
        for (_, branch, cell) in &self.members {
            if *branch == Branch::Plane {
                cell.kill();
            }
        }
        self.members.retain(|(_, branch, _)| *branch != Branch::Plane);
        self.plane = None;
        self.drain().await;
        let recovered = recover(&self.args, Some(&self.journal)).await?;
        self.start_plane(me, recovered).await
    }

    /// Alerts first, then windows, then shards: each knows those it talks to.
    async fn start_plane(&mut self, me: &ActorRef<RootMsg>, recovered: Recovered) -> Result<(), ActorProcessingErr> {
        self.generation += 1;
        let (args, generation) = (&self.args, self.generation);
        let (records, events) = (recovered.records, recovered.events);
        let mut members: Vec<ActorCell> = Vec::new();
        let arguments = alert::Arguments {
            env: args.env.clone(),
            settings: args.settings.clone(),
            generation,
            alerts: recovered.alerts,
            defined: recovered.defined,
            agreed: self.agreed,
            backlog: recovered.signals,
            journal: self.journal.clone(),
            notifier: self.notifier.clone(),
            broker: args.broker.clone(),
            metrics: args.metrics.alerts.clone(),
            tally: args.site.tally(),
        };
        let (alerts, _) = me.spawn_linked(None, AlertActor, arguments).await?;
        members.push(alerts.get_cell());
        let mut windows = Vec::new();
        for (index, (core, backlog)) in recovered.windows.into_iter().zip(recovered.effects).enumerate() {
            let arguments = window::Arguments {
                env: args.env.clone(),
                settings: args.settings.clone(),
                index,
                generation,
                core,
                backlog,
                journal: self.journal.clone(),
                alerts: alerts.clone(),
                broker: args.broker.clone(),
                metrics: args.metrics.window(&args.settings.windows[index].name),
            };
            windows.push(me.spawn_linked(None, Window, arguments).await?.0);
        }
        members.extend(windows.iter().map(ActorRef::get_cell));
        let mut shards = Vec::new();
        for (index, core) in recovered.shards.into_iter().enumerate() {
            let arguments = shard::Arguments {
                env: args.env.clone(),
                settings: args.settings.clone(),
                index,
                generation,
                core,
                journal: self.journal.clone(),
                windows: windows.clone(),
                alerts: alerts.clone(),
                tap: args.tap.clone(),
                site: args.site.clone(),
                metrics: args.metrics.shards.clone(),
            };
            shards.push(me.spawn_linked(None, Shard, arguments).await?.0);
        }
        members.extend(shards.iter().map(ActorRef::get_cell));
        self.members.extend(members.into_iter().map(|cell| (cell.get_id(), Branch::Plane, cell)));
        let window_names = args.settings.windows.iter().map(|spec| spec.name.clone()).collect();
        let plane = Arc::new(Plane { generation, shards, windows, window_names, alerts });
        for window in &plane.windows {
            let _ = window.cast(WindowMsg::Plane(plane.clone()));
        }
        let _ = self.journal.cast(JournalMsg::Plane(plane.clone()));
        args.front.open(plane.clone());
        args.pulse.rebuilding(false);
        tracing::info!(generation, records, events, "the data plane is up");
        self.plane = Some(plane);
        Ok(())
    }

    async fn drain(&self) {
        let (tx, rx) = oneshot::channel();
        let _ = self.journal.cast(JournalMsg::Drain(tx));
        if self.args.env.timeout(DRAIN_TIMEOUT, rx).await.is_err() {
            tracing::warn!("the journal did not settle in time");
        }
    }

    /// The end in good order: nothing new comes in, what is under way is committed, the state is saved.
    async fn settle(&mut self) {
        self.args.front.close();
        self.drain().await;
        let (tx, rx) = oneshot::channel();
        let _ = self.journal.cast(JournalMsg::Checkpoint(tx));
        let made = self.args.env.timeout(DRAIN_TIMEOUT, rx).await;
        if !matches!(made, Ok(Ok(true))) {
            tracing::warn!("no last checkpoint was made; the next start replays more of the journal");
        }
        self.drain().await;
    }

    fn end(&mut self, why: String) {
        tracing::error!(why, "the node ends");
        self.args.pulse.ended(why.clone());
        self.args.front.close();
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(why);
        }
    }
}

/// Recovery off the executor. Records that make it fail are set aside, durably, one after the other.
async fn recover(args: &Arguments, journal: Option<&ActorRef<JournalMsg>>) -> Result<Recovered, ActorProcessingErr> {
    for _ in 0..POISON_MAX {
        let (settings, reader) = (args.settings.clone(), args.reader.clone());
        let trips = Trips::of(args.env.trace.as_ref());
        let outcome = args.env.unblock(move || recovery::recover(&settings, &reader, &trips)).await;
        let (seq, devices) = match outcome {
            Some(Ok(recovered)) => return Ok(recovered),
            Some(Err(RecoveryError::Poison { seq, devices })) => (seq, devices),
            Some(Err(error)) => return Err(error.into()),
            None => return Err("recovery panicked".into()),
        };
        tracing::error!(
            seq = seq.0,
            ?devices,
            "a record makes the data plane fail; it is left out from now on, and its devices are quarantined (MP0113)"
        );
        let mut puts: Vec<Put> = devices.iter().map(|device| recovery::poison_put(seq, device)).collect();
        puts.extend(devices.iter().map(|device| quarantine_put(device, "its data made windows fail")));
        if devices.is_empty() {
            puts.push(recovery::poison_put(seq, ""));
        }
        let work = Work { puts, ..Work::default() };
        match journal {
            Some(journal) => {
                let (tx, rx) = oneshot::channel();
                let unit = Unit::awaited(Class::State, work, tx);
                let _ = journal.cast(JournalMsg::Append(unit));
                if !matches!(args.env.timeout(DRAIN_TIMEOUT, rx).await, Ok(Ok(true))) {
                    return Err("a record that fails could not be marked".into());
                }
            }
            None => {
                let (store, now_ms) = (args.store.clone(), args.env.wall().as_millis());
                let commit = millpond_store::Commit { puts: work.puts, now_ms, ..Default::default() };
                let done = args
                    .env
                    .unblock(move || store.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).commit(&commit));
                done.await.ok_or("the store panicked")??;
            }
        }
    }
    Err("too many records make the data plane fail".into())
}

fn journal_arguments(args: &Arguments, recovered: &Recovered) -> journal::Arguments {
    journal::Arguments {
        env: args.env.clone(),
        settings: args.settings.clone(),
        store: args.store.clone(),
        hlc: recovered.hlc,
        replayed: recovered.events > 0,
        next_seq: args.next_seq,
        metrics: args.metrics.journal.clone(),
        pulse: args.pulse.clone(),
        site: args.site.clone(),
    }
}

fn directory_arguments(args: &Arguments, journal: &ActorRef<JournalMsg>) -> device::Arguments {
    device::Arguments {
        env: args.env.clone(),
        reader: args.reader.clone(),
        journal: journal.clone(),
        metrics: args.metrics.devices.clone(),
    }
}

fn notifier_arguments(args: &Arguments, journal: &ActorRef<JournalMsg>) -> notifier::Arguments {
    notifier::Arguments {
        env: args.env.clone(),
        settings: args.settings.clone(),
        reader: args.reader.clone(),
        journal: journal.clone(),
        metrics: args.metrics.notifier.clone(),
    }
}
