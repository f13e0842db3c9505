//! What was said of merged panes before, from the journal of who said it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::ControlFlow,
};

use millpond_core::{
    ids::Seq,
    record::{self, Class, RecordKind},
    time::{Span, Timestamp},
    window::Pane,
};
use millpond_gateway::port::AskError;
use millpond_store::Reader;

use crate::api::unreadable;

/// No window is longer: a pane is said that long before its end at the earliest.
const AHEAD_MAX: Span = Span::from_secs(367 * 86_400);

/// What was said last under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub window: String,
    /// With its tenant.
    pub key: String,
    pub start: Timestamp,
    pub end: Timestamp,
    pub revision: u32,
    pub digest: u64,
    pub open: bool,
}

/// The merged panes that end at `since` or later, as the journal of this node has them; what was written more than the longest window
/// before `since` is not read.
///
/// # Errors
/// When the journal cannot be read.
pub fn said(reader: &Reader, since: Timestamp) -> Result<Vec<Said>, AskError> {
    let written = since.as_millis().saturating_sub(AHEAD_MAX.as_millis());
    let mut found: BTreeMap<(String, String, Timestamp, Timestamp), Said> = BTreeMap::new();
    let scanned = reader.scan_newest(Class::Pane, Seq(u64::MAX), |row| {
        if row.hlc.wall_ms() < written {
            return ControlFlow::Break(());
        }
        if row.kind == RecordKind::Panes && row.max_time >= since {
            let panes = record::decode::<Vec<Pane>>(row.payload).unwrap_or_default();
            for pane in panes.into_iter().rev().filter(|pane| pane.merged && pane.end >= since) {
                let (revision, digest, open) = (pane.revision, pane.digest(), pane.open);
                let Pane { window, key, start, end, .. } = pane;
                let name = (window.clone(), key.clone(), start, end);
                let said = Said { window, key, start, end, revision, digest, open };
                match found.entry(name) {
                    Entry::Occupied(mut known) if known.get().revision < revision => drop(known.insert(said)),
                    Entry::Occupied(_) => {}
                    Entry::Vacant(free) => drop(free.insert(said)),
                }
            }
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(unreadable)?;
    Ok(found.into_values().collect())
}
