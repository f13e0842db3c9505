//! The OpenAPI document, made from the table of routes.

use millpond_core::limits::PAYLOAD_BYTES_MAX;
use serde_json::{Map, Value, json};

use super::{
    login::Access,
    problem::Code,
    routes::{Route, routes},
};

/// OpenAPI 3.1.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in routes() {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method] = operation(&route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Millpond",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "An edge node that keeps what it acknowledges. Devices may only send telemetry; operators read and handle alerts; admins do everything.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A user's token."},
                "basic": {"type": "http", "scheme": "basic", "description": "A user's name and password (or token)."},
            },
            "responses": {"Problem": {
                "description": "What was wrong. The codes: ".to_string() + &codes(),
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }},
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(route.params.iter().map(|param| {
        let kind = if param.name == "limit" { "integer" } else { "string" };
        json!({
            "name": param.name,
            "in": "query",
            "required": param.required,
            "description": param.about,
            "schema": {"type": kind},
        })
    }));
    let content = if route.answer.contains('/') {
        json!({route.answer: {"schema": {"type": "string"}}})
    } else {
        json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{}", route.answer)}}})
    };
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done.", "content": content},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    });
    match route.access {
        Access::Open => operation["security"] = json!([]),
        Access::Anyone => {}
        Access::Operator => operation["description"] = "Needs the role operator or admin.".into(),
        Access::Admin => operation["description"] = "Needs the role admin.".into(),
    }
    match (route.method, route.path) {
        (_, "/v1/telemetry") => operation["requestBody"] = telemetry_body(),
        (_, "/v1/dead-letters/replay") => operation["requestBody"] = replay_body(),
        ("post", path) if path.starts_with("/prometheus/") => {
            let form = json!({"application/x-www-form-urlencoded": {"schema": {"type": "object"}}});
            operation["requestBody"] =
                json!({"required": false, "description": "The parameters, as a form.", "content": form});
        }
        ("put" | "patch", _) | ("post", "/v1/site/conflicts/resolve" | "/v1/devices/{device}/commands" | "/v1/sql") => {
            operation["requestBody"] = site_body(route.path);
        }
        _ => {}
    }
    operation
}

/// `get_v1_devices_device_quarantine`.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<&str> = std::iter::once(route.method).chain(words).collect();
    words.join("_")
}

fn telemetry_body() -> Value {
    json!({
        "required": true,
        "description": format!("At most {PAYLOAD_BYTES_MAX} bytes after decompression; Content-Encoding may be gzip. Taken whole or not at all."),
        "content": {
            "application/json": {"schema": {"oneOf": [
                {"$ref": "#/components/schemas/Event"},
                {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
            ]}},
            "application/x-ndjson": {"schema": {"type": "string", "description": "One event (or array of events) per line."}},
            "application/msgpack": {"schema": {"type": "string", "description": "Maps with the keys of an event, one after another or in an array."}},
            "application/x-millpond-block": {"schema": {"type": "string", "description": "A block of events, as docs/reference/block.md draws it."}},
        },
    })
}

fn site_body(path: &str) -> Value {
    let object = |required: &[&str], properties: Value| {
        json!({"application/json": {"schema": {
            "type": "object", "additionalProperties": false, "required": required, "properties": properties,
        }}})
    };
    let content = match path {
        "/v1/site/conflicts/resolve" => object(
            &["kind", "name", "version"],
            json!({
                "kind": {"type": "string"},
                "name": {"type": "string"},
                "path": {"type": "string", "description": "As in the conflict; empty for a text."},
                "version": {"type": "integer", "minimum": 0, "description": "Counts from 0, in the order of the conflict's versions."},
                "stamp": {"type": "string", "description": "The version's `stamp`: nothing is decided when the conflict has changed since."},
            }),
        ),
        "/v1/devices/{device}/commands" => object(
            &["name"],
            json!({
                "id": {"type": "string", "description": "Given again with the same id it is the same command. Default: a new one."},
                "name": {"type": "string"},
                "body": {"description": "Anything."},
                "deadline_s": {"type": "number", "description": "After so many seconds it expires. Default: 3600."},
            }),
        ),
        "/v1/sql" => object(
            &["sql"],
            json!({
                "sql": {"type": "string", "examples": ["SELECT device, avg(value) FROM readings WHERE metric = 'temperature' GROUP BY device"]},
                "limit": {"type": ["integer", "null"], "minimum": 1, "description": "Rows to answer with. Default 10000, at most 100000."},
                "tenant": {"type": ["string", "null"], "description": "Whose sites. Default: `default`."},
            }),
        ),
        "/v1/site/texts/{kind}/{name}" => json!({
            "text/plain": {"schema": {"type": "string", "description": "TOML, as in the configuration's section of that kind."}},
            "application/json": {"schema": {"type": "object"}},
        }),
        _ => json!({"application/json": {"schema": {"type": "object"}}}),
    };
    json!({"required": true, "content": content})
}

fn replay_body() -> Value {
    json!({
        "required": false,
        "description": "Which dead letters to submit again; all of them when there is no body.",
        "content": {"application/json": {"schema": {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "ids": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "reason": {"type": "string"},
            },
        }}},
    })
}

fn schemas() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    let list = |key: &str, about: &str| {
        json!({
            "type": "object",
            "description": about,
            "properties": {key: {"type": "array", "items": {"type": "object"}}},
            "required": [key],
        })
    };
    json!({
        "Any": {"type": "object"},
        "Event": {
            "type": "object",
            "description": "A flat object: every other key is a metric. null stands for a metric that is absent.",
            "properties": {
                "device": {"type": "string", "minLength": 1, "maxLength": 128},
                "ts": {"type": ["string", "number", "null"], "description": "RFC 3339, or epoch s, ms, µs or ns by size. Absent: the time of receipt."},
                "seq": {"type": ["integer", "null"], "minimum": 0, "description": "The device's own number of the event: an event that comes twice is stored once."},
                "quality": {"enum": ["good", "uncertain", "bad", null]},
            },
            "additionalProperties": {"type": ["number", "boolean", "string", "null"]},
            "examples": [{"device": "press-17", "ts": "2026-11-20T08:15:00.250Z", "seq": 42, "temperature": 21.5, "running": true}],
        },
        "Receipt": {
            "type": "object",
            "description": "What became of the events. Accepted ones are on disk; rejected ones are kept as dead letters.",
            "properties": {"accepted": count, "duplicates": count, "rejected": count},
            "required": ["accepted", "duplicates", "rejected"],
        },
        "QueryAnswer": {
            "type": "object",
            "properties": {
                "device_id": {"type": "string"},
                "metric": {"type": "string"},
                "points": {
                    "type": "array",
                    "description": "Pairs of epoch milliseconds and value, by time.",
                    "items": {"type": "array", "prefixItems": [{"type": "number"}, {}], "minItems": 2, "maxItems": 2},
                },
                "truncated": {"const": true, "description": "Only there when more points are in the range than `limit` lets through."},
            },
            "required": ["device_id", "metric", "points"],
        },
        "SqlAnswer": {
            "type": "object",
            "properties": {
                "columns": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"name": {"type": "string"}, "type": {"type": "string"}}},
                },
                "rows": {"type": "array", "items": {"type": "array"}, "description": "Times and all that is no number as text."},
                "truncated": {"const": true, "description": "Only there when there are more rows than `limit` lets through."},
            },
            "required": ["columns", "rows"],
        },
        "Prometheus": {
            "type": "object",
            "description": "The shape of Prometheus' HTTP API.",
            "properties": {"status": {"enum": ["success", "error"]}, "data": {}, "errorType": {"type": "string"}, "error": {"type": "string"}},
            "required": ["status"],
        },
        "Devices": list("devices", "Known devices."),
        "Panes": list("panes", "Results of a window."),
        "Late": list("late", "Late events of a window."),
        "Alerts": list("alerts", "Alerts."),
        "DeadLetters": list("dead_letters", "Rejected input."),
        "Drops": list("drops", "Ranges of records that are gone."),
        "Health": {
            "type": "object",
            "properties": {
                "status": {"enum": ["ok", "degraded", "failing"]},
                "ready": {"type": "boolean"},
                "reasons": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["status", "ready", "reasons"],
        },
        "Problem": {
            "type": "object",
            "properties": {
                "code": {"type": "string", "description": "`millpond explain CODE` prints the page."},
                "error": {"type": "string"},
                "hint": {"type": "string"},
            },
            "required": ["code", "error", "hint"],
        },
    })
}

fn codes() -> String {
    let entries = Code::ALL.map(Code::entry);
    let codes: Vec<String> =
        entries.iter().map(|entry| format!("{} ({}) {}", entry.code, entry.status, entry.title)).collect();
    codes.join("; ") + "; and MP01xx when a body cannot be decoded."
}
