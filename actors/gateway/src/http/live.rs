//! `GET /v1/tap`: committed events as they come, one JSON object per line.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use hyper::header;
use millpond_core::time::Span;
use serde::Deserialize;

use super::{
    Door,
    params::Params,
    problem::{Code, Problem},
};
use crate::tap::{Subscription, TapFilter};

/// An empty line is sent when there was nothing to show for this time, so that a client that is gone is noticed.
const HEARTBEAT: Span = Span::from_secs(15);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    #[serde(alias = "device_id")]
    device: Option<String>,
    metric: Option<String>,
    #[serde(rename = "where")]
    condition: Option<String>,
}

pub(super) async fn tap(State(door): State<Arc<Door>>, Params(watch): Params<Watch>) -> Result<Response, Problem> {
    let filter = TapFilter::new(watch.device, watch.metric, watch.condition.as_deref()).map_err(|error| {
        let place = error.column.map_or(String::new(), |column| format!(" at character {column}"));
        Problem::new(Code::BadParameter).because(format!("`where`{place}: {error}"))
    })?;
    let subscription = door.tap.subscribe(filter).ok_or_else(|| Problem::new(Code::TooManyWatchers))?;
    let lines = stream::unfold((door, subscription), |(door, mut subscription)| async move {
        let lines = next(&door, &mut subscription).await?;
        Some((Ok::<Bytes, std::convert::Infallible>(lines), (door, subscription)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// The next lines; `None` when the door closes.
async fn next(door: &Door, subscription: &mut Subscription) -> Option<Bytes> {
    let mut lines = Vec::new();
    let mut heartbeat = door.env.sleep(HEARTBEAT);
    while lines.is_empty() {
        tokio::select! {
            biased;
            () = door.stop.cancelled() => return None,
            dropped = subscription.next(&mut lines) => door.metrics.tap_dropped.inc_by(dropped),
            () = &mut heartbeat => lines.push(b'\n'),
        }
    }
    Some(lines.into())
}
