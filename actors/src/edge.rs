//! A whole node: the actors of the data plane behind the doors for devices and people.
//!
//! The order is what the promises need: the state is recovered before a door opens, doors close before the journal does its last commit.

pub mod admin;

use std::{io, net::SocketAddr, sync::Arc};

use millpond_core::problem::SpecProblem;
use millpond_env::{Env, Listener};
use millpond_gateway::{auth::Auth, broker::Broker, http, mqtt, tap::Tap};
use prometheus::Registry;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::Config,
    running::{Running, StartError},
    settings::{Membership, Settings},
};

/// A node with open doors.
pub struct Edge {
    pub running: Running,
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
    doors: Doors,
}

/// Why a node does not run. Nothing of it does.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot keep the administrator's token in the data directory")]
    AdminToken(#[source] io::Error),
    #[error("the users cannot be set up: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Users(Vec<SpecProblem>),
    #[error("the node could not be started")]
    Start(#[from] StartError),
    #[error("the metrics could not be set up")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot listen on {address} for {door}")]
    Listen { door: &'static str, address: SocketAddr, source: io::Error },
}

impl Edge {
    /// Recovers the node and opens its doors. `cores` is the size of the machine.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(env: Env, config: &Config, cores: usize) -> Result<Edge, OpenError> {
        Edge::open_as(env, config, cores, None).await
    }

    /// The same for a node of a site.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_as(
        env: Env,
        config: &Config,
        cores: usize,
        membership: Option<Membership>,
    ) -> Result<Edge, OpenError> {
        let admin = admin::token(&env, &config.auth).map_err(OpenError::AdminToken)?;
        let users = admin.iter().map(|token| admin::user(token)).collect();
        let auth = Auth::new(&env, &config.auth, users).map_err(OpenError::Users)?;
        let (broker, tap, registry) = (Arc::new(Broker::new()), Arc::new(Tap::new()), Registry::new());
        broker.register(&registry)?;
        let settings = Settings { membership, ..config.settings(cores) };
        let running = Running::start(env.clone(), settings, broker, tap, registry).await?;
        match Doors::open(&env, config, &running, Arc::new(auth)).await {
            Ok((doors, mqtt, http)) => Ok(Edge { running, mqtt, http, doors }),
            Err(error) => {
                running.stop().await;
                Err(error)
            }
        }
    }

    /// Closes the doors, commits what is under way, saves the state.
    pub async fn close(self) {
        self.doors.close().await;
        self.running.stop().await;
    }
}

/// What listens.
struct Doors {
    stop: DropGuard,
    closed: Vec<oneshot::Receiver<()>>,
}

impl Doors {
    async fn open(
        env: &Env,
        config: &Config,
        running: &Running,
        auth: Arc<Auth>,
    ) -> Result<(Doors, SocketAddr, SocketAddr), OpenError> {
        let mqtt = listen(env, "mqtt", config.mqtt.listen).await?;
        let http = listen(env, "http", config.http.listen).await?;
        let addresses = (mqtt.local_addr(), http.local_addr());
        let stop = CancellationToken::new();
        let mut doors = Doors { stop: stop.clone().drop_guard(), closed: Vec::new() };
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
                stop.clone(),
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
                stop,
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
        self.stop.disarm().cancel();
        for closed in self.closed {
            let _ = closed.await;
        }
    }
}

async fn listen(env: &Env, door: &'static str, address: SocketAddr) -> Result<Box<dyn Listener>, OpenError> {
    env.net.listen(address).await.map_err(|source| OpenError::Listen { door, address, source })
}
