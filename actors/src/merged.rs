//! Windows over many sites: the panes that their nodes said become one pane each.
//!
//! The records come in the order of each journal, and the journals in any order. Each node's pane is its *share*, as in the panes of a site
//! ([`site_panes`](crate::site_panes)): what was said of it last, by itself or in its place, so that any order and any repetition ends with
//! the same panes. What comes out is said: whenever the merge of a pane differs from what was said of it last it is said again,
//! with the next revision.
//!
//! **Names.** Panes of different tenants never meet. The key of a pane of the tenant [`DEFAULT_TENANT`] is the key; that of another one is
//! `TENANT/KEY`. Windows `by = "node"` are of each node alone; they come out only when a rule is on them, with the keys `SITE/ORIGIN`.
//! Nobody can choose a key that looks like another's: keys that hold a `/` are refused.
//!
//! **Bounds.** For each window and tenant the panes are kept whose end lies at most `keep` before the newest end that was closed; older ones
//! are folded away, and what comes for them later is counted ([`Counters::late`]). An end that lies beyond the clock that was told
//! last ([`clock`](Merged::clock)) moves nothing: one box with a wrong date does not close the windows of all others. More than
//! [`MERGED_PANES_MAX`] panes are not kept.
//!
//! **After a restart** nothing is known. What was said before is read back ([`said`], [`seed`](Merged::seed)); then all records that hold
//! panes from [`horizon`](Merged::horizon) on are taken again, by [`learn`](Merged::learn), which says nothing, for half of the shares are
//! another pane than all of them; [`news`](Merged::news) says at last what was not said yet.
//!
//! Invariants
//! 1. Of two panes that are said under one name the later one differs and has the next revision.
//! 2. Panes that were merged already are no shares: the own journal may be one of the journals.

mod said;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    limits::MERGED_PANES_MAX,
    record::{self, RecordKind},
    rule::{Condition, RuleSpec},
    time::{Span, Timestamp},
    window::{self, Pane, WindowSpec},
};

pub use self::said::{Said, said};
use crate::shares::{self, PaneShares};

/// The tenant whose panes keep their keys.
pub use millpond_gateway::port::DEFAULT_TENANT;
/// How far an end may lie beyond the clock and still close windows.
const AHEAD: Span = Span::from_secs(300);

/// Merges the panes of many sites.
#[derive(Debug)]
pub struct Merged {
    windows: BTreeMap<Arc<str>, WindowSpec>,
    keep: Span,
    now: Timestamp,
    groups: BTreeMap<At, Group>,
    /// The last record of a store that leaves events out.
    left_out: BTreeMap<Store, Seq>,
    /// Panes in which others have spoken for a store.
    spoken: BTreeMap<Store, BTreeSet<(At, Name)>>,
    changed: BTreeSet<(At, Name)>,
    counters: Counters,
}

/// What did not become part of a pane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Panes that came when theirs was folded away.
    pub late: u64,
    /// Panes with keys or bounds that no window can have, and records that cannot be read.
    pub refused: u64,
    /// Panes that were folded away before their time, because there were too many.
    pub folded_early: u64,
}

/// Window and tenant.
type At = (Arc<str>, Arc<str>);
/// (end, start, key without its tenant)
type Name = (Timestamp, Timestamp, String);

/// The journal that a share is from: records of different ones are different, whatever their numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Store {
    tenant: Arc<str>,
    site: Arc<str>,
    origin: Origin,
    founding: u16,
}

/// The panes of one window and tenant.
#[derive(Debug)]
struct Group {
    /// What ends before is folded away.
    horizon: Timestamp,
    /// The newest end that was closed since.
    newest: Timestamp,
    panes: BTreeMap<Name, Known>,
}

#[derive(Debug, Default)]
struct Known {
    shares: PaneShares<Store>,
    /// Revision and digest of what was said last.
    said: Option<(u32, u64)>,
}

impl Merged {
    /// Merges these windows; panes of others are passed over. Those of windows by node come out when one of the rules is on them.
    pub fn new(windows: &[WindowSpec], rules: &[RuleSpec], keep: Span) -> Merged {
        let judged = |name: &str| {
            rules.iter().any(|rule| matches!(&rule.when, Condition::Window { window, .. } if window == name))
        };
        let taken = windows.iter().filter(|spec| window::of_site(spec) || judged(&spec.name));
        Merged {
            windows: taken.map(|spec| (spec.name.as_str().into(), spec.clone())).collect(),
            keep,
            now: Timestamp::MAX,
            groups: BTreeMap::new(),
            left_out: BTreeMap::new(),
            spoken: BTreeMap::new(),
            changed: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    /// What time it is. Until it is told every end is believed.
    pub fn clock(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Takes a record of a node of a site in; returns the panes that are different by it. One that was taken before changes nothing.
    pub fn take(
        &mut self,
        tenant: &str,
        site: &str,
        life: (Origin, Incarnation),
        seq: Seq,
        kind: RecordKind,
        payload: &[u8],
    ) -> Vec<Pane> {
        self.learn(tenant, site, life, seq, kind, payload);
        self.news()
    }

    /// Takes a record in and says nothing yet.
    pub fn learn(
        &mut self,
        tenant: &str,
        site: &str,
        (origin, incarnation): (Origin, Incarnation),
        seq: Seq,
        kind: RecordKind,
        payload: &[u8],
    ) {
        match kind {
            RecordKind::Panes => match record::decode::<Vec<Pane>>(payload) {
                Ok(panes) => {
                    let (tenant, site) = (Arc::from(tenant), Arc::from(site));
                    // Of two of the same name the last one holds.
                    for pane in panes.into_iter().rev() {
                        self.share(&tenant, &site, (origin, incarnation, seq), pane);
                    }
                }
                Err(_) => self.counters.refused += 1,
            },
            RecordKind::LeftOut => self.void(tenant, site, (origin, incarnation), seq),
            _ => {}
        }
    }

    /// The last record of a node that leaves events out of its windows: who speaks for the node without knowing of it is not believed.
    /// [`learn`](Self::learn) finds it by itself, unless the record is older than what is taken again after a restart.
    pub fn void(&mut self, tenant: &str, site: &str, (origin, incarnation): (Origin, Incarnation), left_out: Seq) {
        let store = Store { tenant: tenant.into(), site: site.into(), origin, founding: incarnation.founding() };
        let known = self.left_out.entry(store.clone()).or_default();
        if left_out > *known {
            *known = left_out;
            self.changed.extend(self.spoken.get(&store).into_iter().flatten().cloned());
        }
    }

    /// The panes that differ from what was said last, the oldest ends of each window and tenant first.
    pub fn news(&mut self) -> Vec<Pane> {
        let mut panes = Vec::new();
        let mut touched = BTreeSet::new();
        for (at, name) in std::mem::take(&mut self.changed) {
            let Some(spec) = self.windows.get(&at.0) else { continue };
            let left_out = |store: &Store| self.left_out.get(store).copied().unwrap_or_default();
            let known = self.groups.get_mut(&at).and_then(|group| group.panes.get_mut(&name));
            if let Some(known) = known {
                // When nobody's word holds any more there is nothing in it.
                let merged = known.shares.merged(spec, left_out).unwrap_or_else(|| nothing(&at.0, &name));
                panes.extend(known.say(merged, key_of(&at.1, &name.2)));
            }
            touched.insert(at);
        }
        touched.iter().for_each(|at| self.fold(at));
        panes
    }

    /// What was said before the restart, before any record is taken.
    pub fn seed(&mut self, said: Vec<Said>) {
        for Said { window, key, start, end, revision, digest, open } in said {
            let Some((name, spec)) = self.windows.get_key_value(&*window) else { continue };
            let Some((tenant, key)) = split(spec, &key) else { continue };
            let group = self.groups.entry((name.clone(), tenant.into())).or_default();
            if !open {
                group.newest = group.newest.max(end);
            }
            group.panes.entry((end, start, key.to_owned())).or_default().said = Some((revision, digest));
        }
        let all: Vec<At> = self.groups.keys().cloned().collect();
        all.iter().for_each(|at| self.fold(at));
    }

    /// Panes that end before are folded away in all windows: records that hold none of a later end need not be taken again.
    pub fn horizon(&self) -> Timestamp {
        self.groups.values().map(|group| group.horizon).min().unwrap_or(Timestamp::MIN)
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn share(
        &mut self,
        tenant: &Arc<str>,
        site: &Arc<str>,
        (origin, incarnation, seq): (Origin, Incarnation, Seq),
        pane: Pane,
    ) {
        if pane.merged {
            return;
        }
        let Some((window, spec)) = self.windows.get_key_value(&*pane.window) else { return };
        if pane.key.contains('/') || pane.start >= pane.end {
            self.counters.refused += 1;
            return;
        }
        let (origin, incarnation, at) =
            pane.of.map_or((origin, incarnation, seq), |of| (of.origin, of.incarnation, of.through));
        let key = if window::of_site(spec) { pane.key.clone() } else { format!("{site}/{origin}") };
        let place: At = (window.clone(), tenant.clone());
        let group = self.groups.entry(place.clone()).or_default();
        if pane.end < group.horizon {
            self.counters.late += 1;
            return;
        }
        if !pane.open && pane.end <= self.now.saturating_add(AHEAD) {
            group.newest = group.newest.max(pane.end);
        }
        let name: Name = (pane.end, pane.start, key);
        let store = Store { tenant: tenant.clone(), site: site.clone(), origin, founding: incarnation.founding() };
        if pane.of.is_some() {
            self.spoken.entry(store.clone()).or_default().insert((place.clone(), name.clone()));
        }
        let known = group.panes.entry(name.clone()).or_default();
        if known.shares.take(store, shares::Said { incarnation, at, pane }) {
            self.changed.insert((place.clone(), name));
        }
        if group.panes.len() > MERGED_PANES_MAX {
            self.make_room(&place);
        }
    }

    /// Folds away what ends before the horizon, which moves to where the newest end lets it be.
    fn fold(&mut self, at: &At) {
        let Some(group) = self.groups.get_mut(at) else { return };
        let floor = Timestamp(group.newest.0.saturating_sub(self.keep.0));
        group.horizon = group.horizon.max(floor);
        while let Some((name, _)) = group.panes.first_key_value()
            && name.0 < group.horizon
            && let Some((name, known)) = group.panes.pop_first()
        {
            forget(&mut self.spoken, at, &name, &known);
        }
    }

    fn make_room(&mut self, at: &At) {
        let Some(group) = self.groups.get_mut(at) else { return };
        let Some((name, known)) = group.panes.pop_first() else { return };
        group.horizon = group.horizon.max(Timestamp(name.0.0.saturating_add(1)));
        self.counters.folded_early += 1;
        forget(&mut self.spoken, at, &name, &known);
        self.changed.remove(&(at.clone(), name));
    }
}

impl Default for Group {
    fn default() -> Group {
        Group { horizon: Timestamp::MIN, newest: Timestamp::MIN, panes: BTreeMap::new() }
    }
}

impl Known {
    /// Invariant 1; a pane that nobody was told of is not taken back.
    fn say(&mut self, merged: Pane, key: String) -> Option<Pane> {
        let digest = merged.digest();
        let revision = match self.said {
            Some((_, said)) if said == digest => return None,
            Some((revision, _)) => revision.saturating_add(1),
            None if merged.is_retraction() => return None,
            None => 0,
        };
        self.said = Some((revision, digest));
        Some(Pane { key, revision, merged: true, share: None, of: None, ..merged })
    }
}

fn nothing(window: &str, (end, start, key): &Name) -> Pane {
    Pane {
        window: window.to_owned(),
        key: key.clone(),
        start: *start,
        end: *end,
        revision: 0,
        open: false,
        metrics: Vec::new(),
        share: None,
        of: None,
        merged: true,
    }
}

fn forget(spoken: &mut BTreeMap<Store, BTreeSet<(At, Name)>>, at: &At, name: &Name, known: &Known) {
    for store in known.shares.spoken_for() {
        if let Some(names) = spoken.get_mut(store) {
            names.remove(&(at.clone(), name.clone()));
            if names.is_empty() {
                spoken.remove(store);
            }
        }
    }
}

fn key_of(tenant: &str, key: &str) -> String {
    if tenant == DEFAULT_TENANT { key.to_owned() } else { format!("{tenant}/{key}") }
}

/// The tenant of whose sites a pane of this window is; `None` when the key is none of such a window.
pub(crate) fn tenant_of<'a>(spec: &WindowSpec, key: &'a str) -> Option<&'a str> {
    split(spec, key).map(|(tenant, _)| tenant)
}

/// Tenant and rest of a key that [`key_of`] made; `None` when it did not.
fn split<'a>(spec: &WindowSpec, key: &'a str) -> Option<(&'a str, &'a str)> {
    let own = usize::from(!window::of_site(spec));
    match key.matches('/').count() {
        n if n == own => Some((DEFAULT_TENANT, key)),
        n if n == own + 1 => key.split_once('/'),
        _ => None,
    }
}
