//! An event as a line of JSON, in the form in which devices may send it.

use std::io::Write;

use base64ct::Encoding;
use millpond_core::{
    batch::{Batch, UNTIMED},
    expr::{Binding, EventView, Truth},
    time::Timestamp,
    value::{Quality, Value},
};

use super::TapFilter;

/// Appends the events of `batch` that pass `filter`.
pub(super) fn write(batch: &Batch, filter: &TapFilter, out: &mut Vec<u8>) {
    let column = match &filter.metric {
        Some(metric) => match batch.shape.position(metric) {
            Some(column) => Some(column),
            None => return,
        },
        None => None,
    };
    let binding = filter.condition.as_ref().map(|condition| condition.bind(&batch.shape));
    for run in batch.runs() {
        let device = batch.device(run);
        if filter.device.as_deref().is_some_and(|wanted| wanted != device) {
            continue;
        }
        for row in run.rows() {
            if passes(batch, filter, binding.as_ref(), device, row, column) {
                event(batch, device, row, column, out);
            }
        }
    }
}

fn passes(
    batch: &Batch,
    filter: &TapFilter,
    binding: Option<&Binding>,
    device: &str,
    row: usize,
    column: Option<usize>,
) -> bool {
    if column.is_some_and(|column| !batch.columns[column].is_present(row)) {
        return false;
    }
    let (Some(condition), Some(binding)) = (&filter.condition, binding) else { return true };
    let event = EventView { batch, row, device, device_type: "", time: batch.times[row] };
    matches!(condition.truth(&event, binding), Ok(Truth::True))
}

pub(super) fn event(batch: &Batch, device: &str, row: usize, only: Option<usize>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"device\":");
    text(device, out);
    if batch.times[row] != UNTIMED {
        out.extend_from_slice(b",\"ts\":\"");
        time(batch.times[row], out);
        out.push(b'"');
    }
    if let Some(seq) = batch.seq(row) {
        out.extend_from_slice(format!(",\"seq\":{seq}").as_bytes());
    }
    match batch.quality_of(row) {
        Quality::Good => {}
        Quality::Uncertain => out.extend_from_slice(b",\"quality\":\"uncertain\""),
        Quality::Bad => out.extend_from_slice(b",\"quality\":\"bad\""),
    }
    for (at, (metric, column)) in batch.shape.metrics().iter().zip(&batch.columns).enumerate() {
        let Some(value) = column.value(row).filter(|_| only.is_none_or(|only| only == at)) else { continue };
        out.push(b',');
        text(&metric.name, out);
        out.push(b':');
        cell(value, out);
    }
    out.extend_from_slice(b"}\n");
}

/// RFC 3339 with milliseconds; with nanoseconds when there are any.
fn time(at: Timestamp, out: &mut Vec<u8>) {
    let millis = at.to_string();
    let below = at.0.rem_euclid(1_000_000);
    if below == 0 {
        out.extend_from_slice(millis.as_bytes());
    } else {
        let _ = write!(out, "{}{below:06}Z", millis.trim_end_matches('Z'));
    }
}

/// Numbers that JSON does not have are `null`; bytes are base64.
fn cell(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::F64(x) if x.is_finite() => {
            let _ = write!(out, "{x}");
        }
        Value::F64(_) => out.extend_from_slice(b"null"),
        Value::I64(n) => {
            let _ = write!(out, "{n}");
        }
        Value::Bool(b) => {
            let _ = write!(out, "{b}");
        }
        Value::Text(value) => text(value, out),
        Value::Bytes(bytes) => text(&base64ct::Base64::encode_string(bytes), out),
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}
