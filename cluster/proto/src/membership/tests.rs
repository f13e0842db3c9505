use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const MS: u64 = 1_000_000;

fn origin(node: usize) -> Origin {
    Origin([node as u8 + 1; 16])
}

fn member(node: usize, boot: u64) -> Member {
    let addr = SocketAddr::from(([10, 0, 0, node as u8 + 1], 7_400));
    Member::new(origin(node), addr, boot, &format!("box-{node}"))
}

enum Due {
    Datagram { from: usize, to: usize, bytes: Vec<u8> },
    Timer { node: usize, boot: u64, token: TimerToken },
    Tick { node: usize, boot: u64 },
}

/// Machines with a lossy network between them.
struct Site {
    now: u64,
    seq: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    due: BTreeMap<u64, Due>,
    nodes: Vec<Option<Membership<StdRng>>>,
    boots: Vec<u64>,
    loss: f64,
    cut: BTreeSet<(usize, usize)>,
    rng: StdRng,
    sent: u64,
    /// (when, who saw it, whom, what)
    log: Vec<(u64, usize, Origin, &'static str)>,
}

impl Site {
    fn new(seed: u64, count: usize) -> Site {
        let mut site = Site {
            now: 0,
            seq: 0,
            heap: BinaryHeap::new(),
            due: BTreeMap::new(),
            nodes: (0..count).map(|_| None).collect(),
            boots: vec![0; count],
            loss: 0.0,
            cut: BTreeSet::new(),
            rng: StdRng::seed_from_u64(seed),
            sent: 0,
            log: Vec::new(),
        };
        (0..count).for_each(|node| site.start(node));
        site
    }

    fn start(&mut self, node: usize) {
        self.boots[node] += 1;
        let boot = self.boots[node];
        let rng = StdRng::seed_from_u64(self.rng.random());
        self.nodes[node] = Some(Membership::new(member(node, boot), rng, Config::default()));
        for other in [0, 1].into_iter().filter(|other| *other != node) {
            self.give(node, Input::Join { origin: origin(other), addr: member(other, 0).addr });
        }
        let first = self.rng.random_range(0..400 * MS);
        self.plan(first, Due::Tick { node, boot });
    }

    fn plan(&mut self, after: u64, due: Due) {
        self.seq += 1;
        self.heap.push(Reverse((self.now + after, self.seq)));
        self.due.insert(self.seq, due);
    }

    fn give(&mut self, node: usize, input: Input<'_>) {
        let Some(machine) = self.nodes[node].as_mut() else { return };
        let mut effects = Vec::new();
        machine.handle(Now(self.now), input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, bytes } => {
                    assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
                    self.sent += bytes.len() as u64;
                    let to = usize::from(to.origin.0[0]) - 1;
                    if self.cut.contains(&(node, to)) || self.rng.random_bool(self.loss) {
                        continue;
                    }
                    let travel = self.rng.random_range(MS / 5..8 * MS);
                    self.plan(travel, Due::Datagram { from: node, to, bytes });
                }
                Effect::Timer { after, token } => {
                    self.plan(after.0 as u64, Due::Timer { node, boot: self.boots[node], token });
                }
                Effect::Up(who) => self.log.push((self.now, node, who.origin, "up")),
                Effect::Suspected(who) => self.log.push((self.now, node, who.origin, "suspected")),
                Effect::Down(who) => self.log.push((self.now, node, who.origin, "down")),
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let until = self.now + ms * MS;
        while let Some(Reverse((at, seq))) = self.heap.peek().copied().filter(|Reverse((at, _))| *at <= until) {
            self.heap.pop();
            self.now = at;
            match self.due.remove(&seq).expect("planned") {
                Due::Datagram { from, to, bytes } => {
                    self.give(to, Input::Datagram { from: origin(from), bytes: &bytes });
                }
                Due::Timer { node, boot, token } if boot == self.boots[node] => self.give(node, Input::Timer(token)),
                Due::Tick { node, boot } if boot == self.boots[node] => {
                    self.give(node, Input::Tick);
                    self.plan(400 * MS, Due::Tick { node, boot });
                }
                Due::Timer { .. } | Due::Tick { .. } => {}
            }
        }
        self.now = until;
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    fn split(&mut self, at: usize) {
        for a in 0..at {
            for b in at..self.nodes.len() {
                self.cut.extend([(a, b), (b, a)]);
            }
        }
    }

    /// Whether every machine that runs sees all of those that run up, and the others not.
    fn agrees(&self) -> bool {
        self.nodes.iter().enumerate().all(|(me, machine)| {
            machine.as_ref().is_none_or(|machine| {
                (0..self.nodes.len()).filter(|other| *other != me).all(|other| {
                    let up = machine.told.get(&origin(other));
                    match &self.nodes[other] {
                        Some(_) => {
                            up.is_some_and(|told| told.health == Health::Up && told.member.boot == self.boots[other])
                        }
                        None => up.is_none_or(|told| told.health == Health::Down),
                    }
                })
            })
        })
    }

    /// Milliseconds until all agree.
    fn settles_within(&mut self, ms: u64) -> u64 {
        let start = self.now;
        while !self.agrees() {
            assert!(self.now - start < ms * MS, "not settled after {ms} ms");
            self.run(20);
        }
        (self.now - start) / MS
    }

    /// When the last machine saw this of `whom`, in milliseconds since `since`.
    fn last(&self, since: u64, whom: usize, what: &str) -> u64 {
        let of = |(at, _, who, how): &&(u64, usize, Origin, &str)| *at >= since && *who == origin(whom) && *how == what;
        self.log.iter().filter(of).map(|entry| (entry.0 - since) / MS).max().expect("it was seen")
    }
}

const SIZES: [usize; 3] = [3, 10, 50];

#[test]
fn machines_find_each_other_from_two_addresses() {
    for count in SIZES {
        Site::new(1, count).settles_within(3_000);
    }
}

#[test]
fn a_dead_node_is_suspected_soon_and_then_down() {
    for count in SIZES {
        for seed in 0..12 {
            let mut site = Site::new(seed, count);
            site.settles_within(3_000);
            site.run(5_000 + seed * 37);
            let start = site.now;
            site.crash(count - 1);
            site.settles_within(3_000);
            assert!(site.last(start, count - 1, "suspected") <= 1_250, "{count} machines, seed {seed}");
            assert!(site.last(start, count - 1, "down") <= 2_150, "{count} machines, seed {seed}");
        }
    }
}

#[test]
fn halves_find_each_other_soon_after_any_partition() {
    for count in SIZES {
        for (seed, apart_ms) in [(1, 2_500), (2, 10_000), (3, 120_000), (4, 600_000)] {
            let mut site = Site::new(seed, count);
            site.settles_within(3_000);
            site.split(if seed % 2 == 0 { 1 } else { count / 2 });
            site.run(if count == 50 { apart_ms / 10 + 2_500 } else { apart_ms });
            assert!(!site.agrees(), "the partition was seen");
            site.cut.clear();
            site.settles_within(2_000);
        }
    }
}

#[test]
fn two_machines_that_are_all_there_is_find_each_other_again() {
    let mut site = Site::new(5, 2);
    site.settles_within(1_000);
    site.split(1);
    site.run(60_000);
    assert!(!site.agrees());
    site.cut.clear();
    site.settles_within(2_000);
}

#[test]
fn a_node_that_starts_again_is_known_by_its_new_boot() {
    for count in SIZES {
        let mut site = Site::new(6, count);
        site.settles_within(3_000);
        for pause_ms in [50, 700, 5_000] {
            site.crash(2);
            site.run(pause_ms);
            let start = site.now;
            site.start(2);
            site.settles_within(2_000);
            assert!(site.last(start, 2, "up") <= 2_000);
        }
    }
}

#[test]
fn loss_makes_nobody_down() {
    for count in [3, 10] {
        let mut site = Site::new(7, count);
        site.settles_within(3_000);
        site.loss = 0.05;
        let start = site.now;
        site.run(120_000);
        let wrong = site.log.iter().filter(|(at, _, _, what)| *at > start && *what == "down").count();
        assert!(wrong <= 1, "{wrong} of {count} machines were given up within two minutes");
        site.loss = 0.0;
        site.settles_within(2_000);
    }
}

#[test]
fn idle_gossip_stays_small() {
    for count in SIZES {
        let mut site = Site::new(8, count);
        site.settles_within(3_000);
        site.run(30_000);
        let before = site.sent;
        site.run(10_000);
        let pairs = (count * (count - 1) / 2) as u64;
        assert!(
            (site.sent - before) / 10 / pairs <= 1_000,
            "{} B/s per pair of {count}",
            (site.sent - before) / 10 / pairs
        );
    }
}

#[test]
fn who_leaves_in_good_order_is_down_at_once() {
    let mut site = Site::new(9, 5);
    site.settles_within(3_000);
    let start = site.now;
    site.give(3, Input::LeftInGoodOrder);
    site.crash(3);
    site.give(0, Input::Left(origin(3)));
    site.settles_within(600);
    assert!(site.log.iter().all(|(at, _, who, what)| *at < start || *who != origin(3) || *what != "suspected"));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut site = Site::new(10, 10);
        site.loss = 0.1;
        site.run(3_000);
        site.split(4);
        site.run(5_000);
        site.cut.clear();
        site.crash(7);
        site.run(5_000);
        (site.log, site.sent)
    };
    assert_eq!(run(), run());
}

#[test]
fn nobody_speaks_for_another() {
    let (mut a, mut effects) = (Membership::new(member(0, 1), StdRng::seed_from_u64(0), Config::default()), Vec::new());
    let mut b = Membership::new(member(1, 1), StdRng::seed_from_u64(1), Config::default());
    b.handle(Now(0), Input::Join { origin: origin(0), addr: member(0, 1).addr }, &mut effects);
    let Some(Effect::Send { bytes, .. }) = effects.pop() else { panic!("an announcement") };
    a.handle(Now(0), Input::Datagram { from: origin(2), bytes: &bytes }, &mut effects);
    assert_eq!((a.counts().forged, effects.len(), a.members().count()), (1, 0, 0));
    a.handle(Now(0), Input::Datagram { from: origin(1), bytes: &bytes }, &mut effects);
    assert_eq!(a.health(origin(1)), Some(Health::Up));
}

#[test]
fn a_name_that_is_too_long_is_cut_between_letters() {
    let name = "ä".repeat(40);
    assert_eq!(Member::new(origin(0), member(0, 0).addr, 1, &name).name, "ä".repeat(16));
}

/// Datagrams of every kind, as a site sends them.
fn real_datagrams() -> Vec<Vec<u8>> {
    let mut site = Site::new(11, 4);
    site.run(1_000);
    site.crash(3);
    site.loss = 0.2;
    let mut all = Vec::new();
    for _ in 0..600 {
        site.run(10);
        all.extend(site.due.values().filter_map(|due| match due {
            Due::Datagram { bytes, .. } => Some(bytes.clone()),
            _ => None,
        }));
    }
    all.sort();
    all.dedup();
    all
}

#[test]
fn every_datagram_is_read_back_to_the_same_bytes() {
    use foca::Codec;
    let all = real_datagrams();
    assert!(all.len() > 50, "{}", all.len());
    for bytes in all {
        let envelope = codec::open(&bytes).expect("sound");
        let mut out = Vec::new();
        codec::Layout.encode_header(&envelope.header, &mut out).expect("room");
        if bytes.len() > out.len() {
            out.extend((envelope.updates.len() as u16).to_be_bytes());
        }
        for update in &envelope.updates {
            codec::Layout.encode_member(update, &mut out).expect("room");
        }
        assert_eq!(out, bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn malformed_datagrams_are_counted_and_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..1_300)) {
        let mut machine = Membership::new(member(0, 1), StdRng::seed_from_u64(0), Config::default());
        let mut effects = Vec::new();
        machine.handle(Now(0), Input::Datagram { from: origin(1), bytes: &bytes }, &mut effects);
        prop_assert!(effects.is_empty() && machine.members().count() == 0);
        prop_assert_eq!(machine.counts().malformed + machine.counts().forged, 1);
    }

    #[test]
    fn damaged_datagrams_never_panic_and_cut_ones_change_nothing(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let all = real_datagrams();
        let sound = pick.get(&all);
        let mut machine = Membership::new(member(0, 1), StdRng::seed_from_u64(0), Config::default());
        let mut effects = Vec::new();
        let cut = &sound[..at.index(sound.len())];
        let from = codec::open(sound).expect("sound").header.src.origin;
        if codec::open(cut).is_none() {
            machine.handle(Now(0), Input::Datagram { from, bytes: cut }, &mut effects);
            prop_assert!(effects.is_empty() && machine.members().count() == 0);
        }
        let mut damaged = sound.clone();
        let place = at.index(damaged.len());
        damaged[place] ^= flip;
        machine.handle(Now(0), Input::Datagram { from, bytes: &damaged }, &mut effects);
    }
}
