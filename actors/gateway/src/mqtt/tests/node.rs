//! A node in memory: it keeps submissions and answers when it is told to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::port::{
    AlertAction, AlertsAsked, AskError, DevicesAsked, Health, Json, Node, PanesAsked, Query, QueryAnswer, Receipt,
    Refusal, Submission,
};

#[derive(Debug)]
pub(crate) struct FakeNode {
    pub credit: Arc<Semaphore>,
    pub seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Submissions that wait for their receipts, while `holds`.
    pub held: VecDeque<Submission>,
    pub holds: bool,
    pub refuses: Option<Refusal>,
    pub rows: usize,
    pub submissions: usize,
    pub devices: Vec<String>,
    pub dead_letters: Vec<String>,
    pub retained: Vec<(String, Bytes)>,
    pub refuses_retained: bool,
    pub presence: Vec<(String, bool)>,
    /// What the site was told, and what it says to that; without it the node belongs to none.
    pub told: Vec<String>,
    pub site: Option<Result<Json, AskError>>,
    pub listening: Vec<(String, bool)>,
}

impl FakeNode {
    pub(crate) fn new() -> Arc<FakeNode> {
        Arc::new(FakeNode { credit: Arc::new(Semaphore::new(16 << 20)), seen: Mutex::default() })
    }

    pub(crate) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics while it holds it")
    }

    /// Answers the `at`-th of the held submissions.
    pub(crate) fn answer(&self, at: usize) {
        let submission = self.seen().held.remove(at).expect("it is held");
        let _ = submission.receipt.send(Receipt::Stored { accepted: 1, duplicates: 0, rejected: 0 });
    }
}

#[async_trait]
impl Node for FakeNode {
    async fn credit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.credit.clone().acquire_many_owned(bytes as u32).await.ok()
    }

    fn submit(&self, submission: Submission) {
        let mut seen = self.seen();
        seen.submissions += 1;
        for inbound in &submission.batches {
            seen.rows += inbound.batch.rows();
            for run in inbound.batch.runs() {
                seen.devices.push(inbound.batch.device(run).to_owned());
            }
        }
        for letter in &submission.dead_letters {
            seen.dead_letters.push(format!("{} {}", letter.device, String::from_utf8_lossy(&letter.payload)));
        }
        if let Some(refusal) = seen.refuses {
            let _ = submission.receipt.send(Receipt::Refused(refusal));
        } else if seen.holds {
            seen.held.push_back(submission);
        } else {
            let _ = submission.receipt.send(Receipt::Stored { accepted: 1, duplicates: 0, rejected: 0 });
        }
    }

    async fn retain(&self, topic: String, payload: Bytes, _qos: u8) -> bool {
        let mut seen = self.seen();
        seen.retained.push((topic, payload));
        !seen.refuses_retained
    }

    fn presence(&self, device: &str, connected: bool) {
        self.seen().presence.push((device.to_owned(), connected));
    }

    async fn site(&self, what: &str, body: Json) -> Result<Json, AskError> {
        let mut seen = self.seen();
        seen.told.push(format!("{what} {body}"));
        seen.site.clone().unwrap_or(Err(AskError::NoSite))
    }

    fn listens(&self, device: &str, on: bool) {
        self.seen().listening.push((device.to_owned(), on));
    }

    async fn query(&self, _: Query) -> Result<QueryAnswer, AskError> {
        Err(AskError::Unavailable)
    }
    async fn devices(&self, _: DevicesAsked) -> Result<Vec<Json>, AskError> {
        Err(AskError::Unavailable)
    }
    async fn device(&self, _: &str) -> Result<Json, AskError> {
        Err(AskError::Unavailable)
    }
    async fn quarantine(&self, _: &str, _: bool) -> Result<Json, AskError> {
        Err(AskError::Unavailable)
    }
    async fn window(&self, _: PanesAsked) -> Result<Vec<Json>, AskError> {
        Err(AskError::Unavailable)
    }
    async fn late(&self, _: &str, _: usize) -> Result<Vec<Json>, AskError> {
        Err(AskError::Unavailable)
    }
    async fn alerts(&self, _: AlertsAsked) -> Result<Vec<Json>, AskError> {
        Err(AskError::Unavailable)
    }
    async fn alert_action(&self, _: &str, _: AlertAction, _: &str) -> Result<Json, AskError> {
        Err(AskError::Unavailable)
    }
    async fn dead_letters(
        &self,
        _: Option<String>,
        _: Option<String>,
        _: Option<u64>,
        _: usize,
    ) -> Result<Vec<Json>, AskError> {
        Err(AskError::Unavailable)
    }
    async fn replay_dead_letters(&self, _: Option<Vec<u64>>, _: Option<String>) -> Result<Json, AskError> {
        Err(AskError::Unavailable)
    }
    async fn drop_ranges(&self, _: usize) -> Result<Vec<Json>, AskError> {
        Err(AskError::Unavailable)
    }
    async fn journal(&self) -> Result<Json, AskError> {
        Err(AskError::Unavailable)
    }
    async fn health(&self) -> Health {
        Health { status: "ok", ready: true, reasons: Vec::new() }
    }
    fn metrics(&self) -> String {
        String::new()
    }
}
