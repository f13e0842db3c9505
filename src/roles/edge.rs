//! An edge node: the actors of the data plane behind the doors for devices and people.
//!
//! The order is what the promises need: the state is recovered before a door opens, doors close before the journal does its last commit.

mod admin;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use millpond_actors::{Running, StartError};
use millpond_env::{Env, Listener};
use millpond_gateway::{auth::Auth, broker::Broker, http, mqtt, tap::Tap};
use millpond_store::OpenError;
use prometheus::Registry;
use tokio::sync::{oneshot, watch};

use crate::{
    config::Config,
    exit::{Failure, Told},
    world::{World, os},
};

/// A node with open doors.
pub struct Edge {
    pub running: Running,
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
    pub data: PathBuf,
    doors: Doors,
}

impl Edge {
    /// Recovers the node and opens its doors. Must be called inside the program's runtime.
    ///
    /// # Errors
    /// A [`Told`] with code and hint; nothing runs then any more.
    pub async fn open(config: &Config) -> anyhow::Result<Edge> {
        let data = config.node.data.clone();
        let env = World::new(&data).map_err(|error| {
            Told::new(format!("cannot use the data directory {}", data.display()))
                .code("MP0405")
                .hint("check its path and permissions, or choose another with --set node.data=DIR")
                .because(error)
        })?;
        let admin = admin::token(&env, config)?;
        let users = admin.iter().map(|token| admin::user(token)).collect();
        // The users of the file were checked with the configuration.
        let auth = Auth::new(&env, &config.auth, users).map_err(|problems| {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Told::new(format!("the users cannot be set up: {}", all.join("; ")))
                .code("MP0306")
                .failure(Failure::BadConfig)
        })?;
        let (broker, tap, registry) = (Arc::new(Broker::new()), Arc::new(Tap::new()), Registry::new());
        broker.register(&registry)?;
        let settings = config.settings(os::cores());
        let running = Running::start(env.clone(), settings, broker, tap, registry).await.map_err(told)?;
        match Doors::open(&env, config, &running, Arc::new(auth)).await {
            Ok((doors, mqtt, http)) => Ok(Edge { running, mqtt, http, data, doors }),
            Err(error) => {
                running.stop().await;
                Err(error)
            }
        }
    }

    /// The line that says that all doors are open.
    pub fn ready_line(&self, name: &str) -> String {
        format!("ready node={name} mqtt={} http={} data={}", self.mqtt, self.http, self.data.display())
    }

    /// Closes the doors, commits what is under way, saves the state.
    pub async fn close(self) {
        self.doors.close().await;
        self.running.stop().await;
    }
}

/// What listens.
struct Doors {
    stop: watch::Sender<bool>,
    closed: Vec<oneshot::Receiver<()>>,
}

impl Doors {
    async fn open(
        env: &Env,
        config: &Config,
        running: &Running,
        auth: Arc<Auth>,
    ) -> anyhow::Result<(Doors, SocketAddr, SocketAddr)> {
        let mqtt = listen(env, "mqtt", config.mqtt.listen).await?;
        let http = listen(env, "http", config.http.listen).await?;
        let addresses = (mqtt.local_addr(), http.local_addr());
        let (stop, stopped) = watch::channel(false);
        let mut doors = Doors { stop, closed: Vec::new() };
        doors.serve(
            env,
            mqtt::serve(
                env.clone(),
                mqtt,
                running.node.clone(),
                running.broker.clone(),
                auth.clone(),
                config.mqtt.clone(),
                mqtt::MqttMetrics::new(&running.registry)?,
                stopped.clone(),
            ),
        );
        doors.serve(
            env,
            http::serve(
                env.clone(),
                http,
                running.node.clone(),
                auth,
                running.tap.clone(),
                config.http.clone(),
                http::HttpMetrics::new(&running.registry)?,
                stopped,
            ),
        );
        Ok((doors, addresses.0, addresses.1))
    }

    fn serve(&mut self, env: &Env, door: impl Future<Output = ()> + Send + 'static) {
        let (ended, closed) = oneshot::channel();
        self.closed.push(closed);
        env.spawn(async move {
            door.await;
            let _ = ended.send(());
        });
    }

    /// Each door gives what it has begun a few seconds to end.
    async fn close(self) {
        self.stop.send_replace(true);
        for closed in self.closed {
            let _ = closed.await;
        }
    }
}

async fn listen(env: &Env, door: &str, address: SocketAddr) -> anyhow::Result<Box<dyn Listener>> {
    env.net.listen(address).await.map_err(|error| {
        Told::new(format!("cannot listen on {address} for {door}"))
            .code("MP0501")
            .failure(Failure::Unavailable)
            .hint(format!("choose another address: --set {door}.listen=127.0.0.1:0 takes any free port"))
            .because(error)
            .into()
    })
}

/// What a failed start means to whoever runs the node.
fn told(error: StartError) -> anyhow::Error {
    let told = Told::new("the node could not be started");
    match error {
        StartError::Store(cause) => store_told("the node could not open its journal", cause),
        StartError::Schemas(_) => told
            .code("MP0310")
            .failure(Failure::BadConfig)
            .hint("raise the schema's version and only add optional metrics or widen ranges, or give it a new name")
            .because(error)
            .into(),
        other => told.code("MP0502").because(other).into(),
    }
}

/// What a store that does not open means to whoever runs a command.
pub fn store_told(what: &str, error: OpenError) -> anyhow::Error {
    let told = Told::new(what);
    let told = match &error {
        OpenError::Device(cause) if cause.kind() == std::io::ErrorKind::ResourceBusy => told
            .code("MP0403")
            .failure(Failure::InUse)
            .hint("stop the other process, or use another directory: --set node.data=DIR"),
        OpenError::Device(_) => told.code("MP0405"),
        OpenError::Full(_) => told.code("MP0401").hint("free some space on the file system"),
        OpenError::Corrupt { .. } => told
            .code("MP0402")
            .failure(Failure::BadInput)
            .hint("`millpond journal verify DATA_DIR` says what is damaged"),
        OpenError::TooNew { .. } => told.code("MP0404").failure(Failure::BadInput),
    };
    told.because(error).into()
}
