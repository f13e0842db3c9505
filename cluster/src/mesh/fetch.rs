//! Asks one peer for a range of records.

use millpond_core::{
    record::{Class, Track},
    time::Span,
};
use millpond_env::Env;
use millpond_proto::{
    replication::{FetchEnd, Life, RunKey},
    wire::{self, Reply, Request, Run},
};

use crate::transport::Link;

/// A peer that says nothing for so long is asked no further.
const PATIENCE: Span = Span::from_secs(10);
/// However busy it says it is.
const RETRY_MS_MAX: u32 = 60_000;

/// Gives each run that comes to `each`, when it is sound and lies in what was asked for.
pub async fn fetch(env: &Env, link: &Link, wanted: RunKey, bytes_max: u64, mut each: impl FnMut(Run)) -> FetchEnd {
    let RunKey { life: Life { origin, incarnation }, track, first, last } = wanted;
    let request = Request::Repair { origin, incarnation, track, first, last, bytes_max };
    let class = if track == Track::Raw { Class::Raw } else { Class::Pane };
    let Ok(Ok(mut replies)) = env.timeout(PATIENCE, link.request(class, wire::encode(&request))).await else {
        return FetchEnd::Failed;
    };
    loop {
        let frame = match env.timeout(PATIENCE, replies.next()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return FetchEnd::Done,
            Ok(Err(_)) | Err(_) => return FetchEnd::Failed,
        };
        match wire::decode::<Reply>(&frame) {
            Ok(Reply::Run(run)) => {
                let key = RunKey::of(&run);
                let asked = (key.life, key.track) == (wanted.life, track) && first <= key.first && key.last <= last;
                if !asked || !run.is_sound() {
                    return FetchEnd::Failed;
                }
                each(run);
            }
            Ok(Reply::Busy { retry_ms }) => return FetchEnd::Busy { retry_ms: retry_ms.min(RETRY_MS_MAX) },
            Ok(Reply::Unknown) => return FetchEnd::Unknown,
            Ok(_) | Err(_) => return FetchEnd::Failed,
        }
    }
}

/// A question with one answer.
pub async fn ask(env: &Env, link: &Link, patience: Span, request: &Request) -> Option<Reply> {
    let answer = async {
        let mut replies = link.request(Class::State, wire::encode(request)).await.ok()?;
        wire::decode(&replies.next().await.ok()??).ok()
    };
    env.timeout(patience, answer).await.ok()?
}
