//! The way in: byte credits, the ticket of each submission, and the split of batches among shards.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use millpond_core::{batch::Batch, ids::device_hash, limits};
use millpond_gateway::port::{Inbound, Receipt, Refusal, Submission};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    plane::Plane,
    shard::{Part, ShardMsg, gather::Counts},
};

/// Bytes per permit: a semaphore counts in `u32`.
const CREDIT_UNIT: usize = 1024;

/// What a submission is waiting for. Its receipt is sent when the last holder lets go.
#[derive(Debug)]
pub struct Ticket {
    receipt: Mutex<Option<oneshot::Sender<Receipt>>>,
    accepted: AtomicU64,
    duplicates: AtomicU64,
    rejected: AtomicU64,
    open: AtomicU64,
    full: AtomicBool,
    /// Given back when the ticket goes: after the commit.
    _credit: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    fn new(receipt: oneshot::Sender<Receipt>, credit: Option<OwnedSemaphorePermit>, parts: u64) -> Ticket {
        Ticket {
            receipt: Mutex::new(Some(receipt)),
            accepted: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            open: AtomicU64::new(parts),
            full: AtomicBool::new(false),
            _credit: credit,
        }
    }

    /// One part is on disk.
    pub fn stored(&self, counts: Counts) {
        self.accepted.fetch_add(counts.accepted, Ordering::Relaxed);
        self.duplicates.fetch_add(counts.duplicates, Ordering::Relaxed);
        self.rejected.fetch_add(counts.rejected, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// One part was not kept because there is no room.
    pub fn refused(&self) {
        self.full.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let receipt = if *self.full.get_mut() {
            Receipt::Refused(Refusal::Full)
        } else if *self.open.get_mut() > 0 {
            Receipt::Refused(Refusal::Failed)
        } else {
            Receipt::Stored {
                accepted: *self.accepted.get_mut(),
                duplicates: *self.duplicates.get_mut(),
                rejected: *self.rejected.get_mut(),
            }
        };
        if let Some(sender) = self.receipt.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = sender.send(receipt);
        }
    }
}

/// Where submissions go at present.
#[derive(Debug)]
enum Way {
    /// The data plane is being (re)built; what comes meanwhile waits, bounded by the credits.
    Waiting(Vec<Submission>),
    Open(Arc<Plane>),
    Closed,
}

#[derive(Debug)]
pub struct Front {
    credits: Arc<Semaphore>,
    credits_max: usize,
    way: RwLock<Way>,
}

impl Front {
    pub fn new(in_flight_bytes: usize) -> Front {
        let credits_max = in_flight_bytes.div_ceil(CREDIT_UNIT).max(limits::PAYLOAD_BYTES_MAX / CREDIT_UNIT);
        Front {
            credits: Arc::new(Semaphore::new(credits_max)),
            credits_max,
            way: RwLock::new(Way::Waiting(Vec::new())),
        }
    }

    /// Waits for room; `None` when the node is going down.
    pub async fn credit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = bytes.div_ceil(CREDIT_UNIT).clamp(1, self.credits_max) as u32;
        self.credits.clone().acquire_many_owned(permits).await.ok()
    }

    /// Bytes between the sockets and the journal.
    pub fn in_flight_bytes(&self) -> usize {
        (self.credits_max - self.credits.available_permits().min(self.credits_max)) * CREDIT_UNIT
    }

    pub fn plane(&self) -> Option<Arc<Plane>> {
        match &*self.way.read().unwrap_or_else(PoisonError::into_inner) {
            Way::Open(plane) => Some(plane.clone()),
            Way::Waiting(_) | Way::Closed => None,
        }
    }

    /// The data plane is being rebuilt: submissions wait until [`open`](Self::open).
    pub fn hold(&self) {
        let mut way = self.way.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*way, Way::Open(_)) {
            *way = Way::Waiting(Vec::new());
        }
    }

    pub fn open(&self, plane: Arc<Plane>) {
        let before = {
            let mut way = self.way.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *way, Way::Open(plane.clone()))
        };
        if let Way::Waiting(submissions) = before {
            submissions.into_iter().for_each(|submission| hand_over(&plane, submission));
        }
    }

    /// Nothing is taken any more.
    pub fn close(&self) {
        *self.way.write().unwrap_or_else(PoisonError::into_inner) = Way::Closed;
        self.credits.close();
    }

    pub fn is_closed(&self) -> bool {
        matches!(*self.way.read().unwrap_or_else(PoisonError::into_inner), Way::Closed)
    }

    pub fn submit(&self, submission: Submission) {
        if let Way::Open(plane) = &*self.way.read().unwrap_or_else(PoisonError::into_inner) {
            return hand_over(plane, submission);
        }
        match &mut *self.way.write().unwrap_or_else(PoisonError::into_inner) {
            Way::Open(plane) => hand_over(plane, submission),
            Way::Waiting(submissions) => submissions.push(submission),
            Way::Closed => {
                let _ = submission.receipt.send(Receipt::Refused(Refusal::Stopping));
            }
        }
    }
}

/// The shard that a device belongs to.
pub fn shard_of(device: &str, shards: usize) -> usize {
    if shards == 1 {
        return 0;
    }
    (device_hash(device) % shards as u64) as usize
}

fn hand_over(plane: &Plane, submission: Submission) {
    let Submission { batches, dead_letters, source, received, credit, receipt, keeper: _ } = submission;
    let shards = plane.shards.len();
    let mut parts: Vec<Vec<Inbound>> = (0..shards).map(|_| Vec::new()).collect();
    for inbound in batches {
        split(inbound, shards, &mut parts);
    }
    // Dead letters travel with the first shard that has a part, or with shard 0.
    let first = parts.iter().position(|part| !part.is_empty()).unwrap_or(0);
    let used = parts.iter().enumerate().filter(|(index, part)| *index == first || !part.is_empty()).count();
    let ticket = Arc::new(Ticket::new(receipt, credit, used as u64));
    let mut dead_letters = Some(dead_letters);
    for (index, batches) in parts.into_iter().enumerate() {
        if batches.is_empty() && index != first {
            continue;
        }
        let dead_letters = if index == first { dead_letters.take().unwrap_or_default() } else { Vec::new() };
        let part = Part { batches, dead_letters, source: source.clone(), received, ticket: ticket.clone() };
        let _ = plane.shards[index].cast(ShardMsg::Events(part));
    }
}

/// A batch goes whole where all its devices belong to one shard, and row by row otherwise.
fn split(inbound: Inbound, shards: usize, parts: &mut [Vec<Inbound>]) {
    let batch = &inbound.batch;
    let homes: Vec<usize> = batch.runs().iter().map(|run| shard_of(batch.device(run), shards)).collect();
    let Some(&first) = homes.first() else { return };
    if homes.iter().all(|home| *home == first) {
        parts[first].push(inbound);
        return;
    }
    let mut split: Vec<Option<Batch>> = (0..shards).map(|_| None).collect();
    for (run, home) in batch.runs().iter().zip(homes) {
        let part = split[home].get_or_insert_with(|| Batch::empty(batch.shape.clone()));
        for row in run.rows() {
            part.push_row_of(batch, batch.device(run), row);
        }
    }
    for (home, batch) in split.into_iter().enumerate() {
        parts[home].extend(batch.map(|batch| Inbound { batch, block: None }));
    }
}
