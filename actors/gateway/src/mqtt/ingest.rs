//! From publishes to a submission.

use bytes::Bytes;
use millpond_core::{
    dead_letter::{DeadLetter, PayloadFormat, Reason},
    time::Timestamp,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::codec::Text;
use crate::{
    payload::{PayloadDecoder, PayloadError},
    port::{Keeper, Receipt, Source, Submission},
};

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// Events of one device.
    Device(&'a str),
    /// Events of many devices.
    Many,
    /// What a device says that it is: `devices/{id}/twin/reported`.
    Reported(&'a str),
    /// What a device answers to a command: `devices/{id}/commands/{command}/result`.
    Answered(&'a str, &'a str),
    /// Messages for subscribers.
    Other,
}

impl Route<'_> {
    /// Whether its messages are events.
    pub fn is_telemetry(self) -> bool {
        matches!(self, Route::Device(_) | Route::Many)
    }
}

pub(super) fn route(topic: &str) -> Route<'_> {
    if topic == "telemetry" {
        return Route::Many;
    }
    let Some((device, rest)) = topic.strip_prefix("devices/").and_then(|rest| rest.split_once('/')) else {
        return Route::Other;
    };
    let answered = || rest.strip_prefix("commands/")?.strip_suffix("/result").filter(|command| !command.contains('/'));
    match rest {
        _ if device.is_empty() => Route::Other,
        "telemetry" => Route::Device(device),
        "twin/reported" => Route::Reported(device),
        _ => answered().map_or(Route::Other, |command| Route::Answered(device, command)),
    }
}

/// The device of whose topics a filter speaks, when it is one.
pub(super) fn device_of(filter: &str) -> Option<&str> {
    let (device, _) = filter.strip_prefix("devices/")?.split_once('/')?;
    (!device.is_empty() && !device.contains(['+', '#'])).then_some(device)
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
        (source, keeper): (&Source, Option<Keeper>),
        received: Timestamp,
        credit: Option<OwnedSemaphorePermit>,
    ) -> (Submission, oneshot::Receiver<Receipt>) {
        let decoder = self.decoder.get_or_insert_with(|| Box::new(PayloadDecoder::new()));
        let mut dead_letters = Vec::new();
        for Held { topic, payload } in held.drain(..) {
            let (device, decoded) = match route(&topic) {
                Route::Device(device) => (Some(device), decoder.decode(PayloadFormat::Unknown, Some(device), &payload)),
                Route::Many | Route::Other => (None, decoder.decode(PayloadFormat::Unknown, None, &payload)),
                // They come here only when the site did not take them.
                Route::Reported(device) | Route::Answered(device, _) => (Some(device), Err(untaken())),
            };
            if let Err(error) = decoded {
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
        (Submission { batches, dead_letters, source: source.clone(), received, credit, receipt, keeper }, told)
    }
}

fn untaken() -> PayloadError {
    let detail =
        "what a device reports is a JSON object, what it answers belongs to a command of its own, both within bounds";
    PayloadError::new(Reason::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_their_meanings() {
        let check = |topic: &str, expected: Route<'_>| assert_eq!(route(topic), expected, "{topic}");
        check("telemetry", Route::Many);
        check("devices/press/telemetry", Route::Device("press"));
        check("devices/press/twin/reported", Route::Reported("press"));
        check("devices/press/twin/delta", Route::Other);
        check("devices/press/commands/7/result", Route::Answered("press", "7"));
        check("devices/press/commands/a/b/result", Route::Other);
        check("devices//telemetry", Route::Other);
        check("devices/a/b/telemetry", Route::Other);
    }

    #[test]
    fn a_filter_may_speak_of_one_device() {
        assert_eq!(device_of("devices/press/commands/+"), Some("press"));
        assert_eq!(device_of("devices/press/#"), Some("press"));
        for filter in ["devices/+/commands/#", "devices/#", "#", "devices/press", "alerts/a/b"] {
            assert_eq!(device_of(filter), None, "{filter}");
        }
    }
}
