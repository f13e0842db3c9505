//! Documents in the mesh: their rows on disk, their messages, and edits that are answered when they are on disk.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use millpond_core::{
    ids::{Incarnation, Origin},
    record::Class,
    time::Span,
};
use millpond_env::Mono;
use millpond_gateway::port::{AskError, Json};
use millpond_proto::{
    Now,
    documents::{Conflict, Documents, Effect, Input, Kind, Refused},
    wire::Message,
};
use millpond_store::{Put, ReadError, Reader, Table};
use serde_json::json;

use super::{
    MeshMsg,
    pen::{Job, Reply, Then},
    state::State,
};
use crate::habits::Habits;

/// However quiet it is, documents are shown the time so often.
const TICK_MAX: Span = Span::from_secs(1);
/// An edit that is not on disk by then is answered as if it had failed; it may still hold.
const PATIENCE: Span = Span::from_secs(10);
/// Devices that are entered into the registry at a time.
const NEWCOMERS: usize = 256;

pub(super) struct Shelf {
    pub documents: Documents,
    ticked: Mono,
    /// When the actor is woken for changes that are being collected; nothing when there are none.
    wakes: Option<Now>,
    waiting: Vec<Waiting>,
}

/// An edit that is not on disk yet.
struct Waiting {
    of: Vec<(Kind, String)>,
    answer: Json,
    reply: Reply,
    until: Mono,
}

impl Shelf {
    pub fn load(
        reader: &Reader,
        me: Origin,
        (incarnation, boots): (Incarnation, u32),
        habits: Habits,
    ) -> Result<Shelf, ReadError> {
        let mut rows = Vec::new();
        reader.range(Table::Documents, b"", |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        // A life of its own for each boot: no number of an earlier one is used for another change.
        let life = (u64::from(incarnation.0) << 32) | u64::from(boots);
        let documents = Documents::new(me, life, rows).with_operations_max(habits.document_operations);
        if documents.counts().unreadable > 0 {
            tracing::warn!(rows = documents.counts().unreadable, "parts of documents could not be read");
        }
        Ok(Shelf { documents, ticked: Mono(0), wakes: None, waiting: Vec::new() })
    }
}

impl State {
    pub(super) fn document(&mut self, input: Input<'_>) {
        let mut effects = Vec::new();
        self.shelf.documents.handle(self.now(), input, &mut effects);
        self.file(effects);
    }

    /// What a peer says of documents. The library below was not written for hostile bytes: should it panic, nothing of this message counts,
    /// and the peer is cut off.
    pub(super) fn heard_document(&mut self, from: Origin, bytes: &[u8]) {
        let (now, mut effects) = (self.now(), Vec::new());
        let documents = &mut self.shelf.documents;
        let heard =
            catch_unwind(AssertUnwindSafe(|| documents.handle(now, Input::Heard { from, bytes }, &mut effects)));
        if heard.is_ok() {
            return self.file(effects);
        }
        self.metrics.malformed.inc();
        tracing::error!(peer = %from.short(), "what a peer said of documents made the library fail");
        if let Some(peer) = self.peers.get(&from) {
            peer.link.close("its documents cannot be read");
        }
    }

    fn file(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Save { id, rows } => {
                    let puts = rows.into_iter();
                    let puts =
                        puts.map(|(key, value)| Put { table: Table::Documents, key, value: value.map(Into::into) });
                    let job = Job { puts: puts.collect(), then: Some(Then::Document(id)), ..Job::default() };
                    let _ = self.files.send(job);
                }
                Effect::Send { to, bytes } => self.say(to, Class::State, &Message::Document(bytes.into())),
                Effect::Changed(kind, name) => self.document_changed(kind, name),
            }
        }
    }

    fn document_changed(&mut self, kind: Kind, name: String) {
        match kind {
            Kind::Registry => {
                if self.shelf.documents.is_deleted(&name) {
                    self.forget_twin(&name);
                }
                self.twins.due.insert(name);
            }
            Kind::Desired => {
                self.twins.due.insert(name);
            }
            kind => {
                let head = self.shelf.documents.head(kind);
                tracing::info!(kind = kind.name(), name, %head, "a text of the site has changed");
                self.texts_changed(kind);
            }
        }
    }

    pub(super) fn tick_documents(&mut self) {
        self.enter_newcomers();
        self.look_at_documents();
    }

    /// Changes that were collected are due, or nothing was collected for a while.
    fn look_at_documents(&mut self) {
        let now = self.env.now();
        if self.now() >= self.shelf.documents.next_due() || now.since(self.shelf.ticked) >= TICK_MAX {
            self.shelf.ticked = now;
            self.document(Input::Tick);
        }
        self.answer_settled();
    }

    /// An edit waits for its change to be due: that is not left to the next look at the clock.
    fn wake_for_documents(&mut self) {
        let due = self.shelf.documents.next_due();
        if self.shelf.wakes.is_some_and(|at| at <= due) {
            return;
        }
        self.shelf.wakes = Some(due);
        let (timer, actor) = (self.env.clock.timer(Mono(due.0)), self.actor.clone());
        self.env.spawn(async move {
            timer.await;
            let _ = actor.cast(MeshMsg::DocumentsDue);
        });
    }

    pub(super) fn documents_due(&mut self) {
        self.shelf.wakes = None;
        self.look_at_documents();
        if !self.shelf.waiting.is_empty() {
            self.wake_for_documents();
        }
    }

    /// Devices that came to be at home here before they were anywhere else are entered into the registry, once. A deleted one stays so.
    fn enter_newcomers(&mut self) {
        for _ in 0..NEWCOMERS {
            let Some(device) = self.newcomers.pop_first() else { return };
            if !self.shelf.documents.is_unknown(&device) {
                continue;
            }
            let (now, wall_ms) = (self.now(), self.env.wall().as_millis());
            let mut fields = json!({ "first_seen": wall_ms });
            if let Some(kind) =
                self.device_types.iter().find(|(_, patterns)| patterns.iter().any(|any| any.matches(&device)))
            {
                fields["type"] = json!(kind.0);
            }
            if let Err(refused) = self.shelf.documents.set_device(now, wall_ms, &device, &fields) {
                tracing::warn!(device, %refused, "a device could not be registered");
            }
        }
    }

    /// Answers an edit when it is on disk.
    pub(super) fn edited(
        &mut self,
        edit: Result<(), Refused>,
        (kind, name): (Kind, &str),
        answer: impl FnOnce(&State) -> Json,
        reply: Reply,
    ) {
        if let Err(refused) = edit {
            let _ = reply.send(Err(told(&refused)));
            return;
        }
        let answer = answer(self);
        self.edited_all(vec![(kind, name.to_owned())], answer, reply);
    }

    /// Answers edits when all of them are on disk.
    pub(super) fn edited_all(&mut self, of: Vec<(Kind, String)>, answer: Json, reply: Reply) {
        let until = self.env.now().after(PATIENCE);
        self.shelf.waiting.push(Waiting { of, answer, reply, until });
        self.document(Input::Tick);
        self.answer_settled();
        self.wake_for_documents();
    }

    pub(super) fn answer_settled(&mut self) {
        let now = self.env.now();
        for waiting in std::mem::take(&mut self.shelf.waiting) {
            if waiting.of.iter().all(|(kind, name)| self.shelf.documents.is_settled(*kind, name)) {
                let _ = waiting.reply.send(Ok(waiting.answer));
            } else if waiting.until <= now {
                let _ = waiting.reply.send(Err(AskError::Unavailable));
            } else {
                self.shelf.waiting.push(waiting);
            }
        }
    }

    /// What people have to decide. When a device was first seen is no such thing: nodes that met it apart wrote it.
    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let mut all = self.shelf.documents.conflicts();
        all.retain(|conflict| conflict.kind != Kind::Registry || conflict.path != "/first_seen");
        all
    }

    pub(super) fn conflict_json(&self, conflict: &Conflict) -> Json {
        let versions = conflict.versions.iter().map(|version| {
            json!({
                "author": version.author.to_string(),
                "author_name": self.name_of(version.author),
                "at": version.at.wall_ms(),
                "stamp": stamp_of(version),
                "value": version.value,
                "removed": version.value.is_none(),
            })
        });
        let versions: Vec<Json> = versions.collect();
        json!({ "kind": conflict.kind.name(), "name": conflict.name, "path": conflict.path, "versions": versions })
    }

    pub(super) fn resolve(&mut self, body: &Json, reply: Reply) {
        let wanted = |conflict: &&Conflict| {
            body["kind"] == conflict.kind.name()
                && body["name"] == conflict.name.as_str()
                && body["path"] == conflict.path.as_str()
        };
        let conflicts = self.conflicts();
        let found = conflicts.iter().find(wanted);
        let version = body["version"].as_u64().and_then(|version| usize::try_from(version).ok()).unwrap_or(usize::MAX);
        let Some((conflict, chosen)) = found.and_then(|found| Some((found, found.versions.get(version)?))) else {
            let error = "there is no such conflict, or no such version of it: see GET /v1/site/conflicts";
            let _ = reply.send(Err(AskError::NotFound(error.into())));
            return;
        };
        if body["stamp"].as_str().is_some_and(|stamp| stamp != stamp_of(chosen)) {
            let _ = reply.send(Err(AskError::Invalid("the conflict has changed since it was read".into())));
            return;
        }
        let (now, wall_ms) = (self.now(), self.env.wall().as_millis());
        let edit = self.shelf.documents.resolve(now, wall_ms, conflict, version);
        let answer = json!({ "kind": conflict.kind.name(), "name": conflict.name, "path": conflict.path, "value": chosen.value });
        self.edited(edit, (conflict.kind, &conflict.name), |_| answer, reply);
    }
}

/// Names a version, however the others of its conflict change.
fn stamp_of(version: &millpond_proto::documents::Version) -> String {
    format!("{:x}-{}", version.at.0, version.author.short())
}

pub(super) fn told(refused: &Refused) -> AskError {
    match refused {
        Refused::Deleted(_) | Refused::NotRegistered(_) | Refused::NoSuchVersion => {
            AskError::NotFound(refused.to_string())
        }
        _ => AskError::Invalid(refused.to_string()),
    }
}
