//! What the door answers when it does not do what was asked: a JSON document with a code that has a page.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use hyper::{StatusCode, header};
use millpond_core::dead_letter::Reason;
use serde_json::{Value, json};

use crate::{
    payload::PayloadError,
    port::{AskError, Refusal},
};

/// The door's own problems. Rejected events have the codes of their reasons (`MP01xx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    LoginNeeded,
    NotAllowed,
    ForeignDevice,
    NotFound,
    WrongMethod,
    BadParameter,
    TooLarge,
    UnknownFormat,
    BadCompression,
    TooSlow,
    NothingAccepted,
    Full,
    Busy,
    Unavailable,
    ShardFailed,
    Failed,
    BadRequestBody,
    TooManyWatchers,
    NoSite,
}

/// One line of the table of problems, from which the pages in `docs/errors/` are written.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub code: &'static str,
    pub status: u16,
    /// What happened.
    pub title: &'static str,
    /// What to do.
    pub hint: &'static str,
}

impl Code {
    pub const ALL: [Code; 19] = [
        Code::LoginNeeded,
        Code::NotAllowed,
        Code::ForeignDevice,
        Code::NotFound,
        Code::WrongMethod,
        Code::BadParameter,
        Code::TooLarge,
        Code::UnknownFormat,
        Code::BadCompression,
        Code::TooSlow,
        Code::NothingAccepted,
        Code::Full,
        Code::Busy,
        Code::Unavailable,
        Code::ShardFailed,
        Code::Failed,
        Code::BadRequestBody,
        Code::TooManyWatchers,
        Code::NoSite,
    ];

    pub fn entry(self) -> Entry {
        let (code, status, title, hint) = match self {
            Code::LoginNeeded => (
                "MP0201",
                401,
                "the request has no login, or a wrong one",
                "send `Authorization: Bearer TOKEN` or `Basic`; users stand in the section `auth` of the configuration",
            ),
            Code::NotAllowed => (
                "MP0202",
                403,
                "the login's role does not allow this",
                "devices send telemetry, operators read and handle alerts, admins do everything",
            ),
            Code::ForeignDevice => (
                "MP0203",
                403,
                "the login may not send for this device",
                "send with the device's own login, or let the user publish on `devices/DEVICE/telemetry`",
            ),
            Code::NotFound => ("MP0204", 404, "there is no such thing", "GET /openapi.json lists all addresses"),
            Code::WrongMethod => (
                "MP0205",
                405,
                "the address does not know this method",
                "GET /openapi.json lists all addresses with their methods",
            ),
            Code::BadParameter => (
                "MP0206",
                400,
                "a parameter is missing, unknown or cannot be read",
                "times are RFC 3339 or epoch seconds or milliseconds; GET /openapi.json lists all parameters",
            ),
            Code::TooLarge => {
                ("MP0207", 413, "the body is too large", "send at most 1 MiB at a time, counted after decompression")
            }
            Code::UnknownFormat => (
                "MP0208",
                415,
                "the body's type or compression is not known",
                "send JSON, NDJSON, MessagePack (application/msgpack) or a block (application/x-millpond-block), plain or in gzip",
            ),
            Code::BadCompression => {
                ("MP0209", 400, "the body cannot be decompressed", "nothing was kept; send it again")
            }
            Code::TooSlow => (
                "MP0210",
                408,
                "the body did not arrive in time",
                "nothing was kept; send it again, in smaller parts when the link is slow",
            ),
            Code::NothingAccepted => (
                "MP0211",
                422,
                "all events were rejected",
                "they are kept as dead letters with their reasons: see GET /v1/dead-letters",
            ),
            Code::Full => (
                "MP0212",
                507,
                "there is no room on disk",
                "nothing was kept; keep the events and try again, and see `millpond journal inspect`",
            ),
            Code::Busy => (
                "MP0213",
                503,
                "the node has more in hand than it can take",
                "nothing was kept; try again after the time in Retry-After",
            ),
            Code::Unavailable => {
                ("MP0214", 503, "the node is starting or stopping", "try again after the time in Retry-After")
            }
            Code::ShardFailed => (
                "MP0215",
                503,
                "the part of the node that judged the events failed",
                "nothing was acknowledged; try again, and see the log for the cause",
            ),
            Code::Failed => ("MP0216", 500, "the node could not answer", "see the log for the cause"),
            Code::BadRequestBody => (
                "MP0217",
                400,
                "the body is not the JSON that this address takes",
                "GET /openapi.json shows what it takes",
            ),
            Code::TooManyWatchers => ("MP0218", 503, "too many watch the live events already", "end another /v1/tap"),
            Code::NoSite => (
                "MP0219",
                409,
                "this node belongs to no site",
                "`millpond site init NAME --node NAME` makes it the first of one, `millpond node join INVITATION` one of another",
            ),
        };
        Entry { code, status, title, hint }
    }
}

/// An answer that says no. `{"code":"MP0206","error":"…","hint":"…"}`, with more fields where they help.
#[derive(Debug)]
pub(super) struct Problem {
    status: u16,
    body: Value,
    retry_after_s: Option<u32>,
}

impl Problem {
    pub fn new(code: Code) -> Problem {
        let entry = code.entry();
        Problem {
            status: entry.status,
            body: json!({"code": entry.code, "error": entry.title, "hint": entry.hint}),
            retry_after_s: matches!(entry.status, 503 | 507).then_some(if code == Code::Full { 30 } else { 1 }),
        }
    }

    /// Says more exactly what is wrong.
    pub fn because(mut self, error: impl Into<String>) -> Problem {
        self.body["error"] = Value::String(error.into());
        self
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Problem {
        self.body[key] = value.into();
        self
    }

    /// A body that could not be decoded, and is kept as a dead letter.
    pub fn undecodable(error: &PayloadError) -> Problem {
        let hint = match error.reason {
            Reason::BadDevice => {
                "name the device in the key `device` of each event, or for all of them in the parameter `device`"
            }
            Reason::TooLarge => "send fewer or smaller events at a time",
            _ => {
                "an event is a flat object, such as {\"device\":\"press-17\",\"ts\":\"2026-11-20T08:15:00Z\",\"temperature\":21.5}"
            }
        };
        let body = json!({
            "code": error.reason.code(),
            "error": error.detail,
            "hint": hint,
            "reason": error.reason.name(),
            "kept_as": "dead letter",
        });
        Problem { status: 400, body, retry_after_s: None }
    }

    pub fn refused(refusal: Refusal) -> Problem {
        Problem::new(match refusal {
            Refusal::Full => Code::Full,
            Refusal::Stopping => Code::Unavailable,
            Refusal::Failed => Code::ShardFailed,
        })
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Problem {
        let code = match error {
            AskError::NotFound(_) => Code::NotFound,
            AskError::Invalid(_) => Code::BadParameter,
            AskError::Unavailable => Code::Unavailable,
            AskError::NoSite => Code::NoSite,
            AskError::Failed(_) => Code::Failed,
        };
        Problem::new(code).because(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body.to_string()));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == 401 {
            let scheme = header::HeaderValue::from_static("Basic realm=\"millpond\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
            headers.append(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer realm=\"millpond\""));
        }
        response
    }
}
