//! A node of the cloud: it takes what sites deliver, once and in order, and keeps it.
//!
//! The cloud is a site of its own, with an authority, nodes, windows, rules and alerts as any other one; what makes it a cloud is that its
//! nodes take deliveries of the sites that it trusts.
//!
//! ```text
//!   streams of a site's nodes ──► site actor ──► copies (sites/NAME/ORIGIN-LIFE.redb), with the account in the same transaction
//!                                     │               └──► receipts, after the commit
//!                                     └──► applier ──► consumers: results in causal order
//! ```
//!
//! Invariants
//! 1. A receipt leaves after the commit that holds what it is for.
//! 2. One actor owns the ledger of a site; a record that is held already changes nothing.
//! 3. Results of an origin are applied in the order of their numbers, and what was said in the place of another origin after the records of
//!    that one which it was computed from.

mod applying;
pub mod archive;
mod asking;
mod control;
mod devices;
mod measures;
mod root;
pub mod sinks;
mod site;
#[cfg(feature = "sql")]
mod sql;
mod streams;
mod windows;

use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use millpond_actors::{Running, config::CloudSettings, merged::DEFAULT_TENANT};
use millpond_core::{ids::Origin, record::Class};
use millpond_env::Env;
use millpond_gateway::port::{AskError, Json};
#[cfg(feature = "s3")]
pub use millpond_lake::bucket;
use millpond_lake::{Lake, LakeError, Manifest, Options};
pub use millpond_lake::{ObjectStore, folder};
use millpond_proto::{
    replication::Life,
    sites::Question,
    uplink::account::{Account, Line},
    wire::Record,
};
use millpond_store::{ReadError, Retention};
use ractor::{Actor, ActorRef};
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use self::site::{ACCOUNT, account_of};
use self::{
    archive::Archive, control::Control, devices::Devices, measures::Measures, root::RootMsg, site::SiteMsg,
    windows::Windows,
};
use crate::{
    sites::Shelf,
    transport::{Replies, ReplyFrames},
};

/// What is told of the results of all sites, of each life in their order. It may be told again what it was told before a restart.
#[async_trait]
pub trait Consumer: Send + Sync + 'static {
    /// What it takes long over holds up the applying, and nothing else.
    async fn apply(&self, site: &str, life: Life, records: &[Record]);
}

/// What a node of the cloud is made of, besides what its configuration says.
#[derive(Default)]
pub struct Parts {
    /// Where events are archived; without it they stay in the copies.
    pub store: Option<Arc<dyn ObjectStore>>,
    /// Who else is told of results.
    pub consumers: Vec<Arc<dyn Consumer>>,
}

/// What a node of the cloud does besides being a node.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

pub(crate) struct Inner {
    env: Env,
    settings: CloudSettings,
    shelf: Arc<Shelf>,
    measures: Measures,
    consumers: Vec<Arc<dyn Consumer>>,
    archive: Option<Arc<Archive>>,
    /// How long copies keep what is archived.
    retention: Retention,
    sinks: sinks::Measures,
    cache: Mutex<asking::Cache>,
    devices: Arc<Devices>,
    /// One question in SQL at a time.
    #[cfg(feature = "sql")]
    sql: tokio::sync::Semaphore,
    /// Ends what is handed on.
    ended: CancellationToken,
    control: Arc<Control>,
    root: std::sync::OnceLock<ActorRef<RootMsg>>,
}

/// How one life of a site stands.
#[derive(Clone, Debug)]
pub struct LifeLine {
    pub life: Life,
    pub account: Account,
    pub line: Line,
    /// Who delivers it now.
    pub by: Option<Origin>,
    /// Numbers whose results were applied.
    pub applied: u64,
}

/// Why a node cannot be one of a cloud.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    #[error("the metrics could not be set up")]
    Metrics(#[from] prometheus::Error),
    #[error("what the sites are to run could not be read")]
    Control(#[source] std::io::Error),
    #[error("the actors could not be started: {0}")]
    Actor(String),
    #[error("what sites delivered could not be read")]
    Read(#[from] ReadError),
    #[error("the sink {0} could not be opened")]
    Sink(String, #[source] std::io::Error),
    #[error("the archive could not be opened")]
    Lake(#[from] LakeError),
}

impl Cloud {
    /// Starts the actors. Deliveries are taken from when it was given to the node's sites on.
    ///
    /// # Errors
    /// See [`CloudError`].
    pub(crate) async fn start(
        env: Env,
        settings: CloudSettings,
        shelf: Arc<Shelf>,
        running: &Running,
        parts: Parts,
    ) -> Result<Cloud, CloudError> {
        let registry = &running.registry;
        let (measures, root) = (Measures::new(registry)?, std::sync::OnceLock::new());
        let Parts { store, mut consumers } = parts;
        let windows = Arc::new(Windows::open(&env, &settings, running, &shelf)?);
        windows.say().await;
        consumers.push(windows);
        let devices = Arc::new(Devices::open(&shelf)?);
        consumers.push(devices.clone());
        let mut archive = None;
        if let Some(store) = store {
            let lake = Lake::unread(store, Options::default());
            archive::look(&env, &lake).await?;
            let opened = Arc::new(Archive::new(env.clone(), settings.clone(), lake, registry)?);
            consumers.push(opened.clone());
            archive = Some(opened);
        }
        let mut retention = Retention::default();
        retention.rules[Class::Raw as usize].max_age_ms = settings.hot.as_millis();
        let control = Control::start(env.clone(), settings.clone(), measures.clone()).await;
        let control = control.map_err(CloudError::Control)?;
        let (sinks, cache, ended) = (sinks::Measures::new(registry)?, Mutex::default(), CancellationToken::new());
        let inner = Arc::new(Inner {
            env,
            settings,
            shelf,
            measures,
            consumers,
            archive,
            retention,
            sinks,
            cache,
            devices,
            #[cfg(feature = "sql")]
            sql: tokio::sync::Semaphore::new(1),
            ended,
            control,
            root,
        });
        let started = Actor::spawn(None, root::Root, inner.clone()).await;
        let (root, _) = started.map_err(|error| CloudError::Actor(error.to_string()))?;
        let _ = inner.root.set(root);
        let cloud = Cloud(inner);
        // What was delivered before goes on being applied.
        for (site, _) in cloud.0.shelf.all() {
            cloud.site(&site).await;
        }
        if let Some(archive) = &cloud.0.archive {
            cloud.0.env.spawn(archive.clone().run(cloud.clone()));
        }
        for settings in cloud.0.settings.sinks.clone() {
            let (env, opens) = (cloud.0.env.clone(), settings.clone());
            let opened = env.clone().unblock(move || sinks::open(&env, &opens)).await;
            let opened = opened.unwrap_or_else(|| Err(std::io::ErrorKind::Interrupted.into()));
            let sink = opened.map_err(|error| CloudError::Sink(settings.name.clone(), error))?;
            cloud.0.env.spawn(sinks::run(cloud.clone(), settings, sink, cloud.0.ended.clone()));
        }
        Ok(cloud)
    }

    fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    /// Whether a question of a node of another site is one for the cloud.
    pub(crate) fn takes(question: &Question) -> bool {
        matches!(question, Question::Ledger { .. } | Question::Deliver { .. } | Question::Obey { .. })
    }

    /// A node of a site asks, or delivers. Nobody waits for it.
    pub(crate) fn asked(&self, site: &str, from: Origin, question: Question, more: ReplyFrames, replies: Replies) {
        let (cloud, site) = (self.clone(), site.to_owned());
        self.0.env.spawn(async move { streams::answer(&cloud, &site, from, question, more, replies).await });
    }

    async fn site(&self, site: &str) -> Option<ActorRef<SiteMsg>> {
        let (reply, answer) = oneshot::channel();
        self.0.root.get()?.cast(RootMsg::Site { site: site.to_owned(), reply }).ok()?;
        answer.await.ok()?
    }

    /// The ledger of a site, a line for each life; `None` when nothing of the site is here.
    pub async fn lines(&self, site: &str) -> Option<Vec<LifeLine>> {
        if !self.0.shelf.all().iter().any(|(known, _)| known == site) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        self.site(site).await?.cast(SiteMsg::Lines(reply)).ok()?;
        answer.await.ok()
    }

    /// What operators want to know or do: `cloud_sites`, `cloud_ledger`, `cloud_lake`, `cloud_archive`, `cloud_forget`, `cloud_sql`,
    /// `cloud_metric_names`, `cloud_heads`, `cloud_put_heads`, `cloud_rollouts` and `cloud_undo`. A `tenant` in the body is the only one that
    /// is told of and changed.
    pub(crate) async fn operate(&self, what: &str, body: &Json) -> Result<Json, AskError> {
        let tenant = body["tenant"].as_str();
        let is_told_of = |site: &str| tenant.is_none_or(|tenant| self.0.settings.site(site).tenant == tenant);
        match what {
            "cloud_sites" => {
                let mut rows = Vec::new();
                let mut sites = self.0.control.sites();
                sites.extend(self.0.shelf.all().into_iter().map(|(site, _)| site));
                sites.retain(|site| is_told_of(site));
                sites.sort();
                sites.dedup();
                for site in sites {
                    rows.push(self.site_row(&site).await);
                }
                Ok(json!({ "sites": rows }))
            }
            "cloud_ledger" => {
                let site = body["site"].as_str().ok_or_else(|| AskError::Invalid("`site` is missing".into()))?;
                let lines = match self.lines(site).await.filter(|_| is_told_of(site)) {
                    Some(lines) => lines,
                    // It is connected, and has delivered nothing yet.
                    None if is_told_of(site) && self.0.control.sites().iter().any(|known| known == site) => Vec::new(),
                    None => return Err(AskError::NotFound(format!("nothing of a site `{site}` is here"))),
                };
                Ok(json!({ "site": site, "rows": lines.iter().map(row_of).collect::<Vec<_>>() }))
            }
            "cloud_lake" => {
                let lake = self.archive()?.lake();
                if !lake.is_read() {
                    return Err(AskError::Unavailable);
                }
                Ok(shown(&lake.manifest(), tenant))
            }
            "cloud_archive" => {
                let manifest = self.archive()?.now().await.map_err(AskError::Failed)?;
                Ok(shown(&manifest, tenant))
            }
            "cloud_forget" => {
                let device = body["device"].as_str().ok_or_else(|| AskError::Invalid("`device` is missing".into()))?;
                let tenant = tenant.unwrap_or(DEFAULT_TENANT);
                let remains = self.archive()?.forget(tenant, device).await.map_err(AskError::Failed)?;
                let rows: u64 = remains.iter().map(|remains| remains.rows).sum();
                Ok(json!({ "device": device, "tenant": tenant, "rows_in_files_to_be_swept": rows }))
            }
            "cloud_metric_names" => Ok(json!(self.metric_names(tenant.unwrap_or(DEFAULT_TENANT)).await?)),
            #[cfg(feature = "sql")]
            "cloud_sql" => self.sql(body).await,
            #[cfg(not(feature = "sql"))]
            "cloud_sql" => Err(AskError::Invalid("this program answers no SQL: build it with `--features sql`".into())),
            _ => self.0.control.operate(what, body).await,
        }
    }

    fn archive(&self) -> Result<&Archive, AskError> {
        self.0.archive.as_deref().ok_or_else(|| AskError::Invalid("nothing is archived".into()))
    }

    async fn site_row(&self, site: &str) -> Json {
        let lines = self.lines(site).await.unwrap_or_default();
        let place = self.0.settings.site(site);
        let sum = |part: fn(&Line) -> u64| lines.iter().map(|line| part(&line.line)).sum::<u64>();
        let mut row = self.0.control.row(site);
        let said = json!({
            "site": site,
            "tenant": place.tenant,
            "region": place.region,
            "place": place.place,
            "nodes": lines.len(),
            "connected": lines.iter().filter(|line| line.by.is_some()).count(),
            "records": sum(|line| line.records),
            "delivered": sum(|line| line.delivered),
            "at_site": sum(|line| line.at_site),
            "missing": sum(|line| line.missing),
        });
        if let (Json::Object(row), Json::Object(said)) = (&mut row, said) {
            row.extend(said);
        }
        row
    }

    /// Ends what is under way; what was confirmed is on disk.
    pub async fn stop(&self) {
        self.0.ended.cancel();
        if let Some(archive) = &self.0.archive {
            archive.stop();
        }
        self.0.control.stop();
        if let Some(root) = self.0.root.get() {
            let _ = root.stop_and_wait(None, None).await;
        }
    }
}

fn shown(manifest: &Manifest, tenant: Option<&str>) -> Json {
    let file = |file: &millpond_lake::File| {
        json!({
            "path": file.path,
            "tenant": file.tenant,
            "day": file.date,
            "tier": file.tier,
            "rows": file.rows,
            "bytes": file.bytes,
        })
    };
    let counts = |file: &&millpond_lake::File| tenant.is_none_or(|tenant| *file.tenant == *tenant);
    let told_of: Vec<&millpond_lake::File> = manifest.files.iter().filter(counts).collect();
    let rows: u64 = told_of.iter().map(|file| file.rows).sum();
    let bytes: u64 = told_of.iter().map(|file| file.bytes).sum();
    let files: Vec<Json> = told_of.into_iter().map(file).collect();
    json!({ "manifest": manifest.number, "rows": rows, "bytes": bytes, "files": files })
}

fn row_of(line: &LifeLine) -> Json {
    let Line { records, delivered, aggregated, expired, quarantined, missing, at_site } = &line.line;
    json!({
        "name": line.account.name,
        "origin": line.life.origin.to_string(),
        "incarnation": line.life.incarnation.0,
        "records": records,
        "delivered": delivered,
        "aggregated": aggregated,
        "expired": expired,
        "quarantined": quarantined,
        "missing": missing,
        "at_site": at_site,
        "closed": *at_site == 0 && *missing == 0,
        "applied": line.applied,
        "delivered_by": line.by.map(|by| by.to_string()),
        "clock_ahead_ms": line.account.clock_ahead_ms,
    })
}
