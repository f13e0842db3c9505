//! Who is told what: digests, turns of synchronisation, changes as they are made.
//!
//! Of each pair the node with the lower origin asks, so that no document is synchronised twice at once: the higher one says what it has,
//! and the lower one takes the documents that differ in turns.

use automerge::{
    Change, ReadDoc,
    sync::{Message, SyncDoc},
};
use bytes::Bytes;
use millpond_core::{ids::Origin, planted};

use super::{
    Documents, Effect, SUM_PERIOD, TURN_TIMEOUT,
    doc::Doc,
    name::Slot,
    peer::{Peer, Session},
    said::{Entry, Hash, PART_BYTES_MAX, Said},
};
use crate::Now;

impl Documents {
    pub(super) fn peer_up(&mut self, peer: Origin, effects: &mut Vec<Effect>) {
        self.peers.insert(peer, Peer::default());
        if self.me > peer {
            self.say_digest(peer, effects);
        }
    }

    pub(super) fn hear(&mut self, now: Now, from: Origin, bytes: &[u8], effects: &mut Vec<Effect>) {
        if from == self.me || !self.peers.contains_key(&from) {
            self.counts.strangers += 1;
            return;
        }
        match Said::decode(bytes) {
            None => self.counts.malformed += 1,
            Some(Said::Sum(hash)) => {
                let busy = self.peers.get(&from).is_some_and(|peer| peer.asking.is_some() || !peer.queue.is_empty());
                if self.me < from && !busy && hash != self.sum() {
                    say(from, &Said::Ask, effects);
                }
            }
            Some(Said::Ask) => self.say_digest(from, effects),
            Some(Said::Digest { whole, entries }) => self.compare(now, from, whole, &entries, effects),
            Some(Said::Changes { slot, epoch, changes }) => {
                self.take_changes(now, from, slot, epoch, &changes, effects)
            }
            Some(Said::Settled { turn }) => {
                let peer = self.peers.get_mut(&from).expect("looked up before");
                if peer.asking.as_ref().is_some_and(|it| it.turn == turn && !it.due) {
                    peer.asking = None;
                    self.next_turn(now, from, effects);
                }
            }
            Some(Said::Sync { asker, turn, slot, epoch, message, part, parts, bytes }) => {
                let session = Session::new(now, turn, slot, epoch);
                if self.joins(from, !asker, session, effects) {
                    self.take_part(now, from, !asker, (message, part, parts, bytes), effects);
                }
            }
        }
    }

    /// Every few seconds the higher one of a pair tells one hash; turns that got stuck end.
    pub(super) fn compare_notes(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let late = |session: &Option<Session>| session.as_ref().is_some_and(|it| now.since(it.heard) >= TURN_TIMEOUT);
        let peers: Vec<Origin> = self.peers.keys().copied().collect();
        for peer in &peers {
            let it = self.peers.get_mut(peer).expect("just listed");
            if late(&it.answering) {
                it.answering = None;
            }
            if late(&it.asking) {
                it.asking = None;
            }
            self.next_turn(now, *peer, effects);
        }
        if now >= self.next_sum {
            self.next_sum = now.after(SUM_PERIOD);
            let sum = self.sum();
            for peer in peers.into_iter().filter(|peer| *peer < self.me) {
                say(peer, &Said::Sum(sum), effects);
            }
        }
    }

    /// After a document came to disk: what waited for that.
    pub(super) fn go_on(&mut self, now: Now, slot: Slot, effects: &mut Vec<Effect>) {
        let waits = |session: &Option<Session>| session.as_ref().is_some_and(|it| it.due && it.slot == slot);
        let peers: Vec<(Origin, bool)> = self
            .peers
            .iter()
            .flat_map(|(peer, it)| [(*peer, true, waits(&it.asking)), (*peer, false, waits(&it.answering))])
            .filter_map(|(peer, asking, waits)| waits.then_some((peer, asking)))
            .collect();
        for (peer, asking) in peers {
            self.advance(now, peer, asking, effects);
        }
    }

    /// Tells all peers of changes that this node made.
    pub(super) fn ship(&mut self, slot: Slot, epoch: u32, changes: &[Change], effects: &mut Vec<Effect>) {
        let changes: Vec<Bytes> = changes.iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect();
        if changes.is_empty() {
            return;
        }
        if changes.iter().map(Bytes::len).sum::<usize>() > PART_BYTES_MAX {
            // Too much to push; those who ask find it at once.
            let said = Said::Digest { whole: false, entries: vec![self.entry(slot)] };
            self.peers.keys().for_each(|peer| say(*peer, &said, effects));
            return;
        }
        let said = Said::Changes { slot, epoch, changes };
        self.peers.keys().for_each(|peer| say(*peer, &said, effects));
    }

    fn entry(&self, slot: Slot) -> Entry {
        self.docs.get(&slot).map_or(Entry(slot, 0, Hash::default()), |doc| Entry(slot, doc.epoch, doc.digest()))
    }

    fn entries(&self) -> Vec<Entry> {
        self.docs.values().filter(|doc| !doc.durable.is_empty()).map(|doc| self.entry(doc.slot)).collect()
    }

    pub(super) fn sum(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        for Entry(slot, epoch, hash) in self.entries() {
            hasher.update(slot.to_string().as_bytes()).update(&epoch.to_be_bytes()).update(&hash);
        }
        let mut hash = Hash::default();
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        hash
    }

    fn say_digest(&self, to: Origin, effects: &mut Vec<Effect>) {
        say(to, &Said::Digest { whole: true, entries: self.entries() }, effects);
    }

    fn compare(&mut self, now: Now, from: Origin, whole: bool, entries: &[Entry], effects: &mut Vec<Effect>) {
        if self.me > from {
            let entries = entries.iter().map(|entry| self.entry(entry.0)).collect();
            say(from, &Said::Digest { whole: false, entries }, effects);
            return;
        }
        let mut differ: Vec<(Slot, u32)> =
            entries.iter().filter(|entry| self.entry(entry.0) != **entry).map(|entry| (entry.0, entry.1)).collect();
        if whole {
            let missing = |slot: &Slot| entries.iter().all(|entry| entry.0 != *slot);
            differ.extend(self.entries().iter().filter(|own| missing(&own.0)).map(|own| (own.0, own.1)));
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.queue.extend(differ);
        }
        self.next_turn(now, from, effects);
    }

    /// Has a document synchronised with a peer, by whoever of the two asks.
    fn differs(&mut self, now: Now, with: Origin, slot: Slot, epoch: u32, effects: &mut Vec<Effect>) {
        self.counts.repairs += 1;
        if self.me > with {
            say(with, &Said::Digest { whole: false, entries: vec![self.entry(slot)] }, effects);
            return;
        }
        if let Some(peer) = self.peers.get_mut(&with) {
            peer.queue.insert(slot, epoch);
        }
        self.next_turn(now, with, effects);
    }

    fn next_turn(&mut self, now: Now, with: Origin, effects: &mut Vec<Effect>) {
        let own = |docs: &std::collections::BTreeMap<Slot, Doc>, slot| docs.get(&slot).map_or(0, |doc: &Doc| doc.epoch);
        let Some(peer) = self.peers.get_mut(&with).filter(|peer| peer.asking.is_none()) else { return };
        let Some((slot, theirs)) = peer.queue.pop_first() else { return };
        self.next_turn += 1;
        let epoch = theirs.max(own(&self.docs, slot));
        peer.asking = Some(Session::new(now, self.next_turn, slot, epoch));
        self.target(slot, epoch);
        self.advance(now, with, true, effects);
    }

    /// The document of this epoch: the present one, or one that comes in to take its place. None when it is in the past.
    fn target(&mut self, slot: Slot, epoch: u32) -> Option<&mut Doc> {
        let new = || Doc::new(slot, epoch, &self.actor);
        let present = match self.docs.get(&slot) {
            None => self.docs.entry(slot).or_insert_with(new).epoch,
            Some(doc) => doc.epoch,
        };
        if epoch < present {
            return None;
        }
        if epoch == present {
            return self.docs.get_mut(&slot);
        }
        let incoming = self.incoming.entry(slot).or_insert_with(|| Doc::new(slot, epoch, &self.actor));
        if incoming.epoch < epoch {
            *incoming = Doc::new(slot, epoch, &self.actor);
        }
        (incoming.epoch == epoch).then_some(incoming)
    }

    /// Whether a message belongs to a turn; the first one of a peer's turn begins it.
    fn joins(&mut self, from: Origin, asking: bool, session: Session, effects: &mut Vec<Effect>) -> bool {
        let (slot, epoch) = (session.slot, session.epoch);
        let peer = self.peers.get_mut(&from).expect("looked up before");
        let current = peer.session(asking);
        let same = current.as_ref().is_some_and(|it| (it.turn, it.slot, it.epoch) == (session.turn, slot, epoch));
        if !same {
            if asking {
                return false;
            }
            *current = Some(session);
        }
        if self.target(slot, epoch).is_some() {
            return true;
        }
        *self.peers.get_mut(&from).expect("looked up before").session(asking) = None;
        if !asking {
            say(from, &Said::Digest { whole: false, entries: vec![self.entry(slot)] }, effects);
        }
        false
    }

    fn take_part(
        &mut self,
        now: Now,
        from: Origin,
        asking: bool,
        part: (u32, u32, u32, Bytes),
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut session) = self.peers.get_mut(&from).and_then(|peer| peer.session(asking).take()) else { return };
        session.heard = now;
        let whole = session.assemble(part.0, part.1, part.2, part.3);
        let (slot, epoch) = (session.slot, session.epoch);
        let Some(whole) = whole else {
            *self.peers.get_mut(&from).expect("just there").session(asking) = Some(session);
            return;
        };
        let doc = self.target(slot, epoch).expect("joins looked");
        doc.commit();
        let before = doc.history.get_heads();
        let message = Message::decode(&whole).ok();
        let taken =
            message.is_some_and(|message| doc.history.receive_sync_message(&mut session.state, message).is_ok());
        session.due = true;
        if taken {
            *self.peers.get_mut(&from).expect("just there").session(asking) = Some(session);
        } else {
            self.counts.refused += 1;
        }
        self.absorb(slot, epoch, &before);
        self.advance(now, from, asking, effects);
    }

    fn take_changes(
        &mut self,
        now: Now,
        from: Origin,
        slot: Slot,
        epoch: u32,
        raw: &[Bytes],
        effects: &mut Vec<Effect>,
    ) {
        let changes: Option<Vec<Change>> = raw.iter().map(|bytes| sound_change(bytes)).collect();
        let Some(changes) = changes else {
            self.counts.malformed += 1;
            return;
        };
        let Some(doc) = self.target(slot, epoch) else { return self.differs(now, from, slot, epoch, effects) };
        let inside = |hash| changes.iter().any(|change| change.hash() == hash);
        let known = |hash| inside(hash) || doc.history.get_change_by_hash(&hash).is_some();
        if !changes.iter().flat_map(|change| change.deps()).all(|dep| known(*dep)) {
            return self.differs(now, from, slot, epoch, effects);
        }
        doc.commit();
        let before = doc.history.get_heads();
        if doc.history.apply_changes(changes).is_err() {
            self.counts.refused += 1;
        }
        self.absorb(slot, epoch, &before);
    }

    /// Says what is next in a turn, when the document is on disk.
    fn advance(&mut self, now: Now, with: Origin, asking: bool, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&with) else { return };
        let Some(mut session) = peer.session(asking).take() else { return self.next_turn(now, with, effects) };
        let (slot, epoch) = (session.slot, session.epoch);
        let early = planted::is(planted::Bug::ShipBeforeDurable);
        let Some(doc) = self.target(slot, epoch) else {
            // A later epoch has taken its place meanwhile.
            return self.differs(now, with, slot, epoch, effects);
        };
        if doc.is_durable() || early {
            session.due = false;
            let message = doc.history.generate_sync_message(&mut session.state);
            if message.is_none() {
                if asking {
                    return self.next_turn(now, with, effects);
                }
                say(with, &Said::Settled { turn: session.turn }, effects);
            }
            if let Some(message) = message {
                session.split(asking, &message.encode()).iter().for_each(|said| say(with, said, effects));
            }
        }
        if let Some(peer) = self.peers.get_mut(&with) {
            *peer.session(asking) = Some(session);
        }
    }
}

/// Says of a chunk that it is a change as it is: after magic and checksum.
const PLAIN_CHANGE: u8 = 1;

/// A change whose checksum is right: automerge takes what is damaged at its word here. Nobody packs what is pushed, and a few bytes that
/// are packed could unpack to more than there is memory.
fn sound_change(bytes: &[u8]) -> Option<Change> {
    if bytes.get(8) != Some(&PLAIN_CHANGE) {
        return None;
    }
    let change = Change::from_bytes(bytes.to_vec()).ok()?;
    (bytes.get(4..8) == Some(&change.hash().0[..4])).then_some(change)
}

fn say(to: Origin, said: &Said, effects: &mut Vec<Effect>) {
    effects.push(Effect::Send { to, bytes: said.encode() });
}
