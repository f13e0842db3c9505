//! The panes of a site as this node knows them: its own, and those in its copies of the others' journals.

use std::collections::BTreeMap;

use millpond_core::{
    ids::{Incarnation, Origin, Seq},
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
        shares.void(*life, last_left_out(reader)?);
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
    /// The last record of a store that leaves events out.
    left_out: BTreeMap<(Origin, u16), Seq>,
}

/// What was said of one share: by its node, and by those who hold a copy of its journal.
#[derive(Default)]
struct Share {
    own: Option<Said>,
    adopted: Option<Said>,
}

struct Said {
    incarnation: Incarnation,
    /// The node's own record, or how far its journal was known to who said it.
    at: Seq,
    pane: Pane,
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
        let share = self.panes.entry(name).or_default().entry((origin, incarnation.founding())).or_default();
        let said = Said { incarnation, at, pane };
        let (known, newer): (_, fn(&Said, &Said) -> bool) =
            if said.pane.of.is_some() { (&mut share.adopted, adopted_later) } else { (&mut share.own, is_later) };
        let newer = known.as_ref().is_none_or(|known| newer(&said, known));
        if newer {
            *known = Some(said);
        }
        newer
    }

    /// The panes, the newest ends first.
    pub fn merged(&self, limit: usize) -> Vec<Pane> {
        let merge = |shares: &BTreeMap<(Origin, u16), Share>| {
            let left_out = |store| self.left_out.get(store).copied().unwrap_or_default();
            let shares: Vec<&Pane> = shares.iter().filter_map(|(store, share)| share.newest(left_out(store))).collect();
            merge_shares(self.spec, &shares)
        };
        self.panes.values().rev().filter_map(merge).take(limit).collect()
    }
}

impl Share {
    /// The node's own word holds, unless its records were read further by somebody else. A copy may lack the node's last records, so
    /// that a revision from there says nothing about which is newer; but windows only grow with the records, until events are left out.
    fn newest(&self, left_out: Seq) -> Option<&Pane> {
        let adopted = self.adopted.as_ref().filter(|adopted| adopted.at >= left_out);
        match (&self.own, adopted) {
            (Some(own), Some(adopted)) if own.at < left_out => Some(&adopted.pane),
            (Some(own), Some(adopted)) if !own.pane.is_retraction() && knows_more(adopted, own) => Some(&adopted.pane),
            (Some(own), _) => Some(&own.pane),
            (None, adopted) => adopted.map(|adopted| &adopted.pane),
        }
    }
}

fn is_later(one: &Said, other: &Said) -> bool {
    let rank = |said: &Said| (said.incarnation, said.pane.revision, !said.pane.open);
    rank(one) > rank(other)
}

fn adopted_later(one: &Said, other: &Said) -> bool {
    one.at > other.at || (one.at == other.at && knows_more(one, other))
}

fn knows_more(one: &Said, other: &Said) -> bool {
    let values = |pane: &Pane| {
        pane.metrics.iter().flat_map(|metric| [metric.count, metric.skipped]).fold(0, u64::saturating_add)
    };
    let rank = |said: &Said| (said.incarnation, values(&said.pane), !said.pane.open);
    rank(one) > rank(other)
}

/// 0 when nothing is left out.
pub(crate) fn last_left_out(reader: &Reader) -> Result<Seq, AskError> {
    let mut last = Seq(0);
    newest(reader, Class::State, |row| {
        if row.kind == RecordKind::LeftOut {
            last = row.seq;
        }
        last == Seq(0)
    })?;
    Ok(last)
}
