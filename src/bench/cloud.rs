//! The cloud under load: one node of it as a process of its own, and sites in other processes or, where many are wanted, connections of this one that
//! say what nodes of sites would say.

mod drain;
mod query;
mod reconcile;
mod report;
mod visible;

use anyhow::{Context, bail};
use clap::ValueEnum;
use millpond_cluster::identity::{self, Authority, Key, Order, Terms, Trusted};
use millpond_core::{
    ids::{Incarnation, Origin},
    record::Class,
    time::Span,
};
use millpond_env::{Env, StdRng};
use millpond_gateway::client::http::HttpClient;
use rand::Rng;
use serde_json::Value;

pub use self::report::CloudReport;
use super::node::{ChildNode, Launch, Role, own_directory};
use crate::world::World;

/// Pause between two looks at something that is waited for.
const LOOK_EVERY: Span = Span::from_millis(1);
const PATIENCE: Span = Span::from_secs(300);

/// A part of the measurement that can be had by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CloudPart {
    /// An event, and an alert over two sites, on their way to the cloud
    Visible,
    /// Blocks of many sites, as fast as the cloud confirms them
    Reconcile,
    /// A backlog, with live events beside it, and what it costs on the wire
    Drain,
    /// Values of a day and of ninety, out of the archive
    Query,
}

impl CloudPart {
    const ALL: [CloudPart; 4] = [CloudPart::Visible, CloudPart::Reconcile, CloudPart::Drain, CloudPart::Query];
}

/// What is measured, and how much of it.
#[derive(Clone, Debug)]
pub struct CloudPlan {
    pub parts: Vec<CloudPart>,
    /// Events, and a tenth as many alerts, whose way is timed.
    pub events: u32,
    /// Sites that deliver at once.
    pub sites: u16,
    /// How long they do.
    pub duration: Span,
    /// Devices of the site with a backlog, one event a second each.
    pub devices: u32,
    /// How long it was offline.
    pub offline: Span,
    /// Days of history that are queried.
    pub days: u32,
}

/// # Errors
/// When a node does not do what is waited for.
pub async fn run(env: &Env, plan: CloudPlan) -> anyhow::Result<CloudReport> {
    let mut report = CloudReport::default();
    for part in CloudPart::ALL {
        if !plan.parts.is_empty() && !plan.parts.contains(&part) {
            continue;
        }
        match part {
            CloudPart::Visible => report.visible = Some(visible::run(env, plan.events).await?),
            CloudPart::Reconcile => report.reconcile = Some(reconcile::run(env, &plan).await?),
            CloudPart::Drain => report.drain = Some(drain::run(env, &plan).await?),
            CloudPart::Query => report.query = Some(query::run(env, &plan).await?),
        }
    }
    Ok(report)
}

/// The authority of a site, which lives only here.
struct Name {
    authority: Authority,
    site: String,
}

impl Name {
    fn found(env: &Env, rng: &mut StdRng, site: &str) -> Name {
        let key = Key::random(rng);
        Name { authority: Authority::found(site, &key, env.wall()), site: site.to_owned() }
    }

    /// The identity of a node of the site, in a new directory.
    fn node(&self, env: &Env, rng: &mut StdRng, node: &str, trusts: &[Trusted]) -> anyhow::Result<Launch> {
        let mut launch = Launch::open();
        let data = own_directory()?;
        let key = Key::random(rng);
        let mut origin = Origin::default();
        rng.fill_bytes(&mut origin.0);
        let order = Order { origin, node, public_key: key.public(), now: env.wall() };
        let (certificate, root) = (self.authority.issue(&order), self.authority.certificate().clone());
        let world = World::new(&data.join("data"))?;
        identity::files::install(world.disk.as_ref(), &key, &certificate, &root, Incarnation(0))?;
        for trusted in trusts {
            identity::save_trusted(world.disk.as_ref(), trusted)?;
        }
        launch.sets.extend(["site.listen=\"127.0.0.1:0\"".to_owned(), format!("node.name=\"{node}\"")]);
        launch.temporary = Some(data);
        Ok(launch)
    }

    /// This site, as another one trusts it.
    fn trusted(&self, classes: &[Class], uplink: Vec<String>) -> Trusted {
        Trusted {
            site: self.site.clone(),
            authority: self.authority.certificate().clone(),
            terms: Terms { classes: classes.to_vec(), devices: vec!["*".to_owned()], masks: Default::default() },
            addresses: Vec::new(),
            take: Class::ALL.to_vec(),
            uplink,
            budget: None,
        }
    }
}

/// A node of the cloud that trusts these sites.
async fn cloud(
    env: &Env,
    rng: &mut StdRng,
    config: &str,
    sets: &[&str],
    sites: &[&Name],
) -> anyhow::Result<(Name, ChildNode, HttpClient)> {
    let name = Name::found(env, rng, "cloud");
    let trusts: Vec<Trusted> = sites.iter().map(|site| site.trusted(&[], Vec::new())).collect();
    let mut launch = name.node(env, rng, "cloud", &trusts)?;
    launch.role = Role::Cloud;
    launch.config = Some(config.to_owned());
    launch.sets.extend(sets.iter().map(|set| (*set).to_owned()));
    let node = ChildNode::start(env, launch).await?;
    let client = node.client(env, None)?;
    Ok((name, node, client))
}

/// A node of a site that delivers to the cloud.
async fn edge(
    env: &Env,
    rng: &mut StdRng,
    (site, cloud): (&Name, &Name),
    door: &ChildNode,
    config: &str,
) -> anyhow::Result<(ChildNode, HttpClient)> {
    let uplink = door.site().context("the cloud has no address")?.to_string();
    let mut launch = site.node(env, rng, "north", &[cloud.trusted(&Class::ALL, vec![uplink])])?;
    launch.config = Some(config.to_owned());
    let node = ChildNode::start(env, launch).await?;
    let client = node.client(env, None)?;
    Ok((node, client))
}

/// Looks until it is so; returns how long it took.
async fn until(env: &Env, what: &str, so: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<Span> {
    let begun = env.now();
    while env.now().since(begun) < PATIENCE {
        if so().await? {
            return Ok(env.now().since(begun));
        }
        env.sleep(LOOK_EVERY).await;
    }
    bail!("{what}: not within {PATIENCE}")
}

/// Records of a site that the cloud has, and those that it knows to be at the site.
async fn ledger(client: &HttpClient, site: &str) -> anyhow::Result<(u64, u64)> {
    let sites = client.get("/v1/cloud/sites").await?;
    let found = sites["sites"].as_array().into_iter().flatten().find(|row| row["site"] == site).cloned();
    let row = found.unwrap_or(Value::Null);
    Ok((row["delivered"].as_u64().unwrap_or(0), row["at_site"].as_u64().unwrap_or(u64::MAX)))
}
