//! A small node for tests: slicers of some shards, and the panes.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    batch::{Batch, BatchBuilder, DeviceRef},
    time::{Span, Timestamp},
    value::Value,
};

/// (device, event time in ms, value)
pub type Event = (u32, i64, f64);

pub fn tumbling(size_ms: i64) -> WindowSpec {
    WindowSpec {
        name: "w".to_owned(),
        kind: WindowKind::Tumbling,
        size: Some(Span::from_millis(size_ms)),
        slide: None,
        gap: None,
        by: GroupBy::Device,
        bound: Span::ZERO,
        lateness: Span::ZERO,
        idle_after: Span::from_secs(30),
        metrics: Vec::new(),
        device_types: Vec::new(),
        aggregates: vec![Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max],
        quantiles: Vec::new(),
        emit: Emit::Close,
        filter: None,
    }
}

pub fn sliding(size_ms: i64, slide_ms: i64) -> WindowSpec {
    WindowSpec { kind: WindowKind::Sliding, slide: Some(Span::from_millis(slide_ms)), ..tumbling(size_ms) }
}

pub fn session(gap_ms: i64) -> WindowSpec {
    WindowSpec { kind: WindowKind::Session, size: None, gap: Some(Span::from_millis(gap_ms)), ..tumbling(1) }
}

pub fn everything(spec: WindowSpec) -> WindowSpec {
    use Aggregate::*;
    WindowSpec {
        aggregates: vec![Count, Sum, Min, Max, Mean, Stddev, First, Last],
        quantiles: vec![0.0, 0.5, 0.99, 1.0],
        ..spec
    }
}

pub fn ms(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

/// One batch of one metric, in the order given: a device may have several runs.
pub fn batch(events: &[Event]) -> Batch {
    let mut builder = BatchBuilder::default();
    for (device, time, value) in events {
        builder.begin(&format!("d{device}"));
        builder.time(ms(*time));
        builder.cell("x", Value::F64(*value));
        builder.end();
    }
    builder.finish().swap_remove(0)
}

/// Devices of even number are presses, the others ovens.
pub const TYPES: [&str; 2] = ["press", "oven"];

pub fn types() -> Vec<String> {
    TYPES.map(String::from).to_vec()
}

/// The device of each run, numbered as `number` says.
pub fn devices(batch: &Batch, number: impl Fn(u32) -> u32) -> Vec<DeviceRef> {
    let device = |run| {
        let n: u32 = batch.device(run)[1..].parse().unwrap();
        DeviceRef { index: number(n), device_type: n % 2 }
    };
    batch.runs().iter().map(device).collect()
}

pub struct Rig {
    pub spec: Arc<WindowSpec>,
    pub slicers: Vec<Slicer>,
    pub panes: Panes,
    pub fired: Vec<Pane>,
    pub late: Vec<LateEvent>,
    pub watermarks: Vec<(String, Timestamp)>,
}

impl Rig {
    pub fn new(spec: WindowSpec, shards: usize) -> Rig {
        let spec = Arc::new(spec);
        Rig {
            slicers: (0..shards).map(|_| Slicer::new(spec.clone(), &types()).unwrap()).collect(),
            panes: Panes::new(spec.clone(), shards),
            spec,
            fired: Vec::new(),
            late: Vec::new(),
            watermarks: Vec::new(),
        }
    }

    pub fn push(&mut self, events: &[Event]) {
        self.push_at(ms(0), events);
    }

    /// Each shard takes the devices whose number modulo the number of shards is its own.
    pub fn push_at(&mut self, received: Timestamp, events: &[Event]) {
        let shards = self.slicers.len();
        for shard in 0..shards {
            let own: Vec<Event> =
                events.iter().copied().filter(|(device, ..)| *device as usize % shards == shard).collect();
            if !own.is_empty() {
                let batch = batch(&own);
                let devices = devices(&batch, |n| n);
                let mut deltas = Vec::new();
                self.slicers[shard].apply(&batch, &devices, None, received, &mut deltas);
                self.combine(shard, deltas);
            }
        }
    }

    pub fn tick(&mut self, now: Timestamp) {
        for shard in 0..self.slicers.len() {
            let mut deltas = Vec::new();
            self.slicers[shard].tick(now, &mut deltas);
            self.combine(shard, deltas);
        }
        let mut effects = Vec::new();
        self.panes.tick(&mut effects);
        self.take(effects);
    }

    pub fn flush(&mut self) {
        for shard in 0..self.slicers.len() {
            let mut deltas = Vec::new();
            self.slicers[shard].flush(&mut deltas);
            self.combine(shard, deltas);
        }
    }

    pub fn save(&self) -> Vec<Vec<u8>> {
        self.slicers.iter().map(Slicer::save).chain([self.panes.save()]).collect()
    }

    pub fn load(&mut self, saved: &[Vec<u8>]) {
        for (slicer, bytes) in self.slicers.iter_mut().zip(saved) {
            *slicer = Slicer::new(self.spec.clone(), &types()).unwrap();
            slicer.load(bytes).unwrap();
        }
        self.panes = Panes::new(self.spec.clone(), self.slicers.len());
        self.panes.load(&saved[self.slicers.len()]).unwrap();
    }

    /// The panes that hold for a reader who saw all that fired: highest revision, without retractions.
    pub fn view(&self) -> BTreeMap<(String, Timestamp, Timestamp), Pane> {
        view(&self.fired)
    }

    /// Key, start and end in ms, count, sum, revision of all that fired.
    pub fn lines(&self) -> Vec<String> {
        self.fired.iter().map(line).collect()
    }

    fn combine(&mut self, shard: usize, deltas: Vec<Delta>) {
        let mut effects = Vec::new();
        self.panes.apply(shard, deltas, &mut effects);
        self.take(effects);
    }

    pub fn take(&mut self, effects: Vec<WindowEffect>) {
        for effect in effects {
            match effect {
                WindowEffect::Fire(pane) => self.fired.push(pane),
                WindowEffect::Late(event) => self.late.push(event),
                WindowEffect::Watermark { key, at } => {
                    self.slicers.iter_mut().for_each(|slicer| slicer.learn(&key, at));
                    self.watermarks.push((key, at));
                }
            }
        }
    }
}

pub fn line(pane: &Pane) -> String {
    let (start, end) = (pane.start.as_millis(), pane.end.as_millis());
    let open = if pane.open { " open" } else { "" };
    match pane.metrics.first() {
        None => format!("{} {start}..{end} retracted r{}", pane.key, pane.revision),
        Some(x) => {
            format!(
                "{} {start}..{end} n={} sum={} r{}{open}",
                pane.key,
                x.count,
                x.sum.unwrap_or(f64::NAN),
                pane.revision
            )
        }
    }
}

pub fn view(fired: &[Pane]) -> BTreeMap<(String, Timestamp, Timestamp), Pane> {
    let mut view: BTreeMap<_, Pane> = BTreeMap::new();
    for pane in fired {
        let at = (pane.key.clone(), pane.start, pane.end);
        if view.get(&at).is_none_or(|known| known.revision < pane.revision) {
            view.insert(at, pane.clone());
        }
    }
    view.retain(|_, pane| !pane.is_retraction());
    view
}
