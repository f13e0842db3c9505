//! The mesh: what makes a box one of a site.
//!
//! One actor owns the pure machines — membership, replication, documents — and carries input in and effects out. Beside it tasks do
//! what takes time: one per peer reads and pushes the node's own records, one per fetch asks for what is missing, one worker per copy
//! writes. Nothing in here holds up the data plane, but for acknowledgements that were asked to wait for the site.
//!
//! ```text
//!                    ┌─ membership (SWIM over datagrams) ── who is there
//! transport events ──┼─ replication (ledger) ── push, fetch, keep, confirm
//! journal moved ─────┤        └─ copies (files)  ── adoption of nodes that are gone
//! timers ────────────┼─ homes of devices
//! operators, devices ┴─ documents, twins, commands ── pen (the node's own journal and tables)
//! ```
//!
//! Invariants
//! 1. What is pushed or served is committed: it is read from journals and copies, never from memory.
//! 2. A record of an origin is taken from that origin's own link, or in answer to a fetch.
//! 3. What a copy says that it holds is on disk.

mod adoption;
mod asking;
pub(crate) mod copies;
mod copying;
mod documents;
mod elsewhere;
mod fetch;
mod gone;
mod homes;
mod offering;
mod ordered;
mod orders;
mod others;
mod peers;
mod pen;
mod push;
mod report;
mod requests;
pub(crate) mod runs;
mod serve;
mod settling;
mod state;
pub(crate) mod texts;
mod twins;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use millpond_actors::{
    Running,
    adopt::Adopted,
    config::{CloudSettings, Config},
    settings::Current,
};
use millpond_core::{
    admission::Known,
    ids::{Origin, Seq},
    record::{Home, Track},
    time::Span,
};
use millpond_env::Env;
use millpond_gateway::port::{AskError, Json};
use millpond_proto::{
    membership::TimerToken,
    replication::{FetchEnd, FetchId, Life},
    twin::commands::CommandId,
    uplink::orders::Order,
    wire::Run,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rustls::crypto::CryptoProvider;
use tokio::sync::oneshot;

pub use self::copies::{FOLDER, life_of};
pub(crate) use self::{offering::OnOffer, ordered::Ordered};
use self::{others::MeshOthers, state::State};
use crate::{
    cloud::{Cloud, CloudError, Parts},
    habits::Habits,
    identity::{IdentityError, NodeIdentity, files},
    sites::{Own, Shelf, Sites},
    transport::{Event, OpenError, Options, Transport},
};

const TICK: Span = Span::from_millis(100);
/// How long a goodbye may take.
const GOODBYE: Span = Span::from_secs(2);

/// A node's part in the mesh. Stop it before the node.
pub struct Mesh {
    pub addr: SocketAddr,
    actor: ActorRef<MeshMsg>,
    transport: Transport,
    sites: Sites,
    env: Env,
}

/// Why a node that belongs to a site does not take part in it.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    #[error("the port for the other nodes of the site could not be opened")]
    Transport(#[from] OpenError),
    #[error("the address of this node could not be kept")]
    Address(#[from] IdentityError),
    #[error("the copies of other nodes' journals could not be found")]
    Copies(#[source] std::io::Error),
    #[error("the journal could not be read")]
    Journal(#[from] millpond_store::ReadError),
    #[error("the mesh could not be started: {0}")]
    Actor(String),
    #[error("the metrics could not be set up")]
    Metrics(#[from] prometheus::Error),
}

pub(crate) enum MeshMsg {
    Event(Event),
    /// The node's own journal has moved.
    Moved,
    Timer(TimerToken),
    Tick,
    /// Changes of documents that were collected are to be made.
    DocumentsDue,
    Copy(copies::Done),
    Resolved(Vec<SocketAddr>),
    /// Which devices came to another node.
    ToldOfHomes {
        told: settling::Told,
        reply: oneshot::Sender<settling::Shared>,
    },
    /// It is known which of the records up to here others have too; nothing when not all could be asked. Or windows are about to be rebuilt.
    Settled {
        through: Option<Seq>,
        rebuilds: bool,
    },
    /// The data plane works with definitions of these heads, or says why not.
    Defined {
        heads: BTreeMap<String, String>,
        problems: Vec<String>,
    },
    PushFailed {
        to: Origin,
        track: Track,
    },
    Fetched {
        from: Origin,
        run: Run,
    },
    FetchEnded {
        id: FetchId,
        how: FetchEnd,
    },
    Adopted {
        life: Life,
        /// Which records of events were read.
        events: Vec<(u64, u64)>,
        adopted: Option<Arc<Adopted>>,
    },
    /// Devices come to this node.
    Arrive {
        devices: Vec<String>,
        /// Who was asked before did not answer.
        again: bool,
        reply: oneshot::Sender<Arrival>,
    },
    /// Where these parts of the site's journals are to be looked for, or all of them, without the nodes that did not answer.
    Elsewhere {
        parts: Option<Vec<elsewhere::Part>>,
        silent: BTreeSet<Origin>,
        reply: oneshot::Sender<elsewhere::Plan>,
    },
    /// What this node could give to another site.
    OnOffer(oneshot::Sender<Vec<OnOffer>>),
    /// The links to the other nodes of the site.
    Links(oneshot::Sender<Vec<crate::transport::Link>>),
    /// How the site stands with what a cloud orders.
    Ordered {
        cloud: String,
        order: Arc<Order>,
        reply: oneshot::Sender<Ordered>,
    },
    /// What a cloud orders is to be written.
    Obey {
        cloud: String,
        order: Arc<Order>,
        reply: pen::Reply,
    },
    Operate {
        what: String,
        body: Json,
        reply: oneshot::Sender<Result<Json, AskError>>,
    },
    /// What the mesh itself had to write is on disk, or could not be written.
    Written {
        then: Vec<pen::Then>,
        stored: bool,
    },
    /// Somebody listens in the name of a device, or listens no more.
    Listens {
        device: String,
        on: bool,
    },
    /// Whether another node has a command on its disk now.
    Handed {
        id: CommandId,
        taken: bool,
    },
    /// What all nodes know of devices has come together.
    Devices {
        registry: Vec<Json>,
        lists: Vec<Json>,
        limit: usize,
        reply: pen::Reply,
    },
    /// What the files say of who is revoked; nothing when they could not be read.
    Looked(Option<upkeep::Looked>),
    /// Another certificate, when there was one to be had.
    Renewed(Option<Arc<NodeIdentity>>),
    Stop(oneshot::Sender<()>),
}

/// What is known at once of devices that come, and who has to be asked for the rest.
pub(crate) struct Arrival {
    pub homes: Vec<Home>,
    pub known: Vec<Known>,
    pub ask: Vec<Asked>,
}

/// Devices that were at home at another node.
pub(crate) struct Asked {
    pub origin: Origin,
    pub devices: Vec<String>,
    /// To whom can be asked.
    pub links: Vec<crate::transport::Link>,
    /// So many of them have to answer. With more than there are it is to be tried again: somebody cannot be asked yet.
    pub needed: usize,
}

pub(crate) struct MeshActor;

pub(crate) struct Arguments {
    pub env: Env,
    pub config: Arc<Config>,
    pub settings: Current,
    pub identity: Arc<NodeIdentity>,
    pub provider: Arc<CryptoProvider>,
    pub node: state::Plane,
    pub transport: Transport,
    pub habits: Habits,
    /// Copies that earlier lives left here.
    pub found: Vec<(Life, copies::Open)>,
    pub copies: Shared,
    pub sites: Sites,
}

/// The copies that can be read, for those who ask without the actor.
pub(crate) type Shared = Arc<Mutex<Vec<millpond_actors::site::Copy>>>;

impl Mesh {
    /// Opens the port, and joins the node's data plane.
    ///
    /// # Errors
    /// See [`MeshError`].
    pub async fn start(
        env: Env,
        config: &Config,
        identity: Arc<NodeIdentity>,
        provider: Arc<CryptoProvider>,
        running: &Running,
        habits: Habits,
    ) -> Result<Mesh, MeshError> {
        let options = Options { listen: config.site.listen, identity: identity.clone(), provider: provider.clone() };
        let (transport, mut events) = Transport::open(&env, options).await?;
        transport.set_dialect(habits.dialect);
        let advertised = peers::advertised(config, transport.local_addr());
        let disk = env.disk.clone();
        let kept = env.unblock(move || files::save_address(disk.as_ref(), advertised)).await;
        kept.unwrap_or(Ok(()))?;
        let listing = env.clone();
        let retention = millpond_actors::retention_of_copies(config);
        let found = env.unblock(move || Ok((copies::Copies::found(&listing)?, Shelf::open(listing, retention)?))).await;
        let found = found.unwrap_or_else(|| Err(std::io::ErrorKind::Interrupted.into()));
        let (found, shelf) = found.map_err(MeshError::Copies)?;
        let (copies, own_origin) = (Shared::default(), identity.origin);
        let settings = running.settings.clone();
        let sites = Sites::new(env.clone(), transport.clone(), settings, shelf, &running.registry)?;
        let arguments = Arguments {
            env: env.clone(),
            config: Arc::new(config.clone()),
            settings: running.settings.clone(),
            identity,
            provider,
            node: state::Plane::of(running),
            transport: transport.clone(),
            habits,
            found,
            copies: copies.clone(),
            sites: sites.clone(),
        };
        let started = Actor::spawn(None, MeshActor, arguments).await;
        let (actor, _) = started.map_err(|error| MeshError::Actor(error.to_string()))?;
        let life = Life { origin: own_origin, incarnation: running.opened.incarnation };
        let (boots, site, reader) = (running.opened.boots, running.site.clone(), running.reader.clone());
        sites.join(actor.clone(), Own { life, boots, site, reader });
        let (to, others) = (actor.clone(), sites.clone());
        env.spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::OtherSite { site, from, frame, more, replies } = event {
                    others.asked(&site, from, &frame, more, replies);
                    continue;
                }
                if to.cast(MeshMsg::Event(event)).is_err() {
                    return;
                }
            }
        });
        let (site, to) = (running.site.clone(), actor.clone());
        env.spawn(async move {
            loop {
                site.moved().await;
                if to.cast(MeshMsg::Moved).is_err() {
                    return;
                }
            }
        });
        running.site.join(Arc::new(MeshOthers::new(env.clone(), actor.clone(), copies, &sites)));
        Ok(Mesh { addr: transport.local_addr(), actor, transport, sites, env })
    }

    /// Makes the node one of a cloud: from now on it takes what other sites deliver.
    ///
    /// # Errors
    /// See [`CloudError`].
    pub async fn become_cloud(
        &self,
        settings: CloudSettings,
        running: &Running,
        parts: Parts,
    ) -> Result<Cloud, CloudError> {
        let cloud = Cloud::start(self.env.clone(), settings, self.sites.shelf(), running, parts).await?;
        self.sites.receive(cloud.clone());
        Ok(cloud)
    }

    /// Says goodbye and ends.
    pub async fn stop(self) {
        self.sites.stop();
        if let Some(cloud) = self.sites.cloud() {
            cloud.stop().await;
        }
        let (reply, told) = oneshot::channel();
        if self.actor.cast(MeshMsg::Stop(reply)).is_ok() {
            let _ = self.env.timeout(GOODBYE, told).await;
        }
        let _ = self.env.timeout(GOODBYE, self.transport.close()).await;
        self.actor.stop(None);
    }
}

#[async_trait]
impl Actor for MeshActor {
    type Msg = MeshMsg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<MeshMsg>, args: Arguments) -> Result<State, ActorProcessingErr> {
        let (env, to) = (args.env.clone(), me.clone());
        args.env.spawn(async move {
            loop {
                env.sleep(TICK).await;
                if to.cast(MeshMsg::Tick).is_err() {
                    return;
                }
            }
        });
        Ok(State::new(args, me)?)
    }

    async fn handle(&self, _: ActorRef<MeshMsg>, msg: MeshMsg, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.env().schedule_point().await;
        // The data plane works without a mesh, and most of the mesh without what made it fail.
        if catch_unwind(AssertUnwindSafe(|| state.handle(msg))).is_err() {
            state.recover();
        }
        Ok(())
    }
}
