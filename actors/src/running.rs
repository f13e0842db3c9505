//! A node from its start to its end.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
};

use millpond_core::{
    admission::Known,
    ids::{Origin, Seq},
    problem::SpecProblem,
    time::Span,
    window::Pane,
};
use millpond_env::Env;
use millpond_gateway::{
    broker::Broker,
    port::{AskError, Json, Node},
    tap::Tap,
};
use millpond_store::{Commit, CommitError, OpenDevice, OpenError, Opened, Options, ReadError, Reader, Store, Table};
use prometheus::Registry;
use ractor::{Actor, ActorRef};
use rand::RngExt;
use tokio::sync::oneshot;

use crate::{
    api::Api,
    front::{Front, shard_of},
    handover::Handover,
    health::Pulse,
    journal::saved::Saved,
    metrics::Metrics,
    root::{self, Root, RootMsg},
    schemas,
    settings::{Ack, Current, Settings},
    shard::{Answers, ShardMsg},
    site::Site,
    window::WindowMsg,
    writer::Writer,
};

/// Name of the store's file in the data directory.
pub const STORE_FILE: &str = "millpond.redb";

const MERGE_AGAIN_AFTER: Span = Span::from_millis(50);

/// A node that has recovered and works. Its doors are opened by whoever started it.
pub struct Running {
    pub node: Arc<dyn Node>,
    api: Arc<Api>,
    pub broker: Arc<Broker>,
    pub tap: Arc<Tap>,
    pub registry: Registry,
    pub opened: Opened,
    /// Reads the node's own journal and state.
    pub reader: Reader,
    pub settings: Current,
    /// Where a mesh joins in.
    pub site: Arc<Site>,
    /// Writes to the node's own journal and state.
    pub writer: Writer,
    handover: Option<Arc<Handover>>,
    front: Arc<Front>,
    root: ActorRef<RootMsg>,
    ended: oneshot::Receiver<String>,
}

/// A question of the mesh for devices that are known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevicesAsked {
    /// At most so many whose names come after one.
    After(Option<String>, usize),
    One(String),
}

/// What was found.
pub type Found = Pin<Box<dyn Future<Output = Result<Vec<Json>, AskError>> + Send>>;

/// The way of merged panes to the disk.
pub type Merging = Pin<Box<dyn Future<Output = bool> + Send>>;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the store could not be opened")]
    Store(#[from] OpenError),
    /// A schema was changed in a way that its devices' data may not survive. Nothing was changed.
    #[error("schemas were changed in ways that are not compatible: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Schemas(Vec<SpecProblem>),
    #[error("the node could not be started: {0}")]
    Tree(String),
    /// Nobody can write as another.
    #[error("the node's certificate is for {certificate}, but the journal was written by {journal}")]
    Foreign { certificate: Origin, journal: Origin },
    #[error("the metrics could not be set up")]
    Metrics(#[from] prometheus::Error),
}

impl Running {
    /// Opens the store (its incarnation is durable before anything is sent), recovers, and starts the tree.
    ///
    /// # Errors
    /// See [`StartError`]. The store is left as it was.
    pub async fn start(
        env: Env,
        settings: Settings,
        broker: Arc<Broker>,
        tap: Arc<Tap>,
        registry: Registry,
    ) -> Result<Running, StartError> {
        let settings = Arc::new(settings);
        let current = Current::new(settings.clone());
        let (mut store, opened) = open_store(&env, &settings).await?;
        if let Some(membership) = settings.membership.filter(|membership| membership.origin != opened.origin) {
            return Err(StartError::Foreign { certificate: membership.origin, journal: opened.origin });
        }
        let reader = store.reader();
        note_schemas(&env, &mut store, &settings)?;
        load_retained(&reader, &broker);
        let metrics = Metrics::new(&registry)?;
        let front = Arc::new(Front::new(settings.in_flight_bytes));
        let pulse = Arc::new(Pulse::new(env.now()));
        let ack = settings.membership.map_or(Ack::Local, |membership| membership.ack);
        let settled = match settings.membership {
            Some(_) => Saved::read(&reader).map_err(|error| StartError::Tree(error.to_string()))?.settled(),
            None => Seq(u64::MAX),
        };
        let site = Arc::new(Site::new(ack, Seq(opened.next_seq.0 - 1), settled));
        site.doubt(settings.membership.is_some() && !opened.created);
        let (ended_tx, ended) = oneshot::channel();
        let arguments = root::Arguments {
            env: env.clone(),
            settings: settings.clone(),
            current: current.clone(),
            store: Arc::new(Mutex::new(store)),
            reader: reader.clone(),
            next_seq: opened.next_seq,
            front: front.clone(),
            broker: broker.clone(),
            tap: tap.clone(),
            metrics: metrics.clone(),
            pulse: pulse.clone(),
            site: site.clone(),
        };
        let started = Actor::spawn(None, Root, (arguments, ended_tx)).await;
        let (root, _) = started.map_err(|error| StartError::Tree(error.to_string()))?;
        let (refs_tx, refs) = oneshot::channel();
        let _ = root.cast(RootMsg::Refs(refs_tx));
        let refs = refs.await.map_err(|_| StartError::Tree("the root supervisor has gone".into()))?;
        let writer = Writer::new(refs.journal.clone());
        let handover = settings.membership.map(|_| Arc::new(Handover::new(refs.journal.clone())));
        let api = Arc::new(Api {
            env,
            settings: current.clone(),
            reader: reader.clone(),
            front: front.clone(),
            site: site.clone(),
            handover: handover.clone(),
            refs,
            metrics,
            pulse,
            registry: registry.clone(),
            opened,
        });
        Ok(Running {
            node: api.clone(),
            api,
            broker,
            tap,
            registry,
            opened,
            reader,
            settings: current,
            site,
            writer,
            handover,
            front,
            root,
            ended,
        })
    }

    /// Tells how many bytes are between the sockets and the journal, without asking an actor or the store.
    pub fn in_flight(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let front = self.front.clone();
        move || front.in_flight_bytes()
    }

    /// What this node knows of the devices' events, as of when all that it had taken in is on its disk.
    pub fn known(&self) -> impl Fn(Vec<String>) -> oneshot::Receiver<Vec<Known>> + Send + Sync + 'static {
        let front = self.front.clone();
        move |devices| {
            let (reply, answer) = oneshot::channel();
            if let Some(plane) = front.plane() {
                let reply = Arc::new(Answers::new(reply));
                for (index, shard) in plane.shards.iter().enumerate() {
                    let share = devices.iter().filter(|device| shard_of(device, plane.shards.len()) == index);
                    let share: Vec<String> = share.cloned().collect();
                    if !share.is_empty() {
                        let _ = shard.cast(ShardMsg::Known { devices: share, answers: reply.clone() });
                    }
                }
            }
            answer
        }
    }

    /// Has panes of other sites, merged by [`Merged`](crate::merged::Merged), journaled, shown and judged as if they had been fired here;
    /// resolves to `true` when they are on disk, and `false` when the node ends or its disk refuses. While the data plane is replaced it
    /// waits. Revisions of a pane must come in their order: wait for one call before the next. Panes of windows that are not defined are
    /// passed over. What was given before may be given again: rules take no notice of a revision that they know.
    pub fn merge(&self) -> impl Fn(Vec<Pane>) -> Merging + Send + Sync + 'static {
        let (env, front) = (self.api.env.clone(), self.front.clone());
        move |panes| Box::pin(merge(env.clone(), front.clone(), panes))
    }

    /// Rebuilds the data plane from the last checkpoint and the journal, with what is to be left out since.
    pub fn rebuild(&self) -> impl Fn() -> oneshot::Receiver<()> + Send + Sync + 'static {
        let root = self.root.clone();
        move || {
            let (reply, done) = oneshot::channel();
            let _ = root.cast(RootMsg::Rebuild(reply));
            done
        }
    }

    /// Goes on with other windows, rules, device types and schemas; the rest of the settings stays as it is. What is wrong with them is
    /// told, and then nothing has changed.
    pub fn reconfigure(
        &self,
    ) -> impl Fn(Settings) -> oneshot::Receiver<Result<(), Vec<SpecProblem>>> + Send + Sync + 'static {
        let root = self.root.clone();
        move |settings| {
            let (reply, done) = oneshot::channel();
            let _ = root.cast(RootMsg::Reconfigure(Box::new(settings), reply));
            done
        }
    }

    /// Asks for what this node itself knows of its devices: of those whose names come after one, or of one alone.
    pub fn devices(&self) -> impl Fn(DevicesAsked) -> Found + Send + Sync + 'static {
        let api = self.api.clone();
        move |asked| {
            let api = api.clone();
            Box::pin(async move {
                match asked {
                    DevicesAsked::After(after, limit) => api.devices_here(after, limit).await,
                    DevicesAsked::One(device) => api.device_here(&device).await.map(|device| vec![device]),
                }
            })
        }
    }

    /// Tells that another node has these devices now.
    pub fn release(&self) -> impl Fn(&[String]) + Send + Sync + 'static {
        let handover = self.handover.clone();
        move |devices| {
            if let Some(handover) = &handover {
                handover.release(devices.iter().map(String::as_str));
            }
        }
    }

    /// Resolves, with the reason, when the node has ended by itself.
    pub async fn ended(&mut self) -> String {
        match (&mut self.ended).await {
            Ok(why) => why,
            Err(_) => "the root supervisor has gone".into(),
        }
    }

    /// The power goes: nothing more reaches the disk.
    #[cfg(test)]
    pub fn crash(self) {
        self.root.kill();
    }

    /// Commits what is under way, saves the state and stops. Close the doors first.
    pub async fn stop(self) {
        let (tx, rx) = oneshot::channel();
        if self.root.cast(RootMsg::Stop(tx)).is_ok() {
            let _ = rx.await;
        }
        let _ = self.root.stop_and_wait(None, None).await;
    }
}

async fn merge(env: Env, front: Arc<Front>, panes: Vec<Pane>) -> bool {
    let mut windows: BTreeMap<String, Vec<Pane>> = BTreeMap::new();
    for pane in panes {
        windows.entry(pane.window.clone()).or_default().push(pane);
    }
    for (window, panes) in windows {
        loop {
            if front.is_closed() {
                return false;
            }
            // Between two lives of the plane nobody is there, and who goes with one does not answer.
            if let Some(plane) = front.plane() {
                let Some(index) = plane.window_names.iter().position(|name| *name == window) else { break };
                let (stored, verdict) = oneshot::channel();
                let _ = plane.windows[index].cast(WindowMsg::Merged { panes: panes.clone(), stored });
                match verdict.await {
                    Ok(true) => break,
                    Ok(false) => return false,
                    Err(_) => {}
                }
            }
            env.sleep(MERGE_AGAIN_AFTER).await;
        }
    }
    true
}

async fn open_store(env: &Env, settings: &Settings) -> Result<(Store, Opened), OpenError> {
    let disk = env.disk.clone();
    let device: OpenDevice = Box::new(move || disk.open(STORE_FILE));
    let mut options = Options { cache_bytes: settings.store.cache_bytes as usize, ..Options::default() };
    if let Some(membership) = settings.membership {
        options.fresh_incarnation = membership.founds;
    }
    let fresh = settings.membership.map_or_else(|| Origin(env.rng("origin").random()), |membership| membership.origin);
    let gone = || OpenError::Device(io::Error::other("the opening was interrupted"));
    env.unblock(move || Store::open(device, options, fresh)).await.unwrap_or_else(|| Err(gone()))
}

/// Refuses incompatible changes of schemas, and remembers the others.
fn note_schemas(env: &Env, store: &mut Store, settings: &Settings) -> Result<(), StartError> {
    let unreadable = |error: ReadError| StartError::Tree(error.to_string());
    let puts =
        schemas::changes(&store.reader(), &settings.schemas).map_err(unreadable)?.map_err(StartError::Schemas)?;
    if puts.is_empty() {
        return Ok(());
    }
    let commit = Commit { puts, now_ms: env.wall().as_millis(), ..Commit::default() };
    match store.commit(&commit) {
        Ok(_) => Ok(()),
        // Nothing is lost: the next start remembers them.
        Err(CommitError::Full { .. }) => Ok(()),
        Err(error) => Err(StartError::Tree(error.to_string())),
    }
}

fn load_retained(reader: &Reader, broker: &Broker) {
    let mut retained = Vec::new();
    let read = reader.range(Table::Retained, b"", |key, value| {
        if let (Ok(topic), Some((qos, payload))) = (std::str::from_utf8(key), value.split_first()) {
            retained.push((topic.to_string(), value.slice_ref(payload), *qos));
        }
        std::ops::ControlFlow::Continue(())
    });
    if let Err(error) = read {
        tracing::warn!(%error, "retained messages could not be read");
    }
    broker.load_retained(retained);
}
