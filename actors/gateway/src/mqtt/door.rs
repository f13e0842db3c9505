//! What all connections of the door share.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use millpond_env::Env;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    MqttMetrics, MqttSettings,
    codec::Text,
    ingest::{Held, Ingest, Route, device_of, route},
};
use crate::{
    auth::{Auth, Login},
    broker::{Broker, Will},
    port::{AskError, Node, Receipt, Source},
};

/// The name of the door in sources and dead letters.
pub(super) const NAME: &str = "mqtt";

pub(super) struct Door {
    pub env: Env,
    pub node: Arc<dyn Node>,
    pub broker: Arc<Broker>,
    pub auth: Arc<Auth>,
    pub settings: MqttSettings,
    pub metrics: MqttMetrics,
    stop: CancellationToken,
    /// Begins the identifiers given to clients that have none, so that those of two boots differ.
    boot: String,
    named: AtomicU64,
}

impl Door {
    pub(super) fn new(
        env: Env,
        node: Arc<dyn Node>,
        broker: Arc<Broker>,
        auth: Arc<Auth>,
        settings: MqttSettings,
        metrics: MqttMetrics,
        stop: CancellationToken,
    ) -> Door {
        let boot = env.entropy.seed("mqtt.names")[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Door { env, node, broker, auth, settings, metrics, stop, boot, named: AtomicU64::new(0) }
    }

    /// Resolves when the door closes.
    pub(super) fn stopped(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.stop.clone().cancelled_owned())
    }

    /// What `future` gives, unless the door closes first.
    pub(super) async fn unless_stopped<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut stopped = self.stopped();
        let mut future = pin!(future);
        poll_fn(|cx| match stopped.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// A name for a client that gave none.
    pub(super) fn name(&self) -> String {
        format!("auto-{}-{}", self.boot, self.named.fetch_add(1, Ordering::Relaxed))
    }

    /// Publishes the will of a client that is gone, as the client would have: telemetry is stored, a retained message is kept, and then
    /// subscribers see it.
    pub(super) fn publish_will(self: &Arc<Door>, will: Will) {
        let door = self.clone();
        self.env.spawn(async move {
            let Will { mut message, login, .. } = will;
            let kept = if matches!(route(&message.topic), Route::Reported(_) | Route::Answered(..)) {
                message.retain = false;
                door.tell_site(message.topic.clone(), message.payload.clone(), login).await
            } else if route(&message.topic) != Route::Other {
                message.retain = false;
                door.ingest(&message.topic, message.payload.clone(), login).await
            } else if message.retain {
                let (topic, payload) = (message.topic.to_string(), message.payload.clone());
                door.broker.may_retain(&topic, payload.len()) && door.node.retain(topic, payload, message.qos).await
            } else {
                true
            };
            if kept {
                door.broker.deliver(message, None);
            } else {
                tracing::warn!(topic = %message.topic, "the will of a client was refused");
            }
        });
    }

    /// Tells the node for which devices a client listens (or listens no more): those whose topics it names and in whose name it may speak.
    pub(super) fn listens(&self, login: &Login, client_id: &str, filters: &[Box<str>], on: bool) {
        let named: BTreeSet<&str> = filters.iter().filter_map(|filter| device_of(filter)).collect();
        for device in named {
            if login.may_publish(client_id, &format!("devices/{device}/twin/reported")) {
                self.node.listens(device, on);
            }
        }
    }

    /// Gives what a device reports or answers to the site. What it does not take is kept as a dead letter; on a node of no site it is a
    /// message as any other.
    pub(super) async fn tell_site(&self, topic: Arc<str>, payload: Bytes, login: Arc<str>) -> bool {
        let taken = match (route(&topic), serde_json::from_slice::<Value>(&payload)) {
            (Route::Reported(device), Ok(patch)) => {
                self.node.site("report", json!({ "device": device, "patch": patch })).await
            }
            (Route::Answered(device, id), answer) => {
                let answer = answer.unwrap_or_else(|_| String::from_utf8_lossy(&payload).into());
                self.node.site("answer", json!({ "device": device, "id": id, "answer": answer })).await
            }
            _ => Err(AskError::Invalid("not a report".into())),
        };
        match taken {
            Ok(_) | Err(AskError::NoSite) => true,
            Err(AskError::Invalid(_) | AskError::NotFound(_)) => self.ingest(&topic, payload, login).await,
            Err(AskError::Unavailable | AskError::Failed(_)) => false,
        }
    }

    async fn ingest(&self, topic: &str, payload: bytes::Bytes, login: Arc<str>) -> bool {
        let mut held = vec![Held { topic: Text::from(topic), payload }];
        let Some(credit) = self.node.credit(held[0].payload.len()).await else { return false };
        let source = Source { login, door: NAME };
        let mut ingest = Ingest::default();
        let (submission, receipt) = ingest.submission(&mut held, (&source, None), self.env.wall(), Some(credit));
        self.node.submit(submission);
        matches!(receipt.await, Ok(Receipt::Stored { .. }))
    }
}
