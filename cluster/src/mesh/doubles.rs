//! Events that stand in two journals.
//!
//! A node that loses its power may have events on its disk that nobody else has and that were never acknowledged; their devices send them
//! again, to another node. When the first one is back, the same events are there twice. Its own ones are left out of its windows then, for
//! good: they count where they were acknowledged.
//!
//! So after a start, as soon as the others are linked, a node looks at its last records, those which no other node had when it said what
//! it holds: for the devices in them it asks everybody which of their events they have taken in themselves. Until that is cleared
//! up no checkpoint is kept ([`Site::doubt`](millpond_actors::site::Site::doubt)), so that the windows can still be rebuilt without
//! them. It is cleared up after [`PATIENCE`] at the latest; a node that is linked after that may bring doubles to light that stay.
//!
//! Only events with sequence numbers can be told apart; a device that begins to count anew between the two nodes is not handled.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use millpond_actors::{double_put, settings::Ack};
use millpond_core::{
    admission::Known,
    block,
    ids::{Origin, Seq},
    ranges::RangeSet,
    record::{self, Class, Home, RecordKind, Track},
    time::Span,
};
use millpond_env::Mono;
use millpond_proto::wire::{Held, Reply, Request};
use millpond_store::{Put, ReadError, Reader};
use tokio::sync::oneshot;

use super::{MeshMsg, fetch, state::State};
use crate::transport::Link;

/// How long others are waited for before what is known has to do.
const PATIENCE: Span = Span::from_secs(5);
const ANSWER: Span = Span::from_secs(2);
/// Bytes of records that are looked through.
const BYTES_MAX: usize = 16 << 20;

/// What is to be cleared up after a start.
#[derive(Debug)]
pub(super) struct Doubles {
    begun: Mono,
    /// Records from here, after the last checkpoint, to the journal's end when the doubt began.
    first: Seq,
    head: Seq,
    /// What of this node's events others held when they were heard first.
    held: RangeSet,
    heard: BTreeSet<Origin>,
    state: Clearing,
    /// Devices that come need not wait: it is not the first time.
    was_settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clearing {
    Waiting,
    Asking,
    Done,
}

/// Events of records: sequence numbers by record and device.
type Events = BTreeMap<(Seq, String), Vec<u64>>;

impl Doubles {
    fn new(now: Mono, head: Seq) -> Doubles {
        let state = if head.0 == 0 { Clearing::Done } else { Clearing::Waiting };
        Doubles {
            begun: now,
            first: Seq(1),
            head,
            held: RangeSet::default(),
            heard: BTreeSet::new(),
            state,
            was_settled: false,
        }
    }

    pub fn at_start(now: Mono, first: Seq, head: Seq) -> Doubles {
        Doubles { first, ..Doubles::new(now, head) }
    }

    /// A peer said what it holds, for the first time: what it fetches from now on is no matter.
    fn hear(&mut self, from: Origin, ranges: impl Iterator<Item = (u64, u64)>) {
        if self.heard.insert(from) {
            ranges.for_each(|(first, last)| self.held.insert(first, last));
        }
    }
}

impl State {
    pub(super) fn hear_of_own(&mut self, from: Origin, held: &[Held]) {
        let life = self.life();
        let own = held
            .iter()
            .filter(|held| (held.origin, held.incarnation, held.track) == (life.origin, life.incarnation, Track::Raw));
        let own: Vec<(u64, u64)> = own.flat_map(|held| held.ranges.iter().copied()).collect();
        self.doubles.hear(from, own.into_iter());
    }

    /// Begins to ask when everybody who is known was heard, or it was waited for long enough.
    pub(super) fn clear_up(&mut self) {
        if self.doubles.state != Clearing::Waiting {
            return;
        }
        let waited = self.env.now().since(self.doubles.begun);
        let known = self.addrs.keys().filter(|origin| **origin != self.me);
        let all = known.clone().count() > 0 && known.clone().all(|origin| self.doubles.heard.contains(origin));
        let alone = self.addrs.is_empty() && self.config.site.seeds.is_empty();
        if !(all || alone || waited >= PATIENCE) {
            return;
        }
        self.doubles.state = Clearing::Asking;
        let first = self.doubles.first;
        let (reader, held, head) = (self.node.reader.clone(), self.doubles.held.clone(), self.doubles.head);
        let links: Vec<Link> =
            self.peers.values().filter(|peer| peer.hello.is_some()).map(|peer| peer.link.clone()).collect();
        let (env, writer, rebuild, actor) =
            (self.env.clone(), self.node.writer.clone(), self.node.rebuild.clone(), self.actor.clone());
        self.env.spawn(async move {
            let looked = env.unblock(move || last_events(&reader, first, head, &held)).await;
            let events = looked.and_then(Result::ok).unwrap_or_default();
            let devices: BTreeSet<String> = events.keys().map(|(_, device)| device.clone()).collect();
            let (reply, homes) = oneshot::channel();
            let _ = actor.cast(MeshMsg::Homes { devices, reply });
            let homes: Vec<Home> = homes.await.unwrap_or_default();
            let mut taken: BTreeMap<String, RangeSet> = BTreeMap::new();
            for link in links.iter().filter(|_| !homes.is_empty()) {
                let request = Request::Accepted { devices: homes.clone() };
                let Some(Reply::Seen(known)) = fetch::ask(&env, link, ANSWER, &request).await else { continue };
                for known in known.iter().filter_map(|bytes| record::decode::<Known>(bytes).ok()) {
                    let taken = taken.entry(known.device).or_default();
                    known.seen.iter().for_each(|(first, last)| taken.insert(*first, *last));
                }
            }
            let puts = doubles(&events, &taken);
            if !puts.is_empty() {
                tracing::info!(records = puts.len(), "events that other nodes have too are left out here");
                if writer.write(Class::State, Vec::new(), puts).await {
                    let _ = rebuild().await;
                }
            }
            let _ = actor.cast(MeshMsg::ClearedUp);
        });
    }

    /// What this node knows of devices that may be at home here; without a move when they are not.
    pub(super) fn homes_here(&self, devices: BTreeSet<String>) -> Vec<Home> {
        let home = |device: String| {
            let moves = self.homes.moves_to(&device, self.me).unwrap_or(0);
            Home { device, moves }
        };
        devices.into_iter().map(home).collect()
    }

    /// A peer is back from beyond a partition in which nothing was acknowledged that it does not have: events that went there meanwhile are
    /// the same matter as after a start.
    pub(super) fn doubt_again(&mut self, peer: Origin) {
        if self.config.site.ack != Ack::Site || self.doubles.state != Clearing::Done {
            return;
        }
        let row = self.replication.ledger().into_iter().find(|row| row.own && row.track == Track::Raw);
        let others = row.map(|row| row.peers).unwrap_or_default().into_iter().filter(|(other, _)| *other != peer);
        let mut doubles = Doubles::new(self.env.now(), self.node.site.head());
        for (other, end) in others.filter(|(other, _)| self.peers.contains_key(other)) {
            doubles.hear(other, [(1, end)].into_iter().filter(|(_, end)| *end > 0));
        }
        doubles.first = self.node.site.checkpoint().max(self.node.recovered_from).next();
        doubles.was_settled = true;
        self.doubles = doubles;
        self.node.site.doubt(true);
    }

    pub(super) fn cleared_up(&mut self) {
        (self.doubles.state, self.doubles.was_settled) = (Clearing::Done, true);
        self.doubt_no_more();
    }

    /// A checkpoint may be kept again, unless windows that it would not contain are about to be defined.
    pub(super) fn doubt_no_more(&self) {
        if self.doubles.state == Clearing::Done && self.definitions.is_settled() {
            self.node.site.doubt(false);
        }
    }

    /// Whether devices that come may be asked for: the others' news have arrived, or it was waited for them.
    pub(super) fn is_settled(&self) -> bool {
        self.doubles.was_settled || self.doubles.state == Clearing::Done
    }
}

/// The rows that leave out what others have taken in.
fn doubles(events: &Events, taken: &BTreeMap<String, RangeSet>) -> Vec<Put> {
    let mut puts = Vec::new();
    for ((record, device), seqs) in events {
        let Some(taken) = taken.get(device) else { continue };
        let doubles: Vec<u64> = seqs.iter().copied().filter(|seq| taken.contains(*seq)).collect();
        if !doubles.is_empty() {
            puts.push(double_put(*record, device, &doubles));
        }
    }
    puts
}

/// The numbered events of the records that nobody else held, after the last checkpoint.
fn last_events(reader: &Reader, first: Seq, head: Seq, held: &RangeSet) -> Result<Events, ReadError> {
    let (mut events, mut decoder, mut bytes) = (Events::new(), block::Decoder::new(), 0);
    reader.scan(Class::Raw, first, |row| {
        if row.seq > head || bytes > BYTES_MAX {
            return ControlFlow::Break(());
        }
        if row.kind == RecordKind::Events
            && !held.contains(row.seq.0)
            && let Ok(batch) = decoder.decode(row.payload)
        {
            bytes += row.payload.len();
            for run in batch.runs() {
                let seqs = run.rows().filter_map(|row| batch.seq(row));
                events.entry((row.seq, batch.device(run).to_owned())).or_default().extend(seqs);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_taken_in_is_left_out_and_nothing_else() {
        let events: Events = [((Seq(7), "d".to_owned()), vec![4, 5, 6]), ((Seq(8), "e".to_owned()), vec![1])].into();
        let taken = [("d".to_owned(), [(5, 9)].into_iter().collect::<RangeSet>())].into();
        let puts = doubles(&events, &taken);
        assert_eq!(puts.len(), 1);
        assert_eq!(puts[0].value, double_put(Seq(7), "d", &[5, 6]).value);
    }
}
