//! Sends a node's own records to one peer as they are committed, in their order.

use std::ops::ControlFlow;

use millpond_core::{
    ids::Seq,
    record::{Class, Track},
};
use millpond_env::Env;
use millpond_proto::{
    replication::Life,
    wire::{self, Message},
};
use millpond_store::Reader;
use tokio::sync::mpsc;

use super::runs::{self, Source};
use crate::transport::Link;

/// Records to push.
#[derive(Clone, Copy, Debug)]
pub struct Push {
    pub track: Track,
    pub first: Seq,
    pub last: Seq,
    /// What the peer understands.
    pub version: u16,
}

/// Reads and sends until the queue is closed. `failed` is told when the link took no more.
pub async fn pusher(
    env: Env,
    reader: Reader,
    life: Life,
    link: Link,
    mut queue: mpsc::UnboundedReceiver<Push>,
    failed: impl Fn(Track),
) {
    while let Some(push) = queue.recv().await {
        let (reader, source) = (reader.clone(), Source { life, track: push.track, version: push.version });
        let frames = env.unblock(move || {
            let mut frames = Vec::new();
            runs::read(&reader, source, push.first, push.last, |run| {
                frames.push(wire::encode(&Message::Run(run)));
                ControlFlow::Continue(())
            })
            .map(|()| frames)
        });
        let class = if push.track == Track::Raw { Class::Raw } else { Class::Pane };
        match frames.await {
            Some(Ok(frames)) => {
                if !frames.into_iter().all(|frame| link.send(class, frame)) {
                    failed(push.track);
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "records to push could not be read");
                failed(push.track);
            }
            None => return,
        }
    }
}
