//! Rebuilds the data plane from the last checkpoint and the records after it.
//!
//! What shards, windows and rules know is a function of the journal, so recovery runs the same code over the same records. Panes that were
//! already journaled are shown to the windows first, so that they are not said again; signals that the alerts know change nothing.
//! A record that makes this code panic is named, so that the caller can set it aside and begin again without it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use millpond_core::{
    alert::{Alert, Alerts},
    batch::Batch,
    block,
    ids::Seq,
    planted::{self, Bug},
    problem::SpecProblem,
    record::{self, Class, Hlc, RecordKind},
    rule::Signal,
    time::Timestamp,
    window::{GroupBy, LateEvent, Pane, WindowEffect},
};
use millpond_store::{Put, ReadError, Reader, Table};

use crate::{
    defined::Defined,
    device,
    front::shard_of,
    handover,
    journal::saved::{CheckpointRow, Saved, part_key},
    plane::{shard_part, window_part},
    settings::Settings,
    shard::core::{Outputs, ShardCore, Trips},
    window::WindowCore,
};

/// Rows of [`Table::Meta`] that name records to be left out: this prefix and the sequence number, big-endian.
const POISON_PREFIX: &[u8] = b"poison/";

/// The data plane as of the end of the journal.
pub struct Recovered {
    pub shards: Vec<ShardCore>,
    pub windows: Vec<WindowCore>,
    /// Per window: what is to be done that the journal does not show as done.
    pub effects: Vec<Vec<WindowEffect>>,
    pub signals: Vec<Signal>,
    pub alerts: Alerts,
    pub defined: Defined,
    pub hlc: Hlc,
    /// Records and events that were applied again.
    pub records: u64,
    pub events: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("the settings have problems: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Settings(Vec<SpecProblem>),
    #[error("the journal cannot be read")]
    Store(#[from] ReadError),
    /// The record with this number makes a shard or a window panic.
    /// Leaving out the data of these devices (none: all of the record) may help.
    #[error("record {} makes the data plane fail", .seq.0)]
    Poison { seq: Seq, devices: Vec<String> },
}

/// The row that keeps a device's part of a record from being applied to windows and rules again; without a device, all of the record.
pub fn poison_put(seq: Seq, device: &str) -> Put {
    let key = [POISON_PREFIX, &seq.0.to_be_bytes(), device.as_bytes()].concat();
    Put { table: Table::Meta, key, value: Some(bytes::Bytes::from_static(b"")) }
}

/// Which devices of a batch make a shard fail, each tried alone on a shard that knows nothing yet. It may be none, when it takes more
/// than the batch to make one fail.
pub fn culprits(
    settings: &Settings,
    trips: &Trips,
    batch: &Batch,
    apply: impl Fn(&mut ShardCore, &mut Batch),
) -> Vec<String> {
    let names: BTreeSet<&str> = batch.runs().iter().map(|run| batch.device(run)).collect();
    let fails = |name: &&str| {
        let Ok(mut core) = ShardCore::new(settings, trips) else { return false };
        let mut alone = rows_of(batch, |device, _| device == *name);
        catch_unwind(AssertUnwindSafe(|| apply(&mut core, &mut alone))).is_err()
    };
    names.into_iter().filter(fails).map(str::to_owned).collect()
}

/// The rows of which device and sequence number are wanted.
fn rows_of(batch: &Batch, wanted: impl Fn(&str, Option<u64>) -> bool) -> Batch {
    let mut part = Batch::empty(batch.shape.clone());
    for run in batch.runs() {
        let device = batch.device(run);
        for row in run.rows().filter(|row| wanted(device, batch.seq(*row))) {
            part.push_row_of(batch, device, row);
        }
    }
    part
}

/// # Errors
/// See [`RecoveryError`]; the store is only read.
pub fn recover(settings: &Settings, reader: &Reader, trips: &Trips) -> Result<Recovered, RecoveryError> {
    let (begin, left) = Saved::read(reader)?.begin(reader)?;
    let found = begin.map(|row| from_checkpoint(settings, reader, trips, row)).transpose()?.flatten();
    let (mut recovered, cursor) = match found {
        Some(found) => found,
        None => (fresh(settings, reader, trips)?, Seq(0)),
    };
    let left_out = left_out(reader, left)?;
    let (mut journaled, mut late): (Vec<Pane>, Vec<LateEvent>) = (Vec::new(), Vec::new());
    reader.scan(Class::Pane, cursor.next(), |row| {
        recovered.hlc = recovered.hlc.max(row.hlc);
        match row.kind {
            RecordKind::Panes => {
                // What was said in the place of another node is none of this one's own.
                let said = record::decode::<Vec<Pane>>(row.payload).unwrap_or_default();
                journaled.extend(said.into_iter().filter(|pane| pane.of.is_none()));
            }
            RecordKind::Late => late.extend(record::decode::<Vec<LateEvent>>(row.payload).unwrap_or_default()),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    // Panes of other sites are none of these windows' own; only the rules go by them.
    for pane in journaled.iter().filter(|pane| !pane.merged) {
        if let Some(index) = settings.windows.iter().position(|spec| spec.name == pane.window) {
            recovered.windows[index].panes.emitted(pane);
        }
    }
    for event in &late {
        if let Some(index) = settings.windows.iter().position(|spec| spec.name == event.window) {
            recovered.windows[index].panes.emitted_late(event);
        }
    }
    replay(settings, trips, &mut recovered, reader, cursor, &left_out)?;
    take_back(settings, &mut recovered, &journaled, &left_out);
    for pane in journaled.iter().filter(|pane| !pane.open) {
        if let Some(index) = settings.windows.iter().position(|spec| spec.name == pane.window) {
            recovered.windows[index].rules.apply(pane, &mut recovered.signals);
        }
    }
    for known in handover::learnt(reader)? {
        let shard = shard_of(&known.device, recovered.shards.len());
        recovered.shards[shard].gate.learn(&known, Timestamp::from_millis(recovered.hlc.wall_ms()));
    }
    for (name, _) in device::quarantined(reader) {
        let shard = shard_of(&name, recovered.shards.len());
        recovered.shards[shard].gate.set_apart(&name, Timestamp::from_millis(recovered.hlc.wall_ms()));
    }
    for class in [Class::Alert, Class::State] {
        reader.scan(class, cursor.next(), |row| {
            recovered.hlc = recovered.hlc.max(row.hlc);
            ControlFlow::Continue(())
        })?;
    }
    Ok(recovered)
}

/// Panes of which everything is left out by now, or what had closed them, are said no more, so they have to be taken back.
fn take_back(settings: &Settings, recovered: &mut Recovered, journaled: &[Pane], left_out: &LeftOut) {
    let devices: BTreeSet<&str> = left_out.values().flat_map(|parts| parts.events.keys()).map(String::as_str).collect();
    if devices.is_empty() {
        return;
    }
    for (shard, core) in recovered.shards.iter_mut().enumerate() {
        let mut out = core.outputs();
        core.flush(&mut out);
        for (index, deltas) in out.deltas.into_iter().enumerate() {
            recovered.windows[index].panes.apply(shard, deltas, &mut recovered.effects[index]);
        }
    }
    for pane in journaled.iter().filter(|pane| !pane.merged) {
        let Some(index) = settings.windows.iter().position(|spec| spec.name == pane.window) else { continue };
        if settings.windows[index].by != GroupBy::Device || devices.contains(pane.key.as_str()) {
            recovered.windows[index].panes.take_back(pane, &mut recovered.effects[index]);
        }
    }
}

fn fresh(settings: &Settings, reader: &Reader, trips: &Trips) -> Result<Recovered, RecoveryError> {
    let shards = (0..settings.shards).map(|_| ShardCore::new(settings, trips));
    let windows = (0..settings.windows.len()).map(|index| WindowCore::new(settings, index));
    let mut alerts = Alerts::new(&settings.rules, settings.alerts.clone());
    alerts.load(load_alerts(reader)?);
    Ok(Recovered {
        shards: shards.collect::<Result<_, _>>().map_err(RecoveryError::Settings)?,
        windows: windows.collect::<Result<_, _>>().map_err(RecoveryError::Settings)?,
        effects: settings.windows.iter().map(|_| Vec::new()).collect(),
        signals: Vec::new(),
        alerts,
        defined: Defined::read(reader)?,
        hlc: Hlc::default(),
        records: 0,
        events: 0,
    })
}

/// The saved state and the cursor it is valid at; `None` when it does not fit, and all of the journal is to be replayed.
fn from_checkpoint(
    settings: &Settings,
    reader: &Reader,
    trips: &Trips,
    row: CheckpointRow,
) -> Result<Option<(Recovered, Seq)>, RecoveryError> {
    if row.shards as usize != settings.shards {
        tracing::info!(
            before = row.shards,
            now = settings.shards,
            "the number of shards has changed; the whole journal is replayed"
        );
        return Ok(None);
    }
    let mut recovered = fresh(settings, reader, trips)?;
    if planted::is(Bug::ForgetCheckpoint) {
        return Ok(Some((recovered, Seq(row.cursor))));
    }
    for (index, shard) in recovered.shards.iter_mut().enumerate() {
        let part = reader.get(Table::Checkpoints, &part_key(row.slot, &shard_part(index)))?.unwrap_or_default();
        if let Err(error) = shard.load(&settings.windows, &part) {
            tracing::warn!(index, error, "a shard's checkpoint cannot be used; the whole journal is replayed");
            return Ok(None);
        }
    }
    for (spec, window) in settings.windows.iter().zip(&mut recovered.windows) {
        let Some(part) = reader.get(Table::Checkpoints, &part_key(row.slot, &window_part(&spec.name)))? else {
            continue;
        };
        if let Err(error) = window.load(&part) {
            tracing::warn!(window = spec.name, error, "a window's checkpoint cannot be used; it begins anew");
        }
    }
    recovered.hlc = Hlc(row.hlc);
    Ok(Some((recovered, Seq(row.cursor))))
}

fn load_alerts(reader: &Reader) -> Result<Vec<Alert>, ReadError> {
    let mut alerts = Vec::new();
    let mut from = Vec::new();
    loop {
        let page = reader.list(Table::Alerts, &from, 1024)?;
        let Some((last, _)) = page.last() else { return Ok(alerts) };
        from = last.clone();
        from.push(0);
        alerts.extend(page.iter().filter_map(|(_, value)| record::decode::<Alert>(value).ok()));
    }
}

/// What is left out of records, by their numbers.
type LeftOut = BTreeMap<Seq, Parts>;

/// What is left out of one record.
#[derive(Debug, Default)]
struct Parts {
    /// All of these devices; an empty name stands for all of them.
    devices: BTreeSet<String>,
    /// Events of a device by their sequence numbers: they stand in the journal of another node as well, and count there.
    events: BTreeMap<String, BTreeSet<u64>>,
}

impl Parts {
    fn holds(&self, device: &str, seq: Option<u64>) -> bool {
        let event = |seq| self.events.get(device).is_some_and(|events| events.contains(&seq));
        self.devices.contains(device) || self.devices.contains("") || seq.is_some_and(event)
    }
}

fn left_out(reader: &Reader, events: Vec<record::LeftOut>) -> Result<LeftOut, ReadError> {
    let mut marks = LeftOut::new();
    for left in events {
        marks.entry(Seq(left.record)).or_default().events.entry(left.device).or_default().extend(left.seqs);
    }
    reader.range(Table::Meta, POISON_PREFIX, |key, _| {
        let Some((seq, device)) = key.strip_prefix(POISON_PREFIX).and_then(|rest| rest.split_first_chunk()) else {
            return ControlFlow::Break(());
        };
        let device = String::from_utf8_lossy(device).into_owned();
        marks.entry(Seq(u64::from_be_bytes(*seq))).or_default().devices.insert(device);
        ControlFlow::Continue(())
    })?;
    Ok(marks)
}

fn replay(
    settings: &Settings,
    trips: &Trips,
    recovered: &mut Recovered,
    reader: &Reader,
    cursor: Seq,
    left_out: &LeftOut,
) -> Result<(), RecoveryError> {
    let mut decoder = block::Decoder::new();
    let mut poisoned = None;
    reader.scan(Class::Raw, cursor.next(), |row| {
        recovered.hlc = recovered.hlc.max(row.hlc);
        if row.kind != RecordKind::Events {
            return ControlFlow::Continue(());
        }
        let received = Timestamp::from_millis(row.hlc.wall_ms());
        let batch = match decoder.decode(row.payload) {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(seq = row.seq.0, %error, "a journaled block cannot be read and is left out; MP0402");
                return ControlFlow::Continue(());
            }
        };
        let parts = left_out.get(&row.seq);
        let outcome = catch_unwind(AssertUnwindSafe(|| apply(recovered, &batch, parts, received)));
        if outcome.is_err() {
            let devices = culprits(settings, trips, &batch, |core, alone| {
                let mut devices = Vec::new();
                core.gate.observe(received, alone, &mut devices);
                core.apply(alone, &devices, received, &mut core.outputs());
            });
            poisoned = Some(RecoveryError::Poison { seq: row.seq, devices });
            return ControlFlow::Break(());
        }
        recovered.records += 1;
        recovered.events += u64::from(row.rows);
        ControlFlow::Continue(())
    })?;
    poisoned.map_or(Ok(()), Err)
}

/// What is left out of windows and rules is still known to the gate: an event that is sent again is a duplicate.
fn apply(recovered: &mut Recovered, batch: &Batch, left_out: Option<&Parts>, received: Timestamp) {
    let Some(left_out) = left_out else { return apply_all(recovered, batch, received) };
    let shards = recovered.shards.len();
    for shard in 0..shards {
        let part = rows_of(batch, |device, seq| left_out.holds(device, seq) && shard_of(device, shards) == shard);
        recovered.shards[shard].gate.observe(received, &part, &mut Vec::new());
    }
    let rest = rows_of(batch, |device, seq| !left_out.holds(device, seq));
    if rest.rows() > 0 {
        apply_all(recovered, &rest, received);
    }
}

fn apply_all(recovered: &mut Recovered, batch: &Batch, received: Timestamp) {
    let shards = recovered.shards.len();
    let homes: Vec<usize> = batch.runs().iter().map(|run| shard_of(batch.device(run), shards)).collect();
    let first = homes.first().copied().unwrap_or(0);
    if homes.iter().all(|home| *home == first) {
        return apply_in(recovered, first, batch, received);
    }
    for shard in 0..shards {
        let part = rows_of(batch, |device, _| shard_of(device, shards) == shard);
        if part.rows() > 0 {
            apply_in(recovered, shard, &part, received);
        }
    }
}

fn apply_in(recovered: &mut Recovered, shard: usize, batch: &Batch, received: Timestamp) {
    let core = &mut recovered.shards[shard];
    let mut devices = Vec::new();
    core.gate.observe(received, batch, &mut devices);
    let mut out: Outputs = core.outputs();
    core.apply(batch, &devices, received, &mut out);
    recovered.signals.append(&mut out.signals);
    for (index, deltas) in out.deltas.into_iter().enumerate() {
        let effects = &mut recovered.effects[index];
        let from = effects.len();
        recovered.windows[index].panes.apply(shard, deltas, effects);
        for effect in &effects[from..] {
            if let WindowEffect::Watermark { key, at } = effect {
                recovered.shards.iter_mut().for_each(|core| core.learn(index, key, *at));
            }
        }
    }
}
