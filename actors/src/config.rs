//! The configuration as a tree of types. The comments are the reference page: each says meaning, default and bounds.

use std::{collections::BTreeMap, path::PathBuf};

use millpond_core::{
    admission::Policy,
    alert::AlertSettings,
    record::Class,
    rule::RuleSpec,
    schema::{DeviceTypeSpec, SchemaSpec},
    time::Span,
    window::WindowSpec,
};
use millpond_gateway::{auth::AuthSettings, http::HttpSettings, mqtt::MqttSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    merged::DEFAULT_TENANT,
    settings::{CheckpointSettings, RetentionSettings, Settings, SiteSettings, StoreSettings, WebhookSettings},
};

/// The whole file. Every section may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the node is called, where it keeps its data, and how much of the machine it takes.
    pub node: NodeSettings,
    /// The door for devices that speak MQTT 3.1.1 or 5.0.
    pub mqtt: MqttSettings,
    /// The door for HTTP: telemetry in, questions, alerts, metrics and health.
    pub http: HttpSettings,
    /// Who may come in.
    pub auth: AuthSettings,
    /// Which events are let in.
    pub ingest: Policy,
    /// The journal and the room it may take.
    pub store: StoreSettings,
    /// How much of each class of records is kept, and for how long.
    pub retention: RetentionSettings,
    /// How often the state of windows is saved.
    pub checkpoint: CheckpointSettings,
    /// Kinds of devices, by the names of devices. The first that matches wins.
    pub device_types: Vec<DeviceTypeSpec>,
    /// What devices of a type may send.
    pub schemas: Vec<SchemaSpec>,
    /// What is computed over time.
    pub windows: Vec<WindowSpec>,
    /// When to raise an alert.
    pub rules: Vec<RuleSpec>,
    /// How alerts are told.
    pub alerts: AlertSettings,
    /// Where alerts are told by HTTP POST.
    pub webhooks: Vec<WebhookSettings>,
    /// The other boxes of the site.
    pub site: SiteSettings,
    /// What a node of the cloud keeps of the sites that deliver to it (`millpond cloud`).
    pub cloud: CloudSettings,
    /// What the node says about itself on stderr.
    pub log: LogSettings,
}

impl Config {
    /// What the node behind the doors needs to know. `cores` is the size of the machine.
    pub fn settings(&self, cores: usize) -> Settings {
        Settings {
            name: self.node.name.clone(),
            shards: self.node.shards.map_or((cores / 2).clamp(1, 4), |shards| shards as usize),
            in_flight_bytes: self.node.in_flight_bytes as usize,
            ingest: self.ingest.clone(),
            device_types: self.device_types.clone(),
            schemas: self.schemas.clone(),
            windows: self.windows.clone(),
            rules: self.rules.clone(),
            alerts: self.alerts.clone(),
            webhooks: self.webhooks.clone(),
            store: self.store.clone(),
            retention: self.retention.clone(),
            checkpoint: self.checkpoint.clone(),
            membership: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSettings {
    /// Name of the node in logs and metrics: letters, digits, `-` and `_`, up to 64. Default: `edge`.
    pub name: String,
    /// Directory of the journal and the node's identity, created when it is missing; a relative path starts at the working directory.
    /// One process at a time. Default: `millpond-data`.
    pub data: PathBuf,
    /// Shards that share the devices among themselves, from 1 to 64. Devices keep their shard, so change it only when the number of
    /// cores changes. One carries several million events a second; with more, blocks of devices of several shards are encoded anew. Default:
    /// half the number of cores, from 1 to 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub shards: Option<u32>,
    /// Bytes of decoded events that may be between the sockets and the journal; when they are used up, sockets are not read.
    /// From 1 MiB to 1 GiB. Default: 16777216 (16 MiB).
    #[schemars(range(min = 1_048_576, max = 1_073_741_824))]
    pub in_flight_bytes: u64,
}

impl Default for NodeSettings {
    fn default() -> NodeSettings {
        NodeSettings { name: "edge".to_owned(), data: "millpond-data".into(), shards: None, in_flight_bytes: 16 << 20 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug` or `trace`. The environment variable MILLPOND_LOG overrides it and takes directives such as
    /// `info,millpond_gateway=debug`. Default: `info`.
    pub level: LogLevel,
    /// `text` or `json` (one object per line). Default: `text`.
    pub format: LogFormat,
}

/// What a node of the cloud keeps of the sites that deliver to it, and where. The section means something to `millpond cloud` only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CloudSettings {
    /// Where events are archived as Parquet: a folder, relative to the data directory, or `s3://BUCKET/PREFIX` in a program that was
    /// built with the feature `s3`. Default: `lake`.
    pub lake: String,
    /// The region that this node of the cloud lies in. Records that are bound to another one are not stored here. Default: none.
    pub region: String,
    /// How often what is settled is moved into the archive. Default: 1m.
    pub archive_every: Span,
    /// How long records stay in the cloud node's own store besides; what is not archived stays longer. Default: 7d.
    pub hot: Span,
    /// Age at which archived files move to the cold tier. Default: 90d.
    pub warm: Span,
    /// Age at which archived files are given up. Default: 2555d (7 years).
    pub cold: Span,
    /// Who the sites are. One that is not named belongs to the tenant `default`.
    pub sites: Vec<SiteOfCloud>,
    /// Where what the sites delivered is handed on to, at least once each, with a key by which a repetition is known.
    pub sinks: Vec<SinkSettings>,
}

impl Default for CloudSettings {
    fn default() -> CloudSettings {
        let days = |days: i64| Span::from_secs(days * 86_400);
        CloudSettings {
            lake: "lake".to_owned(),
            region: String::new(),
            archive_every: Span::from_secs(60),
            hot: days(7),
            warm: days(90),
            cold: days(2555),
            sites: Vec::new(),
            sinks: Vec::new(),
        }
    }
}

impl CloudSettings {
    /// Classes of a site's records that may not be stored here.
    pub fn kept_out(&self, site: &str) -> Vec<Class> {
        let site = self.site(site);
        if site.region == self.region { Vec::new() } else { site.bound }
    }

    /// Who a site is.
    pub fn site(&self, name: &str) -> SiteOfCloud {
        self.sites.iter().find(|site| site.site == name).cloned().unwrap_or_else(|| SiteOfCloud::unnamed(name))
    }
}

/// A site, as the cloud knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteOfCloud {
    /// The site's name, as its certificates have it.
    pub site: String,
    /// Whose site it is: what is stored, asked and pushed is kept apart by tenant. Letters, digits, `-` and `_`. Default: `default`.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// Where it lies, for example `eu-west`. Default: none.
    #[serde(default)]
    pub region: String,
    /// Classes of records that must not leave the region: `alert`, `state`, `pane`, `raw`. Default: none.
    #[serde(default)]
    pub bound: Vec<Class>,
    /// What people call the place. Default: none.
    #[serde(default)]
    pub place: String,
}

impl SiteOfCloud {
    fn unnamed(site: &str) -> SiteOfCloud {
        let (tenant, region, place) = (default_tenant(), String::new(), String::new());
        SiteOfCloud { site: site.to_owned(), tenant, region, bound: Vec::new(), place }
    }
}

/// A place that records are handed on to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkSettings {
    /// Name of the sink: letters, digits, `-` and `_`. How far it has come is kept under it.
    pub name: String,
    /// `file`: lines of JSON, appended; `webhook`: the same lines by POST.
    pub kind: SinkKind,
    /// A file, relative to the data directory; or an `http://` or `https://` address.
    pub target: String,
    /// Which records: `alert`, `pane`, `raw`. Default: alerts and panes.
    #[serde(default = "default_sink_classes")]
    pub classes: Vec<Class>,
    /// Of which sites, with `*` for any run of characters. Default: all.
    #[serde(default = "default_sink_sites")]
    pub sites: Vec<String>,
    /// More headers of a webhook, such as `Authorization`. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkKind {
    File,
    Webhook,
}

fn default_sink_classes() -> Vec<Class> {
    vec![Class::Alert, Class::Pane]
}

fn default_sink_sites() -> Vec<String> {
    vec!["*".to_owned()]
}

fn default_tenant() -> String {
    DEFAULT_TENANT.to_owned()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub fn name(self) -> &'static str {
        ["error", "warn", "info", "debug", "trace"][self as usize]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}
