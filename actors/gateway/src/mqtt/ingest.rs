//! From publishes to a submission.

use bytes::Bytes;
use millpond_core::{
    dead_letter::{DeadLetter, PayloadFormat},
    time::Timestamp,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::codec::Text;
use crate::{
    payload::PayloadDecoder,
    port::{Receipt, Source, Submission},
};

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// Events of one device.
    Device(&'a str),
    /// Events of many devices.
    Many,
    /// Messages for subscribers.
    Other,
}

pub(super) fn route(topic: &str) -> Route<'_> {
    if topic == "telemetry" {
        return Route::Many;
    }
    match topic.strip_prefix("devices/").and_then(|rest| rest.strip_suffix("/telemetry")) {
        Some(device) if !device.is_empty() && !device.contains('/') => Route::Device(device),
        _ => Route::Other,
    }
}

/// A telemetry publish that waits for credit.
#[derive(Debug)]
pub(super) struct Held {
    pub topic: Text,
    pub payload: Bytes,
}

/// Decodes the telemetry of a connection.
#[derive(Default)]
pub(super) struct Ingest {
    decoder: Option<Box<PayloadDecoder>>,
    /// Payloads that became dead letters since this was last read.
    pub malformed: u64,
}

impl Ingest {
    /// Decodes what is held, empties it, and makes one submission of it.
    pub(super) fn submission(
        &mut self,
        held: &mut Vec<Held>,
        source: &Source,
        received: Timestamp,
        credit: Option<OwnedSemaphorePermit>,
    ) -> (Submission, oneshot::Receiver<Receipt>) {
        let decoder = self.decoder.get_or_insert_with(|| Box::new(PayloadDecoder::new()));
        let mut dead_letters = Vec::new();
        for Held { topic, payload } in held.drain(..) {
            let device = match route(&topic) {
                Route::Device(device) => Some(device),
                Route::Many | Route::Other => None,
            };
            if let Err(error) = decoder.decode(PayloadFormat::Unknown, device, &payload) {
                dead_letters.push(DeadLetter {
                    received,
                    reason: error.reason,
                    detail: error.detail,
                    device: device.unwrap_or_default().to_owned(),
                    login: source.login.to_string(),
                    door: source.door.to_owned(),
                    format: PayloadFormat::Unknown,
                    payload: payload.to_vec(),
                });
            }
        }
        self.malformed += dead_letters.len() as u64;
        let (receipt, told) = oneshot::channel();
        let batches = decoder.finish();
        (Submission { batches, dead_letters, source: source.clone(), received, credit, receipt }, told)
    }
}
