//! The HTTP door: telemetry in, questions, alerts, dead letters, metrics, and a live view.
//!
//! hyper speaks the protocol on streams that [`Env`] gives, axum's router finds the handler. Each address stands in one table
//! ([`routes`]) with who may use it and what it takes; the router, the check of logins and the OpenAPI document are made from it.

mod body;
mod lists;
mod live;
mod login;
mod metrics;
mod openapi;
mod params;
pub mod problem;
mod prometheus;
mod query;
mod routes;
mod settings;
mod site;
mod stream;
mod telemetry;
#[cfg(test)]
mod tests;

use std::{pin::pin, sync::Arc};

use axum::{Router, body::Body};
use hyper::{
    Request,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use millpond_core::time::Span;
use millpond_env::{Env, Listener, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use metrics::HttpMetrics;
pub use openapi::document as openapi_document;
pub use settings::HttpSettings;

use crate::{auth::Auth, port::Node, tap::Tap};

/// How long requests may still run when the door closes.
const GRACE: Span = Span::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What the handlers share.
struct Door {
    env: Env,
    node: Arc<dyn Node>,
    auth: Arc<Auth>,
    tap: Arc<Tap>,
    settings: HttpSettings,
    metrics: HttpMetrics,
    stop: CancellationToken,
}

/// Serves until `stop` is cancelled. Then idle connections close at once, requests under way get [`GRACE`] to end,
/// and the door returns when the last connection is closed.
pub async fn serve(
    env: Env,
    listener: Box<dyn Listener>,
    node: Arc<dyn Node>,
    auth: Arc<Auth>,
    tap: Arc<Tap>,
    settings: HttpSettings,
    metrics: HttpMetrics,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(settings.connections_max));
    let all = settings.connections_max.try_into().unwrap_or(u32::MAX);
    let door = Arc::new(Door { env, node, auth, tap, settings, metrics, stop });
    // Set when the grace is over: connections that still live are cut.
    let cut = CancellationToken::new();
    accept(&door, listener, &slots, &cut).await;
    let closed = slots.acquire_many(all);
    if door.env.timeout(GRACE, closed).await.is_err() {
        tracing::info!("cutting HTTP connections that did not end in time");
        cut.cancel();
        let _ = slots.acquire_many(all).await;
    }
}

async fn accept(door: &Arc<Door>, mut listener: Box<dyn Listener>, slots: &Arc<Semaphore>, cut: &CancellationToken) {
    let router = routes::router(door.clone());
    let mut stopped = pin!(door.stop.cancelled());
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            _ = &mut stopped => return,
            next = next => next,
        };
        match (slot, accepted) {
            (Some(slot), Ok((stream, _))) => {
                door.metrics.accepted.inc();
                door.env.spawn(connection(door.clone(), stream, router.clone(), slot, cut.clone()));
            }
            (None, _) => return,
            (_, Err(error)) => {
                tracing::debug!(%error, "a connection could not be accepted");
                door.env.sleep(Span::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    door: Arc<Door>,
    stream: Box<dyn Stream>,
    router: Router,
    slot: OwnedSemaphorePermit,
    cut: CancellationToken,
) {
    door.metrics.connections.inc();
    let activity = Arc::new(stream::Activity::default());
    let (idle_max, stall_max) = (door.settings.idle_timeout, door.settings.transfer_timeout);
    let watched = stream::Watched::new(&door.env, stream, activity.clone(), idle_max, stall_max);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let busy = activity.begin();
        let answer = router.call(request.map(Body::new));
        async move { answer.await.map(|answer| answer.map(|body| stream::Answer { body, _busy: busy })) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // The Date header would be the process clock's, and nobody here needs it.
    http.auto_date_header(false).max_buf_size(HEAD_BYTES_MAX);
    let mut served = pin!(http.serve_connection(TokioIo::new(watched), service));
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => Some(ended),
        () = door.stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = served.as_mut() => ended,
                () = cut.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
    door.metrics.connections.dec();
    drop(slot);
}
