//! The stream of a node of a site: orders one way, outcomes the other.

use std::sync::Arc;

use millpond_core::ids::Origin;
use millpond_proto::{
    uplink::{
        orders::{Order, Outcome},
        rollout::Effect,
    },
    wire,
};

use super::Control;
use crate::transport::{Replies, ReplyFrames};

impl Control {
    /// Until the node goes away.
    pub async fn tell(self: Arc<Control>, site: &str, from: Origin, outcomes: ReplyFrames, orders: Replies) {
        let (node, tenant) = (from.to_string(), self.settings.site(site).tenant);
        // Who writes may change with who is there.
        self.change(|rollouts, now_ms, out| {
            rollouts.site(site, &tenant);
            rollouts.came(now_ms, site, &node, out);
            out.push(Effect::Keep);
        });
        tokio::select! {
            biased;
            () = self.ended.cancelled() => {}
            () = self.hear(site, &node, outcomes) => {}
            () = self.order_all(site, &node, orders) => {}
        }
        self.change(|rollouts, _, out| {
            rollouts.went(site, &node);
            out.push(Effect::Keep);
        });
    }

    async fn hear(&self, site: &str, node: &str, mut outcomes: ReplyFrames) {
        while let Ok(Some(frame)) = outcomes.next().await {
            match wire::decode::<Outcome>(&frame) {
                Ok(outcome) => {
                    let _ = self.change(|rollouts, now_ms, out| rollouts.said(now_ms, site, node, outcome, out));
                }
                Err(error) => {
                    tracing::debug!(site, %error, "what became of an order could not be read");
                    self.measures.refused.with_label_values(&[site]).inc();
                    return;
                }
            }
        }
    }

    async fn order_all(&self, site: &str, node: &str, mut orders: Replies) {
        let (kept, mut told) = (self.listen(), None::<Order>);
        loop {
            let order = self.order(site, node).filter(|order| Some(order) != told.as_ref());
            if let Some(order) = order {
                if orders.send(wire::encode(&order)).await.is_err() {
                    return;
                }
                told = Some(order);
            }
            kept.notified().await;
        }
    }
}
