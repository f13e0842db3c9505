//! The actor of one window definition: it combines the deltas of all shards into panes, has fired panes journaled, and once they are on
//! disk shows them to subscribers and judges the rules on them. Panes that were merged from those of other sites go the same way.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::{
    record::{self, Class, Hlc, RecordKind},
    rule::{PaneRules, Signal},
    time::{Span, Timestamp},
    window::{Delta, Emit, LateEvent, Pane, Panes, WindowEffect},
};
use millpond_env::Env;
use millpond_gateway::broker::Broker;
use millpond_store::Append;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::{
    alert::AlertMsg,
    journal::{JournalMsg, Unit, Verdict, Work},
    metrics::WindowMetrics,
    plane::{Alignment, Party, Plane, window_part},
    settings::Settings,
    shard::ShardMsg,
};

const TICK: Span = Span::from_millis(250);
/// Panes of one record.
pub(crate) const PANES_PER_RECORD: usize = 256;

pub enum WindowMsg {
    Deltas {
        shard: usize,
        deltas: Vec<Delta>,
    },
    Barrier {
        shard: usize,
        id: u64,
    },
    Verdict(Verdict),
    /// Panes of this window that were merged from those of other sites. It is said whether they are on disk; when this actor goes before that,
    /// nothing is.
    Merged {
        panes: Vec<Pane>,
        stored: oneshot::Sender<bool>,
    },
    /// The plane that this window belongs to is complete.
    Plane(Arc<Plane>),
    Tick,
}

pub struct Window;

/// What a window knows and decides, without its actor.
pub struct WindowCore {
    pub panes: Panes,
    pub rules: PaneRules,
}

impl WindowCore {
    /// # Errors
    /// The problems of the definition or of the rules on it.
    pub fn new(settings: &Settings, index: usize) -> Result<WindowCore, Vec<millpond_core::problem::SpecProblem>> {
        let spec = &settings.windows[index];
        Ok(WindowCore {
            panes: Panes::new(Arc::new(spec.clone()), settings.shards)
                .with_shares(settings.membership.is_some() && millpond_core::window::of_site(spec)),
            rules: PaneRules::new(&spec.name, &settings.rules)?,
        })
    }

    pub fn save(&self) -> Vec<u8> {
        record::encode(&(self.panes.save(), self.rules.save()))
    }

    /// # Errors
    /// When the bytes are not what [`save`](Self::save) gave.
    pub fn load(&mut self, saved: &[u8]) -> Result<(), String> {
        let (panes, rules): (Vec<u8>, Vec<u8>) = record::decode(saved).map_err(|error| error.to_string())?;
        self.panes.load(&panes).map_err(|error| error.to_string())?;
        self.rules.load(&rules).map_err(|error| error.to_string())
    }
}

pub struct Arguments {
    pub env: Env,
    pub settings: Arc<Settings>,
    pub index: usize,
    pub generation: u64,
    pub core: WindowCore,
    /// Effects of the recovery that are to be carried out first.
    pub backlog: Vec<WindowEffect>,
    pub journal: ActorRef<JournalMsg>,
    pub alerts: ActorRef<AlertMsg>,
    pub broker: Arc<Broker>,
    pub metrics: WindowMetrics,
}

pub struct State {
    args: Arguments,
    plane: Option<Arc<Plane>>,
    alignment: Alignment<(usize, Vec<Delta>)>,
    in_flight: VecDeque<InFlight>,
    next_no: u64,
}

/// Panes on their way to the disk.
struct InFlight {
    no: u64,
    panes: Vec<Pane>,
    /// Who waits for them.
    stored: Option<oneshot::Sender<bool>>,
}

#[async_trait]
impl Actor for Window {
    type Msg = WindowMsg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<WindowMsg>, mut args: Arguments) -> Result<State, ActorProcessingErr> {
        crate::every(&args.env, TICK, me, || WindowMsg::Tick);
        let backlog = std::mem::take(&mut args.backlog);
        let alignment = Alignment::new(args.settings.shards);
        let mut state = State { args, plane: None, alignment, in_flight: VecDeque::new(), next_no: 1 };
        state.carry_out(backlog);
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<WindowMsg>,
        msg: WindowMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.args.env.schedule_point().await;
        match msg {
            WindowMsg::Deltas { shard, deltas } => {
                if let Some((shard, deltas)) = state.alignment.admit(shard, (shard, deltas)) {
                    state.deltas(shard, deltas);
                }
            }
            WindowMsg::Barrier { shard, id } => {
                if let Some(held) = state.alignment.barrier(shard, id) {
                    state.save(id);
                    held.into_iter().for_each(|(shard, deltas)| state.deltas(shard, deltas));
                }
            }
            WindowMsg::Verdict(verdict) => state.verdict(verdict),
            WindowMsg::Merged { panes, stored } => state.append(panes, Vec::new(), Some(stored)),
            WindowMsg::Plane(plane) => state.plane = Some(plane),
            WindowMsg::Tick => {
                let mut effects = Vec::new();
                state.args.core.panes.tick(&mut effects);
                state.carry_out(effects);
            }
        }
        Ok(())
    }
}

impl State {
    fn deltas(&mut self, shard: usize, deltas: Vec<Delta>) {
        let mut effects = Vec::new();
        self.args.core.panes.apply(shard, deltas, &mut effects);
        self.carry_out(effects);
    }

    fn save(&self, checkpoint: u64) {
        let name = window_part(&self.args.settings.windows[self.args.index].name);
        let part = JournalMsg::Part { checkpoint, name, state: self.args.core.save().into() };
        let _ = self.args.journal.cast(part);
        let sender = self.args.settings.shards + self.args.index;
        let _ = self.args.alerts.cast(AlertMsg::Barrier { sender, id: checkpoint });
    }

    fn carry_out(&mut self, effects: Vec<WindowEffect>) {
        let (mut panes, mut late) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                // Panes that are still open are shown but not kept, unless other nodes are to know of them.
                WindowEffect::Fire(pane) if pane.open && !self.keeps_open() => self.show(&pane),
                WindowEffect::Fire(pane) => panes.push(pane),
                WindowEffect::Late(event) => late.push(event),
                WindowEffect::Watermark { key, at } => self.share_watermark(&key, at),
            }
        }
        if !panes.is_empty() || !late.is_empty() {
            self.append(panes, late, None);
        }
    }

    fn append(&mut self, panes: Vec<Pane>, late: Vec<LateEvent>, stored: Option<oneshot::Sender<bool>>) {
        self.args.metrics.fired.inc_by(panes.len() as u64);
        self.args.metrics.late.inc_by(late.len() as u64);
        let mut records: Vec<Append> = panes.chunks(PANES_PER_RECORD).map(pane_record).collect();
        records.extend(late.chunks(PANES_PER_RECORD).map(late_record));
        let work = Work { records, ..Work::default() };
        let unit = Unit::new(Party::Window(self.args.index), self.next_no, self.args.generation, Class::Pane, work);
        self.in_flight.push_back(InFlight { no: self.next_no, panes, stored });
        self.next_no += 1;
        let _ = self.args.journal.cast(JournalMsg::Append(unit));
    }

    fn verdict(&mut self, verdict: Verdict) {
        let mut signals: Vec<Signal> = Vec::new();
        for no in verdict.units {
            let flying = self.in_flight.pop_front().filter(|flying| flying.no == no);
            let Some(InFlight { panes, stored, .. }) = flying else { continue };
            if let Some(stored) = stored {
                let _ = stored.send(verdict.stored);
            }
            if !verdict.stored {
                // Panes are refused only when the disk fails altogether; recovery computes them again.
                tracing::error!(panes = panes.len(), "panes could not be stored");
                continue;
            }
            for pane in &panes {
                if !pane.open {
                    self.args.core.rules.apply(pane, &mut signals);
                }
                self.show(pane);
            }
        }
        if !signals.is_empty() {
            let sender = self.args.settings.shards + self.args.index;
            let _ = self.args.alerts.cast(AlertMsg::Signals { sender, signals });
        }
    }

    /// Whether open panes are journaled: a device may have gone to another node of the site in the middle of a window, and then what it left
    /// here is never closed. They are few, as only idle devices have them; with `emit = "update"` they would be too many.
    fn keeps_open(&self) -> bool {
        let settings = &self.args.settings;
        let spec = &settings.windows[self.args.index];
        settings.membership.is_some() && millpond_core::window::of_site(spec) && spec.emit != Emit::Update
    }

    fn show(&self, pane: &Pane) {
        let topic = format!("windows/{}/{}", pane.window, pane.key);
        if self.args.broker.wanted(&topic)
            && let Ok(json) = serde_json::to_vec(&crate::shapes::pane(pane))
        {
            self.args.broker.publish(&topic, Bytes::from(json), 0, false);
        }
    }

    fn share_watermark(&self, key: &str, at: Timestamp) {
        let Some(plane) = &self.plane else { return };
        for shard in &plane.shards {
            let learn = ShardMsg::Learn { window: self.args.index, key: key.into(), watermark: at };
            let _ = shard.cast(learn);
        }
    }
}

pub(crate) fn pane_record(panes: &[Pane]) -> Append {
    Append {
        kind: RecordKind::Panes,
        hlc: Hlc::default(),
        rows: panes.len() as u32,
        min_time: panes.iter().map(|pane| pane.start).min().unwrap_or_default(),
        max_time: panes.iter().map(|pane| pane.end).max().unwrap_or_default(),
        devices: Vec::new(),
        payload: record::encode(&panes).into(),
    }
}

fn late_record(late: &[LateEvent]) -> Append {
    Append {
        kind: RecordKind::Late,
        hlc: Hlc::default(),
        rows: late.len() as u32,
        min_time: late.iter().map(|event| event.time).min().unwrap_or_default(),
        max_time: late.iter().map(|event| event.time).max().unwrap_or_default(),
        devices: Vec::new(),
        payload: record::encode(&late).into(),
    }
}
