//! The demonstration: two sites of three nodes and a node of the cloud, each a process of its own, fleets that publish to all nodes over MQTT, and a
//! view of what comes of it when nodes die, and when the line of a site to the cloud is cut.
//!
//! The view learns everything as a user would: from acknowledgements, and from the nodes' HTTP API with a login. [`Status`] is what
//! the tasks know; a view only shows it. Nodes die with this program, however it ends.

mod audit;
mod cloud;
mod config;
mod fleet;
mod ledger;
mod lines;
mod mesh;
mod reconcile;
mod relay;
mod screen;
mod show;
mod status;
mod watch;

use std::{
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use millpond_core::time::{Span, Timestamp};
use millpond_env::Env;
use millpond_gateway::client::http::HttpClient;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::roles::signals::Signals;
use lines::Lines;
use mesh::{Mesh, NODES, SITES, nodes_of};
use reconcile::{Found, Question};
use status::{Audit, NodeStatus, Status};

/// How often the view is brought up to date, and the nodes' processes are looked at.
const TICK: Span = Span::from_millis(200);
/// How long the sites may take at the end to say how much they have stored, and then the cloud.
const SETTLE: Span = Span::from_secs(10);
const SETTLE_CLOUD: Span = Span::from_secs(60);
/// Machines whose clocks are behind stamp their readings with a time before the start.
const LOOK_BACK: Span = Span::from_secs(3600);
/// Of two sites, how many times smaller the second is.
const SMALLER: u32 = 3;

#[derive(Clone, Debug)]
pub struct Options {
    /// `None`: until Ctrl-C.
    pub length: Option<Span>,
    /// Readings per second, of all machines together.
    pub rate: u32,
    /// Of the first site.
    pub machines: u32,
    /// `None`: a temporary directory.
    pub data: Option<PathBuf>,
    pub plain: bool,
    pub seed: u64,
    /// When a node is killed, by itself.
    pub kill_after: Option<Span>,
    /// How long a dead node stays dead while lines are printed; on a screen the user decides.
    pub restart_after: Span,
    /// When the line between the second site and the cloud is cut, by itself.
    pub cut_after: Option<Span>,
    /// How long it stays cut then.
    pub heal_after: Span,
}

impl Options {
    fn machines_of(&self, site: usize) -> u32 {
        if site == 0 { self.machines } else { (self.machines / SMALLER).max(1) }
    }
}

/// Runs until the time is over or somebody ends it. `true` when every published reading was acknowledged and is stored on its site, and the cloud
/// has the same.
///
/// # Errors
/// When a node does not start, or cannot be started again. The terminal and temporary data are left as they were found.
pub async fn run(env: &Env, options: Options) -> anyhow::Result<bool> {
    let mut signals = Signals::new()?;
    let machines: u32 = (0..SITES.len()).map(|site| options.machines_of(site)).sum();
    eprintln!("starting two sites of three nodes each and a cloud, with {machines} machines …");
    // Who gives up drops the nodes, which ends them, and their data.
    let demo = tokio::select! {
        biased;
        signal = signals.next() => return given_up(signal),
        demo = Demo::start(env, &options) => demo?,
    };
    demo.run(&options, &mut signals).await
}

fn given_up(signal: &str) -> anyhow::Result<bool> {
    eprintln!("{signal}: ended before everything was counted");
    Ok(false)
}

/// What runs, and who is asked about it.
struct Demo {
    env: Env,
    mesh: Mesh,
    clients: Vec<HttpClient>,
    cloud: HttpClient,
    status: Shared,
    since: Timestamp,
    /// By site: readings of each machine from `since` on, before the demo began.
    before: Vec<Vec<u64>>,
    begun: Timestamp,
    /// Ends the machines.
    stop: CancellationToken,
    published: Vec<oneshot::Receiver<()>>,
    /// Ends who watches.
    unwatch: CancellationToken,
    watched: Vec<oneshot::Receiver<()>>,
}

impl Demo {
    async fn start(env: &Env, options: &Options) -> anyhow::Result<Demo> {
        let tokens = config::Tokens::new(env);
        let mesh = Mesh::start(env, options.data.as_deref(), &tokens).await?;
        let clients: Vec<HttpClient> =
            mesh.nodes.iter().map(|node| node.client(env, Some(&tokens.view))).collect::<anyhow::Result<_>>()?;
        let cloud = mesh.cloud.client(env, Some(&tokens.view))?;
        let ready = env.now();
        let nodes =
            mesh.nodes.iter().map(|node| NodeStatus::new(node.pid(), node.mqtt(), node.http(), ready)).collect();
        let status = Shared::new(Status::new(ready, mesh.path().to_owned(), nodes));
        {
            let mut status = status.lock();
            status.cloud.pid = mesh.cloud.pid();
            status.cloud.http = format!("{}:{}", mesh.cloud.http().0, mesh.cloud.http().1);
            status.say_where(ready);
        }
        let doors: Vec<(String, u16)> =
            mesh.nodes.iter().map(|node| (node.mqtt().0.to_owned(), node.mqtt().1)).collect();
        let begun = env.wall();
        let (machines, lines) = fleet::open(env, options, &doors, &tokens.fleet, &status).await?;
        let since = env.wall().saturating_sub(LOOK_BACK);
        let mut before = Vec::new();
        for site in 0..SITES.len() {
            let machines = status.lock().machines_of(site);
            before.push(audit::stored(&clients[nodes_of(site).start], &machines, since).await?);
        }
        let (stop, unwatch) = (CancellationToken::new(), CancellationToken::new());
        let (published, watched) = (Vec::new(), Vec::new());
        let env = env.clone();
        let mut demo =
            Demo { env, mesh, clients, cloud, status, since, before, begun, stop, published, unwatch, watched };
        demo.publish(machines, lines);
        demo.watch();
        Ok(demo)
    }

    fn publish(&mut self, machines: Vec<fleet::Machines>, lines: Vec<fleet::Line>) {
        let env = &self.env;
        let machines = machines.into_iter().map(|machines| spawn(env, machines.run(env.clone(), self.stop.clone())));
        self.published = machines.collect();
        self.published.extend(lines.into_iter().map(|line| spawn(env, line.run(env.clone()))));
    }

    fn watch(&mut self) {
        let (env, status, stop) = (&self.env, &self.status, &self.unwatch);
        for node in 0..NODES {
            let client = self.clients[node].clone();
            self.watched.push(spawn(env, watch::run(env.clone(), node, client, status.clone(), stop.clone())));
        }
        for site in 0..SITES.len() {
            let (clients, before) = (self.clients.clone(), (self.since, self.before[site].clone()));
            let audited = audit::run(env.clone(), site, clients, before, status.clone(), stop.clone());
            self.watched.push(spawn(env, audited));
        }
        let client = self.cloud.clone();
        self.watched.push(spawn(env, cloud::run(env.clone(), client, self.since, status.clone(), stop.clone())));
    }

    /// Shows it until it is over, then counts.
    async fn run(mut self, options: &Options, signals: &mut Signals) -> anyhow::Result<bool> {
        let shown = show::run(&self.env, options, (&mut self.mesh, &self.status), signals).await;
        self.stop.cancel();
        shown?;
        eprintln!("counting what the sites and the cloud have …");
        let (env, status) = (self.env.clone(), self.status.clone());
        let mut lines = Lines::new(env.now());
        let counted = {
            let mut counting = pin!(self.count());
            loop {
                lines.print(&mut status.lock(), env.now())?;
                tokio::select! {
                    biased;
                    signal = signals.next() => return given_up(signal),
                    counted = &mut counting => break counted,
                    () = env.sleep(TICK) => {}
                }
            }
        };
        lines.print_figures(&status.lock(), env.now())?;
        let (audit, found) = counted?;
        tokio::select! {
            biased;
            signal = signals.next() => return given_up(signal),
            stopped = self.mesh.stop(&self.env) => stopped?,
        }
        let status = self.status.lock();
        let summary = lines::summary(&status, audit.stored, self.env.now());
        crate::commands::out(summary + &lines::summary_of_cloud(&status, &found))?;
        Ok(status.published == status.acked && status.acked == audit.stored && audit.missing == 0 && found.agrees())
    }

    /// Waits for the last acknowledgements, and for the cloud to have everything; then nobody watches any more.
    async fn count(&mut self) -> anyhow::Result<(Audit, Found)> {
        for task in std::mem::take(&mut self.published) {
            task.await.context("the fleet failed")?;
        }
        let measured = (self.begun, self.env.wall());
        show::restore(&self.env, &mut self.mesh, &self.status).await?;
        let audit = self.settled().await?;
        let found = self.reconciled(measured).await?;
        self.unwatch.cancel();
        for task in std::mem::take(&mut self.watched) {
            let _ = task.await;
        }
        Ok((audit, found))
    }

    /// What is stored at the sites; asks again until it is as much as was acknowledged.
    async fn settled(&self) -> anyhow::Result<Audit> {
        let until = self.env.now().after(SETTLE);
        loop {
            let late = self.env.now() >= until;
            match self.audit().await {
                Ok(audit) if late || (audit.missing == 0 && audit.stored >= audit.acked) => return Ok(audit),
                Err(error) if late => return Err(error.context("a site does not tell what it has stored")),
                _ => {}
            }
            self.env.sleep(TICK).await;
        }
    }

    /// Any node answers for its whole site.
    async fn audit(&self) -> anyhow::Result<Audit> {
        let mut all = Audit::default();
        for (site, before) in self.before.iter().enumerate() {
            let machines = self.status.lock().machines_of(site);
            let stored = audit::stored(&self.clients[nodes_of(site).start], &machines, self.since).await?;
            all = all.and(Audit::of(&machines, before, &stored));
        }
        Ok(all)
    }

    /// What the cloud has; asks again until it is what the sites have.
    async fn reconciled(&self, measured: (Timestamp, Timestamp)) -> anyhow::Result<Found> {
        let Demo { clients: nodes, cloud, before, since, .. } = self;
        let question = Question { nodes, cloud, before, since: *since, measured };
        let until = self.env.now().after(SETTLE_CLOUD);
        loop {
            let late = self.env.now() >= until;
            match reconcile::look(&question, &self.status, late).await {
                Ok(found) if late || found.agrees() => return Ok(found),
                Err(error) if late => return Err(error.context("the cloud does not tell what it has")),
                _ => {}
            }
            self.env.sleep(TICK).await;
        }
    }
}

/// The status, shared by the tasks of the demo.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Status>>);

impl Shared {
    fn new(status: Status) -> Shared {
        Shared(Arc::new(Mutex::new(status)))
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spawns a task and gives a future of its result.
fn spawn<T: Send + 'static>(env: &Env, task: impl Future<Output = T> + Send + 'static) -> oneshot::Receiver<T> {
    let (tx, rx) = oneshot::channel();
    env.spawn(async move {
        let _ = tx.send(task.await);
    });
    rx
}
