//! A device that comes from another node of the site.
//!
//! Events that a node stored but whose acknowledgement got lost are sent again, and perhaps to another node: the device may have gone
//! there because the first one died. So before a node takes events of a device that was at home elsewhere, it asks what is known of it there
//! (or, when that node is gone, whoever holds its records), and only then lets the events in. In the meantime they wait, and with them
//! what the same devices send after them; others pass.
//!
//! Which devices are at home here is said to all by a record of kind [`Homes`](millpond_core::record::RecordKind::Homes) before the first
//! of their events. The journal keeps the order, so that nobody can know of an event without knowing of the home.
//!
//! Invariants
//! 1. Submissions with a common device are handed over in the order in which they came.
//! 2. What is learnt of a device is in the journal's state before an event of it is.
//!
//! A node that cannot be asked for [`PATIENCE`] is not waited for: the events are taken, and counted as unverified. Then one that is
//! sent again may be there twice. So what waits whose sender has gone meanwhile, and will send it again, is left to where that one went:
//! it was not acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use millpond_core::{
    admission::Known,
    ids::device_hash,
    map::{FixedMap, FixedSet},
    record::{self, Class, Hlc, Home, RecordKind},
    time::{Span, Timestamp},
};
use millpond_env::Env;
use millpond_gateway::port::Submission;
use millpond_store::{Append, Put, ReadError, Reader, Table};
use ractor::ActorRef;

use crate::{
    front::Front,
    journal::{JournalMsg, Unit, Work},
    shard::ShardMsg,
    site::{Arrived, Site},
};

/// How long a device's events wait for what other nodes know of it.
pub const PATIENCE: Span = Span::from_secs(5);
/// For what is known by then to be said.
const GRACE: Span = Span::from_secs(1);
/// Said of a device when nobody could be asked: it has moved at least once.
const UNKNOWN_MOVES: u64 = 2;
const PLANE_POLL: Span = Span::from_millis(20);
/// Rows of [`Table::Meta`] with what was learnt of a device: this prefix, its name, and from the second row on a zero and a number.
const LEARNT_PREFIX: &[u8] = b"learnt/";

/// Keeps the devices that are at home here.
#[derive(Debug)]
pub struct Handover {
    state: Mutex<State>,
    journal: ActorRef<JournalMsg>,
}

#[derive(Debug, Default)]
struct State {
    /// Hashes of the devices that are at home here.
    ours: FixedSet<u64>,
    /// Devices that are being asked for.
    asking: BTreeSet<String>,
    waiting: VecDeque<Submission>,
    /// Hashes of the devices in what waits: how often.
    held: FixedMap<u64, u32>,
}

/// What becomes of a submission.
enum Way {
    /// All its devices are at home here.
    Open(Submission),
    /// It waits; these devices are to be asked for.
    Ask(Vec<String>),
}

impl Handover {
    /// At first no device is at home here: each may have been elsewhere since.
    pub fn new(journal: ActorRef<JournalMsg>) -> Handover {
        Handover { state: Mutex::default(), journal }
    }

    /// Hands a submission on, now or later.
    pub fn submit(self: &Arc<Self>, env: &Env, site: &Arc<Site>, front: &Arc<Front>, submission: Submission) {
        match self.lock().admit(submission) {
            Way::Open(submission) => front.submit(submission),
            Way::Ask(devices) if devices.is_empty() => {}
            Way::Ask(devices) => {
                let (this, env, site, front) = (self.clone(), env.clone(), site.clone(), front.clone());
                env.clone().spawn(async move { this.ask(&env, &site, &front, devices).await });
            }
        }
    }

    /// Another node has the device from now on.
    pub fn release<'a>(&self, devices: impl Iterator<Item = &'a str>) {
        let mut state = self.lock();
        devices.for_each(|device| {
            state.ours.remove(&device_hash(device));
        });
    }

    async fn ask(&self, env: &Env, site: &Site, front: &Front, devices: Vec<String>) {
        let moves = |moves: u64| devices.iter().map(|device| Home { device: device.clone(), moves }).collect();
        let arrived = match site.others() {
            Some(others) => {
                env.timeout(PATIENCE + GRACE, others.arrive(&devices, PATIENCE)).await.unwrap_or_else(|_| Arrived {
                    homes: moves(UNKNOWN_MOVES),
                    unverified: devices.len(),
                    ..Arrived::default()
                })
            }
            None => Arrived { homes: moves(1), ..Arrived::default() },
        };
        let Arrived { known, homes, unverified } = arrived;
        if unverified > 0 {
            tracing::warn!(devices = unverified, "what others know of devices could not be learnt in time");
            site.unverified(unverified);
        }
        // In one unit, and before any event of them: the journal takes units in the order in which they come.
        let mut by_device: BTreeMap<&str, Vec<&Known>> = BTreeMap::new();
        for known in &known {
            let all = by_device.entry(&known.device).or_default();
            if !all.contains(&known) {
                all.push(known);
            }
        }
        let rows = by_device.values().flat_map(|all| all.iter().enumerate());
        let puts = rows.map(|(number, known)| learnt_put(known, number as u16)).collect();
        let work = Work { records: vec![homes_record(&homes)], puts, ..Work::default() };
        let _ = self.journal.cast(JournalMsg::Append(Unit::other(Class::State, work)));
        let received = env.wall();
        // While the data plane is being rebuilt nobody could take it in.
        while front.plane().is_none() && !front.is_closed() && !known.is_empty() {
            env.sleep(PLANE_POLL).await;
        }
        if let Some(plane) = front.plane() {
            for known in known {
                let shard = crate::front::shard_of(&known.device, plane.shards.len());
                let learn = ShardMsg::Ask(Box::new(move |core| core.gate.learn(&known, received)));
                let _ = plane.shards[shard].cast(learn);
            }
        }
        self.lock().settle(&devices, |submission| front.submit(submission));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admit(&mut self, submission: Submission) -> Way {
        let (mut unknown, mut is_held): (BTreeSet<&str>, bool) = (BTreeSet::new(), false);
        for device in devices(&submission) {
            let hash = device_hash(device);
            is_held |= !self.held.is_empty() && self.held.contains_key(&hash);
            if !self.ours.contains(&hash) {
                unknown.insert(device);
            }
        }
        if unknown.is_empty() && !is_held {
            return Way::Open(submission);
        }
        let new: Vec<String> =
            unknown.into_iter().filter(|device| !self.asking.contains(*device)).map(str::to_owned).collect();
        self.asking.extend(new.iter().cloned());
        self.hold(submission);
        Way::Ask(new)
    }

    fn hold(&mut self, submission: Submission) {
        for device in devices(&submission) {
            *self.held.entry(device_hash(device)).or_default() += 1;
        }
        self.waiting.push_back(submission);
    }

    /// The devices are ours; `go` takes what waited for nothing else.
    fn settle(&mut self, done: &[String], mut go: impl FnMut(Submission)) {
        for device in done {
            self.asking.remove(device);
            self.ours.insert(device_hash(device));
        }
        self.held.clear();
        for submission in std::mem::take(&mut self.waiting) {
            if submission.comes_again() {
                tracing::debug!(door = submission.source.door, "who sent events has gone before they could be taken");
                continue;
            }
            // What comes behind one that waits, with one of its devices, must not overtake it (invariant 1).
            let waits = |device: &str| self.asking.contains(device) || self.held.contains_key(&device_hash(device));
            if devices(&submission).any(waits) {
                self.hold(submission);
            } else {
                go(submission);
            }
        }
    }
}

fn devices(submission: &Submission) -> impl Iterator<Item = &str> {
    submission.batches.iter().flat_map(|inbound| inbound.batch.runs().iter().map(|run| inbound.batch.device(run)))
}

/// The row of what was learnt of a device. Several nodes may know something of one: each that is new to it has a number of its own.
fn learnt_put(known: &Known, number: u16) -> Put {
    let suffix = if number == 0 { Vec::new() } else { [&[0], &number.to_be_bytes()[..]].concat() };
    let key = [LEARNT_PREFIX, known.device.as_bytes(), &suffix].concat();
    Put { table: Table::Meta, key, value: Some(record::encode(known).into()) }
}

/// What was learnt of devices in earlier lives.
pub fn learnt(reader: &Reader) -> Result<Vec<Known>, ReadError> {
    let mut all = Vec::new();
    reader.range(Table::Meta, LEARNT_PREFIX, |key, value: Bytes| {
        if !key.starts_with(LEARNT_PREFIX) {
            return std::ops::ControlFlow::Break(());
        }
        all.extend(record::decode::<Known>(&value).ok());
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(all)
}

fn homes_record(homes: &[Home]) -> Append {
    Append {
        kind: RecordKind::Homes,
        hlc: Hlc::default(),
        rows: 0,
        min_time: Timestamp::MAX,
        max_time: Timestamp::MIN,
        devices: Vec::new(),
        payload: record::encode(&homes).into(),
    }
}

#[cfg(test)]
mod tests {
    use millpond_core::{batch::BatchBuilder, value::Value};
    use millpond_gateway::port::{Inbound, Line, Receipt, Source};
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn what_two_nodes_know_of_a_device_has_two_rows() {
        let known = |seq| Known { device: "press-1".into(), seen: vec![(1, seq)], ..Known::default() };
        let keys = [learnt_put(&known(1), 0).key, learnt_put(&known(2), 1).key, learnt_put(&known(3), 2).key];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 3);
        assert!(keys.iter().all(|key| key.starts_with(b"learnt/press-1")));
    }

    fn submission(device: &str, line: Option<&Line>) -> (Submission, oneshot::Receiver<Receipt>) {
        let mut rows = BatchBuilder::default();
        rows.begin(device);
        rows.cell("v", Value::F64(1.0));
        rows.end();
        let (receipt, told) = oneshot::channel();
        let submission = Submission {
            batches: rows.finish().into_iter().map(|batch| Inbound { batch, block: None }).collect(),
            dead_letters: Vec::new(),
            source: Source { login: device.into(), door: "test" },
            received: Timestamp::MIN,
            credit: None,
            receipt,
            keeper: line.map(Line::keeper),
        };
        (submission, told)
    }

    /// Who sent what is handed on when the devices have arrived.
    fn handed_on(state: &mut State, devices: &[&str]) -> Vec<String> {
        let devices: Vec<String> = devices.iter().map(|device| (*device).to_owned()).collect();
        let mut all = Vec::new();
        state.settle(&devices, |submission| all.push(submission.source.login.to_string()));
        all
    }

    #[test]
    fn what_waited_is_left_to_its_sender_when_that_one_has_gone_and_keeps_it() {
        let (stays, goes, mut state) = (Line::default(), Line::default(), State::default());
        let (lines, mut told) = ([("stays", Some(&stays)), ("goes", Some(&goes)), ("keeps-nothing", None)], Vec::new());
        for (device, line) in lines {
            let (submission, receipt) = submission(device, line);
            assert!(matches!(state.admit(submission), Way::Ask(devices) if devices == [device]));
            told.push(receipt);
        }
        drop(goes);
        assert_eq!(handed_on(&mut state, &["stays", "goes", "keeps-nothing"]), ["stays", "keeps-nothing"]);
        assert!(told[1].try_recv().is_err(), "it is not acknowledged");
    }

    #[test]
    fn submissions_with_a_common_device_keep_their_order() {
        let mut state = State::default();
        for _ in 0..2 {
            let (submission, _) = submission("a", None);
            assert!(matches!(state.admit(submission), Way::Ask(_)));
        }
        let (submission, _) = submission("b", None);
        assert!(matches!(state.admit(submission), Way::Ask(devices) if devices == ["b"]));
        assert_eq!(handed_on(&mut state, &["a"]), ["a", "a"]);
        assert_eq!(handed_on(&mut state, &["b"]), ["b"]);
    }
}
