//! What is known of one pane: what each store with a share in it said last, and others in its place.
//!
//! Each store's part is a join: what is said can be taken in any order, and any number of times.

use std::collections::BTreeMap;

use millpond_core::{
    ids::{Incarnation, Seq},
    window::{Pane, WindowSpec, merge_shares},
};

/// The newest shares of one pane. `S` names a store: what one that was lost has said is not said again by the next one of its node.
#[derive(Debug)]
pub(crate) struct PaneShares<S>(BTreeMap<S, Share>);

/// What was said of one share: by its node, and by those who hold a copy of its journal.
#[derive(Debug, Default)]
struct Share {
    own: Option<Said>,
    adopted: Option<Said>,
}

#[derive(Debug)]
pub(crate) struct Said {
    pub incarnation: Incarnation,
    /// The node's own record, or how far its journal was known to who said it.
    pub at: Seq,
    pub pane: Pane,
}

impl<S: Ord> Default for PaneShares<S> {
    fn default() -> PaneShares<S> {
        PaneShares(BTreeMap::new())
    }
}

impl<S: Ord> PaneShares<S> {
    /// Whether it is one that was not known.
    pub fn take(&mut self, store: S, said: Said) -> bool {
        let share = self.0.entry(store).or_default();
        let (known, newer): (_, fn(&Said, &Said) -> bool) =
            if said.pane.of.is_some() { (&mut share.adopted, adopted_later) } else { (&mut share.own, is_later) };
        let newer = known.as_ref().is_none_or(|known| newer(&said, known));
        if newer {
            *known = Some(said);
        }
        newer
    }

    /// The pane, where `left_out` says which is a store's last record that leaves events out.
    pub fn merged(&self, spec: &WindowSpec, left_out: impl Fn(&S) -> Seq) -> Option<Pane> {
        let newest = self.0.iter().filter_map(|(store, share)| share.newest(left_out(store)));
        merge_shares(spec, &newest.collect::<Vec<&Pane>>())
    }

    /// Stores in whose place others have spoken.
    pub fn spoken_for(&self) -> impl Iterator<Item = &S> {
        self.0.iter().filter(|(_, share)| share.adopted.is_some()).map(|(store, _)| store)
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

/// Of two that say to be the same revision the one of the later record holds.
fn is_later(one: &Said, other: &Said) -> bool {
    let rank = |said: &Said| (said.incarnation, said.pane.revision, !said.pane.open, said.at);
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
