//! Where the data plane and the mesh meet. The data plane knows nothing of peers: it tells how far its journal has come, holds
//! acknowledgements back until somebody says that the site has the records, and asks for the journals of others when a question concerns
//! them. Without a mesh nothing is held back and there are no others.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::{
    admission::Known,
    ids::{Incarnation, Origin, Seq},
    record::Home,
    rule::Tally,
    time::Span,
};
use millpond_gateway::port::{AskError, Json, Query};
use millpond_store::Reader;
use tokio::sync::Notify;

use crate::{front::Ticket, query::Found, settings::Ack, shard::gather::Counts};

/// A copy of another node's journal.
#[derive(Clone, Debug)]
pub struct Copy {
    pub origin: Origin,
    pub incarnation: Incarnation,
    pub reader: Reader,
    /// Its last record that leaves events out of its windows; 0 when there is none.
    pub left_out: Seq,
}

/// What is known of devices that come from other nodes.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    pub known: Vec<Known>,
    /// How often each has moved, in the order of the question.
    pub homes: Vec<Home>,
    /// Of so many of them somebody may know more who did not say it in time.
    pub unverified: usize,
}

/// The other nodes of the site, as the data plane may ask for them.
#[async_trait]
pub trait Others: Send + Sync + 'static {
    /// Copies that are held here.
    fn copies(&self) -> Vec<Copy>;

    /// Puts a question about events to the other nodes. Each answer comes from other journals, and none of them from those that are to be read
    /// here: the copies that come with the answers.
    async fn ask(&self, what: &'static str, question: Bytes) -> (Vec<Copy>, Vec<Bytes>);

    /// Finds the values of a series, when it knows of more than the journals of the site.
    async fn find(&self, _query: &Query) -> Option<Result<Found, AskError>> {
        None
    }

    /// These devices come to this node: what the nodes at which they were at home before know of them. Waits for a node that cannot be
    /// asked, or does not know yet, so long, and goes on without it then.
    async fn arrive(&self, devices: &[String], patience: Span) -> Arrived;

    /// What operators and devices want to know or do. `what` is one of `members`, `ledger`, `conflicts`, `resolve`, `texts`, `text`,
    /// `put_text`, `remove_text`, `devices`, `device`, `other_site`, `register`, `delete`, `twin`, `desired`, `report`, `command`, `commands`,
    /// `command_status` and `answer`; what it changes is on disk when the answer comes.
    async fn operate(&self, what: &str, body: Json) -> Result<Json, AskError>;

    /// Somebody who speaks for this device listens for what it is to be told, or listens no more.
    fn listens(&self, device: &str, on: bool);
}

/// One per node.
pub struct Site {
    ack: Ack,
    head: AtomicU64,
    checkpoint: AtomicU64,
    moved: Notify,
    listeners: Mutex<Vec<Weak<Notify>>>,
    waiting: Mutex<Waiting>,
    /// Up to here it is known which events count in other journals.
    settled: AtomicU64,
    /// The last record that leaves events out.
    left_out: AtomicU64,
    /// What windows are to be, or are to leave out, is about to change.
    doubtful: AtomicBool,
    unverified: AtomicU64,
    others: OnceLock<Arc<dyn Others>>,
    tally: Arc<Mutex<Tally>>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("ack", &self.ack).field("head", &self.head).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Waiting {
    /// Records up to here are on as many other nodes as were asked for.
    confirmed: Seq,
    /// Tickets whose records end at the number, in its order.
    tickets: VecDeque<(Seq, Arc<Ticket>, Counts)>,
}

impl Site {
    pub(crate) fn new(ack: Ack, head: Seq, settled: Seq) -> Site {
        Site {
            ack,
            head: AtomicU64::new(head.0),
            checkpoint: AtomicU64::new(0),
            moved: Notify::new(),
            listeners: Mutex::default(),
            waiting: Mutex::default(),
            settled: AtomicU64::new(settled.0),
            left_out: AtomicU64::new(0),
            doubtful: AtomicBool::new(false),
            unverified: AtomicU64::new(0),
            others: OnceLock::new(),
            tally: Arc::default(),
        }
    }

    /// How often this node's rules have fired since it started.
    pub fn tally(&self) -> Arc<Mutex<Tally>> {
        self.tally.clone()
    }

    /// Once, when the mesh is up.
    pub fn join(&self, others: Arc<dyn Others>) {
        let _ = self.others.set(others);
    }

    pub fn others(&self) -> Option<&Arc<dyn Others>> {
        self.others.get()
    }

    /// The last record of this node that is on disk.
    pub fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }

    /// The cursor of the newest checkpoint that was made in this life; 0 before the first.
    pub fn checkpoint(&self) -> Seq {
        Seq(self.checkpoint.load(Ordering::Acquire))
    }

    /// Resolves when head or checkpoint have moved since it resolved last. For one waiter.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Is told each time that the head has moved, for one waiter, for as long as it is kept.
    pub fn listen(&self) -> Arc<Notify> {
        let listener = Arc::new(Notify::new());
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&listener));
        listener
    }

    pub(crate) fn committed(&self, head: Seq) {
        self.head.store(head.0, Ordering::Release);
        self.moved.notify_one();
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.notify_one());
    }

    pub(crate) fn saved(&self, cursor: Seq) {
        self.checkpoint.store(cursor.0, Ordering::Release);
        self.moved.notify_one();
    }

    /// A part of a submission whose records end at `through` is on this node's disk: its ticket is told so, at once or when the site has
    /// them too.
    pub(crate) fn stored(&self, through: Seq, ticket: Arc<Ticket>, counts: Counts) {
        if self.ack == Ack::Site {
            let mut waiting = self.waiting();
            if waiting.confirmed < through {
                waiting.tickets.push_back((through, ticket, counts));
                return;
            }
        }
        ticket.stored(counts);
    }

    /// Records up to `head` are on as many other nodes as were asked for.
    pub fn confirm(&self, head: Seq) {
        let done: VecDeque<(Seq, Arc<Ticket>, Counts)> = {
            let mut waiting = self.waiting();
            waiting.confirmed = waiting.confirmed.max(head);
            // Shards tell their tickets in the order of the journal each, but not among each other.
            let (done, left) =
                std::mem::take(&mut waiting.tickets).into_iter().partition(|(through, ..)| *through <= head);
            waiting.tickets = left;
            done
        };
        done.into_iter().for_each(|(_, ticket, counts)| ticket.stored(counts));
    }

    /// Records up to here are on as many other nodes as were asked for.
    pub fn confirmed(&self) -> Seq {
        self.waiting().confirmed
    }

    pub(crate) fn unverified(&self, devices: usize) {
        self.unverified.fetch_add(devices as u64, Ordering::Relaxed);
    }

    /// Devices whose events were taken before it was known what other nodes had of them.
    pub fn taken_unverified(&self) -> u64 {
        self.unverified.load(Ordering::Relaxed)
    }

    /// Up to here it is known which of this node's events stand in other journals too and count there: they are left out. A node that is
    /// in no site need not ask anybody.
    pub fn settled(&self) -> Seq {
        Seq(self.settled.load(Ordering::Acquire))
    }

    pub fn settle(&self, through: Seq) {
        self.settled.fetch_max(through.0, Ordering::AcqRel);
    }

    /// The last record of this node that leaves events out of its windows; 0 when there is none.
    pub fn left_out(&self) -> Seq {
        Seq(self.left_out.load(Ordering::Acquire))
    }

    pub fn has_left_out(&self, record: Seq) {
        self.left_out.fetch_max(record.0, Ordering::AcqRel);
    }

    pub(crate) fn may_keep(&self) -> bool {
        !self.doubtful.load(Ordering::Acquire)
    }

    /// No checkpoint is kept while windows are about to be defined or rebuilt: it would hold what they are not to be any more.
    pub fn doubt(&self, doubtful: bool) {
        self.doubtful.store(doubtful, Ordering::Release);
    }

    /// Submissions that wait for the site.
    pub fn unconfirmed(&self) -> usize {
        self.waiting().tickets.len()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
