//! What the nodes of a site know and do together.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Door, body,
    login::Who,
    params::{Params, limit},
    problem::{Code, Problem},
};

type Answer = Result<Json<Value>, Problem>;

async fn ask(door: &Door, what: &str, body: Value) -> Answer {
    Ok(Json(door.node.site(what, body).await?))
}

/// A question about another site, from which this one fetches records.
pub(super) async fn of_other(door: &Door, site: &str, question: Value) -> Answer {
    ask(door, "other_site", json!({ "site": site, "question": question })).await
}

async fn read_json(door: &Door, body: Body) -> Result<Value, Problem> {
    let bytes = body::read(door, body).await?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::new(Code::BadRequestBody).because(error.to_string()))
}

async fn read_object(door: &Door, body: Body) -> Result<Value, Problem> {
    match read_json(door, body).await? {
        Value::Object(fields) => Ok(Value::Object(fields)),
        _ => Err(Problem::new(Code::BadRequestBody).because("the body is not an object")),
    }
}

pub(super) async fn members(State(door): State<Arc<Door>>) -> Answer {
    ask(&door, "members", Value::Null).await
}

pub(super) async fn ledger(State(door): State<Arc<Door>>) -> Answer {
    ask(&door, "ledger", Value::Null).await
}

/// How far deliveries to the cloud have come.
pub(super) async fn uplinks(State(door): State<Arc<Door>>) -> Answer {
    ask(&door, "uplinks", Value::Null).await
}

/// A question of whoever asks, to a cloud: about the tenant of the login, or the one that is asked about.
async fn ask_cloud(door: &Door, who: &Who, what: &str, tenant: Option<String>, mut body: Value) -> Answer {
    body["tenant"] = who.tenant(tenant)?.into();
    ask(door, what, body).await
}

/// The sites that deliver to this node of a cloud.
pub(super) async fn cloud_sites(State(door): State<Arc<Door>>, Extension(who): Extension<Who>) -> Answer {
    ask_cloud(&door, &who, "cloud_sites", None, json!({})).await
}

pub(super) async fn cloud_ledger(door: State<Arc<Door>>, who: Extension<Who>, Path(site): Path<String>) -> Answer {
    ask_cloud(&door, &who, "cloud_ledger", None, json!({ "site": site })).await
}

/// The files of the archive.
pub(super) async fn cloud_lake(State(door): State<Arc<Door>>, Extension(who): Extension<Who>) -> Answer {
    ask_cloud(&door, &who, "cloud_lake", None, json!({})).await
}

/// Moves what is settled into the archive now.
pub(super) async fn cloud_archive(State(door): State<Arc<Door>>) -> Answer {
    ask(&door, "cloud_archive", json!({})).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfTenant {
    tenant: Option<String>,
}

/// Forgets the events of a device.
pub(super) async fn cloud_forget(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Path(device): Path<String>,
    Params(asked): Params<OfTenant>,
) -> Answer {
    ask_cloud(&door, &who, "cloud_forget", asked.tenant, json!({ "device": device })).await
}

/// A question in SQL: `{"sql": …, "limit": …, "tenant": …}`.
pub(super) async fn cloud_sql(State(door): State<Arc<Door>>, Extension(who): Extension<Who>, body: Body) -> Answer {
    let mut asked = read_object(&door, body).await?;
    asked["tenant"] = who.tenant(asked["tenant"].as_str().map(str::to_owned))?.into();
    ask(&door, "cloud_sql", asked).await
}

/// What the sites are to run.
pub(super) async fn cloud_heads(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Params(asked): Params<OfTenant>,
) -> Answer {
    ask_cloud(&door, &who, "cloud_heads", asked.tenant, json!({})).await
}

pub(super) async fn put_cloud_heads(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    body: Body,
) -> Answer {
    let mut wanted = read_object(&door, body).await?;
    if who.login.tenant.is_some() {
        wanted["tenant"] = who.tenant(wanted["tenant"].as_str().map(str::to_owned))?.into();
    }
    ask(&door, "cloud_put_heads", wanted).await
}

pub(super) async fn cloud_rollouts(State(door): State<Arc<Door>>, Extension(who): Extension<Who>) -> Answer {
    ask_cloud(&door, &who, "cloud_rollouts", None, json!({})).await
}

pub(super) async fn undo_cloud_rollout(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Path(number): Path<u64>,
) -> Answer {
    ask_cloud(&door, &who, "cloud_undo", None, json!({ "number": number })).await
}

pub(super) async fn conflicts(State(door): State<Arc<Door>>) -> Answer {
    ask(&door, "conflicts", Value::Null).await
}

/// Which version of what holds from now on. `version` counts from 0 in the order of `GET /v1/site/conflicts`; with `stamp` it is refused when
/// the conflict has changed since it was read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    kind: String,
    name: String,
    #[serde(default)]
    path: String,
    version: usize,
    stamp: Option<String>,
}

pub(super) async fn resolve(State(door): State<Arc<Door>>, body: Body) -> Answer {
    let Resolve { kind, name, path, version, stamp } = parse(&door, body).await?;
    let body = json!({ "kind": kind, "name": name, "path": path, "version": version, "stamp": stamp });
    ask(&door, "resolve", body).await
}

async fn parse<T: serde::de::DeserializeOwned>(door: &Door, body: Body) -> Result<T, Problem> {
    let value = read_json(door, body).await?;
    serde_json::from_value(value).map_err(|error| Problem::new(Code::BadRequestBody).because(error.to_string()))
}

pub(super) async fn texts(State(door): State<Arc<Door>>, Path(kind): Path<String>) -> Answer {
    ask(&door, "texts", json!({ "kind": kind })).await
}

pub(super) async fn text(State(door): State<Arc<Door>>, Path((kind, name)): Path<(String, String)>) -> Answer {
    ask(&door, "text", json!({ "kind": kind, "name": name })).await
}

pub(super) async fn put_text(
    State(door): State<Arc<Door>>,
    Path((kind, name)): Path<(String, String)>,
    body: Body,
) -> Answer {
    let bytes = body::read(&door, body).await?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Problem::new(Code::BadRequestBody).because(format!("the text is not UTF-8: {error}")))?;
    ask(&door, "put_text", json!({ "kind": kind, "name": name, "text": text })).await
}

pub(super) async fn remove_text(State(door): State<Arc<Door>>, Path((kind, name)): Path<(String, String)>) -> Answer {
    ask(&door, "remove_text", json!({ "kind": kind, "name": name })).await
}

pub(super) async fn register(State(door): State<Arc<Door>>, Path(device): Path<String>, body: Body) -> Answer {
    let fields = read_object(&door, body).await?;
    ask(&door, "register", json!({ "device": device, "fields": fields })).await
}

pub(super) async fn delete(State(door): State<Arc<Door>>, Path(device): Path<String>) -> Answer {
    ask(&door, "delete", json!({ "device": device })).await
}

pub(super) async fn twin(door: State<Arc<Door>>, who: Extension<Who>, device: Path<String>) -> Answer {
    let (State(door), Path(device)) = (door, device);
    may_speak_for(&who, &device, true)?;
    ask(&door, "twin", json!({ "device": device })).await
}

pub(super) async fn desired(State(door): State<Arc<Door>>, Path(device): Path<String>, body: Body) -> Answer {
    let patch = read_object(&door, body).await?;
    ask(&door, "desired", json!({ "device": device, "patch": patch })).await
}

pub(super) async fn reported(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Who>,
    Path(device): Path<String>,
    body: Body,
) -> Answer {
    may_speak_for(&who, &device, false)?;
    let patch = read_object(&door, body).await?;
    ask(&door, "report", json!({ "device": device, "patch": patch })).await
}

/// A device may touch its own twin only; operators may read every one.
fn may_speak_for(who: &Who, device: &str, reads: bool) -> Result<(), Problem> {
    if who.may_send_for(device) || (reads && who.may(super::login::Access::Operator)) {
        return Ok(());
    }
    let error = format!("`{}` may not speak for the device {device:?}", who.login.name);
    Err(Problem::new(Code::ForeignDevice).because(error))
}

/// What a device is to do. An `id` that was used before changes nothing: the answer is about the command that has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    id: Option<String>,
    name: String,
    #[serde(default)]
    body: Value,
    deadline_s: Option<f64>,
}

pub(super) async fn command(State(door): State<Arc<Door>>, Path(device): Path<String>, body: Body) -> Answer {
    let Command { id, name, body, deadline_s } = parse(&door, body).await?;
    let body = json!({ "device": device, "id": id, "name": name, "body": body, "deadline_s": deadline_s });
    ask(&door, "command", body).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limited {
    limit: Option<usize>,
}

pub(super) async fn commands(
    State(door): State<Arc<Door>>,
    Path(device): Path<String>,
    Params(asked): Params<Limited>,
) -> Answer {
    ask(&door, "commands", json!({ "device": device, "limit": limit(asked.limit) })).await
}

pub(super) async fn command_status(
    State(door): State<Arc<Door>>,
    Path((device, id)): Path<(String, String)>,
) -> Answer {
    ask(&door, "command_status", json!({ "device": device, "id": id })).await
}
