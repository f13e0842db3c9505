//! Publishes whose fate is not known yet, in the order they came.
//!
//! One entry stands for the publishes of one read. It is settled when the receipt of its submission is there and its retained messages
//! are kept; entries are settled strictly in order, which keeps acknowledgements in the order of their publishes.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::codec::Reason;
use crate::{
    broker::Message,
    port::{Receipt, Refusal},
};

/// One publish.
#[derive(Debug)]
pub(super) struct Item {
    /// Its packet identifier; 0 for QoS 0.
    pub id: u16,
    pub fate: Fate,
    /// What subscribers get once the fate is good.
    pub message: Option<Box<Message>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// That of the entry's submission.
    Submitted,
    /// That of the next of the entry's retained messages.
    Retained,
    /// Nothing is kept.
    Passed,
    Denied(Reason),
}

type Kept = Pin<Box<dyn Future<Output = bool> + Send>>;

pub(super) struct Entry {
    pub items: Vec<Item>,
    /// Publishes, also those of QoS 0 that have no item.
    pub publishes: usize,
    pub bytes: usize,
    receipt: Option<oneshot::Receiver<Receipt>>,
    keeping: Vec<Keeping>,
    pub verdict: Receipt,
    /// Whether each retained message was kept, in their order.
    pub kept: VecDeque<bool>,
}

enum Keeping {
    Waits(Kept),
    Done(bool),
}

impl Entry {
    pub(super) fn new(items: Vec<Item>, publishes: usize, bytes: usize, keeping: Vec<Kept>) -> Entry {
        let keeping = keeping.into_iter().map(Keeping::Waits).collect();
        let verdict = Receipt::Stored { accepted: 0, duplicates: 0, rejected: 0 };
        Entry { items, publishes, bytes, receipt: None, keeping, verdict, kept: VecDeque::new() }
    }

    pub(super) fn await_receipt(&mut self, receipt: oneshot::Receiver<Receipt>) {
        self.receipt = Some(receipt);
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.verdict = Receipt::Refused(refusal);
    }

    /// Futures do nothing until they are polled: this starts them, and goes on with them.
    fn poll_keeping(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waits = false;
        for keeping in &mut self.keeping {
            if let Keeping::Waits(kept) = keeping {
                match kept.as_mut().poll(cx) {
                    Poll::Ready(kept) => *keeping = Keeping::Done(kept),
                    Poll::Pending => waits = true,
                }
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(receipt) = &mut self.receipt {
            match Pin::new(receipt).poll(cx) {
                // A node that dropped the submission failed while it held it.
                Poll::Ready(verdict) => self.verdict = verdict.unwrap_or(Receipt::Refused(Refusal::Failed)),
                Poll::Pending => return Poll::Pending,
            }
            self.receipt = None;
        }
        if self.poll_keeping(cx).is_pending() {
            return Poll::Pending;
        }
        self.kept = self.keeping.drain(..).map(|keeping| matches!(keeping, Keeping::Done(true))).collect();
        Poll::Ready(())
    }
}

#[derive(Default)]
pub(super) struct Pending {
    entries: VecDeque<Entry>,
    /// Entries at the back whose retained messages were not handed over yet.
    unstarted: usize,
    pub publishes: usize,
    pub bytes: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.publishes += entry.publishes;
        self.bytes += entry.bytes;
        self.unstarted = if entry.keeping.is_empty() { self.unstarted } else { self.unstarted + 1 };
        self.entries.push_back(entry);
    }

    /// The oldest entry, once it is settled. Pending also when there is none.
    pub(super) fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Entry> {
        if std::mem::take(&mut self.unstarted) > 0 {
            for entry in &mut self.entries {
                let _ = entry.poll_keeping(cx);
            }
        }
        let Some(front) = self.entries.front_mut() else { return Poll::Pending };
        if front.poll(cx).is_pending() {
            return Poll::Pending;
        }
        match self.entries.pop_front() {
            Some(entry) => {
                self.publishes -= entry.publishes;
                self.bytes -= entry.bytes;
                Poll::Ready(entry)
            }
            None => Poll::Pending,
        }
    }
}
