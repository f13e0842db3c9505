//! The demonstration: a site of three nodes, each a process of its own, a fleet that publishes to all of them over MQTT, and a view of what comes
//! of it when nodes die.
//!
//! The view learns everything as a user would: from acknowledgements, and from the nodes' HTTP API with a login. [`Status`] is what
//! the tasks know; a view only shows it. Nodes die with this program, however it ends.

mod audit;
mod config;
mod fleet;
mod lines;
mod screen;
mod site;
mod status;
mod watch;

use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use millpond_core::time::{Span, Timestamp};
use millpond_env::{Env, Mono};
use millpond_gateway::client::http::HttpClient;
use tokio_util::sync::CancellationToken;

use crate::{bench::node::ChildNode, roles::signals::Signals};
use screen::Wish;
use site::{NAMES, Site};
use status::{Audit, NodeStatus, Status};

/// How often the view is brought up to date, and the nodes' processes are looked at.
const TICK: Span = Span::from_millis(200);
/// How long the site may take at the end to say how much it has stored.
const SETTLE: Span = Span::from_secs(10);
/// Machines whose clocks are behind stamp their readings with a time before the start.
const LOOK_BACK: Span = Span::from_secs(3600);
/// The node that is killed by itself: neither the founder nor the home of the machine that breaks.
const VICTIM: usize = 1;

#[derive(Clone, Debug)]
pub struct Options {
    /// `None`: until Ctrl-C.
    pub length: Option<Span>,
    /// Readings per second, of all machines together.
    pub rate: u32,
    pub machines: u32,
    /// `None`: a temporary directory.
    pub data: Option<PathBuf>,
    pub plain: bool,
    pub seed: u64,
    /// When a node is killed, by itself.
    pub kill_after: Option<Span>,
    /// How long a dead node stays dead while lines are printed; on a screen the user decides.
    pub restart_after: Span,
}

/// Runs until the time is over or somebody ends it. `true` when every published reading was acknowledged and is stored on the site.
///
/// # Errors
/// When a node does not start, or cannot be started again. The terminal and temporary data are left as they were found.
pub async fn run(env: &Env, options: Options) -> anyhow::Result<bool> {
    let tokens = config::Tokens::new(env);
    eprintln!("starting a site of {} nodes with {} machines …", NAMES.len(), options.machines);
    let mut site = Site::start(env, options.data.as_deref(), &tokens).await?;
    let clients: Vec<HttpClient> =
        site.nodes.iter().map(|node| node.client(env, Some(&tokens.view))).collect::<anyhow::Result<_>>()?;
    let ready = env.now();
    let nodes = site.nodes.iter().map(|node| NodeStatus::new(node.pid(), node.mqtt(), node.http(), ready)).collect();
    let status = Shared::new(Status::new(ready, site.path().to_owned(), nodes));
    status.lock().say_where(ready);
    let doors: Vec<(String, u16)> = site.nodes.iter().map(|node| (node.mqtt().0.to_owned(), node.mqtt().1)).collect();
    let (machines, lines) = fleet::open(env, &options, doors, &tokens.fleet, status.clone()).await?;
    let machine_names = status.lock().machines.clone();
    let since = env.wall().saturating_sub(LOOK_BACK);
    let before = audit::stored(&clients[0], &machine_names, since).await?;
    let stop = CancellationToken::new();
    let mut published = vec![spawn(env, machines.run(env.clone(), stop.clone()))];
    published.extend(lines.into_iter().map(|line| spawn(env, line.run(env.clone()))));
    let mut watched: Vec<_> = (0..)
        .zip(&clients)
        .map(|(node, client)| spawn(env, watch::run(env.clone(), node, client.clone(), status.clone(), stop.clone())))
        .collect();
    let audited = audit::run(env.clone(), clients.clone(), (since, before.clone()), status.clone(), stop.clone());
    watched.push(spawn(env, audited));
    let shown = show(env, &options, &mut site, &status).await;
    stop.cancel();
    for task in published {
        task.await.context("the fleet failed")?;
    }
    for task in watched {
        let _ = task.await;
    }
    shown?;
    let audit = settled(env, &mut site, &clients, (since, &before), &status).await?;
    site.stop(env).await?;
    let status = status.lock();
    print!("{}", lines::summary(&status, audit.stored, env.now()));
    Ok(status.published == status.acked && status.acked == audit.stored && audit.missing == 0)
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
fn spawn<T: Send + 'static>(
    env: &Env,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::sync::oneshot::Receiver<T> {
    let (tx, rx) = tokio::sync::oneshot::channel();
    env.spawn(async move {
        let _ = tx.send(task.await);
    });
    rx
}

enum View {
    Screen(screen::Screen),
    Lines(lines::Lines),
}

/// Shows the status until the end: the time is over, a signal, a key; kills nodes and starts them again.
async fn show(env: &Env, options: &Options, site: &mut Site, status: &Shared) -> anyhow::Result<()> {
    let begun = env.now();
    let mut view = if std::io::stdout().is_terminal() && !options.plain {
        View::Screen(screen::Screen::open()?)
    } else {
        View::Lines(lines::Lines::new(&status.lock()))
    };
    let mut signals = Signals::new()?;
    let mut to_kill = options.kill_after;
    let mut died: [Option<Mono>; NAMES.len()] = Default::default();
    loop {
        let now = env.now();
        let mut wish = match &mut view {
            View::Screen(screen) => screen.draw(&status.lock(), now)?,
            View::Lines(lines) => {
                lines.print(&mut status.lock(), now)?;
                None
            }
        };
        if wish == Some(Wish::End) || options.length.is_some_and(|length| now.since(begun) >= length) {
            return Ok(());
        }
        if to_kill.is_some_and(|after| now.since(begun) >= after) {
            to_kill = None;
            wish = Some(Wish::Kill(VICTIM));
        }
        if let Some(Wish::Kill(node)) = wish {
            site.nodes[node].kill();
        }
        let is_plain = matches!(view, View::Lines(_));
        for (at, node) in site.nodes.iter_mut().enumerate() {
            note_death(now, at, node, &mut died[at], status);
            let waited = is_plain && died[at].is_some_and(|died| now.since(died) >= options.restart_after);
            if died[at].is_some() && (waited || wish == Some(Wish::Restart)) {
                restart(env, at, node, status).await?;
                died[at] = None;
            }
        }
        tokio::select! {
            biased;
            _ = signals.next() => return Ok(()),
            () = env.sleep(TICK) => {}
        }
    }
}

fn note_death(now: Mono, at: usize, node: &mut ChildNode, died: &mut Option<Mono>, status: &Shared) {
    let Some(how) = node.ended().filter(|_| died.is_none()) else { return };
    *died = Some(now);
    let mut status = status.lock();
    status.kills += 1;
    (status.nodes[at].up_since, status.nodes[at].seen) = (None, Default::default());
    let acked = status.nodes[at].acked;
    status.say(now, format!("{} died ({how}); it had acknowledged {acked} readings", NAMES[at]));
}

async fn restart(env: &Env, at: usize, node: &mut ChildNode, status: &Shared) -> anyhow::Result<()> {
    node.restart(env).await.with_context(|| format!("{} does not start again", NAMES[at]))?;
    let now = env.now();
    let mut status = status.lock();
    status.restarts += 1;
    (status.nodes[at].pid, status.nodes[at].up_since) = (node.pid(), Some(now));
    status.say(now, format!("{} is back on the same data (process {})", NAMES[at], node.pid()));
    Ok(())
}

/// What is stored at the end; asks again until it is as much as was acknowledged. Any node that lives answers for all.
async fn settled(
    env: &Env,
    site: &mut Site,
    clients: &[HttpClient],
    (since, before): (Timestamp, &[u64]),
    status: &Shared,
) -> anyhow::Result<Audit> {
    let until = env.now().after(SETTLE);
    let speaks = site.nodes.iter_mut().position(|node| node.ended().is_none()).context("no node lives any more")?;
    let machines = status.lock().machines.clone();
    loop {
        let found = audit::stored(&clients[speaks], &machines, since).await;
        let late = env.now() >= until;
        match found {
            Ok(stored) => {
                let audit = Audit::of(&machines, before, &stored);
                if (audit.missing == 0 && audit.stored >= audit.acked) || late {
                    return Ok(audit);
                }
            }
            Err(error) if late => return Err(error.context("the site does not tell what it has stored")),
            Err(_) => {}
        }
        env.sleep(TICK).await;
    }
}
