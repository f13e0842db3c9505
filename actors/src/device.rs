//! Devices on the control plane: who is connected, who is quarantined and why. One actor per device that is connected or has work, started on
//! demand and passivated when nothing was asked of it for a while; its state is then in the table of devices.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use millpond_core::{
    record::{self, Class},
    time::{Span, Timestamp},
};
use millpond_env::{Env, Mono};
use millpond_store::{Put, Reader, Table};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    journal::{JournalMsg, Unit, Work},
    metrics::DeviceMetrics,
};

/// A device actor with nothing to do for so long is passivated.
const PASSIVATE_AFTER: Span = Span::from_secs(30);
const TICK: Span = Span::from_secs(5);

/// What is kept of a device besides what the data plane knows. Stored in MessagePack under the device's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Why the device is quarantined; `None` when it is not.
    pub quarantined: Option<String>,
    pub connected_at: Option<Timestamp>,
    pub disconnected_at: Option<Timestamp>,
    /// Sessions since the device is known.
    pub sessions: u64,
}

/// What a device actor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    pub connected: bool,
    #[serde(flatten)]
    pub row: DeviceRow,
}

pub enum DeviceMsg {
    Presence {
        connected: bool,
    },
    /// Sets the device apart with a reason, or takes it back.
    Quarantine(Option<String>),
    Status(oneshot::Sender<DeviceStatus>),
}

/// Finds, starts and passivates device actors.
pub struct Directory;

pub enum DirectoryMsg {
    /// For the actor of this device, which is started when it does not run.
    To(String, DeviceMsg),
    Tick,
}

#[derive(Clone)]
pub struct Arguments {
    pub env: Env,
    pub reader: Reader,
    pub journal: ActorRef<JournalMsg>,
    pub metrics: DeviceMetrics,
}

pub struct DirectoryState {
    args: Arguments,
    active: BTreeMap<String, Active>,
}

struct Active {
    actor: ActorRef<DeviceMsg>,
    used: Mono,
    /// Sessions open at present: a connected device is not passivated.
    sessions: u32,
}

#[async_trait]
impl Actor for Directory {
    type Msg = DirectoryMsg;
    type State = DirectoryState;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        me: ActorRef<DirectoryMsg>,
        args: Arguments,
    ) -> Result<DirectoryState, ActorProcessingErr> {
        crate::every(&args.env, TICK, me, || DirectoryMsg::Tick);
        Ok(DirectoryState { args, active: BTreeMap::new() })
    }

    async fn handle(
        &self,
        me: ActorRef<DirectoryMsg>,
        msg: DirectoryMsg,
        state: &mut DirectoryState,
    ) -> Result<(), ActorProcessingErr> {
        state.args.env.schedule_point().await;
        match msg {
            DirectoryMsg::To(device, msg) => {
                let now = state.args.env.now();
                if !state.active.contains_key(&device) {
                    let arguments = (Arc::<str>::from(device.as_str()), state.args.clone());
                    let (actor, _) = me.spawn_linked(None, Device, arguments).await?;
                    state.active.insert(device.clone(), Active { actor, used: now, sessions: 0 });
                }
                if let Some(active) = state.active.get_mut(&device) {
                    active.used = now;
                    if let DeviceMsg::Presence { connected } = msg {
                        active.sessions =
                            if connected { active.sessions + 1 } else { active.sessions.saturating_sub(1) };
                    }
                    let _ = active.actor.cast(msg);
                }
            }
            DirectoryMsg::Tick => state.passivate(),
        }
        state.args.metrics.active.set(state.active.len() as i64);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<DirectoryMsg>,
        event: SupervisionEvent,
        state: &mut DirectoryState,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            // It is started again, from its row, when it is next needed.
            tracing::warn!(%error, "a device actor failed");
            state.active.retain(|_, active| active.actor.get_id() != cell.get_id());
        }
        Ok(())
    }
}

impl DirectoryState {
    fn passivate(&mut self) {
        let now = self.args.env.now();
        self.active.retain(|_, active| {
            let keep = active.sessions > 0 || now.since(active.used) < PASSIVATE_AFTER;
            if !keep {
                active.actor.stop(None);
            }
            keep
        });
    }
}

struct Device;

struct DeviceState {
    name: Arc<str>,
    args: Arguments,
    row: DeviceRow,
    sessions: u32,
}

#[async_trait]
impl Actor for Device {
    type Msg = DeviceMsg;
    type State = DeviceState;
    type Arguments = (Arc<str>, Arguments);

    async fn pre_start(
        &self,
        _: ActorRef<DeviceMsg>,
        (name, args): Self::Arguments,
    ) -> Result<DeviceState, ActorProcessingErr> {
        let stored = args.reader.get(Table::Devices, name.as_bytes()).ok().flatten();
        let row = stored.and_then(|bytes| record::decode(&bytes).ok()).unwrap_or_default();
        Ok(DeviceState { name, args, row, sessions: 0 })
    }

    async fn handle(
        &self,
        _: ActorRef<DeviceMsg>,
        msg: DeviceMsg,
        state: &mut DeviceState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            DeviceMsg::Presence { connected } => {
                let now = state.args.env.wall();
                if connected {
                    state.sessions += 1;
                    state.row.sessions += 1;
                    state.row.connected_at = Some(now);
                } else {
                    state.sessions = state.sessions.saturating_sub(1);
                    state.row.disconnected_at = Some(now);
                }
                state.save();
            }
            DeviceMsg::Quarantine(reason) => {
                state.row.quarantined = reason;
                state.save();
            }
            DeviceMsg::Status(reply) => {
                let _ = reply.send(DeviceStatus { connected: state.sessions > 0, row: state.row.clone() });
            }
        }
        Ok(())
    }
}

impl DeviceState {
    fn save(&self) {
        let put = row_put(&self.name, &self.row);
        let work = Work { puts: vec![put], ..Work::default() };
        let unit = Unit::other(Class::State, work);
        let _ = self.args.journal.cast(JournalMsg::Append(unit));
    }
}

fn row_put(device: &str, row: &DeviceRow) -> Put {
    Put { table: Table::Devices, key: device.as_bytes().to_vec(), value: Some(record::encode(row).into()) }
}

/// The row of a device that the data plane itself sets apart.
pub fn quarantine_put(device: &str, reason: &str) -> Put {
    row_put(device, &DeviceRow { quarantined: Some(reason.into()), ..DeviceRow::default() })
}

/// Devices that are quarantined according to the table, with the reasons.
pub fn quarantined(reader: &Reader) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut from = Vec::new();
    loop {
        let page = reader.list(Table::Devices, &from, 1024).unwrap_or_default();
        let Some((last, _)) = page.last() else { return found };
        from = last.clone();
        from.push(0);
        for (key, value) in page {
            let reason = record::decode::<DeviceRow>(&value).ok().and_then(|row| row.quarantined);
            found.extend(reason.map(|reason| (String::from_utf8_lossy(&key).into_owned(), reason)));
        }
    }
}
