//! What this site exchanges with others, without anybody between them.
//!
//! ```text
//!   trust files ──► terms per site ──► giving: answers questions of its nodes from the journal and the copies here
//!            ├────► uplink ──────────► delivering: one task per cloud says what this site has, to a node of the cloud
//!            └────► addresses ───────► taking: one task per site asks for what is missing ──► sites/NAME/ (copies)
//!                                                                       questions ──► answers from these copies
//! ```
//!
//! Each node that has a trust file with addresses takes for itself; the other nodes of its site ask it when somebody asks them. Nothing of
//! another site enters the mesh, its windows, rules or documents: the copies lie in a folder of their own, by site, and are
//! read only for questions that name the site.
//!
//! Invariants
//! 1. What leaves has passed [`Filter`](millpond_proto::sites::terms::Filter) with the terms of the site whose node asks, as they were when it asked.
//! 2. A record of another site lies below the name of the site whose authority vouched for the node that it came from.
//! 3. What is told to be held is on disk.

mod budgets;
mod delivering;
mod endurance;
mod giving;
mod measures;
mod obeying;
mod shelf;
mod taking;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use bytes::Bytes;
use millpond_actors::{
    other_sites::{self, Question},
    settings::Current,
};
use millpond_core::{ids::Origin, record::Track};
use millpond_env::{Env, Mono};
use millpond_gateway::port::{AskError, Json};
use millpond_proto::{RangeSet, replication::Life, sites, uplink::orders::Outcome, wire};
use millpond_store::Reader;
use prometheus::Registry;
use ractor::ActorRef;
use serde_json::json;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use self::measures::Measures;
pub use self::shelf::FOLDER;
pub(crate) use self::shelf::Shelf;
use crate::{
    cloud::Cloud,
    identity::{self, Revocations, Trusted},
    mesh::MeshMsg,
    transport::{OtherSite, Replies, ReplyFrames, Transport},
};

/// Questions of one site that are answered at a time; who comes beyond that is told to come again.
const PERMITS: usize = 2;

/// One per node of a site.
#[derive(Clone)]
pub(crate) struct Sites(Arc<Inner>);

/// [`Sites`], for who is held by them.
pub(crate) struct WeakSites(Weak<Inner>);

impl WeakSites {
    /// `None` when the node has ended.
    pub fn upgrade(&self) -> Option<Sites> {
        self.0.upgrade().map(Sites)
    }
}

pub(crate) struct Inner {
    env: Env,
    transport: Transport,
    mesh: OnceLock<ActorRef<MeshMsg>>,
    settings: Current,
    shelf: Arc<Shelf>,
    measures: Measures,
    own: OnceLock<Own>,
    /// Where this node takes what other sites deliver, when it is one of a cloud.
    cloud: OnceLock<Cloud>,
    /// What the line to each cloud may still be used for.
    lines: Mutex<BTreeMap<String, budgets::Line>>,
    state: Mutex<State>,
}

/// The journal of this node.
pub(crate) struct Own {
    pub life: Life,
    pub boots: u32,
    pub site: Arc<millpond_actors::site::Site>,
    pub reader: Reader,
}

#[derive(Default)]
struct State {
    trusted: BTreeMap<String, Entry>,
    /// Nodes that this site's authority has revoked: other sites are told.
    revoked: Revocations,
    /// What is known of the records of each site that something is taken from.
    ledger: BTreeMap<String, Vec<Row>>,
    /// What is delivered, by cloud.
    upward: BTreeMap<String, Upward>,
    /// Why the trust files could not be read last.
    wrong: Option<String>,
}

/// How far deliveries to a cloud have come.
#[derive(Default)]
struct Upward {
    /// The address at which it was reached, while it is.
    connected: Option<String>,
    /// Why it is not.
    why: String,
    /// It was connected in this life.
    known: bool,
    /// Own records that it does not have, by track, and when that was.
    left: [(u64, Mono); 2],
    /// How many of them go a second, now and lately.
    rate: [f64; 2],
    /// What it has of each life that is known here: name, who delivers it, numbers that are here and not there, by track.
    lives: Vec<(Life, String, Option<Origin>, [u64; 2])>,
    /// What it ordered, and what became of that.
    order: Option<Outcome>,
    /// The same of all that this node delivers, by track.
    undelivered: [u64; 2],
    /// The journal's last number when that was known.
    head: u64,
}

impl Upward {
    fn left(&mut self, track: Track, left: u64, now: Mono) {
        let (before, at) = self.left[track as usize];
        let seconds = now.since(at).as_secs_f64();
        if seconds > 0.0 {
            let rate = before.saturating_sub(left) as f64 / seconds;
            let known = &mut self.rate[track as usize];
            *known = if *known == 0.0 { rate } else { *known * 0.7 + rate * 0.3 };
        }
        self.left[track as usize] = (left, now);
    }

    /// How long until everything is delivered at the present rate, in s; `None` when it does not get less.
    fn eta(&self) -> Option<f64> {
        let of_track = |track: usize| match (self.left[track].0, self.rate[track]) {
            (0, _) => Some(0.0),
            (left, rate) if rate > 0.0 => Some(left as f64 / rate),
            _ => None,
        };
        Some(of_track(0)?.max(of_track(1)?))
    }
}

struct Entry {
    trusted: Arc<Trusted>,
    revoked: Revocations,
    permits: Arc<Semaphore>,
    ended: CancellationToken,
}

/// A track of a life of another site.
struct Row {
    life: Life,
    name: String,
    track: Track,
    held: RangeSet,
    head: u64,
}

/// What the files say of other sites.
#[derive(Debug)]
pub(crate) struct Looked {
    pub trusted: Result<Vec<(Trusted, Revocations)>, String>,
    pub revoked: Revocations,
}

impl Sites {
    /// With the copies that earlier lives left here. Nothing is exchanged before [`join`](Sites::join).
    ///
    /// # Errors
    /// When the metrics are there already.
    pub fn new(
        env: Env,
        transport: Transport,
        settings: Current,
        shelf: Shelf,
        registry: &Registry,
    ) -> Result<Sites, prometheus::Error> {
        let (measures, state, shelf) = (Measures::new(registry)?, Mutex::default(), Arc::new(shelf));
        let (mesh, own, cloud, lines) = (OnceLock::new(), OnceLock::new(), OnceLock::new(), Mutex::default());
        Ok(Sites(Arc::new(Inner { env, transport, mesh, settings, shelf, measures, own, cloud, lines, state })))
    }

    pub fn downgrade(&self) -> WeakSites {
        WeakSites(Arc::downgrade(&self.0))
    }

    /// Once, when the mesh is up.
    pub fn join(&self, mesh: ActorRef<MeshMsg>, own: Own) {
        let _ = self.0.own.set(own);
        let _ = self.0.mesh.set(mesh);
    }

    /// The copies of other sites' records.
    pub fn shelf(&self) -> Arc<Shelf> {
        self.0.shelf.clone()
    }

    /// Other sites may deliver to this node from now on.
    pub fn receive(&self, cloud: Cloud) {
        let _ = self.0.cloud.set(cloud);
    }

    pub fn cloud(&self) -> Option<&Cloud> {
        self.0.cloud.get()
    }

    /// How far deliveries to each cloud have come.
    pub fn uplinks(&self) -> Json {
        let state = self.0.state();
        let life = |(life, name, by, left): &(Life, String, Option<Origin>, [u64; 2])| {
            json!({
                "name": name,
                "origin": life.origin.to_string(),
                "incarnation": life.incarnation.0,
                "delivered_by": by.map(|by| by.to_string()),
                "left": left[0] + left[1],
            })
        };
        let row = |(cloud, upward): (&String, &Upward)| {
            json!({
                "cloud": cloud,
                "connected": upward.connected,
                "why": upward.why,
                "left": { "results": upward.left[0].0, "raw": upward.left[1].0 },
                "eta_s": upward.eta(),
                "order": upward.order.as_ref().map(obeying::json),
                "lives": upward.lives.iter().map(life).collect::<Vec<_>>(),
            })
        };
        json!({ "uplinks": state.upward.iter().map(row).collect::<Vec<_>>() })
    }

    /// Goes on with what the files say now. Files that cannot be read change nothing.
    pub fn looked(&self, looked: Looked) {
        let Looked { trusted, revoked } = looked;
        self.0.state().revoked = revoked;
        let trusted = match trusted {
            Ok(trusted) => trusted,
            Err(why) => {
                if self.0.state().wrong.replace(why.clone()) != Some(why.clone()) {
                    tracing::error!(why, "who else is trusted could not be read; what was known before counts");
                }
                return;
            }
        };
        let begun = {
            let mut state = self.0.state();
            state.wrong = None;
            let same = |(trusted, revoked): &(Trusted, Revocations)| {
                let known = state.trusted.get(&trusted.site);
                known.is_some_and(|known| *known.trusted == *trusted && known.revoked.len() >= revoked.len())
            };
            if trusted.len() == state.trusted.len() && trusted.iter().all(same) {
                return;
            }
            let before: Vec<String> = state.trusted.keys().cloned().collect();
            let begun = state.replace(trusted);
            for site in before.iter().filter(|site| !state.trusted.contains_key(*site)) {
                self.0.measures.forget(site);
            }
            begun
        };
        self.0.believe();
        for (trusted, ended) in begun {
            tracing::info!(site = trusted.site, classes = ?trusted.terms.classes, devices = ?trusted.terms.devices, take = !trusted.addresses.is_empty(), "a site is trusted");
            if !trusted.addresses.is_empty() {
                self.0.env.spawn(taking::take(self.0.clone(), trusted.clone(), ended.clone()));
            }
            if !trusted.uplink.is_empty() {
                self.0.env.spawn(delivering::watch(self.0.clone(), trusted.clone(), ended.clone()));
                self.0.env.spawn(delivering::deliver(self.0.clone(), trusted, ended));
            }
        }
    }

    /// A node of another site asks.
    pub fn asked(&self, site: &str, from: Origin, frame: &[u8], more: ReplyFrames, replies: Replies) {
        let question = wire::decode::<sites::Question>(frame);
        match (self.0.cloud.get(), question) {
            (Some(cloud), Ok(question)) if Cloud::takes(&question) => cloud.asked(site, from, question, more, replies),
            (_, question) => giving::answer(&self.0, site, from, question, replies),
        }
    }

    /// An answer from the copies here; `None` when nothing of the site is.
    pub async fn answer(&self, site: &str, question: Question) -> Option<Result<Json, AskError>> {
        let (copies, windows) = self.0.shelf.copies(site)?;
        let answer = self.0.env.unblock(move || other_sites::answer(&copies, &windows, &question)).await;
        Some(answer.unwrap_or(Err(AskError::Unavailable)))
    }

    /// A row for each track of each life of other sites.
    pub fn ledger(&self) -> Vec<Json> {
        let state = self.0.state();
        let rows = state.ledger.iter().flat_map(|(site, rows)| rows.iter().map(move |row| (site, row)));
        let json = |(site, row): (&String, &Row)| {
            let missing: u64 = row.held.gaps(1, row.head).iter().map(|(first, last)| last - first + 1).sum();
            json!({
                "site": site,
                "name": format!("{site}/{}", row.name),
                "origin": row.life.origin.to_string(),
                "incarnation": row.life.incarnation.0,
                "track": row.track.name(),
                "own": false,
                "wanted": true,
                "held": row.held.iter().collect::<Vec<_>>(),
                "head": row.head,
                "head_at": [site],
                "missing": missing,
            })
        };
        rows.map(json).collect()
    }

    /// Ends what is fetched.
    pub fn stop(&self) {
        self.0.state().trusted.values().for_each(|entry| entry.ended.cancel());
    }
}

impl State {
    /// Those that are new or different, of which fetching begins.
    fn replace(&mut self, trusted: Vec<(Trusted, Revocations)>) -> Vec<(Arc<Trusted>, CancellationToken)> {
        let mut before = std::mem::take(&mut self.trusted);
        let mut begun = Vec::new();
        for (trusted, revoked) in trusted {
            let site = trusted.site.clone();
            let entry = match before.remove(&site) {
                Some(known) if *known.trusted == trusted => known,
                known => {
                    known.inspect(|known| known.ended.cancel());
                    let (trusted, ended) = (Arc::new(trusted), CancellationToken::new());
                    begun.push((trusted.clone(), ended.clone()));
                    Entry {
                        trusted,
                        revoked: Revocations::default(),
                        permits: Arc::new(Semaphore::new(PERMITS)),
                        ended,
                    }
                }
            };
            let revoked = if revoked.len() > entry.revoked.len() { revoked } else { entry.revoked.clone() };
            self.trusted.insert(site, Entry { revoked, ..entry });
        }
        for (site, entry) in before {
            tracing::info!(site, "a site is not trusted any more");
            entry.ended.cancel();
            self.ledger.remove(&site);
            self.upward.remove(&site);
        }
        begun
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the transport whom to believe.
    fn believe(&self) {
        let other = |entry: &Entry| OtherSite {
            site: entry.trusted.site.clone(),
            authority: entry.trusted.authority.clone(),
            revoked: entry.revoked.origins().collect(),
        };
        let others = self.state().trusted.values().map(other).collect();
        if let Err(error) = self.transport.set_others(others) {
            tracing::error!(%error, "the authority of another site cannot be used; who was trusted before still is");
        }
    }

    /// A site says whom its authority has revoked.
    fn told_of_revocations(&self, site: &str, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        let list = {
            let mut state = self.state();
            let Some(entry) = state.trusted.get_mut(site) else { return };
            let list = Revocations::read(bytes, &entry.trusted.authority);
            let Some(list) = list.filter(|list| list.len() > entry.revoked.len()) else { return };
            entry.revoked = list.clone();
            list
        };
        self.believe();
        let (env, site) = (self.env.clone(), site.to_owned());
        self.env.spawn(async move {
            let disk = env.disk.clone();
            let saved = env.unblock(move || identity::save_revoked_of(disk.as_ref(), &site, &list)).await;
            if let Some(Err(error)) = saved {
                tracing::warn!(%error, "whom another site has revoked could not be kept");
            }
        });
    }

    async fn ask_mesh<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> MeshMsg) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.mesh.get()?.cast(question(reply)).ok()?;
        answer.await.ok()
    }
}
