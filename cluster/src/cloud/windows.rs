//! Windows over all sites of a tenant: what the sites say of the windows that the cloud defines too becomes one pane each, which is journaled,
//! shown and judged like any other.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use millpond_actors::{
    Running,
    config::CloudSettings,
    merged::{Merged, said},
    settings::{Current, Settings},
};
use millpond_core::{
    ids::Seq,
    planted::{self, Bug},
    record::{Class, RecordKind},
    time::Span,
    window::Pane,
};
use millpond_env::Env;
use millpond_proto::{replication::Life, wire::Record};
use millpond_store::{ReadError, Reader};

use super::Consumer;
use crate::sites::Shelf;

/// How long after its end a pane is open to what sites still say of it.
const KEEP: Span = Span::from_secs(7 * 86_400);

type Merge = Box<dyn Fn(Vec<Pane>) -> millpond_actors::Merging + Send + Sync>;

/// The machine, and what it was made of.
struct Defined {
    of: Arc<Settings>,
    merged: Merged,
}

/// Merges the panes of the sites, as they are applied.
pub(super) struct Windows {
    env: Env,
    settings: CloudSettings,
    definitions: Current,
    shelf: Arc<Shelf>,
    reader: Reader,
    merged: Mutex<Defined>,
    /// Journals, shows and judges them.
    merge: Merge,
}

impl Windows {
    /// Goes on from what was said before, and says what was not said yet. Blocks.
    pub fn open(
        env: &Env,
        settings: &CloudSettings,
        running: &Running,
        shelf: &Arc<Shelf>,
    ) -> Result<Windows, ReadError> {
        let (definitions, reader) = (running.settings.clone(), running.reader.clone());
        let of = definitions.now();
        let merged = begin(env, settings, &of, shelf, &reader)?;
        let (env, settings, shelf, merge) = (env.clone(), settings.clone(), shelf.clone(), Box::new(running.merge()));
        Ok(Windows { env, settings, definitions, shelf, reader, merged: Mutex::new(Defined { of, merged }), merge })
    }

    fn merged(&self) -> MutexGuard<'_, Defined> {
        self.merged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew when the cloud's windows or rules are others by now. Reads the copies of all sites then.
    fn follow(&self) {
        let now = self.definitions.now();
        let mut defined = self.merged();
        if Arc::ptr_eq(&defined.of, &now) {
            return;
        }
        if (&defined.of.windows, &defined.of.rules) != (&now.windows, &now.rules) {
            match begin(&self.env, &self.settings, &now, &self.shelf, &self.reader) {
                Ok(merged) => defined.merged = merged,
                Err(error) => return tracing::warn!(%error, "what the sites said could not be read; the windows stay"),
            }
        }
        defined.of = now;
    }

    /// Says what has changed since it was said last.
    pub async fn say(&self) {
        let news = self.merged().merged.news();
        if !news.is_empty() && !(self.merge)(news).await {
            tracing::warn!("panes over all sites could not be stored; they are said again after the next start");
        }
    }
}

#[async_trait]
impl Consumer for Windows {
    async fn apply(&self, site: &str, life: Life, records: &[Record]) {
        let tenant = self.settings.site(site).tenant;
        let of = (life.origin, life.incarnation);
        self.follow();
        {
            let merged = &mut self.merged().merged;
            merged.clock(self.env.wall());
            for record in records.iter().filter(|record| is_of_windows(record.kind)) {
                let twice = planted::is(Bug::CountRevisionTwice).then(|| format!("{site}/{}", record.seq.0));
                let from = twice.as_deref().unwrap_or(site);
                merged.learn(&tenant, from, of, record.seq, record.kind, &record.payload);
            }
        }
        self.say().await;
    }
}

/// With what was said before, and all that the sites have said since.
fn begin(
    env: &Env,
    settings: &CloudSettings,
    now: &Settings,
    shelf: &Shelf,
    reader: &Reader,
) -> Result<Merged, ReadError> {
    let mut merged = Merged::new(&now.windows, &now.rules, KEEP);
    merged.clock(env.wall());
    let since = env.wall().saturating_sub(KEEP);
    merged.seed(said(reader, since).unwrap_or_default());
    for (site, lives) in shelf.all() {
        let tenant = settings.site(&site).tenant;
        for (life, open) in lives {
            learn(&mut merged, &tenant, &site, life, &open.reader)?;
        }
    }
    Ok(merged)
}

fn is_of_windows(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Panes | RecordKind::LeftOut)
}

/// The panes of a copy that may still change, in the order of their numbers.
fn learn(merged: &mut Merged, tenant: &str, site: &str, life: Life, reader: &Reader) -> Result<(), ReadError> {
    let (of, horizon) = ((life.origin, life.incarnation), merged.horizon());
    let mut left_out = Seq(0);
    reader.scan(Class::State, Seq(1), |row| {
        if row.kind == RecordKind::LeftOut {
            left_out = row.seq;
        }
        ControlFlow::Continue(())
    })?;
    if left_out > Seq(0) {
        merged.void(tenant, site, of, left_out);
    }
    // From the newest on back to where no pane is open any more, then forwards.
    let mut first = Seq(u64::MAX);
    reader.scan_newest(Class::Pane, Seq(u64::MAX), |row| {
        if row.kind == RecordKind::Panes && row.max_time < horizon && row.hlc.wall_ms() < horizon.as_millis() {
            return ControlFlow::Break(());
        }
        first = row.seq;
        ControlFlow::Continue(())
    })?;
    if first == Seq(u64::MAX) {
        return Ok(());
    }
    reader.scan(Class::Pane, first, |row| {
        if row.kind == RecordKind::Panes {
            merged.learn(tenant, site, of, row.seq, row.kind, row.payload);
        }
        ControlFlow::Continue(())
    })
}
