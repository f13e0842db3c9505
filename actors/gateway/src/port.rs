//! What the gateway needs of the node behind it. The actors implement [`Node`]; the gateway knows nothing else of them.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::{
    batch::Batch,
    dead_letter::DeadLetter,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Input of one read of a connection, or of one request, on its way to the journal.
#[derive(Debug)]
pub struct Submission {
    /// Decoded events, one batch per shape. Event times are as the device said; rows without one are `UNTIMED`.
    pub batches: Vec<Inbound>,
    /// Input that could not be decoded. It is kept before anything is acknowledged.
    pub dead_letters: Vec<DeadLetter>,
    pub source: Source,
    pub received: Timestamp,
    /// Credit for the submission's bytes; given back when the submission is dropped, which is after its commit.
    pub credit: Option<OwnedSemaphorePermit>,
    /// Told once: after the commit that holds all of the above, or when it was refused.
    pub receipt: oneshot::Sender<Receipt>,
    /// Who sends all of the above again when it is not acknowledged; `None` when part of it would never come again (QoS 0).
    pub keeper: Option<Keeper>,
}

impl Submission {
    /// Its sender is gone without an acknowledgement and keeps all of it: it comes again, here or to another node.
    pub fn comes_again(&self) -> bool {
        self.keeper.as_ref().is_some_and(Keeper::is_gone)
    }
}

/// A sender who keeps what it sent until it is acknowledged. It can be told while its [`Line`] is there.
#[derive(Clone, Debug)]
pub struct Keeper(Weak<()>);

impl Keeper {
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// A door's end of a connection or request.
#[derive(Debug, Default)]
pub struct Line(Arc<()>);

impl Line {
    pub fn keeper(&self) -> Keeper {
        Keeper(Arc::downgrade(&self.0))
    }
}

#[derive(Debug)]
pub struct Inbound {
    pub batch: Batch,
    /// The block that `batch` was decoded from: journaled as it is when no event of it is rejected or belongs elsewhere.
    pub block: Option<Bytes>,
}

/// Who sent it and where it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub login: Arc<str>,
    /// `mqtt`, `http`, …
    pub door: &'static str,
}

/// What became of a submission. Nothing but `Stored` may be acknowledged to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Receipt {
    /// On disk: accepted events as records, rejected ones as dead letters; duplicates were there already.
    Stored { accepted: u64, duplicates: u64, rejected: u64 },
    /// Nothing was kept; the sender must keep it and come again later.
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No room on disk for this class.
    Full,
    /// The node is going down.
    Stopping,
    /// The shard failed while it held the submission.
    Failed,
}

/// A range of one metric of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Query {
    pub device_id: String,
    pub metric: String,
    /// Whose device it is, at a node of the cloud. Default: `default`.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Inclusive.
    pub start: Timestamp,
    /// Exclusive.
    pub end: Timestamp,
    /// Together with `step`: one point per step that has events.
    pub aggregate: Option<QueryAggregate>,
    pub step: Option<Span>,
    pub limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryAggregate {
    Count,
    Sum,
    Min,
    Max,
    Mean,
    First,
    Last,
}

/// Points in order of time: (epoch ms, value). Values are numbers, booleans, text, or bytes in base64.
#[derive(Clone, Debug, Serialize)]
pub struct QueryAnswer {
    pub device_id: String,
    pub metric: String,
    pub points: Vec<(f64, serde_json::Value)>,
    /// More points are in the range than `limit` lets through.
    pub truncated: bool,
}

/// Whose everything is of which nothing else is said.
pub const DEFAULT_TENANT: &str = "default";

/// Devices: what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DevicesAsked {
    /// Only names after this one.
    pub after: Option<String>,
    /// At a node of the cloud: whose sites they are at.
    pub tenant: Option<String>,
    pub limit: usize,
}

/// Panes of a window: what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PanesAsked {
    pub window: String,
    pub key: Option<String>,
    /// At a node of the cloud: whose sites they are of.
    pub tenant: Option<String>,
    /// The first one begins here or later.
    pub start: Option<Timestamp>,
    /// The last one ends here or before.
    pub end: Option<Timestamp>,
    pub limit: usize,
}

/// Alerts: what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertsAsked {
    /// `pending`, `firing` or `resolved`.
    pub state: Option<String>,
    pub rule: Option<String>,
    /// At a node of the cloud: whose sites they are about.
    pub tenant: Option<String>,
    pub limit: usize,
}

/// Why the node could not answer a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Invalid(String),
    #[error("the node is starting or stopping")]
    Unavailable,
    /// What only the nodes of a site can tell or do.
    #[error("this node belongs to no site")]
    NoSite,
    #[error("{0}")]
    Failed(String),
}

/// Whether the node can do its work, with the reasons when it can not.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// `ok`, `degraded` (works, but someone should look) or `failing`.
    pub status: &'static str,
    pub ready: bool,
    pub reasons: Vec<String>,
}

/// A line of what was asked, as JSON: the API answers in the shapes that `docs/reference/http.md` shows.
pub type Json = serde_json::Value;

/// The node as its doors see it. All answers reflect committed state only.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// Waits until the node has room for `bytes` more in flight. Doors take credit before they read on: that is the back-pressure.
    async fn credit(&self, bytes: usize) -> Option<OwnedSemaphorePermit>;

    /// Hands a submission over; never blocks. Refusals come by its receipt.
    fn submit(&self, submission: Submission);

    /// Keeps (or, when empty, removes) a retained message; true once it is on disk.
    async fn retain(&self, topic: String, payload: Bytes, qos: u8) -> bool;

    /// A device's session began or ended. `device` is the MQTT client identifier.
    fn presence(&self, device: &str, connected: bool);

    async fn query(&self, query: Query) -> Result<QueryAnswer, AskError>;
    /// All devices, by name.
    async fn devices(&self, asked: DevicesAsked) -> Result<Vec<Json>, AskError>;
    async fn device(&self, device: &str) -> Result<Json, AskError>;
    /// Names of metrics that devices (of a tenant) send, as far as they are known without looking at everything.
    async fn metric_names(&self, _tenant: Option<&str>) -> Result<Vec<String>, AskError> {
        Ok(Vec::new())
    }
    /// Sets a device apart (its events become dead letters), or takes it back.
    async fn quarantine(&self, device: &str, on: bool) -> Result<Json, AskError>;
    /// Newest revision of each pane of a window, newest first.
    async fn window(&self, asked: PanesAsked) -> Result<Vec<Json>, AskError>;
    /// Late events of a window, newest first.
    async fn late(&self, name: &str, limit: usize) -> Result<Vec<Json>, AskError>;
    /// Alerts, newest first.
    async fn alerts(&self, asked: AlertsAsked) -> Result<Vec<Json>, AskError>;
    async fn alert_action(&self, id: &str, action: AlertAction, by: &str) -> Result<Json, AskError>;
    async fn dead_letters(
        &self,
        reason: Option<String>,
        device: Option<String>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Json>, AskError>;
    /// Submits dead letters again; those that pass leave the store, the others stay with their new reason.
    async fn replay_dead_letters(&self, ids: Option<Vec<u64>>, reason: Option<String>) -> Result<Json, AskError>;
    /// Records that were given up, with their reasons.
    async fn drop_ranges(&self, limit: usize) -> Result<Vec<Json>, AskError>;
    /// Sequence numbers, sizes, cursors and quotas of the journal.
    async fn journal(&self) -> Result<Json, AskError>;
    /// What the nodes of a site know and do together: members, documents, twins, commands. `what` and `body` are those of
    /// `millpond_actors::site::Others::operate`.
    async fn site(&self, _what: &str, _body: Json) -> Result<Json, AskError> {
        Err(AskError::NoSite)
    }
    /// A client listens, or listens no more, for what this device is to be told.
    fn listens(&self, _device: &str, _on: bool) {}
    async fn health(&self) -> Health;
    /// The Prometheus text format.
    fn metrics(&self) -> String;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertAction {
    Acknowledge,
    Resolve,
}
