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
    panes: BTreeMap<Name, BTreeMap<(Origin, u16), Share>>,
}

/// What was said of one share: by its node, and by those who hold a copy of its journal.
#[derive(Default)]
struct Share {
    own: Option<(Incarnation, Pane)>,
    adopted: Option<(Incarnation, Pane)>,
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
        let share = self.panes.entry(name).or_default().entry((whose.0, whose.1.founding())).or_default();
        let said = (whose.1, pane);
        let (known, newer): (_, fn(&(Incarnation, Pane), &(Incarnation, Pane)) -> bool) =
            if said.1.of.is_some() { (&mut share.adopted, knows_more) } else { (&mut share.own, is_later) };
        let newer = known.as_ref().is_none_or(|known| newer(&said, known));
        if newer {
            *known = Some(said);
        }
        newer
    }

    /// The panes, the newest ends first.
    pub fn merged(&self, limit: usize) -> Vec<Pane> {
        let merge = |shares: &BTreeMap<_, Share>| {
            let shares: Vec<&Pane> = shares.values().filter_map(Share::newest).collect();
            merge_shares(self.spec, &shares)
        };
        self.panes.values().rev().take(limit).filter_map(merge).collect()
    }
}

impl Share {
    /// The node's own word holds, unless its records were read further by somebody else. A copy may lack the node's last records, so
    /// that a revision from there says nothing about which is newer; but windows only grow with the records.
    fn newest(&self) -> Option<&Pane> {
        match (&self.own, &self.adopted) {
            (Some(own), Some(adopted)) if !own.1.is_retraction() && knows_more(adopted, own) => Some(&adopted.1),
            (Some(own), _) => Some(&own.1),
            (None, adopted) => adopted.as_ref().map(|(_, pane)| pane),
        }
    }
}

fn is_later(one: &(Incarnation, Pane), other: &(Incarnation, Pane)) -> bool {
    let rank = |(incarnation, pane): &(Incarnation, Pane)| (*incarnation, pane.revision, !pane.open);
    rank(one) > rank(other)
}

fn knows_more(one: &(Incarnation, Pane), other: &(Incarnation, Pane)) -> bool {
    let values = |pane: &Pane| pane.metrics.iter().map(|metric| metric.count + metric.skipped).sum::<u64>();
    let rank = |(incarnation, pane): &(Incarnation, Pane)| (*incarnation, values(pane), !pane.open);
    rank(one) > rank(other)
}
