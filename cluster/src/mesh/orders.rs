//! Commands in the mesh: they wait at the node where their device listens or is at home, and follow it when it moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use millpond_core::{
    ids::Origin,
    record::{self, Hlc},
    time::Span,
};
use millpond_gateway::port::{AskError, Json};
use millpond_proto::twin::commands::{Command, CommandId, Commands, Effect, Entry, Input, Status};
use millpond_store::{Put, ReadError, Reader, Table};
use serde_json::json;

use super::{
    MeshMsg,
    asking::ask_json,
    pen::{Job, Reply, Then},
    state::State,
    texts::text_of,
    twins::checked,
};
use crate::transport::Link;

const DEADLINE_S: f64 = 3_600.0;
const DEADLINE_S_MAX: f64 = 366.0 * 86_400.0;
const ID_BYTES_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 256;
const BODY_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Orders {
    pub commands: Commands,
    clock: Hlc,
    /// Who gave commands that are not on disk yet.
    waiting: BTreeMap<CommandId, Vec<Reply>>,
    /// Commands that are on their way to another node.
    moving: BTreeSet<CommandId>,
}

impl Orders {
    pub fn load(reader: &Reader) -> Result<Orders, ReadError> {
        let mut saved: Vec<Entry> = Vec::new();
        reader.range(Table::Commands, b"", |_, value| {
            saved.extend(record::decode(&value).ok());
            ControlFlow::Continue(())
        })?;
        let clock = saved.iter().map(|entry| entry.command.created).max().unwrap_or_default();
        Ok(Orders { commands: Commands::new(saved), clock, ..Orders::default() })
    }
}

impl State {
    pub(super) fn order(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.orders.commands.handle(self.env.wall(), input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Save(id, entry) => {
                    let value = entry.map(|entry| record::encode(&entry).into());
                    let put = Put { table: Table::Commands, key: id.0.as_bytes().to_vec(), value };
                    let _ = self.files.send(Job { then: Some(Then::Command(id)), ..Job::put(put) });
                }
                Effect::Deliver(command) => self.deliver(&command),
                Effect::Confirm(id, status) => tracing::info!(command = id.0, ?status, "a command is finished"),
                Effect::Refuse(id) => {
                    let error = "the device has too many unfinished commands, or the deadline is over";
                    for reply in self.orders.waiting.remove(&id).into_iter().flatten() {
                        let _ = reply.send(Err(AskError::Invalid(error.into())));
                    }
                }
            }
        }
    }

    fn deliver(&self, command: &Command) {
        let topic = format!("devices/{}/commands/{}", command.device, command.id.0);
        let payload = json!({
            "id": command.id.0,
            "name": command.name,
            "body": command.body,
            "deadline": command.deadline.as_millis(),
        });
        self.node.broker.publish(&topic, payload.to_string().into(), 1, false);
    }

    /// A command is on disk, or its outcome is.
    pub(super) fn order_saved(&mut self, id: CommandId) {
        self.orders.moving.remove(&id);
        for reply in self.orders.waiting.remove(&id).into_iter().flatten() {
            let _ = reply.send(self.status_json(&id));
        }
        self.order(Input::Saved(id));
    }

    /// Takes a command, or hands it to the node where the device is. `here`: another node did that.
    pub(super) fn command(&mut self, body: &Json, here: bool, reply: Reply) {
        let command = match self.command_of(body) {
            Ok(command) => command,
            Err(error) => return drop(reply.send(Err(error))),
        };
        if self.shelf.documents.is_deleted(&command.device) {
            return drop(reply.send(Err(AskError::NotFound(format!("{} was deleted", command.device)))));
        }
        let known = self.orders.commands.status(&command.id).is_some();
        if known && !self.orders.waiting.contains_key(&command.id) {
            return drop(reply.send(self.status_json(&command.id)));
        }
        if !here
            && !known
            && let Some(home) = self.elsewhere_of(&command.device)
        {
            let body = json!({ "command": command });
            return match self.link_to(home) {
                Some(link) => ask_json(&self.env, link, "command_here", &body, move |answer| drop(reply.send(answer))),
                None => drop(reply.send(Err(self.unreachable(&command.device, home)))),
            };
        }
        self.orders.waiting.entry(command.id.clone()).or_default().push(reply);
        self.order(Input::Submit(command));
    }

    fn command_of(&mut self, body: &Json) -> Result<Command, AskError> {
        if let Ok(command) = serde_json::from_value::<Command>(body["command"].clone())
            && is_sound(&command)
        {
            self.orders.clock = self.orders.clock.max(command.created);
            return Ok(command);
        }
        let (device, name) = (checked(text_of(body, "device")?)?, text_of(body, "name")?);
        let id = match body["id"].as_str() {
            None => None,
            Some(id) if is_id(id) => Some(id.to_owned()),
            Some(_) => {
                return Err(AskError::Invalid(format!(
                    "an id has 1 to {ID_BYTES_MAX} letters, digits, `-`, `_` and `.`"
                )));
            }
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || body["body"].to_string().len() > BODY_BYTES_MAX {
            let error =
                format!("a command has a name of up to {NAME_BYTES_MAX} and a body of up to {BODY_BYTES_MAX} bytes");
            return Err(AskError::Invalid(error));
        }
        let deadline_s = body["deadline_s"].as_f64().unwrap_or(DEADLINE_S);
        if !(deadline_s > 0.0 && deadline_s <= DEADLINE_S_MAX) {
            return Err(AskError::Invalid("`deadline_s` is more than 0 and at most a year".into()));
        }
        let wall = self.env.wall();
        self.orders.clock = self.orders.clock.tick(wall.as_millis());
        let created = self.orders.clock;
        Ok(Command {
            id: CommandId(id.unwrap_or_else(|| format!("{:x}-{}", created.0, self.me.short()))),
            device: device.to_owned(),
            name: name.to_owned(),
            body: body["body"].clone(),
            deadline: wall.saturating_add(Span::from_millis((deadline_s * 1e3) as i64)),
            created,
        })
    }

    /// The other node at which a device is, unless it listens here.
    fn elsewhere_of(&self, device: &str) -> Option<Origin> {
        if self.twins.listening.contains_key(device) {
            return None;
        }
        self.homes.of(device).filter(|home| *home != self.me)
    }

    pub(super) fn link_to(&self, origin: Origin) -> Option<Link> {
        self.peers.get(&origin).filter(|_| !self.is_gone(origin)).map(|peer| peer.link.clone())
    }

    pub(super) fn unreachable(&self, device: &str, home: Origin) -> AskError {
        AskError::NotFound(format!("{device} is at home at {}, which cannot be reached now", self.name_of(home)))
    }

    /// Asks the node where a device is, unless that is this one.
    pub(super) fn ask_home(&mut self, what: &'static str, body: &Json, reply: Reply) {
        let device = body["device"].as_str().unwrap_or_default();
        let here = self.order_json(what, body);
        match (here, self.elsewhere_of(device)) {
            (Err(_), Some(home)) => match self.link_to(home) {
                Some(link) => ask_json(&self.env, link, what, body, move |answer| drop(reply.send(answer))),
                None => drop(reply.send(Err(self.unreachable(device, home)))),
            },
            (here, _) => drop(reply.send(here)),
        }
    }

    /// What is known here of commands.
    pub(super) fn order_json(&self, what: &str, body: &Json) -> Result<Json, AskError> {
        let device = text_of(body, "device")?;
        if what != "commands" {
            return self.status_json(&CommandId(text_of(body, "id")?.to_owned()));
        }
        let limit = body["limit"].as_u64().unwrap_or(100) as usize;
        let open: Vec<Json> = self.orders.commands.open(device).take(limit).map(entry_json).collect();
        if open.is_empty() && self.elsewhere_of(device).is_some() {
            return Err(AskError::NotFound(format!("{device} is elsewhere")));
        }
        Ok(json!({ "device_id": device, "commands": open }))
    }

    fn status_json(&self, id: &CommandId) -> Result<Json, AskError> {
        let status = self.orders.commands.status(id);
        let status = status.ok_or_else(|| AskError::NotFound(format!("no command has the id `{}` here", id.0)))?;
        let mut json = json!({ "id": id.0 });
        say_status(&mut json, status);
        Ok(json)
    }

    /// A device answers. Answers to nothing are taken too: the command may have expired or been answered before.
    pub(super) fn answered(&mut self, body: &Json, reply: Reply) {
        let (device, id) = match (text_of(body, "device"), text_of(body, "id")) {
            (Ok(device), Ok(id)) => (device.to_owned(), CommandId(id.to_owned())),
            (Err(error), _) | (_, Err(error)) => return drop(reply.send(Err(error))),
        };
        let open = self.orders.commands.status(&id).is_some_and(|status| !status.is_final());
        if !open {
            let error = AskError::NotFound(format!("no command `{}` waits for an answer here", id.0));
            return drop(reply.send(Err(error)));
        }
        let answer = match &body["answer"] {
            Json::Object(fields) if fields.contains_key("error") => {
                Err(fields["error"].as_str().map_or_else(|| fields["error"].to_string(), str::to_owned))
            }
            answer => Ok(answer.clone()),
        };
        self.orders.waiting.entry(id.clone()).or_default().push(reply);
        self.order(Input::Answered { id: id.clone(), device, answer });
        // It was of another device, or of a command that is not on disk yet.
        if self.orders.commands.status(&id).is_some_and(|status| !status.is_final()) {
            for reply in self.orders.waiting.remove(&id).into_iter().flatten() {
                let _ = reply.send(Err(AskError::NotFound(format!("`{}` does not wait for this answer", id.0))));
            }
        }
    }

    pub(super) fn listens(&mut self, device: &str, on: bool) {
        let count = self.twins.listening.entry(device.to_owned()).or_default();
        *count = if on { *count + 1 } else { count.saturating_sub(1) };
        let none = *count == 0;
        if none {
            self.twins.listening.remove(device);
        }
        self.twins.due.insert(device.to_owned());
        // What was sent before it subscribed went nowhere.
        self.order(Input::DeviceDown(device.to_owned()));
        if !none {
            self.order(Input::DeviceUp(device.to_owned()));
        }
    }

    /// Commands of devices that are elsewhere now go there.
    pub(super) fn tick_orders(&mut self) {
        self.order(Input::Tick);
        let devices: Vec<String> = self.orders.commands.devices().map(str::to_owned).collect();
        for device in devices {
            let Some(link) = self.elsewhere_of(&device).and_then(|home| self.link_to(home)) else { continue };
            let open: Vec<Command> = self.orders.commands.open(&device).map(|entry| entry.command.clone()).collect();
            for command in open {
                if self.orders.waiting.contains_key(&command.id) || !self.orders.moving.insert(command.id.clone()) {
                    continue;
                }
                let (actor, id) = (self.actor.clone(), command.id.clone());
                let body = json!({ "command": command });
                ask_json(&self.env, link.clone(), "command_here", &body, move |answer| {
                    let _ = actor.cast(MeshMsg::Handed { id, taken: answer.is_ok() });
                });
            }
        }
    }

    pub(super) fn handed(&mut self, id: CommandId, taken: bool) {
        self.orders.moving.remove(&id);
        if taken {
            self.order(Input::Gone(id));
        }
    }
}

fn is_id(id: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Whether another node may have taken a command like this one.
fn is_sound(command: &Command) -> bool {
    is_id(&command.id.0) && checked(&command.device).is_ok() && command.created <= Hlc::MAX
}

fn entry_json(entry: &Entry) -> Json {
    let command = &entry.command;
    let mut json = json!({
        "id": command.id.0,
        "name": command.name,
        "body": command.body,
        "created": command.created.wall_ms(),
        "deadline": command.deadline.as_millis(),
    });
    say_status(&mut json, &entry.status);
    json
}

fn say_status(json: &mut Json, status: &Status) {
    let (name, key, value) = match status {
        Status::Queued => ("queued", None, Json::Null),
        Status::Sent => ("sent", None, Json::Null),
        Status::Delivered(answer) => ("delivered", Some("answer"), answer.clone()),
        Status::Failed(why) => ("failed", Some("error"), json!(why)),
        Status::Expired => ("expired", None, Json::Null),
    };
    json["status"] = json!(name);
    if let Some(key) = key {
        json[key] = value;
    }
}

#[cfg(test)]
mod tests {
    use millpond_core::time::Timestamp;

    use super::*;

    #[test]
    fn a_command_of_another_node_is_held_to_what_holds_here() {
        let (id, deadline) = (CommandId("c-1".into()), Timestamp(1));
        let (device, name) = ("press-1".to_owned(), "stop".to_owned());
        let sound = Command { id, device, name, body: Json::Null, deadline, created: Hlc(1) };
        assert!(is_sound(&sound));
        assert!(!is_sound(&Command { created: Hlc(u64::MAX), ..sound.clone() }), "no later one could be given");
        assert!(!is_sound(&Command { device: "+/#".into(), ..sound.clone() }));
        assert!(!is_sound(&Command { id: CommandId("c/1".into()), ..sound }));
    }
}
