//! Where devices are at home, and what becomes of the windows and devices of nodes that are gone.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use millpond_actors::adopt::{self, Adopted};
use millpond_core::{
    admission::Known,
    ids::{Origin, Seq},
    record::{self, Class, Home, RecordKind, Track},
};
use millpond_proto::{replication::Life, wire::Run};
use millpond_store::{ReadError, Reader};

use super::{Arrival, Asked, MeshMsg, adoption, state::State};
use crate::transport::Link;

impl State {
    /// Which devices are at home here by this node's own records up to `head`. Those that were nowhere before are to be registered.
    pub(super) fn own_homes(&mut self, head: Seq) -> Result<(), ReadError> {
        if head <= self.own_homes_to {
            return Ok(());
        }
        let (mut found, mut left_out, mut read_to) = (Vec::new(), None, head);
        self.node.reader.scan(Class::State, self.own_homes_to.next(), |row| {
            found.extend(homes_in(row.kind, row.payload).into_iter().map(|home| (row.seq, home)));
            if row.kind == RecordKind::LeftOut {
                left_out = Some(row.seq);
            }
            read_to = read_to.max(row.seq);
            ControlFlow::Continue(())
        })?;
        self.own_homes_to = read_to;
        left_out.into_iter().for_each(|record| self.node.site.has_left_out(record));
        for (record, home) in found {
            let device = home.device.clone();
            self.settling.came(record, &home);
            self.homes.learn(self.me, home);
            if self.homes.is_first(&device, self.me) && self.shelf.documents.is_unknown(&device) {
                self.newcomers.insert(device.clone());
            }
            self.twins.due.insert(device);
        }
        Ok(())
    }

    pub(super) fn homes_of(&mut self, life: Life, reader: &Reader) {
        let origin = life.origin;
        let (mut found, mut left_out) = (Vec::new(), None);
        let read = reader.scan(Class::State, Seq(1), |row| {
            found.extend(homes_in(row.kind, row.payload));
            if row.kind == RecordKind::LeftOut {
                left_out = Some(row.seq);
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            tracing::warn!(%origin, %error, "the homes of devices could not be read");
        }
        left_out.into_iter().for_each(|record| self.leaves_out(life, record));
        self.move_homes(origin, found);
    }

    pub(super) fn learn_homes(&mut self, run: &Run) {
        let last = run.records.iter().rfind(|record| record.kind == RecordKind::LeftOut);
        let life = Life { origin: run.origin, incarnation: run.incarnation };
        last.into_iter().for_each(|record| self.leaves_out(life, record.seq));
        let found: Vec<Home> = run.records.iter().flat_map(|record| homes_in(record.kind, &record.payload)).collect();
        self.move_homes(run.origin, found);
    }

    fn leaves_out(&mut self, life: Life, record: Seq) {
        let known = self.left_out.entry(life).or_default();
        *known = record.max(*known);
    }

    pub(super) fn move_homes(&mut self, origin: Origin, homes: Vec<Home>) {
        let mut moved = Vec::new();
        for home in homes {
            moved.extend(self.homes.learn(origin, home).map(str::to_owned));
        }
        if !moved.is_empty() && origin != self.me {
            (self.node.release)(&moved);
        }
        self.twins.due.extend(moved);
    }

    /// `again`: who was asked before did not answer.
    pub(super) fn arrive(&mut self, devices: &[String], again: bool) -> Arrival {
        let mut arrival = Arrival { homes: Vec::new(), known: Vec::new(), ask: Vec::new() };
        let mut elsewhere: BTreeMap<Origin, Vec<String>> = BTreeMap::new();
        for device in devices {
            arrival.homes.push(self.homes.arrive(device, self.me));
            if let Some(home) = self.homes.bound_for(device) {
                elsewhere.entry(home).or_default().push(device.clone());
            }
        }
        for (origin, devices) in elsewhere {
            // The link to a node that is down was closed when it was found to be so: this is a new one, and it is back, before the others
            // have heard of it. It has what nobody could copy meanwhile.
            let linked = self.peers.get(&origin).filter(|peer| peer.hello.is_some() || !self.is_gone(origin));
            let is_there = linked.is_some() || !self.is_gone(origin);
            if is_there && origin != self.me {
                let links = match linked.filter(|_| !again) {
                    Some(peer) => vec![peer.link.clone()],
                    // Whoever has a link to it asks it. The one that is here may be broken, and nobody has noticed yet.
                    None => {
                        let others = self.peers.values().filter(|peer| peer.hello.is_some());
                        others.map(|peer| peer.link.clone()).collect()
                    }
                };
                arrival.ask.push(Asked { origin, devices: devices.clone(), links, needed: 1 });
            }
            let wanted = |life: Life| life.origin == origin && (!is_there || self.is_lost(life));
            let here: Vec<Life> = self.lives_of(origin).into_iter().filter(|life| wanted(*life)).collect();
            // Each may have a part of its records that nobody else has: who holds them changes with who is there.
            let mut links = self.links_to(self.replication.who_offers(Track::Raw, wanted));
            let known = self.known_of(&here, &devices);
            let mut needed = links.len() + usize::from(known.is_none());
            if !is_there && needed == 0 && here.is_empty() {
                links = self.links_to(self.replication.holders(origin));
                needed = 1;
            }
            arrival.known.extend(known.unwrap_or_default());
            if needed > 0 {
                arrival.ask.push(Asked { origin, devices, links, needed });
            }
        }
        arrival
    }

    /// To those who are there.
    fn links_to(&self, peers: Vec<Origin>) -> Vec<Link> {
        let there = peers.into_iter().filter(|peer| !self.is_gone(*peer)).filter_map(|peer| self.peers.get(&peer));
        there.map(|peer| peer.link.clone()).collect()
    }

    /// What copies tell of devices; `None` when more is in them than was read.
    fn known_of(&self, lives: &[Life], devices: &[String]) -> Option<Vec<Known>> {
        let mut known = Vec::new();
        for life in lives {
            let adopted = self.adoptions.of(*life, &self.events_of(*life))?;
            known.extend(devices.iter().filter_map(|device| adopted.devices.get(device)).cloned());
        }
        Some(known)
    }

    /// What the copies here tell of devices of a node that it cannot tell itself; `None` when they were not read yet. Nothing when there are none.
    pub(super) fn known_of_gone(&self, origin: Origin, devices: &[String]) -> Option<Vec<Known>> {
        self.known_of(&self.gone_lives_of(origin), devices)
    }

    /// The store that had this life is lost: its node has another one.
    fn is_lost(&self, life: Life) -> bool {
        let now = match self.peers.get(&life.origin) {
            _ if life.origin == self.me => Some(self.node.incarnation),
            peer => peer.and_then(|peer| peer.hello.as_ref()).map(|hello| hello.incarnation),
        };
        now.is_some_and(|now| life.incarnation.founding() < now.founding())
    }

    /// The lives of which there are events here and that nobody else can speak for.
    pub(super) fn gone_lives_of(&self, origin: Origin) -> Vec<Life> {
        let is_gone = self.is_gone(origin);
        self.lives_of(origin).into_iter().filter(|life| is_gone || self.is_lost(*life)).collect()
    }

    /// Which of its records of events are here.
    fn events_of(&self, life: Life) -> Vec<(u64, u64)> {
        self.replication.offered(life, Track::Raw, Seq(1), Seq(u64::MAX))
    }

    /// The lives of an origin of which there are events here, the last one last.
    pub(super) fn lives_of(&self, origin: Origin) -> Vec<Life> {
        let held = self
            .held
            .iter()
            .filter(|((life, track), held)| life.origin == origin && *track == Track::Raw && held.0 > 0);
        held.map(|((life, _), _)| *life).collect()
    }

    /// Recovers the windows and devices of nodes that are gone, from the copies that are held here, and again when more of their records come.
    pub(super) fn adopt(&mut self) {
        let known: Vec<Origin> = self.membership.members().map(|(member, _)| member.origin).chain([self.me]).collect();
        let lives: Vec<Life> = known.into_iter().flat_map(|origin| self.gone_lives_of(origin)).collect();
        for life in lives {
            let Some(reader) = self.copies.reader(life).cloned() else { continue };
            let events = self.events_of(life);
            if !self.adoptions.wants(self.env.now(), life, &events) {
                continue;
            }
            self.adoptions.begin(life);
            let (env, settings, actor) = (self.env.clone(), self.settings.now(), self.actor.clone());
            let results = self.replication.offered(life, Track::Results, Seq(1), Seq(u64::MAX));
            self.env.spawn(async move {
                let adopted = adoption::recover(&env, settings, reader, life, &events, &results).await;
                let _ = actor.cast(MeshMsg::Adopted { life, events, adopted });
            });
        }
    }

    pub(super) fn adopted(&mut self, life: Life, events: Vec<(u64, u64)>, adopted: Option<Arc<Adopted>>) {
        self.adoptions.done(self.env.now(), life, events, adopted);
        // All holders know the devices; the first one speaks.
        let speaks = self.replication.holders(life.origin).first() == Some(&self.me);
        if !speaks || !self.is_gone(life.origin) {
            return;
        }
        let panes = self.adoptions.unsaid(life);
        if panes.is_empty() {
            return;
        }
        tracing::info!(of = %life.origin.short(), panes = panes.len(), "the windows of a node that is gone go on here");
        self.metrics.adopted_panes.inc_by(panes.len() as u64);
        let (writer, records) = (self.node.writer.clone(), adopt::records(&panes));
        self.env.spawn(async move {
            writer.write(Class::Pane, records, Vec::new()).await;
        });
    }

    pub(super) fn returned(&mut self, origin: Origin) {
        for life in self.lives_of(origin) {
            self.adoptions.end(life);
        }
    }
}

fn homes_in(kind: RecordKind, payload: &[u8]) -> Vec<Home> {
    if kind != RecordKind::Homes {
        return Vec::new();
    }
    record::decode(payload).unwrap_or_default()
}
