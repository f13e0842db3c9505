//! Committed events for whoever watches, live.
//!
//! A tap is for eyes, not for delivery: who reads too slowly misses events and is told how many. Whoever commits looks at one number
//! when nobody watches, and never waits.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use millpond_core::{
    batch::Batch,
    expr::{Expr, ExprError},
    limits::{TAP_QUEUE_BYTES_MAX, TAP_QUEUE_MAX, TAP_READERS_MAX},
};
use tokio::sync::mpsc;

mod line;
#[cfg(test)]
mod tests;

/// Hands committed batches to its readers.
#[derive(Debug, Default)]
pub struct Tap {
    readers: Mutex<Vec<Arc<Reader>>>,
    count: AtomicUsize,
    dropped: AtomicU64,
}

/// What a reader wants to see. Empty: everything.
#[derive(Clone, Debug, Default)]
pub struct TapFilter {
    pub device: Option<String>,
    /// Only events that carry this metric, and of those only this metric.
    pub metric: Option<String>,
    /// Only events for which it is true. Events that it fails on are left out.
    pub condition: Option<Expr>,
}

/// The end at which committed events come out. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    tap: Arc<Tap>,
    reader: Arc<Reader>,
    batches: mpsc::Receiver<Arc<Batch>>,
    filter: TapFilter,
    told: u64,
}

#[derive(Debug)]
struct Reader {
    batches: mpsc::Sender<Arc<Batch>>,
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
}

/// Appends one event as a line of JSON, in the form in which devices may send it.
pub fn event_line(batch: &Batch, device: &str, row: usize, out: &mut Vec<u8>) {
    line::event(batch, device, row, None, out);
}

impl Tap {
    pub fn new() -> Tap {
        Tap::default()
    }

    /// Whether anybody watches: ask before making an `Arc` of a batch.
    pub fn wanted(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Shows a batch to every reader that has room for it.
    pub fn publish(&self, batch: Arc<Batch>) {
        let bytes = batch.weight();
        for reader in self.readers().iter() {
            if !reader.offer(&batch, bytes) {
                reader.dropped.fetch_add(batch.rows() as u64, Ordering::Relaxed);
                self.dropped.fetch_add(batch.rows() as u64, Ordering::Relaxed);
            }
        }
    }

    /// A new reader; `None` when there are too many.
    pub fn subscribe(self: &Arc<Tap>, filter: TapFilter) -> Option<Subscription> {
        let mut readers = self.readers();
        if readers.len() >= TAP_READERS_MAX {
            return None;
        }
        let (sender, batches) = mpsc::channel(TAP_QUEUE_MAX);
        let reader =
            Arc::new(Reader { batches: sender, queued_bytes: AtomicUsize::new(0), dropped: AtomicU64::new(0) });
        readers.push(reader.clone());
        self.count.store(readers.len(), Ordering::Relaxed);
        Some(Subscription { tap: self.clone(), reader, batches, filter, told: 0 })
    }

    /// Events that slow readers have missed since the node started, summed over the readers.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn subscriptions(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Reader>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TapFilter {
    /// # Errors
    /// When `condition` is not an expression.
    pub fn new(
        device: Option<String>,
        metric: Option<String>,
        condition: Option<&str>,
    ) -> Result<TapFilter, ExprError> {
        Ok(TapFilter { device, metric, condition: condition.map(Expr::compile).transpose()? })
    }
}

impl Subscription {
    /// Waits for the next batch and appends its events that pass the filter to `out`, one JSON object per line; a line
    /// `{"dropped":n}` stands where `n` events were missed (of all events, before the filter). Nothing may be appended. Returns `n`.
    pub async fn next(&mut self, out: &mut Vec<u8>) -> u64 {
        // The tap holds the other end for as long as this one lives.
        let Some(batch) = self.batches.recv().await else { return 0 };
        self.reader.queued_bytes.fetch_sub(batch.weight(), Ordering::Relaxed);
        let dropped = self.reader.dropped.load(Ordering::Relaxed);
        let missed = dropped - std::mem::replace(&mut self.told, dropped);
        if missed > 0 {
            out.extend_from_slice(format!("{{\"dropped\":{missed}}}\n").as_bytes());
        }
        line::write(&batch, &self.filter, out);
        missed
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut readers = self.tap.readers();
        readers.retain(|reader| !Arc::ptr_eq(reader, &self.reader));
        self.tap.count.store(readers.len(), Ordering::Relaxed);
    }
}

impl Reader {
    /// A batch that is larger than the whole queue may still go in alone.
    fn offer(&self, batch: &Arc<Batch>, bytes: usize) -> bool {
        let queued = self.queued_bytes.load(Ordering::Relaxed);
        if queued > 0 && queued + bytes > TAP_QUEUE_BYTES_MAX {
            return false;
        }
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = self.batches.try_send(batch.clone()).is_ok();
        if !taken {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }
}
