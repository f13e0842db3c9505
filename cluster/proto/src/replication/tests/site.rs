//! A pretend site: nodes with disks in memory, links that lose, reorder and part, and what must be true of it all.

use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    ranges::RangeSet,
    record::Track,
};

use crate::{
    replication::*,
    wire::{Held, Stored},
};

mod checks;

pub const REPLICAS: usize = 2;
const FOREVER: u64 = 120_000;

pub fn node(number: usize) -> Origin {
    Origin([number as u8 + 1; 16])
}

/// What a record says; whoever makes one up does not know it.
fn content(life: Life, seq: u64) -> u64 {
    seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(life.incarnation.0) << 40 ^ u64::from(life.origin.0[0]) << 50
}

#[derive(Clone, Debug, Default)]
struct DiskCopy {
    covered: [RangeSet; 2],
    floors: [u64; 2],
    records: BTreeMap<u64, (Track, u64)>,
}

#[derive(Debug, Default)]
struct Node {
    incarnation: u32,
    /// The own journal: the track of each record.
    journal: Vec<Track>,
    copies: BTreeMap<Life, DiskCopy>,
    machine: Option<Replication>,
    boot: u64,
    down_since: u64,
    fetches: BTreeMap<FetchId, (Origin, RunKey)>,
    /// The head at the start, and what was confirmed since.
    since: u64,
    confirmed: u64,
}

type Records = Vec<(u64, u64)>;

#[derive(Clone, Debug)]
enum Message {
    Held(Vec<Held>),
    Live(RunKey, Records),
    Stored(Vec<Stored>),
    Ask(FetchId, RunKey),
    Answer(FetchId, Vec<(RunKey, Records)>, FetchEnd),
}

#[derive(Clone, Debug)]
enum Event {
    Deliver { from: usize, to: usize, link: u64, message: Message },
    Persist { at: usize, boot: u64, run: RunKey, records: Records },
    Up { a: usize, b: usize, link: u64 },
    Down { at: usize, boot: u64, peer: usize },
    Members,
    Tick,
}

/// What a test does to the site.
#[derive(Clone, Debug)]
pub enum Step {
    Write {
        at: usize,
        records: Vec<bool>,
    },
    Wait {
        ms: u64,
    },
    Cut {
        a: usize,
        b: usize,
    },
    Mend {
        a: usize,
        b: usize,
    },
    Crash {
        at: usize,
    },
    Start {
        at: usize,
    },
    /// Its disk is replaced while it is down.
    Wipe {
        at: usize,
    },
    /// Retention gives up the older half of a copy.
    Drop {
        at: usize,
        of: usize,
        track: Track,
    },
    /// Says that it has live records of somebody else.
    Forge {
        at: usize,
        of: usize,
        to: usize,
    },
}

#[derive(Debug)]
pub struct Site {
    nodes: Vec<Node>,
    /// Number of the link between two nodes while it is up.
    links: BTreeMap<(usize, usize), u64>,
    cuts: BTreeSet<(usize, usize)>,
    /// When a link went down: both ends know before it comes up again.
    parted: BTreeMap<(usize, usize), u64>,
    events: BTreeMap<(u64, u64), Event>,
    written: BTreeMap<Life, Vec<Track>>,
    now_ms: u64,
    counter: u64,
    dice: u64,
    calm: bool,
    pub seen: Seen,
}

/// What happened at all: a run in which nothing did proves nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub fetches: u64,
    pub kept_live: u64,
    pub confirmed: u64,
    pub ignored: u64,
}

type Verdict = Result<(), String>;

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Site {
    pub fn new(nodes: usize, dice: u64) -> Site {
        let mut site = Site {
            nodes: (0..nodes).map(|_| Node { incarnation: 1, ..Node::default() }).collect(),
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            parted: BTreeMap::new(),
            events: BTreeMap::new(),
            written: BTreeMap::new(),
            now_ms: 0,
            counter: 0,
            dice,
            calm: false,
            seen: Seen::default(),
        };
        (0..nodes).for_each(|at| site.start(at));
        site.after(100, Event::Tick);
        site
    }

    pub fn take(&mut self, step: &Step) -> Verdict {
        let n = self.nodes.len();
        match step.clone() {
            Step::Write { at, records } => self.write(at % n, &records),
            Step::Wait { ms } => self.run_for(ms),
            Step::Cut { a, b } if a % n != b % n => {
                self.cuts.insert(pair(a % n, b % n));
                self.part(a % n, b % n);
                Ok(())
            }
            Step::Mend { a, b } => {
                self.cuts.remove(&pair(a % n, b % n));
                self.join();
                Ok(())
            }
            Step::Crash { at } => {
                self.crash(at % n);
                Ok(())
            }
            Step::Start { at } => {
                self.start(at % n);
                Ok(())
            }
            Step::Wipe { at } => {
                let node = &mut self.nodes[at % n];
                // The others have noticed by then: of a disk that is lost unnoticed nobody can know.
                if node.machine.is_none() && self.now_ms > node.down_since + 1000 {
                    *node = Node { incarnation: node.incarnation + 1, boot: node.boot, ..Node::default() };
                }
                Ok(())
            }
            Step::Drop { at, of, track } => self.give_up(at % n, of % n, track),
            Step::Forge { at, of, to } => {
                let (at, of, to) = (at % n, of % n, to % n);
                let first = self.nodes[of].journal.len() as u64 + 1;
                let run =
                    RunKey { life: self.life(of), track: Track::Results, first: Seq(first), last: Seq(first + 1) };
                if at != of && of != to && at != to && self.nodes[at].machine.is_some() {
                    self.send(at, to, Message::Live(run, vec![(first, 666)]));
                }
                Ok(())
            }
            Step::Cut { .. } => Ok(()),
        }
    }

    /// Mends all links, loses nothing more, waits, and checks that everybody has what they should.
    pub fn settle(&mut self) -> Verdict {
        self.calm = true;
        self.cuts.clear();
        self.join();
        self.after(10, Event::Members);
        self.run_for(FOREVER)?;
        self.check_converged()
    }

    fn life(&self, at: usize) -> Life {
        Life { origin: node(at), incarnation: Incarnation(self.nodes[at].incarnation) }
    }

    fn dice(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.dice ^ (self.dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % below
    }

    fn mishap(&mut self, percent: u64) -> bool {
        !self.calm && self.dice(100) < percent
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.counter += 1;
        self.events.insert((self.now_ms + ms, self.counter), event);
    }

    fn run_for(&mut self, ms: u64) -> Verdict {
        let end = self.now_ms + ms;
        while let Some(((at, _), _)) = self.events.first_key_value()
            && *at <= end
        {
            let Some(((at, _), event)) = self.events.pop_first() else { break };
            self.now_ms = at;
            self.happen(event)?;
        }
        self.now_ms = end;
        Ok(())
    }

    fn start(&mut self, at: usize) {
        if self.nodes[at].machine.is_some() {
            return;
        }
        let me = self.life(at);
        let node = &mut self.nodes[at];
        node.boot += 1;
        let copies = node.copies.iter().flat_map(|(life, copy)| {
            Track::ALL.map(|track| Copied {
                life: *life,
                track,
                covered: copy.covered[track as usize].clone(),
                floor: Seq(copy.floors[track as usize]),
            })
        });
        let (head, last) = ends(&node.journal);
        (node.since, node.confirmed) = (head.0, head.0);
        node.machine = Some(Replication::new(Settings { me, replicas: REPLICAS }, head, last, copies));
        self.join();
        self.after(300, Event::Members);
    }

    fn crash(&mut self, at: usize) {
        if self.nodes[at].machine.take().is_some() {
            self.nodes[at].boot += 1;
            self.nodes[at].down_since = self.now_ms;
            self.nodes[at].fetches.clear();
            (0..self.nodes.len()).for_each(|peer| self.part(at, peer));
            self.after(300, Event::Members);
        }
    }

    fn part(&mut self, a: usize, b: usize) {
        if self.links.remove(&pair(a, b)).is_some() {
            self.parted.insert(pair(a, b), self.now_ms);
            for (at, peer) in [(a, b), (b, a)] {
                let (boot, delay) = (self.nodes[at].boot, self.dice(300));
                self.after(delay, Event::Down { at, boot, peer });
            }
        }
        self.after(300, Event::Members);
    }

    /// Brings up what links can be.
    fn join(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                self.counter += 1;
                let link = self.counter;
                self.after(500, Event::Up { a, b, link });
            }
        }
        self.after(600, Event::Members);
    }

    fn is_joined(&self, a: usize, b: usize) -> bool {
        self.nodes[a].machine.is_some() && self.nodes[b].machine.is_some() && !self.cuts.contains(&pair(a, b))
    }

    fn write(&mut self, at: usize, records: &[bool]) -> Verdict {
        if self.nodes[at].machine.is_none() {
            return Ok(());
        }
        let life = self.life(at);
        let tracks = records.iter().map(|raw| if *raw { Track::Raw } else { Track::Results });
        self.nodes[at].journal.extend(tracks);
        self.written.insert(life, self.nodes[at].journal.clone());
        let (head, last) = ends(&self.nodes[at].journal);
        self.tell(at, Input::Committed { head, last })
    }

    fn give_up(&mut self, at: usize, of: usize, track: Track) -> Verdict {
        let life = self.life(of);
        let Some(copy) = self.nodes[at].copies.get_mut(&life) else { return Ok(()) };
        let floor = copy.covered[track as usize].last() / 2;
        if floor <= copy.floors[track as usize] {
            return Ok(());
        }
        copy.floors[track as usize] = floor;
        copy.records.retain(|seq, (of, _)| *of != track || *seq > floor);
        self.tell(at, Input::Dropped { life, track, floor: Seq(floor) })
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let Some(link) = self.links.get(&pair(from, to)).copied() else { return };
        let delay = 1 + self.dice(50);
        if self.mishap(8) {
            // What was asked and is not answered is noticed.
            let failed = match message {
                Message::Ask(id, _) => Some((to, from, id)),
                Message::Answer(id, ..) => Some((from, to, id)),
                _ => None,
            };
            if let Some((from, to, id)) = failed {
                let message = Message::Answer(id, Vec::new(), FetchEnd::Failed);
                self.after(1000, Event::Deliver { from, to, link, message });
            }
            return;
        }
        self.after(delay, Event::Deliver { from, to, link, message });
    }

    fn happen(&mut self, event: Event) -> Verdict {
        match event {
            Event::Deliver { from, to, link, message } => {
                if self.links.get(&pair(from, to)) == Some(&link) {
                    self.deliver(from, to, message)?;
                }
            }
            Event::Persist { at, boot, run, records } if self.nodes[at].boot == boot => {
                if self.mishap(3) {
                    return self.tell(at, Input::NotPersisted(run));
                }
                self.store(at, run, records)?;
                self.tell(at, Input::Persisted(run))?;
            }
            Event::Up { a, b, link } if self.parted.get(&(a, b)).is_some_and(|at| at + 300 >= self.now_ms) => {
                self.after(500, Event::Up { a, b, link });
            }
            Event::Up { a, b, link } if self.is_joined(a, b) && !self.links.contains_key(&(a, b)) => {
                self.links.insert((a, b), link);
                self.tell(a, Input::PeerUp(node(b)))?;
                self.tell(b, Input::PeerUp(node(a)))?;
            }
            Event::Down { at, boot, peer } if self.nodes[at].boot == boot => {
                self.nodes[at].fetches.retain(|_, (from, _)| *from != node(peer));
                self.tell(at, Input::PeerDown(node(peer)))?;
            }
            Event::Members => {
                for at in 0..self.nodes.len() {
                    let alive = (0..self.nodes.len()).filter(|other| self.is_joined(at, *other) || *other == at);
                    let alive = alive.map(node).collect();
                    self.tell(at, Input::Members(alive))?;
                }
            }
            Event::Tick => {
                self.after(100, Event::Tick);
                for at in 0..self.nodes.len() {
                    self.tell(at, Input::Tick)?;
                }
            }
            Event::Persist { .. } | Event::Up { .. } | Event::Down { .. } => {}
        }
        Ok(())
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) -> Verdict {
        match message {
            Message::Held(held) => self.tell(to, Input::Heard { from: node(from), held }),
            Message::Stored(stored) => self.tell(to, Input::PeerStored { from: node(from), stored }),
            Message::Live(run, records) => self.arrive(from, to, run, records, true),
            Message::Ask(id, run) => {
                let (runs, how) = self.answer(to, run);
                self.send(to, from, Message::Answer(id, runs, how));
                Ok(())
            }
            Message::Answer(id, runs, how) => {
                for (run, records) in runs {
                    self.arrive(from, to, run, records, false)?;
                }
                self.nodes[to].fetches.remove(&id);
                self.tell(to, Input::FetchEnded { id, how })
            }
        }
    }

    fn arrive(&mut self, from: usize, to: usize, run: RunKey, records: Records, live: bool) -> Verdict {
        let mut effects = Vec::new();
        let now = Moment(self.now_ms * 1_000_000);
        let Some(machine) = &mut self.nodes[to].machine else { return Ok(()) };
        machine.handle(now, Input::Arrived { from: node(from), run, live }, &mut effects);
        if effects.contains(&Effect::Keep(run)) {
            self.seen.kept_live += u64::from(live);
            let (boot, delay) = (self.nodes[to].boot, 1 + self.dice(100));
            self.after(delay, Event::Persist { at: to, boot, run, records });
        } else {
            self.seen.ignored += 1;
        }
        self.act(to, effects)
    }

    /// What a node answers when it is asked for a range.
    fn answer(&mut self, at: usize, run: RunKey) -> (Vec<(RunKey, Records)>, FetchEnd) {
        if self.mishap(10) {
            return (Vec::new(), FetchEnd::Busy { retry_ms: 200 });
        }
        let Some(machine) = &self.nodes[at].machine else { return (Vec::new(), FetchEnd::Failed) };
        let offered = machine.offered(run.life, run.track, run.first, run.last);
        let (mut runs, mut room) = (Vec::new(), 40u64);
        for (first, last) in &offered {
            let mut first = *first;
            while first <= *last && room > 0 {
                let end = (*last).min(first + 15).min(first + room - 1);
                let key = RunKey { first: Seq(first), last: Seq(end), ..run };
                runs.push((key, self.read(at, key)));
                room -= end - first + 1;
                first = end + 1;
            }
        }
        (runs, if offered.is_empty() { FetchEnd::Unknown } else { FetchEnd::Done })
    }

    fn read(&self, at: usize, run: RunKey) -> Records {
        let range = run.first.0..=run.last.0;
        if run.life == self.life(at) {
            let of = |seq: &u64| self.nodes[at].journal.get(*seq as usize - 1) == Some(&run.track);
            return range.filter(of).map(|seq| (seq, content(run.life, seq))).collect();
        }
        let Some(copy) = self.nodes[at].copies.get(&run.life) else { return Vec::new() };
        let records = copy.records.range(range).filter(|(_, (track, _))| *track == run.track);
        records.map(|(seq, (_, content))| (*seq, *content)).collect()
    }

    fn store(&mut self, at: usize, run: RunKey, records: Records) -> Verdict {
        let written = self.written.get(&run.life).cloned().unwrap_or_default();
        let copy = self.nodes[at].copies.entry(run.life).or_default();
        let floor = copy.floors[run.track as usize];
        for (seq, said) in records.into_iter().filter(|(seq, _)| *seq > floor) {
            if written.get(seq as usize - 1) != Some(&run.track) || said != content(run.life, seq) {
                return Err(format!("node {at} stored a record {seq} of {:?} that its origin never wrote", run.life));
            }
            copy.records.insert(seq, (run.track, said));
        }
        copy.covered[run.track as usize].insert(run.first.0, run.last.0);
        // A run claims all of its track that the origin has.
        let lacking = (run.first.0.max(floor + 1)..=run.last.0)
            .find(|seq| written.get(*seq as usize - 1) == Some(&run.track) && !copy.records.contains_key(seq));
        match lacking {
            Some(seq) => Err(format!("node {at} covers {run:?} and lacks {seq}")),
            None => Ok(()),
        }
    }

    fn tell(&mut self, at: usize, input: Input) -> Verdict {
        let now = Moment(self.now_ms * 1_000_000);
        let mut effects = Vec::new();
        let Some(machine) = &mut self.nodes[at].machine else { return Ok(()) };
        machine.handle(now, input, &mut effects);
        machine.check_bounds()?;
        self.act(at, effects)
    }

    fn act(&mut self, at: usize, effects: Vec<Effect>) -> Verdict {
        for effect in effects {
            match effect {
                Effect::Announce { to, held } => self.send(at, number(to), Message::Held(held)),
                Effect::Acknowledge { to, stored } => self.send(at, number(to), Message::Stored(stored)),
                Effect::Push { to, track, first, last } => {
                    if self.mishap(5) {
                        self.tell(at, Input::PushFailed { to, track })?;
                        continue;
                    }
                    let life = self.life(at);
                    for first in (first.0..=last.0).step_by(7) {
                        let last = Seq(last.0.min(first + 6));
                        let run = RunKey { life, track, first: Seq(first), last };
                        self.send(at, number(to), Message::Live(run, self.read(at, run)));
                    }
                }
                Effect::Fetch { id, from, run, .. } => {
                    self.seen.fetches += 1;
                    self.check_fetch(at, run)?;
                    self.nodes[at].fetches.insert(id, (from, run));
                    self.send(at, number(from), Message::Ask(id, run));
                }
                Effect::Confirmed { head } => self.check_confirmed(at, head)?,
                Effect::Superseded { .. } => return Err(format!("node {at} is said to be superseded")),
                Effect::Keep(_) | Effect::Ignore(..) => {}
            }
        }
        Ok(())
    }
}

fn number(origin: Origin) -> usize {
    origin.0[0] as usize - 1
}

fn ends(journal: &[Track]) -> (Seq, [Seq; 2]) {
    let last = |track| journal.iter().rposition(|of| *of == track).map_or(Seq(0), |at| Seq(at as u64 + 1));
    (Seq(journal.len() as u64), Track::ALL.map(last))
}
