//! Two sites of three nodes and a node of the cloud: enrolled as operators would do it, each a process of its own, killed and started again. Each
//! site delivers to the cloud over a line of its own, which can be cut.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::Context;
use millpond_cluster::identity::{self, Newcomer, NodeIdentity, Terms, Trusted};
use millpond_core::{
    ids::{Incarnation, Origin},
    record::Class,
    time::Span,
};
use millpond_env::Env;
use rand::RngExt;

use super::{
    config::{self, Tokens},
    relay::Relay,
};
use crate::{
    bench::node::{ChildNode, DataDir, Launch, Role},
    world::World,
};

/// What the sites are called.
pub const SITES: [&str; 2] = ["mill", "bakery"];
/// The site whose line to the cloud can be cut.
pub const REMOTE: usize = 1;
/// What the nodes are called, site by site; the first of each founds its site.
pub const NAMES: [&str; NODES] = ["north", "south", "west", "hall", "yard", "shop"];
pub const OF_SITE: usize = 3;
pub const NODES: usize = SITES.len() * OF_SITE;
const CLOUD: &str = "cloud";
/// An invitation is used at once.
const INVITED_FOR: Span = Span::from_secs(60);

/// The site of a node.
pub fn site_of(node: usize) -> usize {
    node / OF_SITE
}

pub fn nodes_of(site: usize) -> Range<usize> {
    site * OF_SITE..(site + 1) * OF_SITE
}

#[derive(Debug)]
pub struct Mesh {
    // Before the directory, so that no process works in it when it is removed.
    pub nodes: Vec<ChildNode>,
    pub cloud: ChildNode,
    /// The lines to the cloud, by site.
    pub relays: Vec<Relay>,
    dir: DataDir,
}

impl Mesh {
    /// Founds the sites and the cloud, lets the others in, and starts all. What is in the directory already is used.
    ///
    /// # Errors
    /// When a node does not start or cannot join; with what it wrote on stderr.
    pub async fn start(env: &Env, dir: Option<&Path>, tokens: &Tokens) -> anyhow::Result<Mesh> {
        let dir = DataDir::new(dir.map(Path::to_owned))?;
        let above = Place { dir: dir.path.clone(), site: CLOUD, name: CLOUD };
        let name = above.found()?;
        let founder = |(at, site): (usize, &&'static str)| Place {
            dir: dir.path.join(site),
            site,
            name: NAMES[nodes_of(at).start],
        };
        let founders: Vec<Place> = SITES.iter().enumerate().map(founder).collect();
        for founder in &founders {
            above.trust(&founder.found()?, &[], Vec::new())?;
        }
        let cloud = above.start(env, Role::Cloud, config::cloud(tokens)).await?;
        let door = cloud.site().context("the cloud has no address")?;
        let mut relays = Vec::new();
        for _ in SITES {
            relays.push(Relay::open(env, door).await.context("a line to the cloud")?);
        }
        let site = |at: usize| start_site(env, &founders[at], at, (&name, &relays[at]), tokens);
        let (first, second) = tokio::try_join!(site(0), site(1))?;
        Ok(Mesh { nodes: first.into_iter().chain(second).collect(), cloud, relays, dir })
    }

    pub fn path(&self) -> &Path {
        &self.dir.path
    }

    /// Stops all, the sites before the cloud.
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
        self.cloud.stop(env).await
    }
}

/// Starts the nodes of a site that was founded.
async fn start_site(
    env: &Env,
    founder: &Place,
    site: usize,
    (cloud, line): (&NodeIdentity, &Relay),
    tokens: &Tokens,
) -> anyhow::Result<Vec<ChildNode>> {
    let uplink = vec![line.addr().to_string()];
    let me = founder.found()?;
    founder.trust(cloud, &Class::ALL, uplink.clone())?;
    let mut nodes = vec![founder.start(env, Role::Edge, config::site(tokens)).await?];
    for name in NAMES[nodes_of(site)][1..].iter().copied() {
        let place = Place { name, ..founder.clone() };
        let newcomer_env = place.world()?;
        if NodeIdentity::load(newcomer_env.disk.as_ref())?.is_none() {
            let addr = nodes[0].site().context("the founder has no address")?;
            let founder_env = founder.world()?;
            let until = env.wall().saturating_add(INVITED_FOR);
            let mut rng = env.rng("demo.invitation");
            let token = identity::invite(&founder_env, &mut rng, &me, vec![addr], until)?;
            let (provider, newcomer) = (identity::provider(), newcomer(&newcomer_env, name));
            identity::accept(&newcomer_env, &provider, &token, &newcomer)
                .await
                .with_context(|| format!("{name} cannot join the site"))?;
        }
        place.trust(cloud, &Class::ALL, uplink.clone())?;
        nodes.push(place.start(env, Role::Edge, config::site(tokens)).await?);
    }
    Ok(nodes)
}

/// Where a node lives.
#[derive(Clone, Debug)]
struct Place {
    /// Of its site, or of the cloud.
    dir: PathBuf,
    site: &'static str,
    name: &'static str,
}

impl Place {
    /// Below its directory, as [`ChildNode`] lays it out.
    fn world(&self) -> anyhow::Result<Env> {
        let home = self.dir.join(self.name).join("data");
        World::new(&home).with_context(|| format!("cannot create {}", home.display()))
    }

    /// Who the founder is: as it is written here, or new.
    fn found(&self) -> anyhow::Result<NodeIdentity> {
        let env = self.world()?;
        match NodeIdentity::load(env.disk.as_ref())? {
            Some(me) => Ok(me),
            None => Ok(identity::found(&env, self.site, &newcomer(&env, self.name))?),
        }
    }

    /// Lets the site of somebody else have these classes, and delivers them there.
    fn trust(&self, other: &NodeIdentity, classes: &[Class], uplink: Vec<String>) -> anyhow::Result<()> {
        let authority = other.chain.last().context("a node has a certificate")?.clone();
        let terms = Terms { classes: classes.to_vec(), devices: vec!["*".to_owned()], masks: Default::default() };
        let (addresses, take) = (Vec::new(), Class::ALL.to_vec());
        let trusted = Trusted { site: other.site.clone(), authority, terms, addresses, take, uplink, budget: None };
        Ok(identity::save_trusted(self.world()?.disk.as_ref(), &trusted)?)
    }

    async fn start(&self, env: &Env, role: Role, config: String) -> anyhow::Result<ChildNode> {
        let sets = [format!("node.name=\"{}\"", self.name), "site.listen=\"127.0.0.1:0\"".to_owned()].to_vec();
        let data = Some(self.dir.join(self.name));
        let launch = Launch { data, config: Some(config), sets, role, ..Launch::default() };
        ChildNode::start(env, launch).await.with_context(|| format!("{} does not start", self.name))
    }
}

fn newcomer(env: &Env, name: &str) -> Newcomer {
    Newcomer { origin: Origin(env.rng("origin").random()), incarnation: Incarnation(0), node: name.to_owned() }
}
