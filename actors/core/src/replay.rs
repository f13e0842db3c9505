//! A recorded input through a window in event time, with one watermark for the whole input.
//!
//! The same slicer and panes as in a node do the work; only the watermark is another: it is that of all keys together, as for a
//! stream with one source.

use std::{fmt, sync::Arc};

use crate::{
    batch::{Batch, Column, ColumnValues, DeviceRef, Metric, Shape},
    map::FixedMap,
    problem::SpecProblem,
    time::{Span, Timestamp},
    value::ValueType,
    window::{Aggregate, Delta, Emit, GroupBy, Panes, Slicer, WindowEffect, WindowKind, WindowSpec, slice_length},
};

#[cfg(test)]
mod tests;

/// The name of the one metric of an input.
const METRIC: &str = "value";

/// What a replay prints.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A pane fired: `W,key,start_ms,end_ms,count,sum,min,max`.
    Pane { key: String, start: Timestamp, end: Timestamp, count: u64, sum: f64, min: f64, max: f64 },
    /// An event came too late: `L,key,event_time_ms,value`.
    Late { key: String, time: Timestamp, value: f64 },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Pane { key, start, end, count, sum, min, max } => {
                let (start, end) = (start.as_millis(), end.as_millis());
                write!(f, "W,{key},{start},{end},{count},{sum:?},{min:?},{max:?}")
            }
            Line::Late { key, time, value } => write!(f, "L,{key},{},{value:?}", time.as_millis()),
        }
    }
}

/// A replay in progress. Feed it with [`push`](Replay::push) in the order of arrival, then [`finish`](Replay::finish) it.
///
/// NaN and infinities are in no aggregate.
#[derive(Debug)]
pub struct Replay {
    slicer: Slicer,
    panes: Panes,
    slice: Span,
    bound: Span,
    /// By key, its number.
    keys: FixedMap<String, u32>,
    high: Timestamp,
    shape: Arc<Shape>,
    deltas: Vec<Delta>,
    effects: Vec<WindowEffect>,
}

impl Replay {
    /// `slide` makes it sliding windows; without one they are tumbling.
    ///
    /// # Errors
    /// All that is wrong with these lengths.
    pub fn new(size: Span, slide: Option<Span>, bound: Span, lateness: Span) -> Result<Replay, Vec<SpecProblem>> {
        let spec = Arc::new(WindowSpec {
            name: "replay".to_owned(),
            kind: if slide.is_some() { WindowKind::Sliding } else { WindowKind::Tumbling },
            size: Some(size),
            slide,
            gap: None,
            by: GroupBy::Device,
            bound,
            lateness,
            idle_after: Span(i64::MAX),
            metrics: Vec::new(),
            device_types: Vec::new(),
            aggregates: vec![Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max],
            quantiles: Vec::new(),
            emit: Emit::Close,
            filter: None,
        });
        let metric = Metric { name: METRIC.into(), value_type: ValueType::F64, unit: "".into() };
        Ok(Replay {
            slicer: Slicer::new(spec.clone(), &[])?,
            panes: Panes::new(spec, 1),
            slice: slice_length(size, slide),
            bound,
            keys: FixedMap::default(),
            high: Timestamp::MIN,
            shape: Arc::new(Shape::new(vec![metric])),
            deltas: Vec::new(),
            effects: Vec::new(),
        })
    }

    /// The next event.
    pub fn push(&mut self, key: &str, time: Timestamp, value: f64, emit: &mut dyn FnMut(Line)) {
        let next = self.keys.len() as u32;
        let index = match self.keys.get(key) {
            Some(index) => *index,
            None => *self.keys.entry(key.to_owned()).or_insert(next),
        };
        let mut batch = Batch::empty(self.shape.clone());
        batch.push_run(key, 1);
        batch.times.push(time);
        batch.columns = vec![Column { values: ColumnValues::F64(vec![value]), present: None }];
        let device = DeviceRef { index, device_type: DeviceRef::UNTYPED };
        // The event is judged against the watermark of the whole input, wherever its own key stands.
        self.slicer.raise_device(&batch, device, self.watermark(), &mut self.deltas);
        let before = self.watermark();
        self.slicer.apply(&batch, &[device], None, time, &mut self.deltas);
        self.high = self.high.max(time);
        let step = |at: Timestamp| at.0.saturating_add(1).div_euclid(self.slice.0);
        if step(self.watermark()) > step(before) {
            self.slicer.raise_all(self.watermark(), &mut self.deltas);
        }
        self.say(emit);
    }

    /// The input is over: everything that has not fired fires.
    pub fn finish(mut self, emit: &mut dyn FnMut(Line)) {
        self.slicer.raise_all(Timestamp::MAX, &mut self.deltas);
        self.say(emit);
    }

    /// As in [`Slicer`]: greatest event time − bound − 1 ns.
    fn watermark(&self) -> Timestamp {
        Timestamp(self.high.saturating_sub(self.bound).0.saturating_sub(1))
    }

    fn say(&mut self, emit: &mut dyn FnMut(Line)) {
        self.panes.apply(0, std::mem::take(&mut self.deltas), &mut self.effects);
        for effect in self.effects.drain(..) {
            match effect {
                WindowEffect::Fire(pane) => {
                    for metric in pane.metrics.iter().filter(|metric| metric.count > 0) {
                        emit(Line::Pane {
                            key: pane.key.clone(),
                            start: pane.start,
                            end: pane.end,
                            count: metric.count,
                            sum: metric.sum.unwrap_or_default(),
                            min: metric.min.unwrap_or_default(),
                            max: metric.max.unwrap_or_default(),
                        });
                    }
                }
                WindowEffect::Late(event) => {
                    let value = event.metrics.first().map_or(f64::NAN, |(_, value)| *value);
                    emit(Line::Late { key: event.key, time: event.time, value });
                }
                WindowEffect::Watermark { .. } => {}
            }
        }
    }
}
