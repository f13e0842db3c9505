//! What a node that is gone would say of its windows, from a copy of its journal.
//!
//! Windows are a function of the records, so whoever holds the records can say the shares of a node in its place: the same code recovers
//! its data plane from its last checkpoint and the records after it, and all panes that are open or were not journaled yet are said with its
//! name in [`Pane::of`]. When the node is back it says the same ones, or newer ones, itself.

use std::collections::BTreeMap;

use millpond_core::{
    admission::Known,
    ids::Seq,
    window::{Pane, Whose, WindowEffect},
};
use millpond_store::{Append, Reader};

use crate::{
    journal::saved::Saved,
    recovery::{self, RecoveryError},
    settings::Settings,
    shard::core::Trips,
    window::{PANES_PER_RECORD, pane_record},
};

/// The data plane of a node that is gone, as far as its records reach.
pub struct Adopted {
    /// Its shares in panes that it did not say, or that were open.
    pub panes: Vec<Pane>,
    /// Which events of each of its devices it had accepted, in the form that [`Gate::learn`](millpond_core::admission::Gate::learn) takes.
    pub devices: BTreeMap<String, Known>,
    /// Records and events that were replayed.
    pub records: u64,
    pub events: u64,
}

/// The copy has all records of events from `first` on, up to some point. When it lacks some between its last checkpoint and `first`, windows
/// would be said to hold less than they do: then it tells of no panes. Of each device it tells what it has.
///
/// # Errors
/// When the copy cannot be read, or a record in it makes this node's windows fail too.
pub fn adopt(settings: &Settings, copy: &Reader, of: Whose, first: Option<Seq>) -> Result<Adopted, RecoveryError> {
    let mut settings = settings.clone();
    let (row, _) = Saved::read(copy)?.begin(copy)?;
    if let Some(row) = &row {
        settings.shards = row.shards.max(1) as usize;
    }
    let cursor = Seq(row.map_or(0, |row| row.cursor));
    let is_complete = first.is_some_and(|first| first <= cursor.next());
    let mut recovered = recovery::recover(&settings, copy, &Trips::default())?;
    for (shard, core) in recovered.shards.iter_mut().enumerate() {
        let mut out = core.outputs();
        core.flush(&mut out);
        for (index, deltas) in out.deltas.into_iter().enumerate() {
            recovered.windows[index].panes.apply(shard, deltas, &mut recovered.effects[index]);
        }
    }
    let mut panes = Vec::new();
    for (window, effects) in recovered.windows.iter().zip(recovered.effects) {
        let fired = effects.into_iter().filter_map(|effect| match effect {
            WindowEffect::Fire(pane) if !pane.open => Some(pane),
            _ => None,
        });
        let all = fired.chain(window.panes.open()).filter(|_| is_complete);
        panes.extend(all.map(|pane| Pane { of: Some(of), ..pane }));
    }
    let devices: BTreeMap<String, Known> = recovered.shards.iter().flat_map(|core| core.gate.all_known()).collect();
    Ok(Adopted { panes, devices, records: recovered.records, events: recovered.events })
}

/// The records that say so in the journal of whoever adopted it.
pub fn records(panes: &[Pane]) -> Vec<Append> {
    panes.chunks(PANES_PER_RECORD).map(pane_record).collect()
}
