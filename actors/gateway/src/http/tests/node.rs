//! A node in memory: it keeps what is submitted and answers what the tests tell it to.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::dead_letter::DeadLetter;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::port::{
    AlertAction, AlertsAsked, AskError, DevicesAsked, Health, Json, Node, PanesAsked, Query, QueryAggregate,
    QueryAnswer, Receipt, Refusal, Submission,
};

pub(super) const CREDIT: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct MemoryNode {
    credit: Arc<Semaphore>,
    pub seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// (device, rows) of each run.
    pub runs: Vec<(String, usize)>,
    /// How many batches came with the block they were decoded from.
    pub blocks: usize,
    pub logins: Vec<String>,
    pub dead_letters: Vec<DeadLetter>,
    pub queries: Vec<Query>,
    /// What was asked, and acted on.
    pub calls: Vec<String>,
    /// Told instead of what was stored.
    pub receipt: Option<Receipt>,
    pub not_ready: bool,
}

impl MemoryNode {
    pub fn new() -> Arc<MemoryNode> {
        Arc::new(MemoryNode { credit: Arc::new(Semaphore::new(CREDIT)), seen: Mutex::default() })
    }

    pub fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics while it holds this")
    }

    pub fn credit_left(&self) -> usize {
        self.credit.available_permits()
    }

    fn called(&self, call: impl Into<String>) {
        self.seen().calls.push(call.into());
    }
}

#[async_trait]
impl Node for MemoryNode {
    async fn credit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.credit.clone().acquire_many_owned(bytes as u32).await.ok()
    }

    fn submit(&self, submission: Submission) {
        let mut seen = self.seen();
        let receipt = seen.receipt.clone();
        if !matches!(receipt, Some(Receipt::Refused(_))) {
            for inbound in &submission.batches {
                let batch = &inbound.batch;
                let runs = batch.runs().iter().map(|run| (batch.device(run).to_owned(), run.rows().len()));
                seen.runs.extend(runs);
                seen.blocks += usize::from(inbound.block.is_some());
            }
            seen.dead_letters.extend(submission.dead_letters);
        }
        seen.logins.push(submission.source.login.to_string());
        let accepted = submission.batches.iter().map(|inbound| inbound.batch.rows() as u64).sum();
        let stored = Receipt::Stored { accepted, duplicates: 0, rejected: 0 };
        let _ = submission.receipt.send(receipt.unwrap_or(stored));
    }

    async fn retain(&self, _: String, _: Bytes, _: u8) -> bool {
        false
    }

    fn presence(&self, _: &str, _: bool) {}

    async fn query(&self, query: Query) -> Result<QueryAnswer, AskError> {
        let (device_id, metric) = (query.device_id.clone(), query.metric.clone());
        let truncated = query.limit < 2;
        self.seen().queries.push(query);
        match device_id.as_str() {
            "nobody" => Err(AskError::NotFound("no device is named `nobody`".into())),
            "steady" => {
                let query = self.seen().queries.last().cloned().ok_or(AskError::Unavailable)?;
                let step = query.step.map_or(i64::MAX, |step| step.0);
                let times = (0..)
                    .map(|n| query.start.0.saturating_add(step.saturating_mul(n)))
                    .take_while(|at| *at < query.end.0);
                let value = if query.aggregate == Some(QueryAggregate::Count) { 2.0 } else { 3.0 };
                let points = times.take(1000).map(|at| (at as f64 / 1e6, json!(value))).collect();
                Ok(QueryAnswer { device_id, metric, points, truncated })
            }
            "long" => {
                let points =
                    (0..1000).map(|at| (f64::from(at), if at == 400 { json!(9.0) } else { json!(1.0) })).collect();
                Ok(QueryAnswer { device_id, metric, points, truncated })
            }
            "broken" => Err(AskError::Failed("the store is gone".into())),
            _ => {
                let points = vec![(1_000.0, json!(20.5)), (1_000.5, json!("x"))];
                Ok(QueryAnswer { device_id, metric, points, truncated })
            }
        }
    }

    async fn devices(&self, asked: DevicesAsked) -> Result<Vec<Json>, AskError> {
        let DevicesAsked { after, tenant, limit } = asked;
        self.called(match tenant {
            None => format!("devices {after:?} {limit}"),
            Some(tenant) => format!("devices {after:?} {limit} of {tenant}"),
        });
        Ok(vec![json!({"device": "a"})])
    }

    async fn metric_names(&self, _: Option<&str>) -> Result<Vec<String>, AskError> {
        Ok(vec!["temperature".into()])
    }

    async fn device(&self, device: &str) -> Result<Json, AskError> {
        Ok(json!({"device": device}))
    }

    async fn quarantine(&self, device: &str, on: bool) -> Result<Json, AskError> {
        self.called(format!("quarantine {device} {on}"));
        Ok(json!({"device": device, "quarantined": on}))
    }

    async fn window(&self, asked: PanesAsked) -> Result<Vec<Json>, AskError> {
        let PanesAsked { window, key, tenant, start, end, limit } = asked;
        let tenant = tenant.map_or(String::new(), |tenant| format!(" of {tenant}"));
        let (start, end) = (start.map(|at| at.0), end.map(|at| at.0));
        self.called(format!("window {window} {key:?} {start:?} {end:?} {limit}{tenant}"));
        Ok(vec![])
    }

    async fn late(&self, name: &str, limit: usize) -> Result<Vec<Json>, AskError> {
        self.called(format!("late {name} {limit}"));
        Ok(vec![])
    }

    async fn alerts(&self, asked: AlertsAsked) -> Result<Vec<Json>, AskError> {
        let AlertsAsked { state, rule, tenant, limit } = asked;
        let tenant = tenant.map_or(String::new(), |tenant| format!(" of {tenant}"));
        self.called(format!("alerts {state:?} {rule:?} {limit}{tenant}"));
        Ok(vec![])
    }

    async fn alert_action(&self, id: &str, action: AlertAction, by: &str) -> Result<Json, AskError> {
        self.called(format!("{action:?} {id} by {by}"));
        Ok(json!({"id": id}))
    }

    async fn dead_letters(
        &self,
        reason: Option<String>,
        device: Option<String>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Json>, AskError> {
        self.called(format!("dead letters {reason:?} {device:?} {after:?} {limit}"));
        Ok(vec![])
    }

    async fn replay_dead_letters(&self, ids: Option<Vec<u64>>, reason: Option<String>) -> Result<Json, AskError> {
        self.called(format!("replay {ids:?} {reason:?}"));
        Ok(json!({"replayed": 0}))
    }

    async fn drop_ranges(&self, limit: usize) -> Result<Vec<Json>, AskError> {
        self.called(format!("drops {limit}"));
        Ok(vec![])
    }

    async fn journal(&self) -> Result<Json, AskError> {
        Err(AskError::Unavailable)
    }

    async fn site(&self, what: &str, body: Json) -> Result<Json, AskError> {
        if body["device"] == "lonely" {
            return Err(AskError::NoSite);
        }
        self.called(format!("site {what} {body}"));
        Ok(json!({"done": what}))
    }

    async fn health(&self) -> Health {
        let ready = !self.seen().not_ready;
        Health { status: if ready { "ok" } else { "failing" }, ready, reasons: vec![] }
    }

    fn metrics(&self) -> String {
        "# none\n".into()
    }
}

/// What a test that refuses says.
pub(super) fn refused(refusal: Refusal) -> Option<Receipt> {
    Some(Receipt::Refused(refusal))
}

pub(super) fn stored(accepted: u64, duplicates: u64, rejected: u64) -> Option<Receipt> {
    Some(Receipt::Stored { accepted, duplicates, rejected })
}

pub(super) fn field<'a>(document: &'a Value, key: &str) -> &'a str {
    document[key].as_str().unwrap_or_default()
}
