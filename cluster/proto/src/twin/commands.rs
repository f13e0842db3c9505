//! What devices are told to do, until it is done, refused or too late.
//!
//! ```text
//!            saved, and the device is there         answered: done
//! queued ──────────────────────────────────▶ sent ─────────────────▶ delivered
//!    ▲  the device went away, or we started again │
//!    └────────────────────────────────────────────┤ answered: refused
//!                                                  └────────────────▶ failed          at the deadline: expired, from queued and sent
//! ```
//!
//! It believes wall time, because deadlines outlive a boot.
//!
//! Invariants:
//! 1. A command is on disk before it is delivered, and its outcome before it is confirmed.
//! 2. Nothing is delivered at or after its deadline.
//! 3. There is one outcome, and [`Effect::Confirm`] says it once in the life of this machine. After a crash between the two the outcome is on
//!    disk and [`Commands::status`] has it.
//! 4. A device may hear a command more than once, when its answer was lost. Its id is the same each time; the device, or the protocol it
//!    speaks, tells them apart.
//! 5. Commands of a device are delivered in the order of (created, id).

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{record::Hlc, time::Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Commands of one device that are not finished.
pub const OPEN_MAX: usize = 256;
/// Outcomes that are kept for those who ask; beyond it the oldest are forgotten.
pub const FINISHED_MAX: usize = 10_000;

/// Chosen by whoever gives the command; giving it again with the same id changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub id: CommandId,
    pub device: String,
    pub name: String,
    pub body: Json,
    pub deadline: Timestamp,
    pub created: Hlc,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Queued,
    Sent,
    /// With the device's answer.
    Delivered(Json),
    /// With the device's reason.
    Failed(String),
    Expired,
}

impl Status {
    pub fn is_final(&self) -> bool {
        !matches!(self, Status::Queued | Status::Sent)
    }
}

/// A command and how it stands, as it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub command: Command,
    pub status: Status,
}

#[derive(Clone, Debug)]
pub enum Input {
    Submit(Command),
    /// The last [`Effect::Save`] of this command is on disk.
    Saved(CommandId),
    DeviceUp(String),
    DeviceDown(String),
    Answered {
        id: CommandId,
        device: String,
        answer: Result<Json, String>,
    },
    /// Another node has the command on disk: it is that node's to deliver.
    Gone(CommandId),
    /// Some time went by; given at least every second.
    Tick,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Keep this under its id, or delete what is there; saves of one id are done in the order they are given, each followed by one
    /// [`Input::Saved`].
    Save(CommandId, Option<Entry>),
    Deliver(Command),
    /// To whoever gave the command.
    Confirm(CommandId, Status),
    /// The command was not taken: its device has [`OPEN_MAX`] already, or its deadline is over.
    Refuse(CommandId),
}

struct Kept {
    entry: Entry,
    /// Saves that are on their way.
    saving: u32,
    confirmed: bool,
}

#[derive(Default)]
pub struct Commands {
    all: BTreeMap<CommandId, Kept>,
    /// (created, id) of the unfinished ones, by device.
    open: BTreeMap<String, BTreeSet<(Hlc, CommandId)>>,
    deadlines: BTreeSet<(Timestamp, CommandId)>,
    finished: BTreeSet<(Hlc, CommandId)>,
    up: BTreeSet<String>,
}

impl Commands {
    /// With what was saved; what was sent before counts as queued again.
    pub fn new(saved: impl IntoIterator<Item = Entry>) -> Commands {
        let mut commands = Commands::default();
        for mut entry in saved {
            if entry.status == Status::Sent {
                entry.status = Status::Queued;
            }
            let confirmed = entry.status.is_final();
            commands.keep(Kept { entry, saving: 0, confirmed });
        }
        commands
    }

    pub fn status(&self, id: &CommandId) -> Option<&Status> {
        self.all.get(id).map(|kept| &kept.entry.status)
    }

    /// Unfinished commands of a device, in their order.
    pub fn open(&self, device: &str) -> impl Iterator<Item = &Entry> {
        let ids = self.open.get(device).into_iter().flatten();
        ids.filter_map(|(_, id)| self.all.get(id)).map(|kept| &kept.entry)
    }

    pub fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        // Whatever happens, what is too late by now expires first: invariant 2.
        self.expire(now, effects);
        match input {
            Input::Submit(command) => self.submit(now, command, effects),
            Input::Saved(id) => self.saved(&id, effects),
            Input::DeviceUp(device) => {
                self.up.insert(device.clone());
                self.deliver(&device, effects);
            }
            Input::DeviceDown(device) => {
                self.up.remove(&device);
                for (_, id) in self.open.get(&device).into_iter().flatten() {
                    if let Some(kept) = self.all.get_mut(id) {
                        kept.entry.status = Status::Queued;
                    }
                }
            }
            Input::Answered { id, device, answer } => {
                let sent = self.all.get(&id).is_some_and(|kept| {
                    kept.entry.command.device == device && kept.saving == 0 && !kept.entry.status.is_final()
                });
                if sent {
                    self.finish(&id, answer.map_or_else(Status::Failed, Status::Delivered), effects);
                }
            }
            Input::Gone(id) => self.gone(id, effects),
            Input::Tick => {}
        }
    }

    fn gone(&mut self, id: CommandId, effects: &mut Vec<Effect>) {
        let Some(kept) = self.all.get(&id).filter(|kept| !kept.entry.status.is_final()) else { return };
        let command = &kept.entry.command;
        self.deadlines.remove(&(command.deadline, id.clone()));
        if let Some(open) = self.open.get_mut(&command.device) {
            open.remove(&(command.created, id.clone()));
            if open.is_empty() {
                self.open.remove(&command.device);
            }
        }
        self.all.remove(&id);
        effects.push(Effect::Save(id, None));
    }

    /// Devices with unfinished commands.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.open.keys().map(String::as_str)
    }

    fn submit(&mut self, now: Timestamp, command: Command, effects: &mut Vec<Effect>) {
        if self.all.contains_key(&command.id) {
            return;
        }
        let open = self.open.get(&command.device).map_or(0, BTreeSet::len);
        if open >= OPEN_MAX || command.deadline <= now {
            effects.push(Effect::Refuse(command.id));
            return;
        }
        let entry = Entry { command, status: Status::Queued };
        effects.push(Effect::Save(entry.command.id.clone(), Some(entry.clone())));
        self.keep(Kept { entry, saving: 1, confirmed: false });
    }

    fn keep(&mut self, kept: Kept) {
        let command = &kept.entry.command;
        let place = (command.created, command.id.clone());
        if kept.entry.status.is_final() {
            self.finished.insert(place);
        } else {
            self.open.entry(command.device.clone()).or_default().insert(place);
            self.deadlines.insert((command.deadline, command.id.clone()));
        }
        self.all.insert(command.id.clone(), kept);
    }

    fn saved(&mut self, id: &CommandId, effects: &mut Vec<Effect>) {
        let Some(kept) = self.all.get_mut(id) else { return };
        kept.saving = kept.saving.saturating_sub(1);
        if kept.saving > 0 {
            return;
        }
        if !kept.entry.status.is_final() {
            let device = kept.entry.command.device.clone();
            self.deliver(&device, effects);
        } else if !kept.confirmed {
            kept.confirmed = true;
            effects.push(Effect::Confirm(id.clone(), kept.entry.status.clone()));
        }
    }

    /// In order: one that is not on disk yet holds back those behind it.
    fn deliver(&mut self, device: &str, effects: &mut Vec<Effect>) {
        if !self.up.contains(device) {
            return;
        }
        for (_, id) in self.open.get(device).into_iter().flatten() {
            let Some(kept) = self.all.get_mut(id) else { continue };
            if kept.saving > 0 {
                break;
            }
            if kept.entry.status == Status::Queued {
                kept.entry.status = Status::Sent;
                effects.push(Effect::Deliver(kept.entry.command.clone()));
            }
        }
    }

    fn expire(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some((_, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now).cloned() {
            self.finish(&id, Status::Expired, effects);
        }
    }

    fn finish(&mut self, id: &CommandId, status: Status, effects: &mut Vec<Effect>) {
        let Some(kept) = self.all.get_mut(id) else { return };
        debug_assert!(!kept.entry.status.is_final(), "invariant 3");
        kept.entry.status = status;
        kept.saving += 1;
        let (command, place) = (&kept.entry.command, (kept.entry.command.created, id.clone()));
        self.deadlines.remove(&(command.deadline, id.clone()));
        if let Some(open) = self.open.get_mut(&command.device) {
            open.remove(&place);
            if open.is_empty() {
                self.open.remove(&command.device);
            }
        }
        effects.push(Effect::Save(id.clone(), Some(kept.entry.clone())));
        self.finished.insert(place);
        // Only what was confirmed may be forgotten; there is never much that was not.
        let oldest = self.finished.iter().find(|(_, id)| self.all.get(id).is_some_and(|kept| kept.confirmed)).cloned();
        if let Some(oldest) = oldest.filter(|_| self.finished.len() > FINISHED_MAX) {
            self.finished.remove(&oldest);
            self.all.remove(&oldest.1);
            effects.push(Effect::Save(oldest.1, None));
        }
    }
}
