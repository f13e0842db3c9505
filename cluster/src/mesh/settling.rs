//! Events that stand in two journals count once.
//!
//! A device that got no acknowledgement sends an event again, perhaps to another node, and that one may not know that the first one has it: the
//! first one is dead, or cut off, and its records had not been copied. When both are there again, one of them leaves the event out of
//! its windows, by a record of its journal ([`RecordKind::LeftOut`](millpond_core::record::RecordKind::LeftOut)), and rebuilds them.
//!
//! So each node *settles* its records: when they are on its disk it asks every other node which devices came to it; of the devices that came to
//! both it asks which of the events the other one has. Of two nodes that of the device's later move keeps an event, unless the
//! other one has settled it.
//!
//! Invariants
//! 1. A node asks after its own events are on its disk. Of two nodes that have an event, at least the one that asks later sees the other's.
//! 2. What is settled is never left out. What is not settled can still be: an older checkpoint is kept for that
//!    (`millpond_actors::journal::saved`).
//! 3. A node that was known and does not answer is waited for, up to [`ABSENCE`].
//!
//! Only events with sequence numbers can be told apart.

pub(super) mod claims;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millpond_actors::{Writer, site::Site};
use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    ranges::RangeSet,
    record::{self, Class, Hlc, Home, LeftOut, RecordKind, Track},
    time::{Span, Timestamp},
};
use millpond_env::{Env, Mono};
use millpond_proto::wire::{self, Claim, Claimed, Double, Reply, Request};
use millpond_store::{Append, Reader};
use tokio::sync::oneshot;

use self::claims::{Arrivals, Mine};
use super::{MeshMsg, copying::heads, fetch, state::State};
use crate::transport::{Link, LinkId, Replies};

/// Between two rounds.
const EVERY: Span = Span::from_secs(1);
/// How long devices that come after a start wait until what others say of their homes is known.
const PATIENCE: Span = Span::from_secs(5);
const ANSWER: Span = Span::from_secs(5);
/// A node that is away for longer than this is not waited for: what it brings back it has to leave out itself.
const ABSENCE: Span = Span::from_secs(24 * 3600);
/// Of one question or answer.
const HOMES_MAX: usize = 10_000;
const CLAIMS_MAX: usize = 5_000;
const EVENTS_MAX: usize = 10_000;

/// What is known of where devices were, and how far the own records are settled.
#[derive(Debug)]
pub(super) struct Settling {
    begun: Mono,
    tried_at: Mono,
    /// A round is under way.
    busy: bool,
    /// Events are being left out: a checkpoint would not know of it.
    rebuilds: bool,
    /// When devices came here, by records of this journal; and all that in its order.
    arrivals: Arc<Arrivals>,
    log: Vec<(Seq, Home)>,
    others: BTreeMap<Origin, Other>,
    /// Devices that come need not wait any more.
    open: bool,
}

#[derive(Debug, Default)]
struct Other {
    incarnation: Incarnation,
    /// Its journal was asked for homes up to here.
    through: Seq,
    devices: BTreeSet<String>,
    /// Its homes were heard on this link.
    heard: Option<LinkId>,
    linked_at: Option<Mono>,
}

/// What a node said of the devices that came to it.
pub(crate) struct Told {
    from: Origin,
    link: LinkId,
    incarnation: Incarnation,
    homes: Vec<Home>,
    through: Seq,
}

/// The devices that came here and to others: to whom.
pub(crate) type Shared = BTreeMap<String, BTreeSet<Origin>>;

impl Settling {
    pub fn new(now: Mono) -> Settling {
        Settling {
            begun: now,
            tried_at: now,
            busy: false,
            rebuilds: false,
            arrivals: Arc::default(),
            log: Vec::new(),
            others: BTreeMap::new(),
            open: false,
        }
    }

    /// A device came here, by a record of this journal.
    pub fn came(&mut self, record: Seq, home: &Home) {
        let arrivals = Arc::make_mut(&mut self.arrivals).entry(home.device.clone()).or_default();
        if arrivals.last().is_none_or(|(_, moves)| *moves != home.moves) {
            arrivals.push((record, home.moves));
            self.log.push((record, home.clone()));
        }
    }

    fn shared(&self) -> Shared {
        let mut shared = Shared::new();
        for (origin, other) in &self.others {
            for device in other.devices.iter().filter(|device| self.arrivals.contains_key(*device)) {
                shared.entry(device.clone()).or_default().insert(*origin);
            }
        }
        shared
    }
}

/// What a round works with.
struct Round {
    env: Env,
    actor: ractor::ActorRef<MeshMsg>,
    reader: Reader,
    me: Origin,
    /// From the record after what is settled to the journal's end.
    records: (Seq, Seq),
    links: Vec<(Link, Incarnation, Seq)>,
    arrivals: Arc<Arrivals>,
}

impl State {
    /// Asks the others once more, when there is something to be settled and all are there.
    pub(super) fn settle(&mut self) {
        let now = self.env.now();
        for (origin, peer) in &self.peers {
            if peer.hello.is_some() {
                self.settling.others.entry(*origin).or_default().linked_at = Some(now);
            }
        }
        if self.settling.busy || now.since(self.settling.tried_at) < EVERY {
            return;
        }
        let Ok((head, last)) = heads(&self.node.reader) else { return };
        let settled = self.node.site.settled();
        if last[Track::Raw as usize] <= settled {
            return self.node.site.settle(head);
        }
        self.settling.tried_at = now;
        if self.own_homes(last[Track::Results as usize]).is_err() {
            return;
        }
        let mut links = Vec::new();
        for (origin, addr) in &self.addrs {
            if *origin == self.me || self.upkeep.revoked.contains(origin) || self.unlike.contains_key(addr) {
                continue;
            }
            let other = self.settling.others.get(origin);
            let peer = self.peers.get(origin).and_then(|peer| Some((&peer.link, peer.hello.as_ref()?)));
            match peer {
                Some((_, hello)) if hello.version < wire::SETTLES => {}
                Some((link, hello)) => {
                    links.push((link.clone(), hello.incarnation, self.asked_through(*origin, hello.incarnation)));
                }
                None => {
                    let since = other.and_then(|other| other.linked_at).unwrap_or(self.settling.begun);
                    if now.since(since) < ABSENCE {
                        return;
                    }
                }
            }
        }
        self.settling.busy = true;
        let round = Round {
            env: self.env.clone(),
            actor: self.actor.clone(),
            reader: self.node.reader.clone(),
            me: self.me,
            records: (settled.next(), head),
            links,
            arrivals: self.settling.arrivals.clone(),
        };
        let left_out = self.metrics.left_out.clone();
        let (writer, rebuild, site) = (self.node.writer.clone(), self.node.rebuild.clone(), self.node.site.clone());
        self.env.spawn(async move {
            let through = match round.left_out().await {
                Some(left) if left.is_empty() => Some(round.records.1),
                Some(left) => {
                    tracing::info!(records = left.len(), "events that count at other nodes are left out here");
                    let _ = round.actor.cast(MeshMsg::Settled { through: None, rebuilds: true });
                    let events: usize = left.iter().map(|left| left.seqs.len()).sum();
                    let is_done = leave_out(&writer, &site, left, rebuild).await;
                    left_out.inc_by(if is_done { events as u64 } else { 0 });
                    is_done.then_some(round.records.1)
                }
                None => None,
            };
            let _ = round.actor.cast(MeshMsg::Settled { through, rebuilds: false });
        });
    }

    fn asked_through(&self, origin: Origin, incarnation: Incarnation) -> Seq {
        let other = self.settling.others.get(&origin).filter(|other| other.incarnation == incarnation);
        other.map_or(Seq(0), |other| other.through)
    }

    pub(super) fn settled(&mut self, through: Option<Seq>, rebuilds: bool) {
        self.settling.rebuilds = rebuilds;
        if rebuilds {
            return;
        }
        self.settling.busy = false;
        if let Some(through) = through {
            self.node.site.settle(through);
        }
        self.doubt_no_more();
    }

    /// A checkpoint may be kept again, unless windows are about to be defined or rebuilt.
    pub(super) fn doubt_no_more(&self) {
        if !self.settling.rebuilds && self.definitions.is_settled() {
            self.node.site.doubt(false);
        }
    }

    /// A peer is linked: where devices were is asked for at once, those that come here may wait for it.
    pub(super) fn ask_homes(&self, from: Origin) {
        let Some((link, hello)) =
            self.peers.get(&from).and_then(|peer| Some((peer.link.clone(), peer.hello.as_ref()?)))
        else {
            return;
        };
        if hello.version < wire::SETTLES {
            return;
        }
        let (env, actor, incarnation) = (self.env.clone(), self.actor.clone(), hello.incarnation);
        let after = self.asked_through(from, incarnation);
        self.env.spawn(async move {
            let _ = homes_of(&env, &actor, &link, incarnation, after).await;
        });
    }

    pub(super) fn told_of_homes(&mut self, told: Told, reply: oneshot::Sender<Shared>) {
        let other = self.settling.others.entry(told.from).or_default();
        if other.incarnation != told.incarnation {
            *other = Other { incarnation: told.incarnation, linked_at: other.linked_at, ..Other::default() };
        }
        other.through = other.through.max(told.through);
        other.heard = Some(told.link);
        other.devices.extend(told.homes.iter().map(|home| home.device.clone()));
        self.move_homes(told.from, told.homes);
        let _ = reply.send(self.settling.shared());
    }

    /// Whether devices that come may be asked for: where they were is known, or it was waited for.
    pub(super) fn is_settled(&mut self) -> bool {
        if !self.settling.open {
            let heard = |origin: &Origin| {
                let (peer, other) = (self.peers.get(origin), self.settling.others.get(origin));
                let is_old =
                    peer.and_then(|peer| peer.hello.as_ref()).is_some_and(|hello| hello.version < wire::SETTLES);
                is_old || peer.zip(other).is_some_and(|(peer, other)| other.heard == Some(peer.link.id()))
            };
            let known = self.addrs.keys().filter(|origin| **origin != self.me);
            let all = known.clone().count() > 0 && known.clone().all(heard);
            let alone = self.addrs.is_empty() && self.config.site.seeds.is_empty();
            self.settling.open = all || alone || self.env.now().since(self.settling.begun) >= PATIENCE;
        }
        self.settling.open
    }

    /// A peer asks which devices came here.
    pub(super) fn tell_homes(&mut self, after: Seq, replies: Replies) {
        let Ok((head, last)) = heads(&self.node.reader) else { return self.answer(replies, Reply::Unknown) };
        if self.own_homes(last[Track::Results as usize]).is_err() {
            return self.answer(replies, Reply::Unknown);
        }
        let from = self.settling.log.partition_point(|(record, _)| *record <= after);
        let mut log = self.settling.log[from..].iter();
        let mut homes: Vec<(Seq, Home)> = log.by_ref().take(HOMES_MAX).cloned().collect();
        // A record is told of as a whole.
        if let Some((last, _)) = homes.last().cloned() {
            homes.extend(log.by_ref().take_while(|(record, _)| *record == last).cloned());
        }
        let is_all = from + homes.len() == self.settling.log.len();
        let through = if is_all { head } else { homes.last().map_or(head, |(record, _)| *record) };
        let homes = homes.into_iter().map(|(_, home)| home).collect();
        self.answer(replies, Reply::Homes { homes, through, head });
    }

    /// A peer asks which of its events are known here.
    pub(super) fn tell_known_claims(&self, claims: Vec<Claim>, replies: Replies) {
        let devices = claims.iter().map(|claim| claim.device.clone()).collect();
        let asked = (self.node.known)(devices);
        self.env.spawn(async move {
            let known = asked.await.unwrap_or_default();
            let mut seen: BTreeMap<&str, RangeSet> = BTreeMap::new();
            for known in &known {
                let before = known.previous.iter().flat_map(|(_, ranges)| ranges);
                let seen = seen.entry(&known.device).or_default();
                known.seen.iter().chain(before).for_each(|(first, last)| seen.insert(*first, *last));
            }
            let both = claims.iter().filter_map(|claim| {
                let claimed: RangeSet = claim.seqs.iter().copied().filter(|(first, last)| first <= last).collect();
                let both = seen.get(claim.device.as_str())?.intersection(&claimed);
                (!both.is_empty()).then(|| Claim { device: claim.device.clone(), seqs: both.iter().collect() })
            });
            let mut replies = replies;
            let _ = replies.send(wire::encode(&Reply::Known(both.collect()))).await;
            replies.finish();
        });
    }

    /// A peer asks which of its events of a device stand in the journal here, too.
    pub(super) fn tell_doubles(&self, device: String, events: Vec<Claimed>, replies: Replies) {
        let (env, reader, site) = (self.env.clone(), self.node.reader.clone(), self.node.site.clone());
        let arrivals = self.settling.arrivals.clone();
        self.env.spawn(async move {
            let settled = site.settled();
            let looked = env.unblock(move || {
                let Some(first) = arrivals.get(&device).and_then(|all| all.first()).map(|(record, _)| *record) else {
                    return Ok(Vec::new());
                };
                let seqs: RangeSet = events.iter().map(|event| (event.seq, event.seq)).collect();
                let wanted = [(device.clone(), seqs)].into();
                let mut mine = claims::events(&reader, (first, Seq(u64::MAX)), &wanted, &arrivals)?;
                let mine = mine.remove(&device).unwrap_or_default();
                Ok::<_, millpond_store::ReadError>(claims::doubles(&mine, &events, settled))
            });
            let reply = match looked.await {
                Some(Ok(doubles)) => Reply::Doubles(doubles),
                _ => Reply::Unknown,
            };
            let mut replies = replies;
            let _ = replies.send(wire::encode(&reply)).await;
            replies.finish();
        });
    }
}

impl Round {
    /// What of the round's records counts at other nodes; nothing when not all of them have answered.
    async fn left_out(&self) -> Option<Vec<LeftOut>> {
        let mut shared = Shared::new();
        for (link, incarnation, after) in &self.links {
            shared = homes_of(&self.env, &self.actor, link, *incarnation, *after).await?;
        }
        if shared.is_empty() {
            return Some(Vec::new());
        }
        let (reader, records, wanted) = (self.reader.clone(), self.records, shared.clone());
        let numbers =
            self.env.unblock(move || claims::numbers(&reader, records, |device| wanted.contains_key(device))).await;
        let numbers = numbers?.ok()?;
        let mut known: BTreeMap<Origin, BTreeMap<String, RangeSet>> = BTreeMap::new();
        for (link, ..) in &self.links {
            let of_peer = |device: &String| shared.get(device).is_some_and(|at| at.contains(&link.peer()));
            let claims: Vec<Claim> =
                claims::claims(&numbers).into_iter().filter(|claim| of_peer(&claim.device)).collect();
            for claims in claims.chunks(CLAIMS_MAX) {
                let request = Request::Known { claims: claims.to_vec() };
                let Some(Reply::Known(both)) = fetch::ask(&self.env, link, ANSWER, &request).await else { return None };
                let known = known.entry(link.peer()).or_default();
                known.extend(both.into_iter().map(|claim| (claim.device, claim.seqs.into_iter().collect())));
            }
        }
        let mut wanted: BTreeMap<String, RangeSet> = BTreeMap::new();
        for (device, seqs) in known.values().flatten() {
            wanted.entry(device.clone()).or_default().merge(seqs);
        }
        if wanted.is_empty() {
            return Some(Vec::new());
        }
        let (reader, arrivals) = (self.reader.clone(), self.arrivals.clone());
        let events = self.env.unblock(move || claims::events(&reader, records, &wanted, &arrivals)).await?.ok()?;
        let mut left = Vec::new();
        for (link, ..) in &self.links {
            let Some(known) = known.get(&link.peer()) else { continue };
            for (device, mine) in &events {
                let Some(seqs) = known.get(device) else { continue };
                let mine: Vec<Mine> = mine.iter().copied().filter(|mine| seqs.contains(mine.event.seq)).collect();
                for mine in mine.chunks(EVENTS_MAX) {
                    let doubles = self.doubles(link, device, mine).await?;
                    left.extend(claims::left_to(self.me, device, mine, link.peer(), &doubles));
                }
            }
        }
        Some(left)
    }

    async fn doubles(&self, link: &Link, device: &str, mine: &[Mine]) -> Option<Vec<Double>> {
        let events = mine.iter().map(|mine| mine.event).collect();
        let request = Request::Doubles { device: device.to_owned(), events };
        match fetch::ask(&self.env, link, ANSWER, &request).await? {
            Reply::Doubles(doubles) => Some(doubles),
            _ => None,
        }
    }
}

/// Asks a node for the devices that came to it, to the end of its journal, and tells the mesh.
async fn homes_of(
    env: &Env,
    actor: &ractor::ActorRef<MeshMsg>,
    link: &Link,
    incarnation: Incarnation,
    mut after: Seq,
) -> Option<Shared> {
    loop {
        let answer = fetch::ask(env, link, ANSWER, &Request::Homes { after }).await;
        let Some(Reply::Homes { homes, through, head }) = answer else { return None };
        let is_all = through >= head;
        if !is_all && through <= after {
            return None;
        }
        after = through;
        let told = Told { from: link.peer(), link: link.id(), incarnation, homes, through };
        let (reply, shared) = oneshot::channel();
        actor.cast(MeshMsg::ToldOfHomes { told, reply }).ok()?;
        let shared = shared.await.ok()?;
        if is_all {
            return Some(shared);
        }
    }
}

/// Windows begin anew without these events. No checkpoint may be kept in between: it would not know of them.
async fn leave_out(
    writer: &Writer,
    site: &Site,
    left: Vec<LeftOut>,
    rebuild: Arc<dyn Fn() -> oneshot::Receiver<()> + Send + Sync>,
) -> bool {
    site.doubt(true);
    let record = Append {
        kind: RecordKind::LeftOut,
        hlc: Hlc::default(),
        rows: 0,
        min_time: Timestamp::MAX,
        max_time: Timestamp::MIN,
        devices: Vec::new(),
        payload: record::encode(&left).into(),
    };
    if !writer.write(Class::State, vec![record], Vec::new()).await {
        return false;
    }
    let _ = rebuild().await;
    true
}
