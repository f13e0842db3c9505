//! The MQTT door: 3.1, 3.1.1 and 5.0 on one port.
//!
//! One task serves one connection. It reads large chunks, takes all complete packets out of them, and hands the telemetry of a chunk to
//! the node as one submission, for which it takes byte credit first; while it waits for credit, or too much is unacknowledged, the
//! socket is not read, and back-pressure reaches the device. Receipts come back in order and become acknowledgements.
//!
//! | topic | meaning |
//! |---|---|
//! | `devices/{id}/telemetry` | events of one device: a JSON object, an array of objects, MessagePack rows, or a block |
//! | `telemetry` | events of many devices, each row naming its own: what the gateway of a line sends |
//! | `$SYS/…` | refused |
//! | anything else | goes to subscribers; kept when retained. `retain` means nothing on the topics of telemetry |
//!
//! What must stay true:
//! 1. A PUBACK of telemetry leaves only after `Receipt::Stored`; one of a retained message only after `Node::retain` said so.
//! 2. Acknowledgements leave in the order of their publishes.
//! 3. Subscribers see telemetry only after its commit.
//! 4. A payload that cannot be decoded is kept as a dead letter and then acknowledged: it never blocks the line.
//! 5. Whatever a client sends, its memory here is bounded (`core::limits`, `MQTT_…`).
//!
//! Where the protocol leaves it open: QoS 2 is refused; a client before 5.0, which cannot be told no, is not acknowledged and its
//! connection is closed after a pause, so that it comes again; shared subscriptions are refused.

pub mod codec;
mod connect;
mod connection;
mod door;
mod ingest;
mod input;
mod metrics;
mod pending;
mod requests;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use millpond_core::time::Span;
use millpond_env::{Env, Listener, Stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{auth::Auth, broker::Broker, port::Node};
use door::Door;
pub use metrics::MqttMetrics;
pub use settings::MqttSettings;

/// Serves `listener` until `stop` is cancelled and all connections ended: those finish what was begun, for at
/// most ten seconds, and say good-bye.
pub async fn serve(
    env: Env,
    listener: Box<dyn Listener>,
    node: Arc<dyn Node>,
    broker: Arc<Broker>,
    auth: Arc<Auth>,
    settings: MqttSettings,
    metrics: MqttMetrics,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(settings.connections_max));
    let all = settings.connections_max.try_into().unwrap_or(u32::MAX);
    let door = Arc::new(Door::new(env, node, broker, auth, settings, metrics, stop));
    door.env.spawn(sweep(door.clone()));
    accept(&door, listener, &slots).await;
    // Every connection holds a slot for as long as it lives.
    let _ = slots.acquire_many(all).await;
}

async fn accept(door: &Arc<Door>, mut listener: Box<dyn Listener>, slots: &Arc<Semaphore>) {
    while let Some(accepted) = door.unless_stopped(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept MQTT connections");
                door.env.sleep(Span::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            refuse(door, stream);
            continue;
        };
        let door = door.clone();
        door.env.clone().spawn(async move {
            door.metrics.connections.inc();
            connect::serve(&door, stream, peer).await;
            door.metrics.connections.dec();
            drop(slot);
        });
    }
}

fn refuse(door: &Door, stream: Box<dyn Stream>) {
    door.metrics.refused.with_label_values(&["limit"]).inc();
    drop(stream);
}

/// Ends sessions that expired and publishes wills that are due.
async fn sweep(door: Arc<Door>) {
    while door.unless_stopped(door.env.sleep(Span::from_secs(1))).await.is_some() {
        for will in door.broker.sweep(door.env.now()) {
            door.publish_will(will);
        }
    }
}
