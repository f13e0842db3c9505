//! Records on their way between nodes, as replication decides.

use millpond_core::{
    ids::{Origin, Seq},
    record::{Class, Track},
};
use millpond_proto::{
    replication::{self, FetchEnd, FetchId, Life, Moment, RunKey},
    wire::{self, Message, Run},
};
use millpond_store::{ReadError, Reader};

use super::{
    MeshMsg,
    copies::{self, Done},
    fetch,
    push::Push,
    state::State,
};
use crate::transport::Link;

impl State {
    /// Records that a peer sent, by itself or because it was asked.
    pub(super) fn arrived(&mut self, from: Origin, run: Run, live: bool) {
        if !run.is_sound() {
            self.metrics.malformed.inc();
            return;
        }
        let key = RunKey::of(&run);
        let mut effects = Vec::new();
        let input = replication::Input::Arrived { from, run: key, live };
        self.replication.handle(Moment(self.env.now().0), input, &mut effects);
        let mut run = Some(run);
        for effect in effects {
            match effect {
                replication::Effect::Keep(kept) if kept == key => {
                    if let Some(run) = run.take() {
                        self.metrics.kept(&run);
                        self.learn_homes(&run);
                        self.learn_twins(&run);
                        self.copies.keep(run);
                    }
                }
                replication::Effect::Ignore(_, _) => self.metrics.ignored.inc(),
                effect => self.carry_out(effect),
            }
        }
    }

    pub(super) fn replicate(&mut self, input: replication::Input) {
        let mut effects = Vec::new();
        self.replication.handle(Moment(self.env.now().0), input, &mut effects);
        effects.into_iter().for_each(|effect| self.carry_out(effect));
    }

    pub(super) fn carry_out(&mut self, effect: replication::Effect) {
        match effect {
            replication::Effect::Announce { to, held } => self.say(to, Class::State, &Message::Held(held)),
            replication::Effect::Push { to, track, first, last } => {
                if let Some(peer) = self.peers.get(&to) {
                    let version = peer.hello.as_ref().map_or(wire::OLDEST, |hello| hello.version);
                    let _ = peer.push.send(Push { track, first, last, version });
                }
            }
            replication::Effect::Fetch { id, from, run, bytes_max } => self.fetch(id, from, run, bytes_max),
            replication::Effect::Acknowledge { to, stored } => self.say(to, Class::State, &Message::Stored(stored)),
            replication::Effect::Confirmed { head } => self.node.site.confirm(head),
            replication::Effect::Superseded { incarnation, head } => {
                tracing::error!(incarnation = incarnation.0, head = head.0, "the site knows a later life of this node");
            }
            replication::Effect::Keep(_) | replication::Effect::Ignore(..) => {}
        }
    }

    pub(super) fn fetch(&self, id: FetchId, from: Origin, wanted: RunKey, bytes_max: u64) {
        let (env, actor) = (self.env.clone(), self.actor.clone());
        let link = self.peers.get(&from).map(|peer| peer.link.clone());
        self.env.spawn(async move {
            let how = match link {
                Some(link) => {
                    let each = |run| {
                        let _ = actor.cast(MeshMsg::Fetched { from, run });
                    };
                    fetch::fetch(&env, &link, wanted, bytes_max, each).await
                }
                None => FetchEnd::Failed,
            };
            let _ = actor.cast(MeshMsg::FetchEnded { id, how });
        });
    }

    pub(super) fn copy(&mut self, done: Done) {
        match done {
            Done::Opened { life, result: Ok(open) } => {
                for copied in &open.copied {
                    self.note_held(life, copied.track, Seq(copied.covered.last()));
                }
                self.copies.opened(life, open);
                self.show_copies();
            }
            Done::Opened { life, result: Err(error) } => {
                tracing::error!(origin = %life.origin, %error, "the copy of a node's journal could not be opened");
                for run in self.copies.failed(life) {
                    self.replicate(replication::Input::NotPersisted(run));
                }
            }
            Done::Stored { life, runs, result } => {
                match result {
                    Ok(committed) => {
                        for run in runs {
                            self.note_held(life, run.track, run.last);
                            self.replicate(replication::Input::Persisted(run));
                        }
                        for range in committed.dropped {
                            let (track, floor) = (range.class.track(), Seq(range.last));
                            self.replicate(replication::Input::Dropped { life, track, floor });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(origin = %life.origin, %error, "records of another node could not be stored");
                        for run in runs {
                            self.replicate(replication::Input::NotPersisted(run));
                        }
                    }
                }
                self.copies.done(life);
            }
        }
    }

    pub(super) fn note_held(&mut self, life: Life, track: Track, last: Seq) {
        let held = self.held.entry((life, track)).or_default();
        *held = (*held).max(last);
    }

    pub(super) fn show_copies(&self) {
        let copies = self.copies.readers().map(|(life, reader)| millpond_actors::site::Copy {
            origin: life.origin,
            incarnation: life.incarnation,
            reader: reader.clone(),
            left_out: self.left_out.get(&life).copied().unwrap_or_default(),
        });
        *self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = copies.collect();
    }

    pub(super) fn moved(&mut self) {
        match heads(&self.node.reader) {
            Ok((head, last)) => {
                self.replicate(replication::Input::Committed { head, last });
                if let Err(error) = self.own_homes(last[Track::Results as usize]) {
                    tracing::debug!(%error, "the homes of devices could not be read for a moment");
                }
            }
            Err(error) => tracing::debug!(%error, "the journal could not be read for a moment"),
        }
        let checkpoint = self.node.site.checkpoint();
        if checkpoint > self.checkpoint {
            self.checkpoint = checkpoint;
            self.send_checkpoint();
        }
    }

    /// The holders of this node's events get what its windows were at the last checkpoint, so that they need not begin with its first record.
    pub(super) fn send_checkpoint(&self) {
        let holders = self.replication.holders(self.me);
        let links: Vec<Link> = holders.iter().filter_map(|peer| Some(self.peers.get(peer)?.link.clone())).collect();
        if links.is_empty() {
            return;
        }
        let (env, reader, site) = (self.env.clone(), self.node.reader.clone(), self.node.site.clone());
        let (origin, incarnation) = (self.me, self.node.incarnation);
        self.env.spawn(async move {
            let Some(Ok(rows)) = env.unblock(move || copies::checkpoint_rows(&reader)).await else { return };
            // The rows may be newer than the checkpoint that was told, never newer than this.
            let cursor = site.head();
            let frame = wire::encode(&Message::Checkpoint(wire::Checkpoint { origin, incarnation, cursor, rows }));
            if frame.len() <= wire::FRAME_BYTES_MAX {
                links.iter().for_each(|link| {
                    link.send(Class::Raw, frame.clone());
                });
            }
        });
    }
}

/// How far the journal goes, and the last record of each track.
pub(super) fn heads(reader: &Reader) -> Result<(Seq, [Seq; 2]), ReadError> {
    let usage = reader.stats()?;
    let last = |track| {
        let classes = Class::ALL.into_iter().filter(|class| class.track() == track);
        classes.map(|class| usage.classes[class as usize].last_seq).max().unwrap_or_default()
    };
    Ok((Seq(usage.next_seq.0 - 1), [last(Track::Results), last(Track::Raw)]))
}
