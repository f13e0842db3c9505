//! The shard's half of a window: partial aggregates by key and slice.
//!
//! A slicer is fed the committed batches of its shard in the order of the journal. It decides which slice a row belongs to and
//! whether the row is late, adds its values, and tells the window actor ([`Panes`](super::Panes)) by [`Delta`]s.
//!
//! **Watermarks.** That of a device is its greatest event time − bound − 1 ns. A window by device goes by the device's own. A window
//! by type or by node goes by the least of its devices that are not idle: each slicer reports the least of its own at every
//! [`tick`](Slicer::tick), the window actor takes the least over the shards and tells it back ([`learn`](Slicer::learn)).
//!
//! **Idle, blocked, offline.** A device is *idle* when `idle_after` has passed since its last batch was received: it does not
//! hold a group's watermark back, and what its own windows hold is said in an open pane. Its own watermark stays where it is, so
//! silence alone makes no event late. A device is *blocked* when its batches wait inside the node (back-pressure, a long commit): that
//! is not silence, hence `tick` takes not the wall clock but the time up to which the node has applied what it received. A device that
//! is *offline* becomes idle after the same time; what it stored meanwhile is judged like all else when it comes back.
//!
//! Invariants
//! 1. Results of windows by device are a function of the journal's records: all rows of a batch are judged against the
//!    watermark as it stood before the batch, which then moves it. (With one event per batch this is Flink's rule.) For windows by type
//!    and by node the same holds of the learned watermark, which also depends on when the shards were heard.
//! 2. Each row that takes part is either in exactly one delta's parts or is a late event.
//! 3. A row is late when every window that holds it is closed for good. A row that falls into windows of both kinds counts for
//!    those that are not: a delta carries the watermark its rows were judged against.
//! 4. A key's current slice is its latest one and never closed; rows of older slices are held apart and shipped at the end of the
//!    batch (by device) or at the next tick (by type and node).

mod checkpoint;
mod place;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Delta, Emit, GroupBy, LateEvent, Part, Progress, WindowSpec,
    grid::{Grid, Shape, event_time},
    plan::{Layouts, Mapping, Plans},
    slots::{Block, Slots},
    stats::Wants,
};
use crate::{
    batch::{Batch, ColumnValues, DeviceRef, Run},
    map::FixedMap,
    problem::SpecProblem,
    time::Timestamp,
};

/// Partial aggregates of one window definition over the devices of one shard.
#[derive(Debug)]
pub struct Slicer {
    spec: Arc<WindowSpec>,
    grid: Grid,
    wants: Wants,
    types: Types,
    plans: Plans,
    layouts: Layouts,
    slots: Slots,
    /// Devices (windows by device), or device types, or the node.
    keys: Vec<Key>,
    names: Vec<Arc<str>>,
    /// The devices behind group keys; empty for windows by device.
    sources: Vec<Source>,
    source_names: Vec<Arc<str>>,
    /// By the shard's number of a device: its number in `keys` or `sources`, [`UNKNOWN`] before it was seen.
    numbers: Vec<u32>,
    /// Devices of a loaded checkpoint that were not seen since.
    unseen: FixedMap<Arc<str>, u32>,
    /// Rows that are not in the current slice of their key, by (key, start, n); n tells apart parts that begin together.
    held: BTreeMap<(u32, i64, u32), Held>,
    /// Bounds of sessions before the current one that are not closed for good, by key, in order.
    sessions: FixedMap<u32, Vec<(i64, i64)>>,
    late: BTreeMap<u32, Vec<LateEvent>>,
    /// By group key: what the last delta said.
    said: Vec<(i64, Progress)>,
    /// Made by `learn`, which has nowhere to put them.
    pending: Vec<Delta>,
    /// No device becomes idle before this time.
    idle_check: i64,
    left_out: u64,
    scratch: Scratch,
}

/// A key's current slice, and how far the key has come. One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Key {
    /// Of the current slice or session; equal when there is none.
    start: i64,
    end: i64,
    /// Greatest event time (windows by device).
    high: i64,
    watermark: i64,
    /// The window actor wants to know when the watermark reaches this.
    notify: i64,
    received: i64,
    block: u32,
    layout: u32,
    /// The current slice has rows that were not shipped.
    dirty: bool,
    /// The current slice is to be shipped at the end of the batch.
    ship: bool,
    /// Said to be idle.
    idle: bool,
}

const _: () = assert!(size_of::<Key>() == 64);

/// Runs whose devices are read ahead of their turn: their state stays within the first level of the cache.
const WARM_AHEAD: usize = 32;

const UNKNOWN: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Source {
    key: u32,
    high: i64,
    received: i64,
}

/// Rows of a slice that is not the current one.
#[derive(Debug)]
struct Held {
    end: i64,
    block: Block,
    layout: u32,
}

/// Which device types take part, and what they count towards.
#[derive(Debug)]
struct Types {
    by: GroupBy,
    /// By number of the type: its key when it takes part.
    keys: Vec<Option<u32>>,
    untyped: bool,
}

/// Memory that is used again from batch to batch.
#[derive(Debug, Default)]
struct Scratch {
    values: Vec<f64>,
    times: Vec<Timestamp>,
}

/// The columns of the batch at hand and where they go in keys of one layout.
struct Route {
    plan: usize,
    /// Nothing is taken of the batch's shape: its rows move the watermark and that is all.
    empty: bool,
    layout: u32,
    mapping: Mapping,
}

impl Slicer {
    /// `types` are the names of the device types, in the order that [`DeviceRef::device_type`] counts.
    ///
    /// # Errors
    /// All that is wrong with the definition.
    pub fn new(spec: Arc<WindowSpec>, types: &[String]) -> Result<Slicer, Vec<SpecProblem>> {
        let problems = spec.problems_with(types);
        if !problems.is_empty() {
            return Err(problems);
        }
        let (types, group_keys) = Types::new(&spec, types);
        let wants = Wants::of(&spec);
        Ok(Slicer {
            grid: Grid::of(&spec),
            wants,
            types,
            plans: Plans::new(&spec),
            layouts: Layouts::new(),
            slots: Slots::new(wants),
            keys: vec![Key::NEW; group_keys.len()],
            said: vec![(i64::MIN, Progress::Unchanged); group_keys.len()],
            names: group_keys,
            sources: Vec::new(),
            source_names: Vec::new(),
            numbers: Vec::new(),
            unseen: FixedMap::default(),
            held: BTreeMap::new(),
            sessions: FixedMap::default(),
            late: BTreeMap::new(),
            pending: Vec::new(),
            idle_check: i64::MIN,
            left_out: 0,
            scratch: Scratch::default(),
            spec,
        })
    }

    pub fn spec(&self) -> &Arc<WindowSpec> {
        &self.spec
    }

    /// Values left out because their key has [`WINDOW_METRICS_MAX`](crate::limits::WINDOW_METRICS_MAX) other metrics.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes a committed batch; batches come in the order of the journal. `devices` has one entry per run; an index names the same
    /// device for the life of the slicer. Rows for which `rows` is false are in no aggregate, but they move the watermark: they too
    /// say how far their device's time has come.
    pub fn apply(
        &mut self,
        batch: &Batch,
        devices: &[DeviceRef],
        rows: Option<&[bool]>,
        received: Timestamp,
        out: &mut Vec<Delta>,
    ) {
        debug_assert_eq!(batch.runs().len(), devices.len());
        out.append(&mut self.pending);
        let plan = self.plans.find(&batch.shape);
        let empty = self.plans.columns(plan).is_empty();
        let mut route = Route { plan, empty, layout: u32::MAX, mapping: Mapping { pairs: Arc::new([]), left_out: 0 } };
        for (at, (run, device)) in batch.runs().iter().zip(devices).enumerate() {
            if at % WARM_AHEAD == 0 {
                self.warm(&devices[at..devices.len().min(at + WARM_AHEAD)]);
            }
            if !self.types.admit(device.device_type) {
                continue;
            }
            let number = self.number(batch, run, *device, received);
            let key = self.sources.get(number as usize).map_or(number, |source| source.key);
            let high = self.take_run(&mut route, key, batch, run, rows, received);
            match self.sources.get_mut(number as usize) {
                Some(source) => {
                    source.high = source.high.max(high);
                    source.received = source.received.max(received.0);
                }
                None => {
                    let key = &mut self.keys[key as usize];
                    key.high = key.high.max(high);
                    key.received = key.received.max(received.0);
                    key.idle = false;
                }
            }
        }
        if self.types.by == GroupBy::Device {
            for device in devices {
                if self.types.admit(device.device_type) {
                    self.settle(self.numbers[device.index as usize], out);
                }
            }
        } else {
            self.ship_late(out);
        }
    }

    /// Reads the state of the devices that come next. One after another they would each wait for memory; without anything to compute
    /// in between the waits overlap.
    #[inline]
    fn warm(&self, devices: &[DeviceRef]) {
        let key = |device: &DeviceRef| self.keys.get(*self.numbers.get(device.index as usize)? as usize);
        let block = |key: &Key| Block { at: key.block, len: self.layouts.names(key.layout).len() as u32 };
        let heads = devices.iter().filter_map(key).fold(0, |touched, key| touched ^ key.block);
        let slots = devices.iter().filter_map(key).fold(0, |touched, key| touched ^ self.slots.touch(block(key)));
        std::hint::black_box((heads, slots));
    }

    /// Finds idle devices. For windows by type and node it also ships what is held and reports the least watermark of the devices
    /// that are not idle; with `emit = "update"` it ships all that is new. `now` is the time up to which everything that was received
    /// has been applied, on the clock of `received`. Costs a look at each device; a few times a second is enough.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Delta>) {
        out.append(&mut self.pending);
        if self.types.by == GroupBy::Device { self.tick_devices(now, out) } else { self.tick_groups(now, out) }
    }

    /// Ships everything that is held.
    pub fn flush(&mut self, out: &mut Vec<Delta>) {
        out.append(&mut self.pending);
        for key in 0..self.keys.len() as u32 {
            self.ship(key, true, Progress::Unchanged, out);
        }
    }

    /// The watermark of a group, as the window actor has worked it out: rows are judged against it from now on. It never goes back.
    /// Means nothing to windows by device.
    pub fn learn(&mut self, key: &str, watermark: Timestamp) {
        if self.types.by == GroupBy::Device {
            return;
        }
        if let Some(number) = self.names.iter().position(|name| **name == *key) {
            let mut pending = std::mem::take(&mut self.pending);
            self.raise(number as u32, watermark, Progress::Unchanged, &mut pending);
            self.pending = pending;
        }
    }

    /// Moves a key's watermark on from outside: what it holds was judged against the old one and is shipped as such.
    fn raise(&mut self, key: u32, watermark: Timestamp, progress: Progress, out: &mut Vec<Delta>) {
        let state = self.keys[key as usize];
        if watermark.0 <= state.watermark {
            return;
        }
        let closes = state.start < state.end && self.grid.is_closed(state.end, watermark.0);
        if closes {
            self.hold_current(key);
        }
        if progress != Progress::Unchanged || self.holds(key) {
            self.ship(key, false, progress, out);
        }
        self.keys[key as usize].watermark = watermark.0;
        self.forget_sessions(key);
        self.keys[key as usize].notify = self.next_notify(key);
    }

    /// For an input with one watermark: that of the batch's only device is now `watermark`, even if it is new.
    pub(crate) fn raise_device(
        &mut self,
        batch: &Batch,
        device: DeviceRef,
        watermark: Timestamp,
        out: &mut Vec<Delta>,
    ) {
        if let Some(run) = batch.runs().first() {
            let number = self.number(batch, run, device, watermark);
            self.raise(number, watermark, Progress::Reached(watermark), out);
        }
    }

    /// For an input with one watermark: that of all devices is now `watermark`.
    pub(crate) fn raise_all(&mut self, watermark: Timestamp, out: &mut Vec<Delta>) {
        for key in 0..self.keys.len() as u32 {
            self.raise(key, watermark, Progress::Reached(watermark), out);
        }
    }

    /// Moves on the watermark of a device by itself after a batch, and ships what the window actor must know at once.
    #[inline]
    fn settle(&mut self, key: u32, out: &mut Vec<Delta>) {
        let state = &mut self.keys[key as usize];
        let watermark = self.grid.watermark(state.high).max(state.watermark);
        let quiet = watermark < state.notify && !state.ship;
        if quiet && self.held.is_empty() && self.late.is_empty() {
            state.watermark = watermark;
            return;
        }
        self.settle_with_news(key, quiet, watermark, out);
    }

    fn settle_with_news(&mut self, key: u32, quiet: bool, watermark: i64, out: &mut Vec<Delta>) {
        // What the window actor knows of the current session must not end before the session does.
        let session = matches!(self.grid.shape, Shape::Session { .. });
        let ship_current = self.keys[key as usize].ship || (session && !quiet);
        // Rows that take no part can move the watermark past the current slice.
        let state = &self.keys[key as usize];
        if state.start < state.end && self.grid.is_closed(state.end, watermark) {
            self.hold_current(key);
        }
        if !quiet || self.holds(key) || self.late.contains_key(&key) {
            self.ship(key, ship_current, Progress::Reached(Timestamp(watermark)), out);
        }
        self.keys[key as usize].watermark = watermark;
        self.keys[key as usize].ship = false;
        self.forget_sessions(key);
        let next = self.next_notify(key);
        let state = &mut self.keys[key as usize];
        // What was due earlier has only been said if this was not quiet.
        state.notify = if quiet { state.notify.min(next) } else { next };
    }

    fn tick_devices(&mut self, now: Timestamp, out: &mut Vec<Delta>) {
        let update = self.spec.emit == Emit::Update;
        if !update && now.0 < self.idle_check {
            return;
        }
        self.idle_check = i64::MAX;
        for key in 0..self.keys.len() as u32 {
            let state = &mut self.keys[key as usize];
            let idle_at = state.received.saturating_add(self.spec.idle_after.0);
            if state.idle {
                continue;
            }
            if idle_at <= now.0 {
                state.idle = true;
                self.ship(key, true, Progress::Idle, out);
                continue;
            }
            self.idle_check = self.idle_check.min(idle_at);
            if update && state.dirty {
                let progress = Progress::Reached(Timestamp(state.watermark));
                self.ship(key, true, progress, out);
            }
        }
        // A device that is new, or back from being idle, can become idle this early.
        self.idle_check = self.idle_check.min(now.0.saturating_add(self.spec.idle_after.0));
    }

    fn tick_groups(&mut self, now: Timestamp, out: &mut Vec<Delta>) {
        let mut least = vec![Progress::Idle; self.keys.len()];
        for source in &self.sources {
            if source.received.saturating_add(self.spec.idle_after.0) > now.0 {
                let watermark = Timestamp(self.grid.watermark(source.high));
                let least = &mut least[source.key as usize];
                *least = match *least {
                    Progress::Reached(other) => Progress::Reached(other.min(watermark)),
                    _ => Progress::Reached(watermark),
                };
            }
        }
        for (key, progress) in least.into_iter().enumerate() {
            let state = &self.keys[key];
            let session = matches!(self.grid.shape, Shape::Session { .. });
            let with_current = session || progress == Progress::Idle || self.spec.emit == Emit::Update;
            let news = self.said[key] != (state.watermark, progress);
            if news || self.holds(key as u32) || (with_current && state.dirty) {
                self.said[key] = (state.watermark, progress);
                self.ship(key as u32, with_current, progress, out);
            }
        }
    }

    /// Makes a delta of what is held for a key, with its late events and, if asked, its current slice. Says nothing when there is
    /// nothing new.
    fn ship(&mut self, key: u32, with_current: bool, progress: Progress, out: &mut Vec<Delta>) {
        let mut parts = Vec::new();
        while let Some((&at, _)) = self.held.range((key, i64::MIN, 0)..=(key, i64::MAX, u32::MAX)).next() {
            let Some(held) = self.held.remove(&at) else { break };
            let metrics = self.slots.take(held.block, self.layouts.names(held.layout));
            self.slots.free(held.block);
            self.leave(held.layout);
            parts.push(Part { start: Timestamp(at.1), end: Timestamp(held.end), metrics });
        }
        let state = &mut self.keys[key as usize];
        if with_current && state.dirty {
            state.dirty = false;
            let names = self.layouts.names(state.layout);
            let block = Block { at: state.block, len: names.len() as u32 };
            let metrics = self.slots.take(block, names);
            parts.push(Part { start: Timestamp(state.start), end: Timestamp(state.end), metrics });
        }
        let late = self.late.remove(&key).unwrap_or_default();
        if parts.is_empty() && late.is_empty() && progress == Progress::Unchanged {
            return;
        }
        let judged = Timestamp(state.watermark);
        if !parts.is_empty() {
            let notify = self.next_notify(key);
            let state = &mut self.keys[key as usize];
            state.notify = state.notify.min(notify);
        }
        out.push(Delta { key: self.names[key as usize].clone(), judged, progress, parts, late });
    }

    fn ship_late(&mut self, out: &mut Vec<Delta>) {
        while let Some((key, late)) = self.late.pop_first() {
            let judged = Timestamp(self.keys[key as usize].watermark);
            let key = self.names[key as usize].clone();
            out.push(Delta { key, judged, progress: Progress::Unchanged, parts: Vec::new(), late });
        }
    }

    fn holds(&self, key: u32) -> bool {
        self.held.range((key, i64::MIN, 0)..=(key, i64::MAX, u32::MAX)).next().is_some()
    }

    /// The number of a device in `keys` or `sources`.
    #[inline]
    fn number(&mut self, batch: &Batch, run: &Run, device: DeviceRef, received: Timestamp) -> u32 {
        match self.numbers.get(device.index as usize) {
            Some(number) if *number != UNKNOWN => *number,
            _ => self.meet(batch.device(run), device, received),
        }
    }

    fn meet(&mut self, name: &str, device: DeviceRef, received: Timestamp) -> u32 {
        let at = device.index as usize;
        if self.numbers.len() <= at {
            self.numbers.resize(at + 1, UNKNOWN);
        }
        let group = self.types.key(device.device_type);
        let number = self.unseen.remove(name).unwrap_or_else(|| {
            if group.is_some() {
                self.sources.push(Source { key: 0, high: i64::MIN, received: received.0 });
                self.source_names.push(name.into());
                self.sources.len() as u32 - 1
            } else {
                self.keys.push(Key::NEW);
                self.names.push(name.into());
                self.keys.len() as u32 - 1
            }
        });
        if let Some(key) = group {
            self.sources[number as usize].key = key;
        }
        self.numbers[at] = number;
        number
    }

    fn leave(&mut self, layout: u32) {
        if self.layouts.leave(layout) {
            self.plans.forget_layout(layout);
        }
    }
}

impl Key {
    const NEW: Key = Key {
        start: 0,
        end: 0,
        high: i64::MIN,
        watermark: i64::MIN,
        notify: i64::MAX,
        received: i64::MIN,
        block: 0,
        layout: Layouts::EMPTY,
        dirty: false,
        ship: false,
        idle: false,
    };
}

impl Types {
    /// Also the names of the group keys.
    fn new(spec: &WindowSpec, types: &[String]) -> (Types, Vec<Arc<str>>) {
        let admitted = |name: &String| spec.device_types.is_empty() || spec.device_types.contains(name);
        let mut names: Vec<Arc<str>> = Vec::new();
        if let Some(name) = spec.by.only_key() {
            names.push(name.into());
        }
        let mut keys = Vec::new();
        for name in types {
            if admitted(name) && spec.by == GroupBy::Type {
                names.push(name.as_str().into());
            }
            let key = names.len().saturating_sub(1) as u32;
            keys.push(admitted(name).then_some(key));
        }
        let untyped = spec.device_types.is_empty() && spec.by != GroupBy::Type;
        (Types { by: spec.by, keys, untyped }, names)
    }

    #[inline]
    fn admit(&self, device_type: u32) -> bool {
        self.keys.get(device_type as usize).map_or(self.untyped, Option::is_some)
    }

    /// The group of a device that takes part; `None` for windows by device.
    fn key(&self, device_type: u32) -> Option<u32> {
        (self.by != GroupBy::Device).then(|| self.keys.get(device_type as usize).copied().flatten().unwrap_or(0))
    }
}
