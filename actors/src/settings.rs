//! What a node is told at its start. The sections of the configuration file that concern the actors stand here.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use millpond_core::{
    admission::Policy,
    alert::AlertSettings,
    ids::{Incarnation, Origin},
    rule::RuleSpec,
    schema::{DeviceTypeSpec, SchemaSpec},
    time::Span,
    window::WindowSpec,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything a node needs to know besides its doors.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    /// Shards that share the devices; at least 1.
    pub shards: usize,
    /// Bytes that may be between the sockets and the journal at a time.
    pub in_flight_bytes: usize,
    pub ingest: Policy,
    pub device_types: Vec<DeviceTypeSpec>,
    pub schemas: Vec<SchemaSpec>,
    pub windows: Vec<WindowSpec>,
    pub rules: Vec<RuleSpec>,
    pub alerts: AlertSettings,
    pub webhooks: Vec<WebhookSettings>,
    pub store: StoreSettings,
    pub retention: RetentionSettings,
    pub checkpoint: CheckpointSettings,
    /// What being one of a site's nodes asks of it; `None` for a node on its own.
    pub membership: Option<Membership>,
}

/// The settings as they are now: a site may change rules, windows and schemas while the node runs.
#[derive(Clone, Debug)]
pub struct Current(Arc<RwLock<Arc<Settings>>>);

impl Current {
    pub fn new(settings: Arc<Settings>) -> Current {
        Current(Arc::new(RwLock::new(settings)))
    }

    pub fn now(&self) -> Arc<Settings> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, settings: Arc<Settings>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

/// What being one of a site's nodes asks of the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub ack: Ack,
    /// Other nodes that are to have each record.
    pub replicas: u32,
    /// The origin of the node's certificate, and the first incarnation of a store that is founded now.
    pub origin: Origin,
    pub founds: Incarnation,
}

/// The other boxes of the site. The section means something once the node was enrolled (`millpond site init`, `millpond node join`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SiteSettings {
    /// UDP address for the other nodes of the site. Nobody is heard without a certificate of the site. Default: `0.0.0.0:7800`.
    #[schemars(extend("format" = "address"))]
    pub listen: SocketAddr,
    /// Address at which others reach this node, when it is not the one it listens on. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Nodes to ask for the others, as `host:port`. `mdns` stands for those that say on the local network that they are there; then this one
    /// says so too. Those that were met before are remembered besides. Default: none.
    pub seeds: Vec<String>,
    /// Other nodes that keep a copy of this node's events, from 0 to 8. Alerts, state and panes are copied to all. Default: 1.
    #[schemars(range(max = 8))]
    pub replicas: u32,
    /// When events are acknowledged: `local`, when they are on this node's disk; `site`, when `replicas` other nodes have them on theirs too.
    /// With `site`, a node that cannot reach so many others acknowledges nothing until it can. Default: `local`.
    pub ack: Ack,
    /// Bytes of the copy of one other node's events beyond which the oldest are given up. Default: 1073741824 (1 GiB).
    pub replica_max_bytes: u64,
}

impl SiteSettings {
    /// The seed that stands for whoever is on the local network.
    pub const MDNS: &str = "mdns";
}

impl Default for SiteSettings {
    fn default() -> SiteSettings {
        SiteSettings {
            listen: ([0, 0, 0, 0], 7800).into(),
            advertise: None,
            seeds: Vec::new(),
            replicas: 1,
            ack: Ack::Local,
            replica_max_bytes: 1 << 30,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    #[default]
    Local,
    Site,
}

/// The journal and the room it may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// Memory for pages of the store, in bytes, from 1 MiB to 1 GiB. Default: 8388608 (8 MiB).
    pub cache_bytes: u64,
    /// How long a commit may wait for company while little arrives, to spare flash; a lone event after a pause is committed at once.
    /// From 0s to 1s. Default: 20ms.
    pub linger: Span,
    /// Free bytes on the file system below which the node counts the disk as full. Default: 33554432 (32 MiB), but at most a twentieth of the file system.
    pub min_free_bytes: u64,
    /// What gives way when the disk is full: `drop_oldest` gives up the oldest raw events (down to their floor, each range with a receipt);
    /// `refuse` keeps them and refuses new ones. Default: `drop_oldest`.
    pub when_full: WhenFull,
}

impl Default for StoreSettings {
    fn default() -> StoreSettings {
        StoreSettings {
            cache_bytes: 8 << 20,
            linger: Span::from_millis(20),
            min_free_bytes: 32 << 20,
            when_full: WhenFull::DropOldest,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    DropOldest,
    Refuse,
}

/// How much of each class is kept, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// Alerts and commands. Default: 64 MiB, 400 days, floor 16 MiB.
    pub alert: ClassRetention,
    /// Registry, configuration and the receipts of what was dropped. Default: 64 MiB, 400 days, floor 16 MiB.
    pub state: ClassRetention,
    /// Results of windows. Default: 1 GiB, 90 days, floor 64 MiB.
    pub pane: ClassRetention,
    /// Events as the devices sent them. Default: 4 GiB, 30 days, floor 8 MiB.
    pub raw: ClassRetention,
}

impl Default for RetentionSettings {
    fn default() -> RetentionSettings {
        let class = |max_mib: u64, days: i64, floor_mib: u64| ClassRetention {
            max_bytes: max_mib << 20,
            max_age: Span::from_secs(days * 86_400),
            floor_bytes: floor_mib << 20,
        };
        RetentionSettings {
            alert: class(64, 400, 16),
            state: class(64, 400, 16),
            pane: class(1024, 90, 64),
            raw: class(4096, 30, 8),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassRetention {
    /// Bytes beyond which the oldest records are given up.
    pub max_bytes: u64,
    /// Age beyond which records are given up.
    pub max_age: Span,
    /// Bytes that are never given up for want of space.
    pub floor_bytes: u64,
}

/// How often the state of shards and windows is saved: what is replayed from the journal after a crash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSettings {
    /// Default: 1m.
    pub every: Span,
    /// Bytes of events after which a checkpoint is made earlier. Default: 16777216 (16 MiB).
    pub after_bytes: u64,
}

impl Default for CheckpointSettings {
    fn default() -> CheckpointSettings {
        CheckpointSettings { every: Span::from_secs(60), after_bytes: 16 << 20 }
    }
}

/// A place that is told of alerts by HTTP POST. Deliveries that fail are tried again, also after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Name of the webhook: letters, digits, `-` and `_`.
    pub name: String,
    /// `http://` or `https://` address that takes a JSON document.
    pub url: String,
    /// More headers, such as `Authorization`. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// `info`, `warning` or `critical`: alerts below it are not sent. Default: `info`.
    #[serde(default)]
    pub min_severity: Option<millpond_core::rule::Severity>,
    /// How long one try may take. Default: 10s.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How long a notification is kept for delivery. Default: 7d.
    #[serde(default = "default_keep")]
    pub keep: Span,
}

fn default_timeout() -> Span {
    Span::from_secs(10)
}

fn default_keep() -> Span {
    Span::from_secs(7 * 86_400)
}
