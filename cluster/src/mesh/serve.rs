//! Answers a peer's requests.

use std::{ops::ControlFlow, sync::Arc};

use millpond_core::ids::Seq;
use millpond_env::Env;
use millpond_proto::wire::{self, RUN_BYTES_MAX, Reply};
use millpond_store::{ReadError, Reader};
use tokio::sync::Semaphore;

use super::runs::{self, Source};
use crate::transport::Replies;

/// Repairs that are served at a time; who comes beyond that is told to come again.
pub const PERMITS: usize = 4;
const RETRY_MS: u32 = 200;
/// Bytes of records that one request is answered with at most, whatever it asks for.
const BYTES_MAX: u64 = 8 << 20;

/// Sends the records of ranges that are held here: a run must not reach beyond them, or it would claim what is not there.
pub async fn repair(
    env: Env,
    permits: Arc<Semaphore>,
    reader: Option<Reader>,
    source: Source,
    ranges: Vec<(u64, u64)>,
    bytes_max: u64,
    mut replies: Replies,
) {
    let Some(reader) = reader.filter(|_| !ranges.is_empty()) else {
        let _ = replies.send(wire::encode(&Reply::Unknown)).await;
        return replies.finish();
    };
    let Ok(_permit) = permits.try_acquire_owned() else {
        let _ = replies.send(wire::encode(&Reply::Busy { retry_ms: RETRY_MS })).await;
        return replies.finish();
    };
    let mut left = bytes_max.clamp(RUN_BYTES_MAX as u64, BYTES_MAX);
    let frames = env.unblock(move || {
        let mut frames = Vec::new();
        for (first, last) in ranges {
            runs::read(&reader, source, Seq(first), Seq(last), |run| {
                left = left.saturating_sub(run.bytes() as u64);
                frames.push(wire::encode(&Reply::Run(run)));
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if left == 0 {
                break;
            }
        }
        Ok::<_, ReadError>(frames)
    });
    let frames = match frames.await {
        Some(Ok(frames)) => frames,
        // It was closed for a moment, or is damaged: others may have it.
        Some(Err(_)) | None => vec![wire::encode(&Reply::Unknown)],
    };
    for frame in frames {
        if replies.send(frame).await.is_err() {
            return;
        }
    }
    replies.finish();
}
