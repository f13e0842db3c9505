//! `POST /v1/telemetry`: events in, an answer after they are on disk.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::{HeaderMap, header};
use millpond_core::{
    dead_letter::{DeadLetter, PayloadFormat},
    time::Timestamp,
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::{
    Door,
    body::{self, Received},
    login::Who,
    params::Params,
    problem::{Code, Problem},
};
use crate::{
    payload::{PayloadDecoder, PayloadError},
    port::{Inbound, Line, Receipt, Refusal, Source, Submission},
};

const DOOR: &str = "http";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Telemetry {
    /// The device of all events in the body.
    #[serde(alias = "device_id")]
    device: Option<String>,
}

pub(super) async fn post(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Params(params): Params<Telemetry>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let format = format(&headers)?;
    let received = body::receive(&door, &headers, body).await?;
    let mut decoder = PayloadDecoder::new();
    match decoder.decode(format, params.device.as_deref(), &received.bytes) {
        Ok(_) => {
            let batches = decoder.finish();
            if let Some(device) = foreign_device(&who, &batches) {
                let error = format!("`{}` may not send for the device {device:?}", who.login.name);
                return Err(Problem::new(Code::ForeignDevice).because(error));
            }
            let receipt = submit(&door, &who, batches, Vec::new(), received).await;
            answer(&door, receipt)
        }
        Err(error) => {
            door.metrics.malformed.inc();
            Err(keep_undecodable(&door, &who, params.device, format, received, error).await)
        }
    }
}

/// The format that the request says; clients that say nothing, or what curl says by itself, have it guessed.
fn format(headers: &HeaderMap) -> Result<PayloadFormat, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(PayloadFormat::Unknown) };
    let value = String::from_utf8_lossy(value.as_bytes());
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    Ok(match kind.as_str() {
        "application/json" | "text/json" => PayloadFormat::Json,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            PayloadFormat::Ndjson
        }
        "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => PayloadFormat::Msgpack,
        "application/x-millpond-block" => PayloadFormat::Block,
        "" | "application/x-www-form-urlencoded" | "application/octet-stream" | "text/plain" => PayloadFormat::Unknown,
        _ => {
            let error = format!("the content type {kind:?} is not known");
            return Err(Problem::new(Code::UnknownFormat).because(error));
        }
    })
}

/// The first device for which the sender may not send.
fn foreign_device(who: &Who, batches: &[Inbound]) -> Option<String> {
    let mut last: Option<&str> = None;
    for inbound in batches {
        for run in inbound.batch.runs() {
            let device = inbound.batch.device(run);
            if last != Some(device) && !who.may_send_for(device) {
                return Some(device.to_owned());
            }
            last = Some(device);
        }
    }
    None
}

async fn submit(
    door: &Door,
    who: &Who,
    batches: Vec<Inbound>,
    dead_letters: Vec<DeadLetter>,
    received: Received,
) -> Receipt {
    let (receipt, told) = oneshot::channel();
    // It goes with the request, when the client does.
    let line = Line::default();
    door.node.submit(Submission {
        batches,
        dead_letters,
        source: Source { login: who.login.name.clone(), door: DOOR },
        received: door.env.wall(),
        credit: Some(received.credit),
        receipt,
        keeper: Some(line.keeper()),
    });
    // The node drops a receipt unsaid only when the part that held the submission is gone.
    told.await.unwrap_or(Receipt::Refused(Refusal::Failed))
}

fn answer(door: &Door, receipt: Receipt) -> Result<Response, Problem> {
    let (accepted, duplicates, rejected) = match receipt {
        Receipt::Stored { accepted, duplicates, rejected } => (accepted, duplicates, rejected),
        Receipt::Refused(refusal) => return Err(Problem::refused(refusal)),
    };
    for (outcome, count) in [("accepted", accepted), ("duplicate", duplicates), ("rejected", rejected)] {
        door.metrics.events.with_label_values(&[outcome]).inc_by(count);
    }
    if accepted == 0 && rejected > 0 {
        let problem = Problem::new(Code::NothingAccepted);
        return Err(problem.with("accepted", accepted).with("duplicates", duplicates).with("rejected", rejected));
    }
    Ok(axum::Json(json!({"accepted": accepted, "duplicates": duplicates, "rejected": rejected})).into_response())
}

/// Keeps a body that cannot be decoded, and says why it cannot. A body that was not even kept is not answered as if it had been.
async fn keep_undecodable(
    door: &Door,
    who: &Who,
    device: Option<String>,
    format: PayloadFormat,
    received: Received,
    error: PayloadError,
) -> Problem {
    if device.as_deref().is_some_and(|device| !who.may_send_for(device)) {
        let error = format!("`{}` may not send for the device {:?}", who.login.name, device.unwrap_or_default());
        return Problem::new(Code::ForeignDevice).because(error);
    }
    let letter = dead_letter(who, device, format, &received.bytes, door.env.wall(), &error);
    match submit(door, who, Vec::new(), vec![letter], received).await {
        Receipt::Stored { .. } => Problem::undecodable(&error),
        Receipt::Refused(refusal) => Problem::refused(refusal),
    }
}

fn dead_letter(
    who: &Who,
    device: Option<String>,
    format: PayloadFormat,
    payload: &Bytes,
    received: Timestamp,
    error: &PayloadError,
) -> DeadLetter {
    DeadLetter {
        received,
        reason: error.reason,
        detail: error.detail.clone(),
        device: device.unwrap_or_default(),
        login: who.login.name.to_string(),
        door: DOOR.into(),
        format,
        payload: payload.to_vec(),
    }
}
