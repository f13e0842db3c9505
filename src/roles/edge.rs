//! An edge node in the real world, and what an operator is told when it does not start.

use std::{io, ops::Deref, path::PathBuf, sync::Arc};

use millpond_actors::{StartError, edge};
use millpond_cluster::{
    cloud::{ObjectStore, Parts, folder},
    habits::Habits,
    identity,
    mesh::{Mesh, MeshError},
    node::{self, Node},
    transport,
};
use millpond_store::OpenError;

use crate::{
    commands::edge::Role,
    config::Config,
    exit::{Failure, Told},
    world::{World, os},
};

/// A node with open doors, and one of a site when it was enrolled.
pub struct Edge {
    node: Node,
    data: PathBuf,
}

impl Edge {
    /// Recovers the node and opens its doors. Must be called inside the program's runtime.
    ///
    /// # Errors
    /// A [`Told`] with code and hint; nothing runs then any more.
    pub async fn open(config: &Config, role: Role) -> anyhow::Result<Edge> {
        let data = config.node.data.clone();
        let env = World::new(&data).map_err(|error| {
            Told::new(format!("cannot use the data directory {}", data.display()))
                .code("MP0405")
                .hint("check its path and permissions, or choose another with --set node.data=DIR")
                .because(error)
        })?;
        let (cores, provider) = (os::cores(), identity::provider());
        let node = match role {
            Role::Edge => Node::open(env, config, cores, provider).await,
            Role::Cloud => {
                let parts = Parts { store: Some(lake_of(config)?), ..Parts::default() };
                Node::open_cloud(env, config, cores, provider, Habits::default(), parts).await
            }
        };
        let node = node.map_err(|error| match error {
            node::OpenError::Edge(error) => told(error, config),
            node::OpenError::Identity(error) => Told::new("the node's identity cannot be used")
                .code("MP0601")
                .hint("`millpond node show` says what is there; `millpond node leave` takes it away")
                .because(error)
                .into(),
            node::OpenError::Mesh(error) => not_in_the_mesh(error, config),
            other => Told::new("the node cannot be one of a cloud").code("MP0502").because(other).into(),
        })?;
        Ok(Edge { node, data })
    }

    /// The line that says that all doors are open.
    pub fn ready_line(&self, name: &str) -> String {
        let site = self.mesh().map(|mesh| format!(" site={}", mesh.addr)).unwrap_or_default();
        format!("ready node={name} mqtt={} http={}{site} data={}", self.mqtt, self.http, self.data.display())
    }

    pub fn mesh(&self) -> Option<&Mesh> {
        self.node.mesh.as_ref()
    }

    /// Resolves, with the reason, when the node has ended by itself.
    pub async fn ended(&mut self) -> String {
        self.node.edge.running.ended().await
    }

    /// Closes the doors, commits what is under way, saves the state.
    pub async fn close(self) {
        self.node.close().await;
    }
}

impl Deref for Edge {
    type Target = edge::Edge;

    fn deref(&self) -> &edge::Edge {
        &self.node.edge
    }
}

/// Where a node of the cloud archives.
fn lake_of(config: &Config) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let lake = &config.cloud.lake;
    #[cfg(feature = "s3")]
    if lake.starts_with("s3://") {
        let told = |error: io::Error| {
            Told::new(format!("cannot archive in {lake}")).failure(Failure::BadConfig).because(error)
        };
        return Ok(millpond_cluster::cloud::bucket(lake).map_err(told)?);
    }
    if lake.contains("://") {
        let told = Told::new(format!("`cloud.lake` is {lake}, but this program archives in folders only"));
        return Err(told.code("MP0304").failure(Failure::BadConfig).hint("build it with --features s3").into());
    }
    let path = config.node.data.join(lake);
    let told =
        |error: io::Error| Told::new(format!("cannot archive in {}", path.display())).code("MP0405").because(error);
    os::create_private_dir(&path).map_err(told)?;
    Ok(folder(&path).map_err(told)?)
}

fn not_in_the_mesh(error: MeshError, config: &Config) -> anyhow::Error {
    let told = Told::new("the node cannot take part in its site");
    let told = match &error {
        MeshError::Transport(transport::OpenError::Listen(..)) => {
            told.code("MP0501").failure(Failure::Unavailable).hint(format!(
                "{} is taken; choose another: --set site.listen=0.0.0.0:0 takes any free port",
                config.site.listen
            ))
        }
        MeshError::Copies(_) => told.code("MP0405"),
        _ => told.code("MP0502"),
    };
    told.because(error).into()
}

/// What a failed start means to whoever runs the node.
fn told(error: edge::OpenError, config: &Config) -> anyhow::Error {
    let text = error.to_string();
    match error {
        edge::OpenError::AdminToken(cause) => {
            let file = config.node.data.join(edge::admin::TOKEN_FILE);
            Told::new(format!("cannot keep the administrator's token in {}", file.display()))
                .code("MP0405")
                .because(cause)
                .into()
        }
        // The users of the file were checked with the configuration.
        edge::OpenError::Users(_) => Told::new(text).code("MP0306").failure(Failure::BadConfig).into(),
        edge::OpenError::Listen { door, source, .. } => Told::new(text)
            .code("MP0501")
            .failure(Failure::Unavailable)
            .hint(format!("choose another address: --set {door}.listen=127.0.0.1:0 takes any free port"))
            .because(source)
            .into(),
        edge::OpenError::Metrics(cause) => Told::new(text).code("MP0502").because(cause).into(),
        edge::OpenError::Start(cause) => not_started(cause),
    }
}

fn not_started(error: StartError) -> anyhow::Error {
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
        OpenError::Foreign { .. } => told.code("MP0402").failure(Failure::BadInput),
        OpenError::TooNew { .. } => told.code("MP0404").failure(Failure::BadInput),
    };
    told.because(error).into()
}
