//! The state of a slicer as bytes, and back.

use serde::{Deserialize, Serialize};

use super::*;
use crate::window::{CheckpointError, PartMetric, checkpoint};

#[derive(Serialize, Deserialize)]
struct Saved {
    keys: Vec<SavedKey>,
    sources: Vec<SavedSource>,
    pending: Vec<Delta>,
    left_out: u64,
}

#[derive(Serialize, Deserialize)]
struct SavedKey {
    name: Arc<str>,
    start: i64,
    end: i64,
    high: i64,
    watermark: i64,
    notify: i64,
    received: i64,
    dirty: bool,
    ship: bool,
    idle: bool,
    current: Vec<PartMetric>,
    held: Vec<Part>,
    sessions: Vec<(i64, i64)>,
}

#[derive(Serialize, Deserialize)]
struct SavedSource {
    name: Arc<str>,
    key: Arc<str>,
    high: i64,
    received: i64,
}

impl Slicer {
    /// The whole state, also what is held: valid between any two calls. After [`flush`](Self::flush) it is small: some 100 bytes
    /// for each device.
    pub fn save(&self) -> Vec<u8> {
        let source = |(source, name): (&Source, &Arc<str>)| SavedSource {
            name: name.clone(),
            key: self.names[source.key as usize].clone(),
            high: source.high,
            received: source.received,
        };
        let saved = Saved {
            keys: (0..self.keys.len() as u32).map(|key| self.save_key(key)).collect(),
            sources: self.sources.iter().zip(&self.source_names).map(source).collect(),
            pending: self.pending.clone(),
            left_out: self.left_out,
        };
        checkpoint::encode(&self.spec, &saved)
    }

    /// Takes the state of a checkpoint in place of its own. Devices are known again by their names when they are next seen, whatever
    /// number the shard gives them now.
    ///
    /// # Errors
    /// When the bytes are no checkpoint of this definition; the slicer is as before.
    pub fn load(&mut self, checkpoint: &[u8]) -> Result<(), CheckpointError> {
        let saved: Saved = checkpoint::decode(&self.spec, checkpoint)?;
        self.reset();
        for key in saved.keys {
            self.load_key(key);
        }
        for source in saved.sources {
            let Some(key) = self.names.iter().position(|name| *name == source.key) else { continue };
            self.unseen.insert(source.name.clone(), self.sources.len() as u32);
            self.sources.push(Source { key: key as u32, high: source.high, received: source.received });
            self.source_names.push(source.name);
        }
        self.pending = saved.pending;
        self.left_out = saved.left_out;
        Ok(())
    }

    fn reset(&mut self) {
        let groups = self.said.len();
        self.names.truncate(groups);
        self.keys = vec![Key::NEW; groups];
        self.said = vec![(i64::MIN, Progress::Unchanged); groups];
        self.plans = Plans::new(&self.spec);
        self.layouts = Layouts::new();
        self.slots = Slots::new(self.wants);
        self.sources.clear();
        self.source_names.clear();
        self.numbers.clear();
        self.unseen.clear();
        self.held.clear();
        self.sessions.clear();
        self.late.clear();
        self.idle_check = i64::MIN;
    }

    fn save_key(&self, key: u32) -> SavedKey {
        let state = &self.keys[key as usize];
        let names = self.layouts.names(state.layout);
        let block = Block { at: state.block, len: names.len() as u32 };
        let part = |(at, held): (&(u32, i64, u32), &Held)| Part {
            start: Timestamp(at.1),
            end: Timestamp(held.end),
            metrics: self.slots.peek(held.block, self.layouts.names(held.layout)),
        };
        SavedKey {
            name: self.names[key as usize].clone(),
            start: state.start,
            end: state.end,
            high: state.high,
            watermark: state.watermark,
            notify: state.notify,
            received: state.received,
            dirty: state.dirty,
            ship: state.ship,
            idle: state.idle,
            current: self.slots.peek(block, names),
            held: self.held.range((key, i64::MIN, 0)..=(key, i64::MAX, u32::MAX)).map(part).collect(),
            sessions: self.sessions.get(&key).cloned().unwrap_or_default(),
        }
    }

    fn load_key(&mut self, saved: SavedKey) {
        let key = match self.names.iter().take(self.said.len()).position(|name| *name == saved.name) {
            Some(group) => group as u32,
            None => self.add_key(saved.name),
        };
        self.keys[key as usize] = Key {
            start: saved.start,
            end: saved.end,
            high: saved.high,
            watermark: saved.watermark,
            notify: saved.notify,
            received: saved.received,
            dirty: saved.dirty,
            ship: saved.ship,
            idle: saved.idle,
            ..Key::NEW
        };
        if !saved.current.is_empty() {
            self.widen(key, saved.current.iter().map(|metric| metric.name.clone()).collect());
            let block = Block { at: self.keys[key as usize].block, len: 0 };
            self.restore(block, &saved.current);
        }
        for (n, part) in (0..).zip(saved.held) {
            let layout = self.layouts.enter(part.metrics.iter().map(|metric| metric.name.clone()).collect());
            let block = self.slots.alloc(part.metrics.len() as u32);
            self.restore(block, &part.metrics);
            self.held.insert((key, part.start.0, n), Held { end: part.end.0, block, layout });
        }
        if !saved.sessions.is_empty() {
            self.sessions.insert(key, saved.sessions);
        }
    }

    /// A device that is not seen yet, or a device type that is not configured any more: what is held for it is still shipped.
    fn add_key(&mut self, name: Arc<str>) -> u32 {
        let key = self.keys.len() as u32;
        self.keys.push(Key::NEW);
        if self.types.by == GroupBy::Device {
            self.unseen.insert(name.clone(), key);
        } else {
            self.said.push((i64::MIN, Progress::Unchanged));
        }
        self.names.push(name);
        key
    }

    fn restore(&mut self, block: Block, metrics: &[PartMetric]) {
        for (slot, metric) in (0..).zip(metrics) {
            self.slots.restore(block, slot, &metric.stats);
        }
    }
}
