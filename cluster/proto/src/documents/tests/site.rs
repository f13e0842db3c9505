//! Machines with documents on them, disks that take their time, and a network that loses messages and falls apart.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use automerge::{Automerge, Change, ChangeHash, sync::Message};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    Now,
    documents::{Documents, Effect, Input, Kind, OPS_MAX, SaveId, Slot, doc::Rows, said::Said, value::Stamped},
};
use millpond_core::ids::Origin;

pub const MS: u64 = 1_000_000;

pub fn origin(node: usize) -> Origin {
    Origin([node as u8 + 1; 16])
}

enum Due {
    Heard { from: usize, to: usize, link: u64, bytes: Vec<u8> },
    Saved { node: usize, life: u64, id: SaveId, rows: Rows, changes: BTreeSet<ChangeHash> },
    Tick { node: usize, life: u64 },
}

pub struct Machine {
    pub life: u64,
    pub docs: Option<Documents>,
    pub disk: BTreeMap<Vec<u8>, Vec<u8>>,
    on_disk: BTreeSet<ChangeHash>,
    disk_free_at: u64,
    /// How far its wall clock is off.
    pub skew_ms: i64,
    pub changed: Vec<(u64, Kind, String)>,
}

pub struct Site {
    pub now: u64,
    pub machines: Vec<Machine>,
    pub rng: StdRng,
    pub loss: f64,
    /// Operations of a document before its next epoch.
    pub ops_max: u64,
    seq: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    due: BTreeMap<u64, Due>,
    /// Pairs that are connected, with the number of their connection.
    links: BTreeMap<(usize, usize), u64>,
    next_link: u64,
    pub bytes_sent: u64,
    /// Own changes that left before they were on disk.
    pub early: u64,
    /// The best value of each key that any machine had on disk.
    ever: BTreeMap<(Slot, String), Stamped>,
}

impl Site {
    pub fn new(seed: u64, count: usize) -> Site {
        let mut rng = StdRng::seed_from_u64(seed);
        let machines = (0..count).map(|_| Machine {
            life: 0,
            docs: None,
            disk: BTreeMap::new(),
            on_disk: BTreeSet::new(),
            disk_free_at: 0,
            skew_ms: rng.random_range(-3_000..3_000),
            changed: Vec::new(),
        });
        let machines = machines.collect();
        let mut site = Site {
            now: 0,
            machines,
            rng,
            loss: 0.0,
            ops_max: OPS_MAX,
            seq: 0,
            heap: BinaryHeap::new(),
            due: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            bytes_sent: 0,
            early: 0,
            ever: BTreeMap::new(),
        };
        (0..count).for_each(|node| site.start(node));
        site.heal();
        site
    }

    pub fn start(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.docs.is_some() {
            return;
        }
        machine.life += 1;
        let life = machine.life;
        let mut docs = Documents::new(origin(node), life, machine.disk.clone());
        docs.ops_max = self.ops_max;
        machine.docs = Some(docs);
        assert_eq!(machine.docs.as_ref().map(|docs| docs.counts().unreadable), Some(0));
        self.plan(1, Due::Tick { node, life });
    }

    /// What was on its way to disk is lost.
    pub fn crash(&mut self, node: usize) {
        self.machines[node].docs = None;
        for other in 0..self.machines.len() {
            self.cut(node, other);
        }
    }

    pub fn lose_disk(&mut self, node: usize) {
        self.crash(node);
        self.machines[node].disk.clear();
        self.machines[node].on_disk.clear();
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))).is_some() {
            self.give(a, Input::PeerDown(origin(b)));
            self.give(b, Input::PeerDown(origin(a)));
        }
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        let pair = (a.min(b), a.max(b));
        let up = |node: usize| self.machines[node].docs.is_some();
        if a == b || !up(a) || !up(b) || self.links.contains_key(&pair) {
            return;
        }
        self.next_link += 1;
        self.links.insert(pair, self.next_link);
        self.give(a, Input::PeerUp(origin(b)));
        self.give(b, Input::PeerUp(origin(a)));
    }

    pub fn heal(&mut self) {
        let count = self.machines.len();
        (0..count).flat_map(|a| (0..a).map(move |b| (a, b))).for_each(|(a, b)| self.connect(a, b));
    }

    pub fn docs(&self, node: usize) -> &Documents {
        self.machines[node].docs.as_ref().expect("it runs")
    }

    /// An edit on a machine that runs.
    pub fn edit<T>(&mut self, node: usize, edit: impl FnOnce(&mut Documents, Now, i64) -> T) -> Option<T> {
        let wall_ms = 1_790_000_000_000 + (self.now / MS) as i64 + self.machines[node].skew_ms;
        let now = Now(self.now);
        self.machines[node].docs.as_mut().map(|docs| edit(docs, now, wall_ms))
    }

    fn plan(&mut self, after: u64, due: Due) {
        self.seq += 1;
        self.heap.push(Reverse((self.now + after, self.seq)));
        self.due.insert(self.seq, due);
    }

    fn give(&mut self, node: usize, input: Input<'_>) {
        let Some(docs) = self.machines[node].docs.as_mut() else { return };
        let mut effects = Vec::new();
        docs.handle(Now(self.now), input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Save { id, rows } => {
                    let docs = self.machines[node].docs.as_ref().expect("it runs");
                    let slot = docs.saves.get(&id).expect("a save of ours").0;
                    let changes = docs.docs[&slot].history.get_changes(&[]).iter().map(Change::hash).collect();
                    let free = self.machines[node].disk_free_at.max(self.now) + self.rng.random_range(MS..30 * MS);
                    self.machines[node].disk_free_at = free;
                    let life = self.machines[node].life;
                    self.plan(free - self.now, Due::Saved { node, life, id, rows, changes });
                }
                Effect::Send { to, bytes } => {
                    self.bytes_sent += bytes.len() as u64;
                    self.early += u64::from(!self.is_durable(node, &bytes));
                    let to = usize::from(to.0[0]) - 1;
                    let Some(link) = self.links.get(&(node.min(to), node.max(to))).copied() else { continue };
                    if !self.rng.random_bool(self.loss) {
                        let travel = self.rng.random_range(MS / 5..8 * MS);
                        self.plan(travel, Due::Heard { from: node, to, link, bytes });
                    }
                }
                Effect::Changed(kind, name) => self.machines[node].changed.push((self.now, kind, name)),
            }
        }
    }

    /// Whether all changes of the sender in a message are on its disk.
    fn is_durable(&self, node: usize, bytes: &[u8]) -> bool {
        let docs = self.machines[node].docs.as_ref().expect("it runs");
        let changes = match Said::decode(bytes).expect("what is sent can be read") {
            Said::Changes { changes, .. } => {
                changes.iter().map(|bytes| Change::from_bytes(bytes.to_vec()).expect("a change")).collect()
            }
            Said::Sync { parts: 1, bytes, .. } => {
                let message = Message::decode(&bytes).expect("a message");
                let mut all = Automerge::new();
                let mut changes = Vec::new();
                for chunk in message.changes.iter() {
                    match Change::from_bytes(chunk.to_vec()) {
                        Ok(change) => changes.push(change),
                        Err(_) => drop(all.load_incremental(chunk)),
                    }
                }
                changes.extend(all.get_changes(&[]));
                changes
            }
            _ => Vec::new(),
        };
        let mut own = changes.iter().filter(|change| *change.actor_id() == docs.actor);
        own.all(|change| self.machines[node].on_disk.contains(&change.hash()))
    }

    pub fn run(&mut self, ms: u64) {
        let until = self.now + ms * MS;
        while let Some(Reverse((at, seq))) = self.heap.peek().copied().filter(|Reverse((at, _))| *at <= until) {
            self.heap.pop();
            self.now = at;
            match self.due.remove(&seq).expect("planned") {
                Due::Heard { from, to, link, bytes } => {
                    if self.links.get(&(from.min(to), from.max(to))) == Some(&link) {
                        self.give(to, Input::Heard { from: origin(from), bytes: &bytes });
                    }
                }
                Due::Saved { node, life, id, rows, changes } => {
                    if self.machines[node].life == life && self.machines[node].docs.is_some() {
                        self.write(node, rows, changes);
                        self.give(node, Input::Saved(id));
                        self.remember(node);
                    }
                }
                Due::Tick { node, life } => {
                    if self.machines[node].life == life && self.machines[node].docs.is_some() {
                        self.give(node, Input::Tick);
                        let next = self.docs(node).next_due().0.clamp(self.now + MS, self.now + 50 * MS);
                        self.plan(next - self.now, Due::Tick { node, life });
                    }
                }
            }
        }
        self.now = until;
    }

    fn write(&mut self, node: usize, rows: Rows, changes: BTreeSet<ChangeHash>) {
        let machine = &mut self.machines[node];
        machine.on_disk.extend(changes);
        for (key, value) in rows {
            match value {
                Some(value) => drop(machine.disk.insert(key, value)),
                None => drop(machine.disk.remove(&key)),
            }
        }
    }

    fn remember(&mut self, node: usize) {
        let docs = self.machines[node].docs.as_ref().expect("it runs");
        for doc in docs.docs.values().filter(|doc| doc.is_durable()) {
            for (key, value) in doc.view.iter().filter(|(key, _)| !doc.pending.contains_key(*key)) {
                let is_life = doc.slot.kind == Kind::Registry && !key.contains('/');
                let best = self.ever.entry((doc.slot, key.clone())).or_insert_with(|| value.clone());
                if value.beats(best, is_life) {
                    *best = value.clone();
                }
            }
        }
    }

    pub fn agrees(&self) -> bool {
        let state = |docs: &Documents| {
            let pending = docs.docs.values().any(|doc| doc.pending_since.is_some() || !doc.is_durable());
            (pending, docs.sum(), Kind::ALL.map(|kind| docs.head(kind)))
        };
        let mut states = self.machines.iter().filter_map(|machine| machine.docs.as_ref()).map(state);
        let first = states.next().expect("somebody runs");
        !first.0 && states.all(|state| state == first)
    }

    /// Everybody runs and is connected; milliseconds until all say the same. None when that takes too long.
    pub fn settles_within(&mut self, ms: u64) -> Option<u64> {
        let start = self.now;
        self.loss = 0.0;
        (0..self.machines.len()).for_each(|node| self.start(node));
        self.heal();
        while !self.agrees() {
            if self.now - start > ms * MS {
                return None;
            }
            self.run(50);
        }
        Some((self.now - start) / MS)
    }

    /// Keys of which a value that was on somebody's disk is not what holds now, though nothing beat it.
    pub fn lost(&self) -> Vec<String> {
        let docs = self.docs(0);
        let is_lost = |slot: &Slot, key: &String, best: &Stamped| {
            let Some(doc) = docs.docs.get(slot) else { return true };
            let is_life = slot.kind == Kind::Registry && !key.contains('/');
            !docs.is_gone(doc, key)
                && doc.view.get(key).is_none_or(|value| best.beats(value, is_life) && best.says() != value.says())
        };
        let lost = self.ever.iter().filter(|((slot, key), best)| is_lost(slot, key, best));
        lost.map(|((slot, key), _)| format!("{slot} {key}")).collect()
    }
}
