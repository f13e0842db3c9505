//! A shard: the data plane of some of the devices.
//!
//! Submissions come from the doors. The shard admits their rows, gathers what was accepted into units of the journal, and remembers
//! each unit until the journal's verdict. Only then are the rows applied to windows and rules and the tickets let go, in the order of the
//! journal, so that all that a shard knows is a function of the records.
//!
//! Invariants
//! 1. A ticket is told `stored` only after the verdict on the unit that holds its rows.
//! 2. What a refused unit left in the gate is undone, and nothing that was taken for a duplicate of it is acknowledged.
//! 3. A checkpoint's state contains exactly the units with a verdict before its barrier.
//!
//! A batch that makes the gate panic is set aside as a dead letter and its devices are quarantined; the shard then fails, and the data plane is
//! rebuilt without that batch.

pub mod core;
pub mod gather;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::{
    admission::{Admitted, Gate, Known, RowVerdict},
    batch::Batch,
    block,
    dead_letter::{DeadLetter, PayloadFormat, Reason},
    ids::device_hash,
    limits,
    planted::{self, Bug},
    record::{self, Class, Hlc, RecordKind},
    time::{Span, Timestamp},
};
use millpond_env::Env;
use millpond_gateway::{
    port::{Inbound, Source},
    tap::Tap,
};
use millpond_store::Append;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use self::{
    core::{Outputs, ShardCore, Trips},
    gather::{Counts, Gather, Piece},
};
use crate::{
    alert::AlertMsg,
    dead_letters,
    device::quarantine_put,
    front::Ticket,
    journal::{JournalMsg, Unit, Verdict, Work},
    metrics::ShardMetrics,
    plane::{Party, shard_part},
    recovery,
    settings::Settings,
    site::Site,
    window::WindowMsg,
};

const TICK: Span = Span::from_millis(200);
/// Gathered bytes that go to the journal even while it is busy with an earlier unit.
const GATHER_BYTES_MAX: usize = 256 << 10;

/// The share of a submission that concerns one shard.
pub struct Part {
    pub batches: Vec<Inbound>,
    pub dead_letters: Vec<DeadLetter>,
    pub source: Source,
    pub received: Timestamp,
    pub ticket: Arc<Ticket>,
}

pub enum ShardMsg {
    Events(Part),
    /// Sent by the shard to itself: everything that came before it has been gathered.
    Flush,
    Verdict(Verdict),
    Barrier(u64),
    /// The watermark of a group of devices, as its window sees it.
    Learn {
        window: usize,
        key: String,
        watermark: Timestamp,
    },
    /// What is known of these devices once everything that was taken in before is on disk.
    Known {
        devices: Vec<String>,
        answers: Arc<Answers>,
    },
    /// A question to the shard's state, or a change of it that does not concern the data plane.
    Ask(Box<dyn FnOnce(&mut ShardCore) + Send>),
    Tick,
}

pub struct Shard;

pub struct Arguments {
    pub env: Env,
    pub settings: Arc<Settings>,
    pub index: usize,
    pub generation: u64,
    pub core: ShardCore,
    pub journal: ActorRef<JournalMsg>,
    pub windows: Vec<ActorRef<WindowMsg>>,
    pub alerts: ActorRef<AlertMsg>,
    pub tap: Arc<Tap>,
    pub site: Arc<Site>,
    pub metrics: ShardMetrics,
}

pub struct State {
    args: Arguments,
    gather: Gather,
    flush_sent: bool,
    in_flight: VecDeque<InFlight>,
    next_no: u64,
    /// Units up to this number may have taken rows for duplicates of a unit that was refused (invariant 2).
    refused_through: u64,
    /// Everything received until then has been applied.
    applied_until: Timestamp,
    /// Questions that wait for the verdict on the unit with the number.
    questions: Vec<(u64, Vec<String>, Arc<Answers>)>,
}

/// Answers of several shards to one question; told when the last one has answered.
#[derive(Debug)]
pub struct Answers {
    reply: Mutex<(Option<oneshot::Sender<Vec<Known>>>, Vec<Known>)>,
}

impl Answers {
    pub fn new(reply: oneshot::Sender<Vec<Known>>) -> Answers {
        Answers { reply: Mutex::new((Some(reply), Vec::new())) }
    }

    fn add(&self, known: impl Iterator<Item = Known>) {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner).1.extend(known);
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let (reply, known) = self.reply.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) = reply.take() {
            let _ = reply.send(std::mem::take(known));
        }
    }
}

struct InFlight {
    no: u64,
    pieces: Vec<Piece>,
    admissions: Vec<(Arc<Batch>, Admitted)>,
    tickets: Vec<(Arc<Ticket>, Counts)>,
    duplicates: u64,
}

#[async_trait]
impl Actor for Shard {
    type Msg = ShardMsg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<ShardMsg>, args: Arguments) -> Result<State, ActorProcessingErr> {
        crate::every(&args.env, TICK, me, || ShardMsg::Tick);
        Ok(State {
            args,
            gather: Gather::default(),
            flush_sent: false,
            in_flight: VecDeque::new(),
            next_no: 1,
            refused_through: 0,
            applied_until: Timestamp::MIN,
            questions: Vec::new(),
        })
    }

    async fn handle(&self, me: ActorRef<ShardMsg>, msg: ShardMsg, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.args.env.schedule_point().await;
        match msg {
            ShardMsg::Events(part) => {
                state.events(part)?;
                if state.gather.bytes >= GATHER_BYTES_MAX {
                    state.flush();
                } else if !state.flush_sent {
                    state.flush_sent = true;
                    let _ = me.cast(ShardMsg::Flush);
                }
            }
            ShardMsg::Flush => {
                state.flush_sent = false;
                // While the journal is busy gathering goes on: large units cost less than early ones gain.
                if state.in_flight.is_empty() {
                    state.flush();
                }
            }
            ShardMsg::Verdict(verdict) => {
                state.verdict(verdict);
                if !state.gather.is_empty() {
                    state.flush();
                }
                state.answer_known();
            }
            ShardMsg::Known { devices, answers } => state.ask_known(devices, answers),
            ShardMsg::Barrier(id) => state.barrier(id),
            ShardMsg::Learn { window, key, watermark } => state.args.core.learn(window, &key, watermark),
            ShardMsg::Ask(question) => question(&mut state.args.core),
            ShardMsg::Tick => {
                let mut out = state.args.core.outputs();
                // A device whose events wait for the disk is blocked, not idle.
                if state.in_flight.is_empty() && state.gather.is_empty() {
                    state.applied_until = state.args.env.wall();
                }
                state.args.core.tick(state.applied_until, &mut out);
                state.send(out);
            }
        }
        Ok(())
    }
}

impl State {
    fn events(&mut self, part: Part) -> Result<(), ActorProcessingErr> {
        let Part { batches, dead_letters, source, received, ticket } = part;
        let mut counts = Counts { rejected: dead_letters.len() as u64, ..Counts::default() };
        self.gather.bytes += dead_letters.iter().map(|letter| letter.payload.len()).sum::<usize>();
        self.gather.dead_letters.extend(dead_letters);
        for inbound in batches {
            let Inbound { mut batch, block } = inbound;
            let core = &mut self.args.core;
            let mut admitted = Admitted::default();
            if catch_unwind(AssertUnwindSafe(|| core.admit(received, &mut batch, &mut admitted))).is_err() {
                self.set_aside(batch, block, &source, received);
                return Err("a batch made the gate panic".into());
            }
            counts.accepted += u64::from(admitted.accepted);
            counts.duplicates += u64::from(admitted.duplicates);
            counts.rejected += u64::from(admitted.rejected);
            self.args.metrics.admitted(&admitted);
            self.take(Arc::new(batch), block, admitted, &source, received);
        }
        self.gather.duplicates += counts.duplicates;
        self.gather.tickets.push((ticket, counts));
        Ok(())
    }

    /// Sorts the rows of an admitted batch into the unit that is being gathered.
    fn take(
        &mut self,
        batch: Arc<Batch>,
        block: Option<Bytes>,
        admitted: Admitted,
        source: &Source,
        received: Timestamp,
    ) {
        let Some(rows) = &admitted.rows else {
            match block.filter(|_| !admitted.altered) {
                Some(block) => {
                    self.gather.bytes += block.len();
                    let devices = admitted.devices.clone();
                    self.gather.pieces.push(Piece { batch: batch.clone(), devices, block });
                }
                None => {
                    self.gather.bytes += batch.weight();
                    self.gather.loose.push(batch.clone());
                }
            }
            self.gather.admissions.push((batch, admitted));
            return;
        };
        let mut accepted = Batch::empty(batch.shape.clone());
        for run in batch.runs() {
            for row in run.rows().filter(|row| matches!(rows[*row], RowVerdict::Accept)) {
                accepted.push_row_of(&batch, batch.device(run), row);
            }
        }
        if accepted.rows() > 0 {
            self.gather.bytes += accepted.weight();
            self.gather.loose.push(Arc::new(accepted));
        }
        let rejected = dead_letters::of_rejected(&batch, rows, source, received);
        self.gather.bytes += rejected.iter().map(|letter| letter.payload.len()).sum::<usize>();
        self.args.metrics.rejected(&rejected);
        self.gather.dead_letters.extend(rejected);
        self.gather.admissions.push((batch, admitted));
    }

    /// Sends what was gathered to the journal.
    fn flush(&mut self) {
        if self.gather.is_empty() {
            return;
        }
        let loose = self.gather.join();
        let mut gather = std::mem::take(&mut self.gather);
        for batch in loose {
            gather.pieces.extend(self.encode(batch));
        }
        let records: Vec<Append> = gather.pieces.iter().map(append_of).collect();
        let letters = gather.dead_letters.iter().map(|letter| Bytes::from(record::encode(letter))).collect();
        let work = Work { records, dead_letters: letters, ..Work::default() };
        if planted::is(Bug::AckBeforeCommit) {
            gather.tickets.drain(..).for_each(|(ticket, counts)| ticket.stored(counts));
        }
        let unit = Unit::new(Party::Shard(self.args.index), self.next_no, self.args.generation, Class::Raw, work);
        self.in_flight.push_back(InFlight {
            no: self.next_no,
            pieces: gather.pieces,
            admissions: gather.admissions,
            tickets: gather.tickets,
            duplicates: gather.duplicates,
        });
        self.next_no += 1;
        let _ = self.args.journal.cast(JournalMsg::Append(unit));
    }

    /// Loose rows as pieces of a size that suits the journal.
    fn encode(&self, batch: Batch) -> Vec<Piece> {
        let mut blocks = block::encode_split(&batch, limits::BLOCK_BYTES_TARGET);
        let core = &self.args.core;
        if blocks.len() == 1
            && let Some(block) = blocks.pop()
        {
            let devices = core.refs(&batch);
            return vec![Piece { devices, batch: Arc::new(batch), block: block.into() }];
        }
        let mut decoder = block::Decoder::new();
        let piece = |block: Vec<u8>| {
            let batch =
                decoder.decode(&block).unwrap_or_else(|error| panic!("a block just encoded is unreadable: {error}"));
            Piece { devices: core.refs(&batch), batch: Arc::new(batch), block: block.into() }
        };
        blocks.into_iter().map(piece).collect()
    }

    fn verdict(&mut self, verdict: Verdict) {
        if !verdict.stored {
            return self.refused(&verdict);
        }
        let mut out = self.args.core.outputs();
        let received = self.args.env.wall();
        for no in verdict.units {
            let Some(unit) = self.in_flight.pop_front() else { continue };
            assert_eq!(unit.no, no, "verdicts come in the order of the units");
            for piece in &unit.pieces {
                self.args.core.apply(&piece.batch, &piece.devices, received, &mut out);
            }
            let tainted = unit.duplicates > 0 && unit.no <= self.refused_through;
            for (ticket, counts) in unit.tickets {
                if tainted && counts.duplicates > 0 {
                    ticket.refused();
                }
                self.args.site.stored(verdict.through, ticket, counts);
            }
            if self.args.tap.wanted() {
                unit.pieces.into_iter().for_each(|piece| self.args.tap.publish(piece.batch));
            }
        }
        self.send(out);
    }

    fn refused(&mut self, verdict: &Verdict) {
        self.refused_through = self.next_no;
        self.gather.tickets.retain(|(ticket, counts)| {
            if counts.duplicates > 0 {
                ticket.refused();
            }
            true
        });
        let (refused, kept): (VecDeque<InFlight>, VecDeque<InFlight>) =
            std::mem::take(&mut self.in_flight).into_iter().partition(|unit| verdict.units.contains(&unit.no));
        self.in_flight = kept;
        for unit in refused.into_iter().rev() {
            for (batch, admitted) in unit.admissions.iter().rev() {
                self.args.core.gate.undo(batch, admitted);
            }
            unit.tickets.iter().for_each(|(ticket, _)| ticket.refused());
        }
    }

    /// Saves the state as of the last verdict: without what is in flight or being gathered.
    fn barrier(&mut self, id: u64) {
        let mut out = self.args.core.outputs();
        self.args.core.flush(&mut out);
        self.send(out);
        let gate = self.settled_gate();
        let gate = gate.as_ref().unwrap_or(&self.args.core.gate);
        let saved = self.args.core.save(gate, &self.args.settings.windows);
        let part = JournalMsg::Part { checkpoint: id, name: shard_part(self.args.index), state: saved.into() };
        let _ = self.args.journal.cast(part);
        for window in &self.args.windows {
            let _ = window.cast(WindowMsg::Barrier { shard: self.args.index, id });
        }
        let _ = self.args.alerts.cast(AlertMsg::Barrier { sender: self.args.index, id });
    }

    /// The gate without what is in flight or being gathered; `None` when nothing is.
    fn settled_gate(&self) -> Option<Gate> {
        let in_flight = self.in_flight.iter().flat_map(|unit| &unit.admissions);
        let ahead: Vec<&(Arc<Batch>, Admitted)> = in_flight.chain(&self.gather.admissions).collect();
        let mut gate = (!ahead.is_empty()).then(|| self.args.core.gate.clone())?;
        ahead.iter().rev().for_each(|(batch, admitted)| gate.undo(batch, admitted));
        Some(gate)
    }

    fn ask_known(&mut self, devices: Vec<String>, answers: Arc<Answers>) {
        self.flush();
        self.questions.push((self.next_no - 1, devices, answers));
        self.answer_known();
    }

    /// An event whose commit may yet fail must not be told as known: its device would never send it again.
    fn answer_known(&mut self) {
        if self.questions.is_empty() {
            return;
        }
        let settled = self.in_flight.front().map_or(u64::MAX, |unit| unit.no - 1);
        let gate = self.settled_gate();
        let gate = gate.as_ref().unwrap_or(&self.args.core.gate);
        self.questions.retain(|(no, devices, answers)| {
            let answered = *no <= settled;
            if answered {
                answers.add(devices.iter().filter_map(|device| gate.known(device)));
            }
            !answered
        });
    }

    fn send(&self, out: Outputs) {
        for (window, deltas) in self.args.windows.iter().zip(out.deltas) {
            if !deltas.is_empty() {
                let _ = window.cast(WindowMsg::Deltas { shard: self.args.index, deltas });
            }
        }
        if !out.signals.is_empty() {
            let _ = self.args.alerts.cast(AlertMsg::Signals { sender: self.args.index, signals: out.signals });
        }
    }

    /// Keeps a batch that made the gate panic as a dead letter, and quarantines the devices whose data did it, or all of them when none
    /// of them does it alone.
    fn set_aside(&mut self, batch: Batch, block: Option<Bytes>, source: &Source, received: Timestamp) {
        let payload = block.map(|block| block.to_vec()).or_else(|| {
            catch_unwind(AssertUnwindSafe(|| {
                let mut block = Vec::new();
                block::encode(&batch, &mut block);
                block
            }))
            .ok()
        });
        let trips = Trips::of(self.args.env.trace.as_ref());
        let mut devices = recovery::culprits(&self.args.settings, &trips, &batch, |core, alone| {
            core.admit(received, alone, &mut Admitted::default());
        });
        if devices.is_empty() {
            devices = batch.runs().iter().map(|run| batch.device(run).to_owned()).collect();
        }
        tracing::error!(
            ?devices,
            "a batch made its shard fail; it is kept as a dead letter and its devices are quarantined; MP0113"
        );
        let letter = DeadLetter {
            received,
            reason: Reason::Poison,
            detail: "the batch made its shard fail".into(),
            device: devices.first().cloned().unwrap_or_default(),
            login: source.login.to_string(),
            door: source.door.into(),
            format: PayloadFormat::Block,
            payload: payload.unwrap_or_default(),
        };
        let work = Work {
            dead_letters: vec![record::encode(&letter).into()],
            puts: devices.iter().map(|device| quarantine_put(device, "its data made a shard fail")).collect(),
            ..Work::default()
        };
        let unit = Unit::other(Class::State, work);
        let _ = self.args.journal.cast(JournalMsg::Append(unit));
    }
}

fn append_of(piece: &Piece) -> Append {
    let times = piece.batch.times.iter();
    let hash = |run| device_hash(piece.batch.device(run));
    Append {
        kind: RecordKind::Events,
        hlc: Hlc::default(),
        rows: piece.batch.rows() as u32,
        min_time: times.clone().min().copied().unwrap_or_default(),
        max_time: times.max().copied().unwrap_or_default(),
        devices: piece.batch.runs().iter().map(hash).collect(),
        payload: piece.block.clone(),
    }
}
