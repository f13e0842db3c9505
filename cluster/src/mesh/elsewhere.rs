//! Where the events of the site are to be looked for: each journal once, and at whoever knows it best.
//!
//! A node that is up answers for its own journal. For a node that is gone, and for a store that it lost, the one that keeps its copy answers,
//! this node or another one. Somebody who kept a copy for a while, and does not any more, holds only a part of it and is not asked. When one does
//! not answer, the same parts are planned again without it.

use std::collections::BTreeSet;

use millpond_actors::{query, site::Copy};
use millpond_core::{
    ids::{Incarnation, Origin},
    record,
};
use millpond_gateway::port::Query;
use millpond_proto::wire::{self, Reply};
use millpond_store::Reader;
use serde::{Deserialize, Serialize};

use super::state::State;
use crate::transport::{Link, Replies};

/// Some of the stores that an origin had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stores {
    All,
    Only(u16),
    But(u16),
}

impl Stores {
    fn has(self, incarnation: Incarnation) -> bool {
        match self {
            Stores::All => true,
            Stores::Only(founding) => incarnation.founding() == founding,
            Stores::But(founding) => incarnation.founding() != founding,
        }
    }
}

/// The journals of an origin that are to be looked through.
pub(crate) type Part = (Origin, Stores);

/// A question for the values of a metric, to a node that has them.
#[derive(Serialize, Deserialize)]
pub(super) struct Elsewhere {
    pub parts: Vec<Part>,
    pub query: Query,
}

/// Who is to look where.
pub(crate) struct Plan {
    pub here: Vec<Copy>,
    pub ask: Vec<(Link, Vec<Part>)>,
}

impl State {
    /// Where these parts are to be looked for; all that there are when nothing is named. `silent` did not answer before.
    pub(super) fn plan(&self, parts: Option<Vec<Part>>, silent: &BTreeSet<Origin>) -> Plan {
        let mut plan = Plan { here: Vec::new(), ask: Vec::new() };
        for (origin, stores) in parts.unwrap_or_else(|| self.all_parts()) {
            let direct = self.peers.get(&origin).filter(|_| !self.is_gone(origin) && !silent.contains(&origin));
            let own = direct.and_then(|peer| peer.hello.as_ref()).map(|hello| hello.incarnation);
            let link = match own {
                Some(own) if stores == Stores::Only(own.founding()) => direct.map(|peer| peer.link.clone()),
                _ => self.keeper(origin, silent),
            };
            match link {
                Some(link) => match plan.ask.iter_mut().find(|(asked, _)| asked.peer() == link.peer()) {
                    Some((_, parts)) => parts.push((origin, stores)),
                    None => plan.ask.push((link, vec![(origin, stores)])),
                },
                None => plan.here.extend(self.copies_of(origin, stores)),
            }
        }
        plan
    }

    fn all_parts(&self) -> Vec<Part> {
        let mut parts = vec![(self.me, Stores::But(self.node.incarnation.founding()))];
        for (member, _) in self.membership.members().filter(|(member, _)| member.origin != self.me) {
            let origin = member.origin;
            let peer = self.peers.get(&origin).filter(|_| !self.is_gone(origin));
            match peer.and_then(|peer| peer.hello.as_ref()).map(|hello| hello.incarnation.founding()) {
                Some(now) => parts.extend([(origin, Stores::Only(now)), (origin, Stores::But(now))]),
                None => parts.push((origin, Stores::All)),
            }
        }
        parts
    }

    /// The node that keeps the copies of an origin's events; nothing when it is this one, or when nobody else can be asked.
    fn keeper(&self, origin: Origin, silent: &BTreeSet<Origin>) -> Option<Link> {
        let holders = self.replication.holders(origin);
        if holders.contains(&self.me) {
            return None;
        }
        let linked = |holder: Origin| {
            let peer = self.peers.get(&holder).filter(|_| !self.is_gone(holder) && !silent.contains(&holder));
            peer.map(|peer| peer.link.clone())
        };
        holders.into_iter().filter(|holder| *holder != origin).find_map(linked)
    }

    fn copies_of(&self, origin: Origin, stores: Stores) -> Vec<Copy> {
        let copies = self.copies.readers().filter(|(life, _)| life.origin == origin && stores.has(life.incarnation));
        let copy = |life: millpond_proto::replication::Life, reader: &Reader| Copy {
            origin,
            incarnation: life.incarnation,
            reader: reader.clone(),
            left_out: self.left_out.get(&life).copied().unwrap_or_default(),
        };
        copies.map(|(life, reader)| copy(life, reader)).collect()
    }

    /// A peer asks what is in the journals here.
    pub(super) fn ask_journals(&mut self, body: &[u8], replies: Replies) {
        let Ok(Elsewhere { parts, query }) = record::decode::<Elsewhere>(body) else {
            return self.answer(replies, Reply::Unknown);
        };
        let mut readers: Vec<Reader> = Vec::new();
        for (origin, stores) in parts {
            if origin == self.me && stores.has(self.node.incarnation) {
                readers.push(self.node.reader.clone());
            }
            readers.extend(self.copies_of(origin, stores).into_iter().map(|copy| copy.reader));
        }
        let env = self.env.clone();
        self.env.spawn(async move {
            let found = env.unblock(move || query::find(&readers.iter().collect::<Vec<_>>(), &query)).await;
            let reply = match found {
                Some(Ok(found)) => Reply::Answer { status: 200, body: record::encode(&found).into() },
                Some(Err(_)) | None => Reply::Unknown,
            };
            let mut replies = replies;
            let _ = replies.send(wire::encode(&reply)).await;
            replies.finish();
        });
    }
}
