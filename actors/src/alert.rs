//! The actor of the alerts: signals in, life cycles out. Each change of an alert, the record of it and the notifications that it causes are one
//! unit of the journal; subscribers and webhooks learn of it only when that unit is on disk.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::{
    alert::{Alert, AlertEffect, AlertState, Alerts, Notification},
    record::{self, Class, Hlc, RecordKind},
    rule::{Signal, Tally},
    time::Span,
};
use millpond_env::Env;
use millpond_gateway::broker::Broker;
use millpond_store::{Append, Put, Table};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::{
    defined::Defined,
    journal::{JournalMsg, Unit, Verdict, Work},
    metrics::AlertMetrics,
    notifier::{NotifierMsg, outbox_key},
    plane::{ALERTS_PART, Alignment, Party},
    settings::Settings,
};

const TICK: Span = Span::from_millis(500);

pub enum AlertMsg {
    Signals {
        sender: usize,
        signals: Vec<Signal>,
    },
    Barrier {
        sender: usize,
        id: u64,
    },
    Verdict(Verdict),
    /// A question to the life cycles, or an operator's action; effects are carried out.
    Ask(Box<dyn FnOnce(&mut Alerts, millpond_core::time::Timestamp, &mut Vec<AlertEffect>) + Send>),
    Tick,
}

pub struct AlertActor;

pub struct Arguments {
    pub env: Env,
    pub settings: Arc<Settings>,
    pub generation: u64,
    pub alerts: Alerts,
    pub defined: Defined,
    /// The definitions are those that the site agreed on.
    pub agreed: bool,
    /// Signals that the recovery found; those that are known already change nothing.
    pub backlog: Vec<Signal>,
    pub journal: ActorRef<JournalMsg>,
    pub notifier: ActorRef<NotifierMsg>,
    pub broker: Arc<Broker>,
    pub metrics: AlertMetrics,
    /// Counts what the rules say; it outlives the actor.
    pub tally: Arc<Mutex<Tally>>,
}

pub struct State {
    args: Arguments,
    alignment: Alignment<(usize, Vec<Signal>)>,
    in_flight: VecDeque<(u64, Vec<Alert>, bool)>,
    next_no: u64,
    /// Those that fire.
    firing: BTreeSet<String>,
}

#[async_trait]
impl Actor for AlertActor {
    type Msg = AlertMsg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<AlertMsg>, mut args: Arguments) -> Result<State, ActorProcessingErr> {
        crate::every(&args.env, TICK, me, || AlertMsg::Tick);
        let backlog = std::mem::take(&mut args.backlog);
        let senders = args.settings.shards + args.settings.windows.len();
        let is_firing = |alert: &&Alert| alert.state == AlertState::Firing;
        let firing = args.alerts.open().filter(is_firing).map(|alert| alert.id.clone()).collect();
        let (alignment, in_flight) = (Alignment::new(senders), VecDeque::new());
        let mut state = State { args, alignment, in_flight, next_no: 1, firing };
        if state.args.agreed && state.args.defined.agree(&state.args.settings) {
            state.append(Vec::new(), vec![state.args.defined.put()], false);
        }
        // A rule that is new is judged on events of before, too: what fires by them fires now.
        state.handle_all(backlog);
        state.tally(|tally, args| {
            let firing = args.alerts.open().filter(is_firing);
            tally.begin(&args.settings.rules, firing.map(|alert| (&*alert.rule, &alert.key)));
            tally.fired(args.defined.number, args.defined.fired);
        });
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<AlertMsg>, msg: AlertMsg, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.args.env.schedule_point().await;
        match msg {
            AlertMsg::Signals { sender, signals } => {
                if let Some((_, signals)) = state.alignment.admit(sender, (sender, signals)) {
                    state.signals(signals);
                }
            }
            AlertMsg::Barrier { sender, id } => {
                if let Some(held) = state.alignment.barrier(sender, id) {
                    // The alerts' own state is in their table; the part only says that everything before it has been handled.
                    let part = JournalMsg::Part { checkpoint: id, name: ALERTS_PART.into(), state: Bytes::new() };
                    let _ = state.args.journal.cast(part);
                    held.into_iter().for_each(|(_, signals)| state.signals(signals));
                }
            }
            AlertMsg::Verdict(verdict) => state.verdict(verdict),
            AlertMsg::Ask(question) => {
                let mut effects = Vec::new();
                question(&mut state.args.alerts, state.args.env.wall(), &mut effects);
                state.carry_out(effects);
            }
            AlertMsg::Tick => {
                let mut effects = Vec::new();
                state.args.alerts.tick(state.args.env.wall(), &mut effects);
                state.carry_out(effects);
            }
        }
        Ok(())
    }
}

impl State {
    fn signals(&mut self, signals: Vec<Signal>) {
        self.tally(|tally, _| tally.take(&signals));
        self.handle_all(signals);
    }

    fn tally(&self, change: impl FnOnce(&mut Tally, &Arguments)) {
        change(&mut self.args.tally.lock().unwrap_or_else(PoisonError::into_inner), &self.args);
    }

    fn handle_all(&mut self, signals: Vec<Signal>) {
        let (now, mut effects) = (self.args.env.wall(), Vec::new());
        for signal in signals {
            self.args.alerts.handle(now, signal, &mut effects);
        }
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<AlertEffect>) {
        let (mut changed, mut puts, mut notified) = (Vec::new(), Vec::new(), false);
        let fired = self.args.defined.fired;
        for effect in effects {
            match effect {
                AlertEffect::Changed(alert) => {
                    self.args.metrics.changed(&alert);
                    if alert.state != AlertState::Firing {
                        self.firing.remove(&alert.id);
                    } else if self.firing.insert(alert.id.clone()) {
                        self.args.defined.fired += 1;
                    }
                    // One that never fired is known to the rule book, and needs no place on disk.
                    if alert.fired.is_some() {
                        puts.push(alert_put(&alert));
                        changed.push(alert);
                    }
                }
                AlertEffect::Forget(id) => {
                    self.firing.remove(&id);
                    puts.push(Put { table: Table::Alerts, key: id.into_bytes(), value: None });
                }
                AlertEffect::Notify(notification) => {
                    notified = true;
                    puts.extend(self.outbox_puts(&notification));
                }
            }
        }
        if self.args.defined.fired > fired {
            puts.push(self.args.defined.put());
            self.tally(|tally, args| tally.fired(args.defined.number, args.defined.fired));
        }
        if !puts.is_empty() {
            self.append(changed, puts, notified);
        }
    }

    fn append(&mut self, changed: Vec<Alert>, puts: Vec<Put>, notified: bool) {
        let records = if changed.is_empty() { Vec::new() } else { vec![alert_record(&changed)] };
        let work = Work { records, puts, ..Work::default() };
        let unit = Unit::new(Party::Alerts, self.next_no, self.args.generation, Class::Alert, work);
        self.in_flight.push_back((self.next_no, changed, notified));
        self.next_no += 1;
        let _ = self.args.journal.cast(JournalMsg::Append(unit));
    }

    fn outbox_puts(&self, notification: &Notification) -> Vec<Put> {
        let value = Bytes::from(record::encode(notification));
        let hooks = self.args.settings.webhooks.iter();
        hooks
            .filter(|hook| notification.severity >= hook.min_severity.unwrap_or(millpond_core::rule::Severity::Info))
            .map(|hook| Put {
                table: Table::Outbox,
                key: outbox_key(&hook.name, notification),
                value: Some(value.clone()),
            })
            .collect()
    }

    fn verdict(&mut self, verdict: Verdict) {
        for no in verdict.units {
            let Some((_, changed, notified)) = self.in_flight.pop_front().filter(|(flying, _, _)| *flying == no) else {
                continue;
            };
            if !verdict.stored {
                tracing::error!(alerts = changed.len(), "changes of alerts could not be stored");
                continue;
            }
            changed.iter().for_each(|alert| self.show(alert));
            if notified {
                let _ = self.args.notifier.cast(NotifierMsg::Wake);
            }
        }
    }

    fn show(&self, alert: &Alert) {
        let topic = format!("alerts/{}/{}", alert.rule, alert.key);
        if let Ok(json) = serde_json::to_vec(&crate::shapes::alert(alert)) {
            self.args.broker.publish(&topic, Bytes::from(json), 1, false);
        }
    }
}

fn alert_put(alert: &Alert) -> Put {
    Put { table: Table::Alerts, key: alert.id.clone().into_bytes(), value: Some(record::encode(alert).into()) }
}

fn alert_record(changed: &[Alert]) -> Append {
    Append {
        kind: RecordKind::Alerts,
        hlc: Hlc::default(),
        rows: changed.len() as u32,
        min_time: changed.iter().map(|alert| alert.since).min().unwrap_or_default(),
        max_time: changed.iter().map(|alert| alert.since).max().unwrap_or_default(),
        devices: Vec::new(),
        payload: record::encode(&changed).into(),
    }
}
