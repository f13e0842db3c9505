//! What operators and devices want to know or do, here and by way of other nodes.

use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_actors::DevicesAsked;
use millpond_core::{ids::Origin, time::Span};
use millpond_env::Env;
use millpond_gateway::port::{AskError, Json};
use millpond_proto::wire::{self, Reply as Said, Request};
use serde_json::json;
use tokio::sync::oneshot;

use super::{fetch, others, pen::Reply, state::State, texts::text_of};
use crate::transport::{Link, Replies};

/// A node that does not answer in time is left out of the answer, or is the reason for having none.
const PATIENCE: Span = Span::from_secs(3);
/// Devices of one answer.
const DEVICES_MAX: usize = 10_000;

impl State {
    pub(super) fn operate(&mut self, what: &str, body: &Json, reply: Reply) {
        let answer = match what {
            "members" => Ok(self.members_json()),
            "ledger" => Ok(self.ledger_json()),
            "conflicts" => {
                let conflicts: Vec<Json> =
                    self.conflicts().iter().map(|conflict| self.conflict_json(conflict)).collect();
                Ok(json!({ "conflicts": conflicts }))
            }
            "resolve" => return self.resolve(body, reply),
            "texts" => self.texts_json(body),
            "text" => self.text_json(body),
            "put_text" => return self.put_text(body, reply),
            "remove_text" => return self.remove_text(body, reply),
            "devices" => return self.devices(body, reply),
            "device" => return self.device(body, reply),
            "register" => return self.register(body, reply),
            "delete" => return self.delete_device(body, reply),
            "twin" => self.twin_json(body),
            "desired" => return self.set_desired(body, reply),
            "report" => return self.report(body, reply),
            "command" => return self.command(body, false, reply),
            "commands" => return self.ask_home("commands", body, reply),
            "command_status" => return self.ask_home("command_status", body, reply),
            "answer" => return self.answered(body, reply),
            other => Err(AskError::NotFound(format!("the mesh does not know `{other}`"))),
        };
        let _ = reply.send(answer);
    }

    /// What another node asks in the name of an operator.
    pub(super) fn asked(&mut self, what: &str, body: &[u8], replies: Replies) {
        let Ok(body) = serde_json::from_slice::<Json>(body) else {
            self.metrics.malformed.inc();
            return self.answer(replies, Said::Unknown);
        };
        let (reply, answer) = oneshot::channel();
        match what {
            "command_here" => self.command(&body, true, reply),
            "commands" | "command_status" => drop(reply.send(self.order_json(what, &body))),
            "devices_here" => {
                let asked = match body["device"].as_str() {
                    Some(device) => DevicesAsked::One(device.to_owned()),
                    None => DevicesAsked::After(body["after"].as_str().map(str::to_owned), limit_of(&body)),
                };
                let found = (self.node.devices)(asked);
                self.env.spawn(async move {
                    let _ = reply.send(found.await.map(Json::Array));
                });
            }
            others::OTHER_SITE => {
                let Some((site, question)) = others::question_of(&body) else {
                    return self.answer(replies, Said::Unknown);
                };
                let sites = self.sites.clone();
                self.env.spawn(async move {
                    let unknown = || Err(AskError::NotFound(format!("nothing of a site `{site}` is here")));
                    let _ = reply.send(sites.answer(&site, question).await.unwrap_or_else(unknown));
                });
            }
            _ => return self.answer(replies, Said::Unknown),
        }
        self.env.spawn(async move {
            let (status, body) = match answer.await.unwrap_or(Err(AskError::Unavailable)) {
                Ok(body) => (200, body),
                Err(AskError::NotFound(error)) => (404, Json::from(error)),
                Err(AskError::Invalid(error)) => (400, Json::from(error)),
                Err(error) => (503, Json::from(error.to_string())),
            };
            let mut replies = replies;
            let _ = replies.send(wire::encode(&Said::Answer { status, body: body.to_string().into() })).await;
            replies.finish();
        });
    }

    pub(super) fn name_of(&self, origin: Origin) -> String {
        if origin == self.me {
            return self.config.node.name.clone();
        }
        let member = self.membership.members().find(|(member, _)| member.origin == origin);
        member.map_or_else(|| origin.short().to_string(), |(member, _)| member.name.clone())
    }

    /// What registry and homes say of a device.
    pub(super) fn device_fields(&self, device: &str) -> Json {
        let documents = &self.shelf.documents;
        let registered = documents.device(device);
        let mut json = json!({ "device_id": device, "registered": registered.is_some() });
        if documents.is_deleted(device) {
            json["deleted"] = json!(true);
        }
        if let Some(home) = self.homes.of(device) {
            json["home"] = json!(self.name_of(home));
        }
        if let Some(Json::Object(fields)) = registered {
            for (key, value) in fields {
                if json.get(&key).is_none() {
                    json[key] = value;
                }
            }
        }
        json
    }

    /// The registry, and what each node knows of devices; deleted ones are left out.
    fn devices(&mut self, body: &Json, reply: Reply) {
        let (after, limit) = (body["after"].as_str().unwrap_or_default(), limit_of(body));
        let documents = &self.shelf.documents;
        let names: Vec<String> =
            documents.devices().into_iter().filter(|name| name.as_str() > after).take(limit).collect();
        let mut lists: Vec<Json> = body["here"].as_array().cloned().unwrap_or_default();
        lists.retain(|device| device["device_id"].as_str().is_some_and(|name| !documents.is_deleted(name)));
        let registry: Vec<Json> = names.iter().map(|name| self.device_fields(name)).collect();
        let question = json!({ "after": body["after"], "limit": limit });
        let links: Vec<Link> = self.peers.keys().filter_map(|peer| self.link_to(*peer)).collect();
        // Who is deleted is asked once more when all have answered: others may still know it by its events.
        let actor = self.actor.clone();
        let env = self.env.clone();
        self.env.spawn(async move {
            for found in ask_all(&env, links, "devices_here", &question).await {
                lists.extend(found.as_array().cloned().unwrap_or_default());
            }
            let _ = actor.cast(super::MeshMsg::Devices { registry, lists, limit, reply });
        });
    }

    pub(super) fn list_devices(&self, registry: Vec<Json>, lists: Vec<Json>, limit: usize, reply: Reply) {
        let deleted =
            |device: &Json| device["device_id"].as_str().is_none_or(|name| self.shelf.documents.is_deleted(name));
        let known = lists.into_iter().filter(|device| !deleted(device)).map(|device| {
            let fields = self.device_fields(device["device_id"].as_str().unwrap_or_default());
            merged(device, &fields)
        });
        let all = merged_lists(registry.into_iter().chain(known), limit);
        let _ = reply.send(Ok(Json::Array(all)));
    }

    fn device(&mut self, body: &Json, reply: Reply) {
        let device = match text_of(body, "device") {
            Ok(device) => device,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let fields = self.device_fields(device);
        let unknown = AskError::NotFound(format!("no device is named `{device}`"));
        let bare = !fields["registered"].as_bool().unwrap_or(false) && fields.get("deleted").is_none();
        let home = self.homes.of(device).filter(|home| *home != self.me).and_then(|home| self.link_to(home));
        let here = body["here"].clone();
        let Some(link) = home else {
            let answer = if here.is_null() && bare { Err(unknown) } else { Ok(merged(here, &fields)) };
            return drop(reply.send(answer));
        };
        let question = json!({ "device": device });
        ask_json(&self.env, link, "devices_here", &question, move |answer| {
            let there = answer.ok().and_then(|found| found.get(0).cloned()).unwrap_or(Json::Null);
            let known = merged_lists([here, there].into_iter().filter(|known| !known.is_null()), 1).pop();
            let answer = match known {
                None if bare => Err(unknown),
                known => Ok(merged(known.unwrap_or(Json::Null), &fields)),
            };
            let _ = reply.send(answer);
        });
    }
}

pub(super) fn limit_of(body: &Json) -> usize {
    body["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(100).min(DEVICES_MAX)
}

/// `json` with the fields that it does not have.
fn merged(json: Json, fields: &Json) -> Json {
    let mut all = fields.clone();
    for (key, value) in json.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    all
}

/// Of several that know a device the one that saw it last speaks, in the order of names.
fn merged_lists(lists: impl IntoIterator<Item = Json>, limit: usize) -> Vec<Json> {
    let mut all: BTreeMap<String, Json> = BTreeMap::new();
    for device in lists {
        let Some(name) = device["device_id"].as_str().map(str::to_owned) else { continue };
        let seen = |device: &Json| device["last_seen"].as_i64().unwrap_or(i64::MIN);
        match all.remove(&name) {
            Some(other) if seen(&other) > seen(&device) => drop(all.insert(name, merged(other, &device))),
            Some(other) => drop(all.insert(name, merged(device, &other))),
            None => drop(all.insert(name, device)),
        }
    }
    all.into_values().take(limit).collect()
}

/// Asks a node; `then` is told what it said.
pub(super) fn ask_json(
    env: &Env,
    link: Link,
    what: &'static str,
    body: &Json,
    then: impl FnOnce(Result<Json, AskError>) + Send + 'static,
) {
    let (body, timer): (Bytes, Env) = (body.to_string().into(), env.clone());
    env.spawn(async move { then(answer_of(&timer, &link, what, body).await) });
}

async fn answer_of(env: &Env, link: &Link, what: &str, body: Bytes) -> Result<Json, AskError> {
    let request = Request::Ask { what: what.to_owned(), body };
    let Some(Said::Answer { status, body }) = fetch::ask(env, link, PATIENCE, &request).await else {
        return Err(AskError::Unavailable);
    };
    let body: Json = serde_json::from_slice(&body).map_err(|_| AskError::Unavailable)?;
    let error = || body.as_str().unwrap_or_default().to_owned();
    match status {
        200 => Ok(body),
        404 => Err(AskError::NotFound(error())),
        400 => Err(AskError::Invalid(error())),
        _ => Err(AskError::Unavailable),
    }
}

/// Asks several nodes at once; those that answer are heard, in their order.
async fn ask_all(env: &Env, links: Vec<Link>, what: &'static str, body: &Json) -> Vec<Json> {
    let mut answers = Vec::new();
    for link in links {
        let (tell, answer) = oneshot::channel();
        ask_json(env, link, what, body, move |said| drop(tell.send(said)));
        answers.push(answer);
    }
    let mut found = Vec::new();
    for answer in answers {
        if let Ok(Ok(said)) = answer.await {
            found.push(said);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_nodes_the_one_that_saw_a_device_last_speaks() {
        let lists = [
            json!({"device_id": "b", "home": "north"}),
            json!({"device_id": "a", "last_seen": 5, "accepted": 50}),
            json!({"device_id": "a", "last_seen": 9, "accepted": 1}),
            json!({"device_id": "a", "last_seen": 7, "accepted": 7, "skew": 1}),
            json!({"no": "device"}),
        ];
        let all = merged_lists(lists, 10);
        assert_eq!(
            all,
            [
                json!({"device_id": "a", "last_seen": 9, "accepted": 1, "skew": 1}),
                json!({"device_id": "b", "home": "north"}),
            ]
        );
        assert_eq!(merged_lists(all, 1).len(), 1);
    }
}
