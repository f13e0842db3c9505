//! The panes of a site as this node knows them: its own, and those in its copies of the others' journals.

use std::collections::BTreeMap;

use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    record::{self, Class, RecordKind},
    time::Timestamp,
    window::{self, Pane, WindowSpec},
};
use millpond_gateway::port::AskError;
use millpond_store::Reader;

use crate::{
    api::newest,
    shares::{PaneShares, Said},
};

/// The panes of one window as a node with these journals knows them, its own first, the newest ends first.
///
/// # Errors
/// When a journal cannot be read.
pub fn of_site(spec: &WindowSpec, journals: &[(&Reader, (Origin, Incarnation))]) -> Result<Vec<Pane>, AskError> {
    let mut shares = Shares::new(spec);
    for (reader, life) in journals {
        shares.read(reader, *life, usize::MAX, |pane| pane.window == spec.name)?;
        shares.void(*life, last_left_out(reader)?);
    }
    Ok(shares.merged(usize::MAX))
}

/// (end, start, key, and for windows that are of each node alone, whose)
type Name = (Timestamp, Timestamp, String, Option<Origin>);

/// The newest share of each node in the panes of one window.
pub struct Shares<'a> {
    spec: &'a WindowSpec,
    panes: BTreeMap<Name, PaneShares<(Origin, u16)>>,
    /// The last record of a store that leaves events out.
    left_out: BTreeMap<(Origin, u16), Seq>,
}

impl<'a> Shares<'a> {
    pub fn new(spec: &'a WindowSpec) -> Shares<'a> {
        Shares { spec, panes: BTreeMap::new(), left_out: BTreeMap::new() }
    }

    /// The store's last record that leaves events out, 0 when there is none: who speaks for the node without knowing of it is not believed.
    pub fn void(&mut self, (origin, incarnation): (Origin, Incarnation), left_out: Seq) {
        let known = self.left_out.entry((origin, incarnation.founding())).or_default();
        *known = left_out.max(*known);
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
                found += usize::from(self.take((origin, incarnation), row.seq, pane));
            }
            found < limit.saturating_mul(2)
        })
    }

    /// Whether it is one that was not known.
    fn take(&mut self, by: (Origin, Incarnation), record: Seq, pane: Pane) -> bool {
        let (origin, incarnation, at) =
            pane.of.map_or((by.0, by.1, record), |of| (of.origin, of.incarnation, of.through));
        let alone = (!window::of_site(self.spec)).then_some(origin);
        let name = (pane.end, pane.start, pane.key.clone(), alone);
        self.panes.entry(name).or_default().take((origin, incarnation.founding()), Said { incarnation, at, pane })
    }

    /// The panes, the newest ends first.
    pub fn merged(&self, limit: usize) -> Vec<Pane> {
        let left_out = |store: &(Origin, u16)| self.left_out.get(store).copied().unwrap_or_default();
        let merge = |shares: &PaneShares<_>| shares.merged(self.spec, left_out);
        self.panes.values().rev().filter_map(merge).take(limit).collect()
    }
}

/// The last record that leaves events out; 0 when nothing is left out.
///
/// # Errors
/// When the journal cannot be read.
pub fn last_left_out(reader: &Reader) -> Result<Seq, AskError> {
    let mut last = Seq(0);
    newest(reader, Class::State, |row| {
        if row.kind == RecordKind::LeftOut {
            last = row.seq;
        }
        last == Seq(0)
    })?;
    Ok(last)
}
