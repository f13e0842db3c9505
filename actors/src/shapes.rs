//! How things look in JSON.

use millpond_core::{
    admission::Device,
    alert::{Alert, Notification},
    dead_letter::{DeadLetter, PayloadFormat},
    time::Timestamp,
    value::Value,
    window::{LateEvent, Pane},
};
use millpond_gateway::port::Json;
use serde_json::json;

pub fn pane(pane: &Pane) -> Json {
    let metrics: serde_json::Map<String, Json> = pane
        .metrics
        .iter()
        .map(|metric| {
            let mut fields = match serde_json::to_value(metric) {
                Ok(Json::Object(fields)) => fields,
                _ => serde_json::Map::new(),
            };
            fields.remove("name");
            fields.retain(|_, value| !value.is_null());
            (metric.name.to_string(), Json::Object(fields))
        })
        .collect();
    json!({
        "window": pane.window,
        "key": pane.key,
        "start": pane.start.as_millis(),
        "end": pane.end.as_millis(),
        "revision": pane.revision,
        "open": pane.open,
        "metrics": metrics,
    })
}

pub fn late(event: &LateEvent) -> Json {
    let metrics: serde_json::Map<String, Json> =
        event.metrics.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
    json!({ "window": event.window, "key": event.key, "device": event.device, "ts": event.time.as_millis(), "metrics": metrics })
}

pub fn alert(alert: &Alert) -> Json {
    let ms = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    json!({
        "id": alert.id,
        "rule": alert.rule,
        "key": alert.key,
        "severity": alert.severity,
        "state": alert.state,
        "since": alert.since.as_millis(),
        "fired": ms(alert.fired),
        "resolved": ms(alert.resolved),
        "resolved_by": alert.resolved_by,
        "acknowledged_by": alert.acknowledged.as_ref().map(|acknowledged| &acknowledged.by),
        "acknowledged_at": alert.acknowledged.as_ref().map(|acknowledged| acknowledged.at.as_millis()),
        "metric": alert.metric,
        "value": alert.value,
        "peak": alert.peak,
        "message": alert.message,
        "facts": alert.facts,
        "repeats": alert.repeats,
        "notified": ms(alert.notified),
        "changed": alert.changed.as_millis(),
    })
}

/// What a webhook gets.
pub fn notification(notification: &Notification) -> Json {
    json!({
        "id": notification.id,
        "kind": notification.kind,
        "at": notification.at.as_millis(),
        "rule": notification.rule,
        "severity": notification.severity,
        "message": notification.message,
        "alerts": notification.alerts.iter().map(alert).collect::<Vec<Json>>(),
        "total": notification.total,
    })
}

pub fn device(device: &Device<'_>, device_type: Option<&str>) -> Json {
    json!({
        "device_id": device.name,
        "type": device_type,
        "quarantined": device.quarantined,
        "first_seen": device.first_seen.as_millis(),
        "last_seen": device.last_seen.as_millis(),
        "last_time": device.last_time.map(Timestamp::as_millis),
        "clock_skew_ms": device.skew.map(|skew| skew.0 as f64 / 1e6),
        "accepted": device.accepted,
        "duplicates": device.duplicates,
        "rejected": device.rejected,
    })
}

pub fn dead_letter(id: u64, letter: &DeadLetter) -> Json {
    let text = match letter.format {
        PayloadFormat::Block | PayloadFormat::Msgpack => None,
        PayloadFormat::Unknown | PayloadFormat::Json | PayloadFormat::Ndjson => {
            std::str::from_utf8(&letter.payload).ok()
        }
    };
    json!({
        "id": id,
        "received": letter.received.as_millis(),
        "code": letter.reason.code(),
        "reason": letter.reason.name(),
        "detail": letter.detail,
        "device_id": letter.device,
        "login": letter.login,
        "door": letter.door,
        "format": letter.format,
        "bytes": letter.payload.len(),
        "payload": text,
    })
}

/// Numbers that JSON does not know (NaN, infinities) are `null`; bytes are in hexadecimal.
pub fn value(value: Value<'_>) -> Json {
    match value {
        Value::F64(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::Bool(v) => json!(v),
        Value::Text(v) => json!(v),
        Value::Bytes(v) => json!(v.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}
