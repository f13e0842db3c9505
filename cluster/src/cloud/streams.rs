//! The streams of a site's nodes: frames in, receipts out. What is read is limited by what is not on disk yet.

use std::sync::Arc;

use bytes::Bytes;
use millpond_core::{ids::Origin, time::Span};
use millpond_proto::{
    replication::Life,
    sites::{Answer, Question},
    uplink::{Delivery, Receipt, Sent},
    wire,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    Cloud,
    site::{Arrived, Begin, SiteMsg},
};
use crate::transport::{Replies, ReplyFrames};

/// Bytes of one stream that wait for the disk.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Who was refused comes again after this.
const RETRY: Span = Span::from_millis(200);

pub(super) async fn answer(
    cloud: &Cloud,
    site: &str,
    from: Origin,
    question: Question,
    more: ReplyFrames,
    mut replies: Replies,
) {
    let Some(actor) = cloud.site(site).await else { return };
    match question {
        Question::Ledger { .. } => {
            let (reply, answer) = oneshot::channel();
            if actor.cast(SiteMsg::Ledger(reply)).is_err() {
                return;
            }
            let Ok(brought) = answer.await else { return };
            if replies.send(wire::encode(&Answer::Ledger(brought))).await.is_ok() {
                replies.finish();
            }
        }
        Question::Deliver { origin, incarnation, lane, name, windows } => {
            let life = Life { origin, incarnation };
            let (receipts, out) = mpsc::unbounded_channel();
            let (reply, begun) = oneshot::channel();
            let begin = Begin { life, lane, from, name, windows, reply };
            if actor.cast(SiteMsg::Begin(begin)).is_err() {
                return;
            }
            let Ok(begun) = begun.await else { return };
            let stream = match begun {
                Ok(stream) => stream,
                Err(receipt) => {
                    if replies.send(wire::encode(&receipt)).await.is_ok() {
                        cloud.0.env.sleep(RETRY).await;
                        replies.finish();
                    }
                    return;
                }
            };
            let read = read(cloud, site, more, |delivery, credit| {
                let arrived = Arrived { life, lane, delivery, _credit: credit, receipts: receipts.clone() };
                actor.cast(SiteMsg::Arrived(Box::new(arrived))).is_ok()
            });
            tokio::select! {
                biased;
                () = confirm(out, replies) => {}
                () = read => {}
            }
            let _ = actor.cast(SiteMsg::End(stream));
        }
        Question::Obey { .. } => cloud.0.control.clone().tell(site, from, more, replies).await,
        Question::Offers { .. } | Question::Range { .. } => {
            if replies.send(wire::encode(&Answer::Unknown)).await.is_ok() {
                replies.finish();
            }
        }
    }
}

/// Gives deliveries to `take` until the stream ends, or something makes no sense.
async fn read(
    cloud: &Cloud,
    site: &str,
    mut frames: ReplyFrames,
    mut take: impl FnMut(Delivery, Option<tokio::sync::OwnedSemaphorePermit>) -> bool,
) {
    let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
    loop {
        let Ok(Some(frame)) = frames.next().await else { return };
        let delivery = wire::decode::<Delivery>(&frame).and_then(|delivery| match delivery {
            Delivery::Packed(packed) => Sent::unpack(&packed).map(Delivery::Sent),
            other => Ok(other),
        });
        let delivery = match delivery {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::debug!(site, %error, "a delivery could not be read");
                cloud.0.measures.refused.with_label_values(&[site]).inc();
                return;
            }
        };
        let bytes = frame.len().clamp(1, WAITING_BYTES_MAX) as u32;
        let credit = room.clone().acquire_many_owned(bytes).await.ok();
        if !take(delivery, credit) {
            return;
        }
    }
}

/// Sends receipts, those that are there together in one go, until nobody wants them or one says that it is over.
async fn confirm(mut out: mpsc::UnboundedReceiver<Receipt>, mut replies: Replies) {
    while let Some(receipt) = out.recv().await {
        let over = !matches!(receipt, Receipt::Stored(_));
        let frame: Bytes = wire::encode(&receipt);
        if replies.send(frame).await.is_err() {
            return;
        }
        if over {
            return replies.finish();
        }
    }
}
