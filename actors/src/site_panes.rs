//! The panes of a site as this node knows them: its own, and those in its copies of the others' journals.

use std::collections::BTreeMap;

use millpond_core::{
    ids::{Incarnation, Origin},
    record::{self, Class, RecordKind},
    time::Timestamp,
    window::{self, Pane, WindowSpec, merge_shares},
};
use millpond_gateway::port::AskError;
use millpond_store::Reader;

use crate::api::newest;

/// The panes of one window as a node with these journals knows them, its own first, the newest ends first.
///
/// # Errors
/// When a journal cannot be read.
pub fn of_site(spec: &WindowSpec, journals: &[(&Reader, (Origin, Incarnation))]) -> Result<Vec<Pane>, AskError> {
    let mut shares = Shares::new(spec);
    for (reader, life) in journals {
        shares.read(reader, *life, usize::MAX, |pane| pane.window == spec.name)?;
    }
    Ok(shares.merged(usize::MAX))
}

/// (end, start, key, and for windows that are of each node alone, whose)
type Name = (Timestamp, Timestamp, String, Option<Origin>);

/// The newest share of each node in the panes of one window.
pub struct Shares<'a> {
    spec: &'a WindowSpec,
    /// By store: what one that was lost has said is not said again by the next one.
    panes: BTreeMap<Name, BTreeMap<(Origin, u16), (Incarnation, Pane)>>,
}

impl<'a> Shares<'a> {
    pub fn new(spec: &'a WindowSpec) -> Shares<'a> {
        Shares { spec, panes: BTreeMap::new() }
    }

    /// Takes in what a journal holds of about the newest `limit` panes.
    pub fn read(
        &mut self,
        reader: &Reader,
        (origin, incarnation): (Origin, Incarnation),
        limit: usize,
        wanted: impl Fn(&Pane) -> bool,
    ) -> Result<(), AskError> {
        let mut found = 0;
        newest(reader, Class::Pane, |row| {
            if row.kind != RecordKind::Panes {
                return true;
            }
            let panes = record::decode::<Vec<Pane>>(row.payload).unwrap_or_default();
            for pane in panes.into_iter().rev().filter(|pane| wanted(pane)) {
                found += usize::from(self.take((origin, incarnation), pane));
            }
            found < limit.saturating_mul(2)
        })
    }

    /// Whether it is one that was not known.
    fn take(&mut self, by: (Origin, Incarnation), pane: Pane) -> bool {
        let whose = pane.of.unwrap_or(by);
        let alone = (!window::of_site(self.spec)).then_some(whose.0);
        let name = (pane.end, pane.start, pane.key.clone(), alone);
        let shares = self.panes.entry(name).or_default();
        let key = (whose.0, whose.1.founding());
        let rank = |incarnation: Incarnation, pane: &Pane| (incarnation, pane.revision, !pane.open);
        let newer = shares.get(&key).is_none_or(|(known, held)| rank(*known, held) < rank(whose.1, &pane));
        if newer {
            shares.insert(key, (whose.1, pane));
        }
        newer
    }

    /// The panes, the newest ends first.
    pub fn merged(&self, limit: usize) -> Vec<Pane> {
        let merge = |shares: &BTreeMap<_, (Incarnation, Pane)>| {
            let shares: Vec<&Pane> = shares.values().map(|(_, pane)| pane).collect();
            merge_shares(self.spec, &shares)
        };
        self.panes.values().rev().take(limit).filter_map(merge).collect()
    }
}
