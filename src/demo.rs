//! The demonstration: a node as a second process, a fleet that publishes to it over MQTT, and a view of what comes of it.
//!
//! The view learns everything as a user would: from acknowledgements, and from the node's HTTP API with a login. [`Status`] is what
//! the tasks know; a view only shows it.

mod config;
mod fleet;
mod lines;
mod screen;
mod status;
mod watch;

use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use millpond_core::time::Span;
use millpond_env::Env;
use tokio_util::sync::CancellationToken;

use crate::{
    bench::node::{ChildNode, Launch},
    roles::signals::Signals,
};
use status::Status;

/// How often the view is brought up to date, and the node's process looked at.
const TICK: Span = Span::from_millis(200);
/// How long the node may take at the end to say how much it has stored.
const SETTLE: Span = Span::from_secs(10);

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
}

/// Runs until the time is over or somebody ends it. `true` when every published reading was acknowledged and stored.
///
/// # Errors
/// When the node does not start, or cannot be started again. The terminal and temporary data are left as they were found.
pub async fn run(env: &Env, options: Options) -> anyhow::Result<bool> {
    let tokens = config::Tokens::new(env);
    eprintln!("starting a node with {} machines …", options.machines);
    let launch = Launch { data: options.data.clone(), config: Some(config::text(&tokens)), ..Launch::default() };
    let mut node = ChildNode::start(env, launch).await?;
    let client = node.client(env, Some(&tokens.view))?;
    let stored_before = node.stored(&client).await?.events.unwrap_or_default();
    let status = Shared::new(Status::new(env.now(), node.pid(), node.mqtt(), node.http(), node.data()));
    status.lock().say_where(env.now());
    let stop = CancellationToken::new();
    let fleet = fleet::Publisher::open(env, &options, node.mqtt(), &tokens.fleet, status.clone()).await?;
    let published = spawn(env, fleet.run(env.clone(), stop.clone()));
    let subscription = watch::open(env, node.mqtt(), &tokens.view).await?;
    let watched = spawn(env, watch::run(env.clone(), subscription, client.clone(), status.clone(), stop.clone()));
    let shown = show(env, &options, &mut node, &status).await;
    stop.cancel();
    let drained = published.await.context("the fleet failed");
    let _ = watched.await;
    shown?;
    drained?;
    let stored = settled(env, &node, &client, &status, stored_before).await?;
    node.stop(env).await?;
    let status = status.lock();
    print!("{}", lines::summary(&status, stored, env.now()));
    Ok(status.published == status.acked && status.acked == stored)
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

/// Shows the status until the end: the time is over, a signal, a key. A node that was killed is started again.
async fn show(env: &Env, options: &Options, node: &mut ChildNode, status: &Shared) -> anyhow::Result<()> {
    let begun = env.now();
    let mut view = if std::io::stdout().is_terminal() && !options.plain {
        View::Screen(screen::Screen::open()?)
    } else {
        View::Lines(lines::Lines::new(&status.lock()))
    };
    let mut signals = Signals::new()?;
    loop {
        let now = env.now();
        let ended = match &mut view {
            View::Screen(screen) => screen.draw(&status.lock(), now)?,
            View::Lines(lines) => lines.print(&mut status.lock(), now)?,
        };
        if ended || options.length.is_some_and(|length| now.since(begun) >= length) {
            return Ok(());
        }
        if let Some(how) = node.ended() {
            status.lock().say(now, format!("the node ended ({how}); starting it again on the same data"));
            node.restart(env).await?;
            let mut status = status.lock();
            status.pid = node.pid();
            status.restarts += 1;
            status.say(env.now(), format!("the node is ready again (process {})", node.pid()));
        }
        tokio::select! {
            biased;
            _ = signals.next() => return Ok(()),
            () = env.sleep(TICK) => {}
        }
    }
}

/// How many events the node has stored since the demo began; asks again until they are as many as acknowledged.
async fn settled(
    env: &Env,
    node: &ChildNode,
    client: &millpond_gateway::client::http::HttpClient,
    status: &Shared,
    before: u64,
) -> anyhow::Result<u64> {
    let until = env.now().after(SETTLE);
    loop {
        let stored = node.stored(client).await?.events.unwrap_or_default().saturating_sub(before);
        if stored >= status.lock().acked || env.now() >= until {
            return Ok(stored);
        }
        env.sleep(TICK).await;
    }
}
