//! Questions that the node answers with lines of JSON, and the few things one can tell it to do.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use hyper::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Door, body,
    login::Who,
    params::{At, Params, limit},
    problem::{Code, Problem},
    site,
};
use crate::port::{AlertAction, AlertsAsked, DevicesAsked, PanesAsked};

type Answer = Result<Json<Value>, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DevicesOf {
    after: Option<String>,
    limit: Option<usize>,
    tenant: Option<String>,
}

pub(super) async fn devices(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Params(asked): Params<DevicesOf>,
) -> Answer {
    let asked = DevicesAsked { after: asked.after, tenant: who.tenant(asked.tenant)?, limit: limit(asked.limit) };
    let devices = door.node.devices(asked).await?;
    Ok(Json(json!({"devices": devices})))
}

pub(super) async fn device(State(door): State<Arc<Door>>, Path(device): Path<String>) -> Answer {
    Ok(Json(door.node.device(&device).await?))
}

pub(super) async fn quarantine(State(door): State<Arc<Door>>, Path(device): Path<String>) -> Answer {
    Ok(Json(door.node.quarantine(&device, true).await?))
}

pub(super) async fn release(State(door): State<Arc<Door>>, Path(device): Path<String>) -> Answer {
    Ok(Json(door.node.quarantine(&device, false).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PanesOf {
    key: Option<String>,
    tenant: Option<String>,
    start: Option<At>,
    end: Option<At>,
    limit: Option<usize>,
    site: Option<String>,
}

pub(super) async fn window(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
    Params(asked): Params<PanesOf>,
) -> Answer {
    let tenant = who.tenant_here(asked.tenant, asked.site.as_deref())?;
    let (start, end) = (asked.start.map(|start| start.0), asked.end.map(|end| end.0));
    if let Some(site) = &asked.site {
        let question = json!({
            "what": "panes", "window": name, "key": asked.key, "start": start, "end": end, "limit": limit(asked.limit),
        });
        return site::of_other(&door, site, question).await;
    }
    let window = name.clone();
    let wanted = PanesAsked { window, key: asked.key, tenant, start, end, limit: limit(asked.limit) };
    let panes = door.node.window(wanted).await?;
    Ok(Json(json!({"window": name, "panes": panes})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limited {
    limit: Option<usize>,
}

pub(super) async fn late(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    Params(asked): Params<Limited>,
) -> Answer {
    let events = door.node.late(&name, limit(asked.limit)).await?;
    Ok(Json(json!({"window": name, "late": events})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertsOf {
    tenant: Option<String>,
    state: Option<String>,
    rule: Option<String>,
    limit: Option<usize>,
    site: Option<String>,
}

pub(super) async fn alerts(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Params(asked): Params<AlertsOf>,
) -> Answer {
    let tenant = who.tenant_here(asked.tenant, asked.site.as_deref())?;
    if asked.state.as_deref().is_some_and(|state| !["pending", "firing", "resolved"].contains(&state)) {
        return Err(Problem::new(Code::BadParameter).because("`state` is none of `pending`, `firing`, `resolved`"));
    }
    if let Some(site) = &asked.site {
        let question = json!({
            "what": "alerts", "state": asked.state, "rule": asked.rule, "limit": limit(asked.limit),
        });
        return site::of_other(&door, site, question).await;
    }
    let wanted = AlertsAsked { state: asked.state, rule: asked.rule, tenant, limit: limit(asked.limit) };
    let alerts = door.node.alerts(wanted).await?;
    Ok(Json(json!({"alerts": alerts})))
}

pub(super) async fn acknowledge(door: State<Arc<Door>>, who: Extension<Who>, id: Path<String>) -> Answer {
    act(door, who, id, AlertAction::Acknowledge).await
}

pub(super) async fn resolve(door: State<Arc<Door>>, who: Extension<Who>, id: Path<String>) -> Answer {
    act(door, who, id, AlertAction::Resolve).await
}

async fn act(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    action: AlertAction,
) -> Answer {
    Ok(Json(door.node.alert_action(&id, action, &who.login.name).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLettersAsked {
    reason: Option<String>,
    device: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn dead_letters(State(door): State<Arc<Door>>, Params(asked): Params<DeadLettersAsked>) -> Answer {
    let letters = door.node.dead_letters(asked.reason, asked.device, asked.after, limit(asked.limit)).await?;
    Ok(Json(json!({"dead_letters": letters})))
}

/// Which dead letters to submit again; all of them when neither is given.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Replay {
    ids: Option<Vec<u64>>,
    reason: Option<String>,
}

pub(super) async fn replay(State(door): State<Arc<Door>>, body: Body) -> Answer {
    let bytes = body::read(&door, body).await?;
    let replay: Replay = match bytes.trim_ascii() {
        [] => Replay::default(),
        json => serde_json::from_slice(json)
            .map_err(|error| Problem::new(Code::BadRequestBody).because(error.to_string()))?,
    };
    Ok(Json(door.node.replay_dead_letters(replay.ids, replay.reason).await?))
}

pub(super) async fn drops(State(door): State<Arc<Door>>, Params(asked): Params<Limited>) -> Answer {
    let drops = door.node.drop_ranges(limit(asked.limit)).await?;
    Ok(Json(json!({"drops": drops})))
}

pub(super) async fn journal(State(door): State<Arc<Door>>) -> Answer {
    Ok(Json(door.node.journal().await?))
}

pub(super) async fn metrics(State(door): State<Arc<Door>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], door.node.metrics()).into_response()
}

/// The process works, perhaps not well: 503 asks whoever supervises it to start it again.
pub(super) async fn healthz(State(door): State<Arc<Door>>) -> Response {
    let health = door.node.health().await;
    let status = if health.status == "failing" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(health)).into_response()
}

/// 503 keeps traffic away until the node can take it.
pub(super) async fn readyz(State(door): State<Arc<Door>>) -> Response {
    let health = door.node.health().await;
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}

pub(super) async fn description() -> Json<Value> {
    Json(super::openapi_document())
}

pub(super) async fn welcome() -> &'static str {
    concat!(
        "Millpond ",
        env!("CARGO_PKG_VERSION"),
        "\n\nGET  /openapi.json    every address, its parameters and answers\nPOST /v1/telemetry    events in\n",
        "GET  /v1/query        events out\nGET  /v1/tap          events as they come\nGET  /metrics         for Prometheus\n\n",
        "Guides and reference: the folder docs/ of the distribution.\n"
    )
}
