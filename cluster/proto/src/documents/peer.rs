//! What is going on with one peer: whose turn it is, and messages that come in parts.

use std::collections::BTreeMap;

use automerge::sync::State;
use bytes::Bytes;

use super::{
    name::Slot,
    said::{PART_BYTES_MAX, Said},
};
use crate::Now;

#[derive(Default)]
pub struct Peer {
    /// Documents that differ, with the peer's epoch; they get their turns one after the other.
    pub queue: BTreeMap<Slot, u32>,
    /// The synchronisation that we asked for, and the one that the peer asked for.
    pub asking: Option<Session>,
    pub answering: Option<Session>,
}

impl Peer {
    pub fn session(&mut self, asking: bool) -> &mut Option<Session> {
        if asking { &mut self.asking } else { &mut self.answering }
    }
}

/// One document's turn. It starts from nothing on both sides, so that what was lost in an earlier turn is not taken for known.
pub struct Session {
    pub turn: u64,
    pub slot: Slot,
    pub epoch: u32,
    pub state: State,
    /// An answer waits for the document to be on disk.
    pub due: bool,
    pub heard: Now,
    sent: u32,
    assembling: u32,
    parts: BTreeMap<u32, Bytes>,
}

impl Session {
    pub fn new(now: Now, turn: u64, slot: Slot, epoch: u32) -> Session {
        Session {
            turn,
            slot,
            epoch,
            state: State::new(),
            due: true,
            heard: now,
            sent: 0,
            assembling: 0,
            parts: BTreeMap::new(),
        }
    }

    /// A whole message, when its last missing part is there. Parts of a later message replace those of an earlier one.
    pub fn assemble(&mut self, message: u32, part: u32, parts: u32, bytes: Bytes) -> Option<Vec<u8>> {
        if message < self.assembling {
            return None;
        }
        if message > self.assembling {
            self.parts.clear();
            self.assembling = message;
        }
        self.parts.insert(part, bytes);
        if self.parts.len() < parts as usize || self.parts.last_key_value().is_none_or(|(last, _)| *last >= parts) {
            return None;
        }
        self.assembling = message.saturating_add(1);
        Some(std::mem::take(&mut self.parts).into_values().flatten().collect())
    }

    /// A message in parts.
    pub fn split(&mut self, asker: bool, message: &[u8]) -> Vec<Said> {
        let number = self.sent;
        self.sent += 1;
        let parts = message.len().div_ceil(PART_BYTES_MAX).max(1) as u32;
        let pieces = message.chunks(PART_BYTES_MAX).enumerate();
        let said = |(part, piece): (usize, &[u8])| Said::Sync {
            asker,
            turn: self.turn,
            slot: self.slot,
            epoch: self.epoch,
            message: number,
            part: part as u32,
            parts,
            bytes: Bytes::copy_from_slice(piece),
        };
        pieces.map(said).collect()
    }
}
