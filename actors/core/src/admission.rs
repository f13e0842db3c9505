//! The data-plane door: every event passes a [`Gate`] before anything else sees it. Each shard has one.
//!
//! # What it decides, in this order
//! 1. **Device.** Known, or registered by the policy; not quarantined. A device gets a dense index that it keeps for ever, and the
//!    first type whose pattern matches its name.
//! 2. **Time.** An event without one gets the time of receipt. One too far ahead of the node's clock is clamped to the time of receipt or
//!    rejected, one too old is rejected.
//! 3. **Content.** The schema of the device's type; lengths and names that hold for all.
//! 4. **Duplicates**, of what is left:
//!    - *Numbered and timed by the device*: a sequence number that was accepted before is a duplicate, unless the event is newer
//!      than all of the device's events: then the device has begun to count anew. Events from before that moment are
//!      judged by the numbers accepted before it.
//!    - *Numbered, timed by the node*: a duplicate when number and content are those of one of the last 32 such events.
//!    - *Timed by the device only*: a duplicate when time and content are those of one of the last 64 such events.
//!    - Neither: never a duplicate.
//!
//! # Invariants
//! 1. A rejected event or a duplicate changes nothing that a later decision depends on; above all, a stamp in the future moves no
//!    device's newest time.
//! 2. In doubt an event is accepted: memory that overflows forgets what it has seen, it never invents it.
//! 3. `undo` of the last `admit` restores every number and set; of an earlier one, it makes the batch's events unseen again.
//!    A device that was registered stays, as its index may be in use elsewhere.
//!
//! The clock believed is the `received` of the caller. Per device it holds about 120 bytes besides the name, and up to 560 more when its
//! events carry no sequence number.

use std::sync::Arc;

use crate::{
    batch::{Batch, DeviceRef, Run, UNTIMED},
    dead_letter::Reason,
    limits::DEVICE_NAME_BYTES_MAX,
    planted::{self, Bug},
    problem::SpecProblem,
    schema::{DeviceTypeSpec, Pattern, SchemaSpec},
    time::{Span, Timestamp},
};

mod admitted;
mod check;
pub mod content;
mod dedup;
mod known;
mod names;
mod policy;
mod saved;
mod seen;
mod spec;
#[cfg(test)]
mod tests;

pub use admitted::{Admitted, RowVerdict};
use check::{NO_SCHEMA, SchemaIndex, Schemas};
pub use known::Known;
use names::Names;
pub use policy::{OnFuture, Policy, UnknownDevices};
use seen::{Ring, Seen};

/// A device as the gate knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device<'a> {
    pub index: u32,
    pub name: &'a str,
    /// Position in the list of device types.
    pub device_type: Option<u32>,
    pub quarantined: bool,
    /// When the node first received an event of it, and last one that it accepted.
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// The newest event time of an accepted event; `None` before the first.
    pub last_time: Option<Timestamp>,
    /// How far the device's stamps are behind the node's clock, transport included, smoothed over about 16 batches; `None` when it never
    /// said a time.
    pub skew: Option<Span>,
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("the saved state of the gate has version {0}, which this program does not know")]
    Version(u32),
    #[error("the saved state of the gate cannot be read: {0}")]
    Malformed(String),
}

/// The door of one shard. See the module for what it decides.
#[derive(Clone, Debug)]
pub struct Gate {
    policy: Policy,
    types: Vec<DeviceType>,
    schemas: Schemas,
    names: Names,
    /// By index, what every run touches: one cache line per device.
    slots: Vec<Slot>,
    /// By index, the rest.
    cold: Vec<Cold>,
    /// Content hashes of the batch at hand.
    hashes: Vec<u64>,
    turns: Turns,
}

/// Tells whether a batch to undo is the last one admitted, so that everything can be put back as it was.
#[derive(Clone, Debug, Default)]
struct Turns {
    next: u64,
    last: u64,
    /// Up to here nothing can be put back any more, because something before it was undone out of order.
    floor: u64,
}

impl Turns {
    fn begin(&mut self, out: &mut Admitted) {
        self.next += 1;
        (out.turn_before, out.turn) = (self.last, self.next);
        self.last = self.next;
    }

    /// Whether `admitted` is the last; it is not any more.
    fn take_back(&mut self, admitted: &Admitted) -> bool {
        let is_last = admitted.turn == self.last && admitted.turn > self.floor;
        if is_last {
            self.last = admitted.turn_before;
        } else {
            self.floor = self.next;
        }
        is_last
    }
}

#[derive(Clone, Debug)]
struct DeviceType {
    patterns: Vec<Pattern>,
    schema: SchemaIndex,
}

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Slot {
    /// The newest event time accepted; [`Timestamp::MIN`] before the first.
    last_time: Timestamp,
    last_seen: Timestamp,
    accepted: u64,
    seen: Seen,
    ring: Option<Box<Ring>>,
    /// NaN when unknown.
    skew_ms: f32,
    /// [`NO_TYPE`] when it has none.
    device_type: u16,
    quarantined: bool,
}

const NO_TYPE: u16 = u16::MAX;
const _: () = assert!(size_of::<Slot>() == 64);

#[derive(Clone, Debug)]
struct Cold {
    first_seen: Timestamp,
    duplicates: u64,
    rejected: u64,
}

impl Gate {
    /// # Errors
    /// All problems of the specs, with their places in the configuration (`ingest`, `device_types`, `schemas`).
    pub fn new(policy: Policy, types: Vec<DeviceTypeSpec>, schemas: Vec<SchemaSpec>) -> Result<Gate, Vec<SpecProblem>> {
        let problems = spec::problems(&policy, &types, &schemas);
        if !problems.is_empty() {
            return Err(problems);
        }
        let schemas = Schemas::new(schemas);
        let device_type = |spec: &DeviceTypeSpec| DeviceType {
            patterns: spec.devices.iter().map(|pattern| Pattern::new(pattern)).collect(),
            schema: spec.schema.as_ref().and_then(|name| schemas.position(name)).unwrap_or(NO_SCHEMA),
        };
        let types = types.iter().map(device_type).collect();
        let (names, slots, cold, hashes) = (Names::default(), Vec::new(), Vec::new(), Vec::new());
        let turns = Turns::default();
        Ok(Gate { policy, types, schemas, names, slots, cold, hashes, turns })
    }

    /// Judges every row of `batch`, fills in times, and remembers what it accepted.
    pub fn admit(&mut self, received: Timestamp, batch: &mut Batch, out: &mut Admitted) {
        out.clear();
        self.turns.begin(out);
        self.resolve(received, batch, out);
        self.check_times(received, batch, out);
        self.check_content(batch, out);
        dedup::admit(self, received, batch, out);
    }

    /// The commit failed: what `admit` remembered of the batch's events is forgotten, so that the sender's retry is not taken for a
    /// duplicate. `batch` and `admitted` are as `admit` left them. Undo the last batch first when several failed.
    pub fn undo(&mut self, batch: &Batch, admitted: &Admitted) {
        dedup::undo(self, batch, admitted);
    }

    /// Remembers a committed batch again, after a restart, and tells its devices. Never rejects.
    pub fn observe(&mut self, received: Timestamp, batch: &Batch, devices: &mut Vec<DeviceRef>) {
        devices.clear();
        self.turns.floor = self.turns.next;
        let mut before = u32::MAX;
        for run in batch.runs() {
            let name = batch.device(run);
            let known = self.names.find(name, before.wrapping_add(1));
            let index = known.or_else(|| self.register(name, received)).unwrap_or(u32::MAX);
            before = index;
            devices.push(self.slots.get(index as usize).map_or(DeviceRef::UNKNOWN, |slot| slot.device(index)));
        }
        dedup::observe(self, received, batch, devices);
    }

    /// Devices known; their indices are `0..len`.
    pub fn len(&self) -> u32 {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// # Panics
    /// When no device has the index.
    pub fn device(&self, index: u32) -> Device<'_> {
        let (slot, cold) = (&self.slots[index as usize], &self.cold[index as usize]);
        Device {
            index,
            name: self.names.name(index),
            device_type: (slot.device_type != NO_TYPE).then_some(u32::from(slot.device_type)),
            quarantined: slot.quarantined,
            first_seen: cold.first_seen,
            last_seen: slot.last_seen,
            last_time: (slot.last_time != Timestamp::MIN).then_some(slot.last_time),
            skew: (!slot.skew_ms.is_nan()).then(|| Span((f64::from(slot.skew_ms) * 1e6) as i64)),
            accepted: slot.accepted,
            duplicates: cold.duplicates,
            rejected: cold.rejected,
        }
    }

    pub fn find(&self, name: &str) -> Option<u32> {
        self.names.find(name, u32::MAX)
    }

    /// All devices in the order of their indices.
    pub fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        (0..self.len()).map(|index| self.device(index))
    }

    /// Up to `limit` devices in the order of their names, from `after` (exclusive) on.
    pub fn devices_by_name(&self, after: Option<&str>, limit: usize) -> Vec<Device<'_>> {
        let later = |name: &str| after.is_none_or(|after| name > after);
        let mut indices: Vec<u32> = (0..self.len()).filter(|&index| later(self.names.name(index))).collect();
        let name = |index: &u32| self.names.name(*index);
        if limit < indices.len() {
            indices.select_nth_unstable_by(limit, |a, b| name(a).cmp(name(b)));
            indices.truncate(limit);
        }
        indices.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        indices.into_iter().map(|index| self.device(index)).collect()
    }

    /// Sets a device apart, or takes it back; `false` when it is not known.
    pub fn quarantine(&mut self, name: &str, on: bool) -> bool {
        let index = self.find(name);
        if let Some(index) = index {
            self.slots[index as usize].quarantined = on;
        }
        index.is_some()
    }

    /// Sets a device apart that may not be known yet: it may be its very first event that does the harm.
    pub fn set_apart(&mut self, name: &str, received: Timestamp) {
        if let Some(index) = self.find(name).or_else(|| self.register(name, received)) {
            self.slots[index as usize].quarantined = true;
        }
    }

    /// The devices and what is remembered of them, as MessagePack.
    pub fn save(&self) -> Vec<u8> {
        saved::save(self)
    }

    /// Replaces the devices by saved ones. Types are found anew, as the configuration may have changed.
    ///
    /// # Errors
    /// When the bytes are not what [`save`](Self::save) wrote; the gate may then know only some of the devices.
    pub fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        saved::load(self, saved)
    }

    fn forget(&mut self) {
        self.turns.floor = self.turns.next;
        self.names = Names::default();
        self.slots.clear();
        self.cold.clear();
    }

    fn type_of(&self, name: &str) -> u16 {
        let matches = |of: &DeviceType| of.patterns.iter().any(|pattern| pattern.matches(name));
        self.types.iter().position(matches).map_or(NO_TYPE, |at| at as u16)
    }

    fn register(&mut self, name: &str, received: Timestamp) -> Option<u32> {
        let index = self.names.add(name)?;
        self.slots.push(Slot {
            last_time: Timestamp::MIN,
            last_seen: received,
            accepted: 0,
            seen: Seen::default(),
            ring: None,
            skew_ms: f32::NAN,
            device_type: self.type_of(name),
            quarantined: false,
        });
        self.cold.push(Cold { first_seen: received, duplicates: 0, rejected: 0 });
        Some(index)
    }

    fn resolve(&mut self, received: Timestamp, batch: &Batch, out: &mut Admitted) {
        let mut before = u32::MAX;
        for run in batch.runs() {
            let name = batch.device(run);
            // Most senders report their devices in the same order each time.
            let known = self.names.find(name, before.wrapping_add(1));
            let device = match known.map_or_else(|| self.newcomer(name, received), Ok) {
                Ok(index) => {
                    let slot = &self.slots[index as usize];
                    if slot.quarantined {
                        reject_run(batch, run, out, Reason::Quarantined, format!("device {name} is quarantined"));
                    }
                    before = index;
                    slot.device(index)
                }
                Err((reason, detail)) => {
                    reject_run(batch, run, out, reason, detail);
                    DeviceRef::UNKNOWN
                }
            };
            out.devices.push(device);
        }
    }

    fn newcomer(&mut self, name: &str, received: Timestamp) -> Result<u32, (Reason, String)> {
        if let Some(what) = bad_name(name) {
            return Err((Reason::BadDevice, what));
        }
        if self.policy.unknown_devices == UnknownDevices::DeadLetter && self.type_of(name) == NO_TYPE {
            let detail = format!("device {name} is not known and belongs to no device type");
            return Err((Reason::UnknownDevice, detail));
        }
        if self.len() >= self.policy.devices_max {
            let detail = format!("device {name} is new, and {} devices are known already", self.len());
            return Err((Reason::UnknownDevice, detail));
        }
        self.register(name, received).ok_or((Reason::UnknownDevice, "there is no room for more names".into()))
    }

    fn check_times(&self, received: Timestamp, batch: &mut Batch, out: &mut Admitted) {
        let latest = match planted::is(Bug::FutureStampMovesWatermark) {
            true => Timestamp::MAX,
            false => received.saturating_add(self.policy.future_limit),
        };
        let oldest = self.policy.max_age.map_or(Timestamp::MIN, |age| received.saturating_sub(age));
        let span = |(min, max): (Timestamp, Timestamp), time: &Timestamp| (min.min(*time), max.max(*time));
        let (min, max) = batch.times.iter().fold((Timestamp::MAX, Timestamp::MIN), span);
        if batch.rows() == 0 || (min > UNTIMED && min >= oldest && max <= latest) {
            return;
        }
        out.said.extend_from_slice(&batch.times);
        for row in 0..batch.rows() {
            let time = batch.times[row];
            let clamped = time > latest && self.policy.on_future == OnFuture::Clamp;
            if time == UNTIMED || clamped {
                batch.times[row] = received;
                out.altered = true;
            } else if time > latest && out.is_accepted(row) {
                let detail = format!("its time {time} is {} ahead of the node's clock", time.since(received));
                out.set(batch, row, RowVerdict::Reject(Reason::FutureTime, detail.into()));
            } else if time < oldest && out.is_accepted(row) {
                let detail = format!("its time {time} is before {oldest}, the oldest accepted");
                out.set(batch, row, RowVerdict::Reject(Reason::AncientTime, detail.into()));
            }
        }
        if !out.altered {
            out.said.clear();
        }
    }

    fn check_content(&mut self, batch: &Batch, out: &mut Admitted) {
        let schema = |types: &[DeviceType], device: &DeviceRef| {
            types.get(device.device_type as usize).map_or(NO_SCHEMA, |of| of.schema)
        };
        // Nearly always all devices of a batch share one schema.
        let mut checked: Vec<SchemaIndex> = Vec::new();
        for at in 0..out.devices.len() {
            let index = schema(&self.types, &out.devices[at]);
            if checked.contains(&index) {
                continue;
            }
            checked.push(index);
            let plan = self.schemas.plan(&batch.shape, index);
            if plan.passes_all(batch) {
                continue;
            }
            for (run, device) in batch.runs().iter().zip(&out.devices.clone()) {
                if schema(&self.types, device) != index {
                    continue;
                }
                for row in run.rows() {
                    if !out.is_accepted(row) {
                        continue;
                    }
                    if let Some((reason, detail)) = plan.problem(batch, row) {
                        out.set(batch, row, RowVerdict::Reject(reason, detail));
                    }
                }
            }
        }
    }
}

impl Slot {
    fn device(&self, index: u32) -> DeviceRef {
        let device_type = if self.device_type == NO_TYPE { DeviceRef::UNTYPED } else { u32::from(self.device_type) };
        DeviceRef { index, device_type }
    }
}

fn reject_run(batch: &Batch, run: &Run, out: &mut Admitted, reason: Reason, detail: String) {
    let detail: Arc<str> = detail.into();
    run.rows().for_each(|row| out.set(batch, row, RowVerdict::Reject(reason, detail.clone())));
}

/// Why a name cannot be a device's: it stands in topics and paths.
fn bad_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the event has no device".into());
    }
    if name.len() > DEVICE_NAME_BYTES_MAX {
        return Some(format!("the device's name has {} bytes, more than {DEVICE_NAME_BYTES_MAX}", name.len()));
    }
    let bad = name.chars().find(|c| c.is_control() || matches!(c, '/' | '+' | '#'))?;
    Some(format!("the device's name {name:?} contains {bad:?}"))
}
