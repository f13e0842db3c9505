//! A node of a site, or one on its own: the data plane with its doors, and the mesh when the node was enrolled.

use std::sync::Arc;

use millpond_actors::{
    STORE_FILE,
    config::Config,
    edge::{self, Edge},
    settings::Membership,
};
use millpond_core::ids::Incarnation;
use millpond_env::{Disk, Env};
use rustls::crypto::CryptoProvider;

use crate::{
    cloud::{CloudError, Parts},
    habits::Habits,
    identity::{IdentityError, NodeIdentity, files},
    mesh::{Mesh, MeshError},
};

/// A node with open doors.
pub struct Node {
    pub edge: Edge,
    pub mesh: Option<Mesh>,
}

/// Why a node does not run. Nothing of it does.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Edge(#[from] edge::OpenError),
    #[error("the node's identity cannot be used")]
    Identity(#[from] IdentityError),
    #[error("the node cannot take part in its site")]
    Mesh(#[from] MeshError),
    #[error("the node belongs to no site, so that no other site can know it")]
    NotEnrolled,
    #[error("the node cannot be one of a cloud")]
    Cloud(#[from] CloudError),
}

impl Node {
    /// Recovers the node, opens its doors, and joins the site that it was enrolled in. `cores` is the size of the machine, `provider` its
    /// cryptography.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        env: Env,
        config: &Config,
        cores: usize,
        provider: Arc<CryptoProvider>,
    ) -> Result<Node, OpenError> {
        Node::open_with(env, config, cores, provider, Habits::default()).await
    }

    /// [`Node::open`] for rehearsals.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_with(
        env: Env,
        config: &Config,
        cores: usize,
        provider: Arc<CryptoProvider>,
        habits: Habits,
    ) -> Result<Node, OpenError> {
        let disk = env.disk.clone();
        let found = env.unblock(move || enrolled(disk.as_ref())).await;
        let found = found.unwrap_or(Ok(None))?;
        let (ack, replicas) = (config.site.ack, config.site.replicas);
        let membership = found.as_ref().map(|(identity, founds)| Membership {
            ack,
            replicas,
            origin: identity.origin,
            founds: *founds,
        });
        let edge = Edge::open_as(env.clone(), config, cores, membership).await?;
        let Some((identity, _)) = found else { return Ok(Node { edge, mesh: None }) };
        match Mesh::start(env, config, Arc::new(identity), provider, &edge.running, habits).await {
            Ok(mesh) => Ok(Node { edge, mesh: Some(mesh) }),
            Err(error) => {
                edge.close().await;
                Err(error.into())
            }
        }
    }

    /// [`Node::open`] for a node of the cloud.
    ///
    /// # Errors
    /// See [`OpenError`]; a node that was not enrolled in the cloud's own site cannot be one of it.
    pub async fn open_cloud(
        env: Env,
        config: &Config,
        cores: usize,
        provider: Arc<CryptoProvider>,
        habits: Habits,
        parts: Parts,
    ) -> Result<Node, OpenError> {
        let node = Node::open_with(env, config, cores, provider, habits).await?;
        let Some(mesh) = &node.mesh else {
            node.close().await;
            return Err(OpenError::NotEnrolled);
        };
        match mesh.become_cloud(config.cloud.clone(), &node.edge.running, parts).await {
            Ok(_) => Ok(node),
            Err(error) => {
                node.close().await;
                Err(error.into())
            }
        }
    }

    /// Leaves the site for now, closes the doors, commits what is under way, saves the state.
    pub async fn close(self) {
        // The doors first: what they have taken in may still wait for the site.
        let Node { edge, mesh } = self;
        edge.close().await;
        if let Some(mesh) = mesh {
            mesh.stop().await;
        }
    }
}

/// Who the node is, and the first incarnation of its store, should it found one now: a store that was lost is not followed by one with
/// the same numbers.
fn enrolled(disk: &dyn Disk) -> Result<Option<(NodeIdentity, Incarnation)>, IdentityError> {
    let Some(identity) = NodeIdentity::load(disk)? else { return Ok(None) };
    let has_store = disk.list("").is_ok_and(|names| names.iter().any(|name| name == STORE_FILE));
    let stores = if has_store { files::incarnation(disk)? } else { files::raise_incarnation(disk)? };
    Ok(Some((identity, Incarnation::first_of(u16::try_from(stores.0).unwrap_or(u16::MAX)))))
}
