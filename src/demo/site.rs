//! The three nodes of the demo: enrolled as an operator would do it, each a process of its own, killed and started again.

use std::path::Path;

use anyhow::Context;
use millpond_cluster::identity::{self, Newcomer, NodeIdentity};
use millpond_core::{
    ids::{Incarnation, Origin},
    time::Span,
};
use millpond_env::Env;
use rand::RngExt;

use super::config::{self, Tokens};
use crate::{
    bench::node::{ChildNode, DataDir, Launch},
    world::World,
};

/// What the nodes are called; the first founds the site.
pub const NAMES: [&str; NODES] = ["north", "south", "west"];
pub const NODES: usize = 3;
/// An invitation is used at once.
const INVITED_FOR: Span = Span::from_secs(60);

#[derive(Debug)]
pub struct Site {
    // Before the directory, so that no process works in it when it is removed.
    pub nodes: Vec<ChildNode>,
    dir: DataDir,
}

impl Site {
    /// Founds the site, lets the others in, and starts all. What is in the directory already is used.
    ///
    /// # Errors
    /// When a node does not start or cannot join; with what it wrote on stderr.
    pub async fn start(env: &Env, dir: Option<&Path>, tokens: &Tokens) -> anyhow::Result<Site> {
        let dir = DataDir::new(dir.map(Path::to_owned))?;
        let founder = world(&dir.path, NAMES[0])?;
        let me = match NodeIdentity::load(founder.disk.as_ref())? {
            Some(me) => me,
            None => identity::found(&founder, "demo", &newcomer(&founder, NAMES[0]))?,
        };
        let mut nodes = vec![launch(env, &dir.path, NAMES[0], tokens).await?];
        for name in &NAMES[1..] {
            let newcomer_env = world(&dir.path, name)?;
            if NodeIdentity::load(newcomer_env.disk.as_ref())?.is_none() {
                let addr = nodes[0].site().context("the founder has no address")?;
                let until = founder.wall().saturating_add(INVITED_FOR);
                let token = identity::invite(&founder, &mut env.rng("demo.invitation"), &me, vec![addr], until)?;
                let provider = identity::provider();
                identity::accept(&newcomer_env, &provider, &token, &newcomer(&newcomer_env, name))
                    .await
                    .with_context(|| format!("{name} cannot join the site"))?;
            }
            nodes.push(launch(env, &dir.path, name, tokens).await?);
        }
        Ok(Site { nodes, dir })
    }

    pub fn path(&self) -> &Path {
        &self.dir.path
    }

    /// Stops all, the last first.
    ///
    /// # Errors
    /// When one ends with an error.
    pub async fn stop(mut self, env: &Env) -> anyhow::Result<()> {
        while let Some(mut node) = self.nodes.pop() {
            // One that was killed has nothing to stop.
            if node.ended().is_none() {
                node.stop(env).await?;
            }
        }
        Ok(())
    }
}

async fn launch(env: &Env, dir: &Path, name: &str, tokens: &Tokens) -> anyhow::Result<ChildNode> {
    let sets = [format!("node.name=\"{name}\""), "site.listen=\"127.0.0.1:0\"".to_owned()].to_vec();
    let launch = Launch { data: Some(dir.join(name)), config: Some(config::text(tokens)), sets, ..Launch::default() };
    ChildNode::start(env, launch).await.with_context(|| format!("{name} does not start"))
}

/// Where a node's data is: below its directory, as [`ChildNode`] lays it out.
fn world(dir: &Path, name: &str) -> anyhow::Result<Env> {
    let home = dir.join(name).join("data");
    World::new(&home).with_context(|| format!("cannot create {}", home.display()))
}

fn newcomer(env: &Env, name: &str) -> Newcomer {
    Newcomer { origin: Origin(env.rng("origin").random()), incarnation: Incarnation(0), node: name.to_owned() }
}
