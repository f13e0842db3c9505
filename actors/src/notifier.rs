//! Carries notifications from the outbox to webhooks. The outbox is a table of the store: a notification leaves it only after the webhook has
//! answered with success, or when it has become too old. A webhook may see a notification twice (after a crash between its answer and our
//! commit), never lose one: each carries its idempotency key in `Idempotency-Key`.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::{
    alert::Notification,
    planted::{self, Bug},
    record::{self, Class},
    time::{Span, Timestamp},
};
use millpond_env::{Env, Mono};
use millpond_gateway::webhook;
use millpond_store::{Put, Reader, Table};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::{
    journal::{JournalMsg, Unit, Work},
    metrics::NotifierMetrics,
    settings::{Settings, WebhookSettings},
};

const TICK: Span = Span::from_secs(1);
const RETRY_FIRST: Span = Span::from_secs(1);
const RETRY_MAX: Span = Span::from_secs(300);
/// Notifications that are looked at in one go.
const OUTBOX_PAGE: usize = 64;

pub enum NotifierMsg {
    /// There may be something new in the outbox.
    Wake,
    /// A try ended: was it delivered?
    Tried {
        hook: usize,
        key: Vec<u8>,
        delivered: bool,
        detail: String,
    },
    Tick,
}

pub struct Notifier;

pub struct Arguments {
    pub env: Env,
    pub settings: Arc<Settings>,
    pub reader: Reader,
    pub journal: ActorRef<JournalMsg>,
    pub metrics: NotifierMetrics,
}

pub struct State {
    args: Arguments,
    /// One line per webhook: a webhook that is down does not hold up the others.
    lines: Vec<Line>,
}

#[derive(Default)]
struct Line {
    trying: bool,
    /// Delivered, with the removal on its way to the disk.
    leaving: BTreeMap<Vec<u8>, ()>,
    failures: u32,
    not_before: Mono,
}

#[async_trait]
impl Actor for Notifier {
    type Msg = NotifierMsg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<NotifierMsg>, args: Arguments) -> Result<State, ActorProcessingErr> {
        crate::every(&args.env, TICK, me, || NotifierMsg::Tick);
        let lines = args.settings.webhooks.iter().map(|_| Line::default()).collect();
        Ok(State { args, lines })
    }

    async fn handle(
        &self,
        me: ActorRef<NotifierMsg>,
        msg: NotifierMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.args.env.schedule_point().await;
        if let NotifierMsg::Tried { hook, key, delivered, detail } = msg {
            state.tried(hook, key, delivered, &detail);
        }
        for hook in 0..state.lines.len() {
            state.advance(hook, &me);
        }
        Ok(())
    }
}

impl State {
    /// Starts the next try of a webhook if it is time.
    fn advance(&mut self, hook: usize, me: &ActorRef<NotifierMsg>) {
        let line = &self.lines[hook];
        if line.trying || self.args.env.now() < line.not_before {
            return;
        }
        let settings = self.args.settings.webhooks[hook].clone();
        let Some((key, notification)) = self.next(hook, &settings) else { return };
        self.lines[hook].trying = true;
        let (env, me) = (self.args.env.clone(), me.clone());
        self.args.env.spawn(async move {
            let (delivered, detail) = deliver(&env, &settings, &notification).await;
            let _ = me.cast(NotifierMsg::Tried { hook, key, delivered, detail });
        });
    }

    /// The oldest notification for this webhook that is not on its way out; those that are too old are dropped on the way.
    fn next(&mut self, hook: usize, settings: &WebhookSettings) -> Option<(Vec<u8>, Notification)> {
        let prefix = format!("{}/", settings.name).into_bytes();
        let now = self.args.env.wall();
        let mut expired = Vec::new();
        let mut found = None;
        let page = self.args.reader.list(Table::Outbox, &prefix, OUTBOX_PAGE).unwrap_or_default();
        for (key, value) in page {
            if !key.starts_with(&prefix) || found.is_some() {
                break;
            }
            if self.lines[hook].leaving.contains_key(&key) {
                continue;
            }
            match record::decode::<Notification>(&value) {
                Ok(notification) if now.since(notification.at) <= settings.keep => found = Some((key, notification)),
                Ok(_) | Err(_) => expired.push(key),
            }
        }
        for key in expired {
            tracing::warn!(webhook = settings.name, "a notification was not delivered in time and is given up");
            self.args.metrics.expired.inc();
            self.remove(hook, key);
        }
        found
    }

    fn tried(&mut self, hook: usize, key: Vec<u8>, delivered: bool, detail: &str) {
        let name = &self.args.settings.webhooks[hook].name;
        let line = &mut self.lines[hook];
        line.trying = false;
        if delivered {
            line.failures = 0;
            self.args.metrics.delivered.inc();
            return self.remove(hook, key);
        }
        let wait = Span((RETRY_FIRST.0 << line.failures.min(16)).min(RETRY_MAX.0));
        line.failures += 1;
        line.not_before = self.args.env.now().after(wait);
        self.args.metrics.failed.inc();
        tracing::warn!(webhook = name, detail, again_in = %wait, "a notification could not be delivered");
    }

    fn remove(&mut self, hook: usize, key: Vec<u8>) {
        let line = &mut self.lines[hook];
        // Rows that are gone from the page need not be remembered; the map stays as small as one page.
        while line.leaving.len() > 4 * OUTBOX_PAGE {
            line.leaving.pop_first();
        }
        line.leaving.insert(key.clone(), ());
        let work = Work { puts: vec![Put { table: Table::Outbox, key, value: None }], ..Work::default() };
        let unit = Unit::other(Class::Alert, work);
        let _ = self.args.journal.cast(JournalMsg::Append(unit));
    }
}

/// Keys sort by webhook, then by age.
pub fn outbox_key(webhook: &str, notification: &Notification) -> Vec<u8> {
    let Timestamp(at) = notification.at;
    let mut key = format!("{webhook}/").into_bytes();
    key.extend_from_slice(&at.to_be_bytes());
    key.extend_from_slice(notification.id.as_bytes());
    key
}

async fn deliver(env: &Env, settings: &WebhookSettings, notification: &Notification) -> (bool, String) {
    let body = serde_json::to_vec(&crate::shapes::notification(notification)).unwrap_or_default();
    let mut headers: Vec<(String, String)> =
        settings.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    headers.push(("content-type".into(), "application/json".into()));
    let mut key = notification.id.clone();
    if planted::is(Bug::NewKeyForEachTry) {
        key.push_str(&env.now().0.to_string());
    }
    headers.push(("idempotency-key".into(), key));
    match webhook::post(env, &settings.url, &headers, Bytes::from(body), settings.timeout).await {
        Ok(status) if (200..300).contains(&status) => (true, String::new()),
        Ok(status) => (false, format!("the webhook answered with status {status}")),
        Err(error) => (false, error.to_string()),
    }
}
