//! Events travelling together, in columns.
//!
//! A batch holds rows of one [`Shape`]: the same metrics in the same order. Rows of one device stand together in a
//! *run*; a device may have several runs until [`Batch::grouped`] joins them. Columns may have gaps, so a shape is the
//! union of what its rows carry.

use std::{hash::BuildHasher, ops::Range, sync::Arc};

use foldhash::quality::FixedState;

use crate::{
    map::{FixedMap, FixedSet},
    time::Timestamp,
    value::{Quality, Value, ValueType},
};

mod builder;
pub use builder::BatchBuilder;

/// The time of an event whose device did not say one, until the node gives it the time of receipt.
pub const UNTIMED: Timestamp = Timestamp::MIN;

/// Name, type and unit of one column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Metric {
    pub name: Box<str>,
    pub value_type: ValueType,
    /// As in `Cel`, `bar`, `mm/s`; empty when not said.
    pub unit: Box<str>,
}

/// The columns of a batch. Two shapes with the same metrics in the same order have the same fingerprint.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    metrics: Box<[Metric]>,
    fingerprint: u64,
}

impl Shape {
    pub fn new(metrics: Vec<Metric>) -> Shape {
        let fingerprint = FixedState::with_seed(0).hash_one(&metrics);
        Shape { metrics: metrics.into(), fingerprint }
    }

    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// A hash of the metrics, the same in every process of this version. For caches in memory, not for files.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub fn position(&self, metric: &str) -> Option<usize> {
        self.metrics.iter().position(|m| &*m.name == metric)
    }
}

/// Consecutive rows of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The device's name, as a range of bytes in the batch's arena of names.
    name: (u32, u32),
    /// First row and the row after the last.
    pub start: u32,
    pub end: u32,
}

impl Run {
    pub fn rows(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// How a shard knows the device of a run; beside a batch stands one for each of its runs, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRef {
    /// The shard's number for the device: dense, from 0.
    pub index: u32,
    /// Position of the device's type in the list of types; [`DeviceRef::UNTYPED`] when it has none.
    pub device_type: u32,
}

impl DeviceRef {
    pub const UNTYPED: u32 = u32::MAX;
    /// Stands for a device that was not let in; all its rows are rejected.
    pub const UNKNOWN: DeviceRef = DeviceRef { index: u32::MAX, device_type: DeviceRef::UNTYPED };
}

/// Variable-length values, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arena {
    pub bytes: Vec<u8>,
    /// End of each value in `bytes`; a value starts where the one before it ends.
    pub ends: Vec<u32>,
}

impl Arena {
    pub fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len() as u32);
    }

    pub fn value(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.bytes[start..self.ends[row] as usize]
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum ColumnValues {
    F64(Vec<f64>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
    /// UTF-8; whoever fills it has checked that.
    Text(Arena),
    Bytes(Arena),
}

impl ColumnValues {
    pub fn of_type(value_type: ValueType) -> ColumnValues {
        match value_type {
            ValueType::F64 => ColumnValues::F64(Vec::new()),
            ValueType::I64 => ColumnValues::I64(Vec::new()),
            ValueType::Bool => ColumnValues::Bool(Vec::new()),
            ValueType::Text => ColumnValues::Text(Arena::default()),
            ValueType::Bytes => ColumnValues::Bytes(Arena::default()),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            ColumnValues::F64(v) => v.len(),
            ColumnValues::I64(v) => v.len(),
            ColumnValues::Bool(v) => v.len(),
            ColumnValues::Text(v) | ColumnValues::Bytes(v) => v.ends.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a value of this column's type, or the type's zero in the place of a gap.
    ///
    /// # Panics
    /// When the value has another type.
    pub fn push(&mut self, value: Option<Value<'_>>) {
        match (self, value) {
            (ColumnValues::F64(v), Some(Value::F64(x))) => v.push(x),
            (ColumnValues::I64(v), Some(Value::I64(x))) => v.push(x),
            (ColumnValues::Bool(v), Some(Value::Bool(x))) => v.push(x),
            (ColumnValues::Text(v), Some(Value::Text(x))) => v.push(x.as_bytes()),
            (ColumnValues::Bytes(v), Some(Value::Bytes(x))) => v.push(x),
            (ColumnValues::F64(v), None) => v.push(0.0),
            (ColumnValues::I64(v), None) => v.push(0),
            (ColumnValues::Bool(v), None) => v.push(false),
            (ColumnValues::Text(v) | ColumnValues::Bytes(v), None) => v.push(b""),
            (column, Some(value)) => panic!("a {} in a column of {}", value.value_type().name(), column.type_name()),
        }
    }

    fn truncate(&mut self, rows: usize) {
        match self {
            ColumnValues::F64(v) => v.truncate(rows),
            ColumnValues::I64(v) => v.truncate(rows),
            ColumnValues::Bool(v) => v.truncate(rows),
            ColumnValues::Text(v) | ColumnValues::Bytes(v) => {
                v.ends.truncate(rows);
                v.bytes.truncate(v.ends.last().map_or(0, |end| *end as usize));
            }
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            ColumnValues::F64(_) => "f64",
            ColumnValues::I64(_) => "i64",
            ColumnValues::Bool(_) => "bool",
            ColumnValues::Text(_) => "text",
            ColumnValues::Bytes(_) => "bytes",
        }
    }
}

/// One metric of all rows. `values` has a slot for every row, also for gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub values: ColumnValues,
    /// Which rows have a value; `None` when all have.
    pub present: Option<Vec<bool>>,
}

impl Column {
    pub fn is_present(&self, row: usize) -> bool {
        self.present.as_ref().is_none_or(|present| present[row])
    }

    pub fn value(&self, row: usize) -> Option<Value<'_>> {
        if !self.is_present(row) {
            return None;
        }
        Some(match &self.values {
            ColumnValues::F64(v) => Value::F64(v[row]),
            ColumnValues::I64(v) => Value::I64(v[row]),
            ColumnValues::Bool(v) => Value::Bool(v[row]),
            ColumnValues::Text(v) => Value::Text(std::str::from_utf8(v.value(row)).unwrap_or_default()),
            ColumnValues::Bytes(v) => Value::Bytes(v.value(row)),
        })
    }
}

impl Column {
    fn gather(&self, ranges: &[Range<usize>]) -> Column {
        let arena = |arena: &Arena| {
            let mut gathered = Arena { bytes: Vec::with_capacity(arena.bytes.len()), ends: Vec::new() };
            ranges.iter().flat_map(Clone::clone).for_each(|row| gathered.push(arena.value(row)));
            gathered
        };
        let values = match &self.values {
            ColumnValues::F64(values) => ColumnValues::F64(gather(values, ranges)),
            ColumnValues::I64(values) => ColumnValues::I64(gather(values, ranges)),
            ColumnValues::Bool(values) => ColumnValues::Bool(gather(values, ranges)),
            ColumnValues::Text(values) => ColumnValues::Text(arena(values)),
            ColumnValues::Bytes(values) => ColumnValues::Bytes(arena(values)),
        };
        Column { values, present: self.present.as_ref().map(|present| gather(present, ranges)) }
    }

    fn extend(&mut self, more: &Column) {
        let (before, rows) = (self.values.len(), more.values.len());
        match (&mut self.values, &more.values) {
            (ColumnValues::F64(to), ColumnValues::F64(more)) => to.extend_from_slice(more),
            (ColumnValues::I64(to), ColumnValues::I64(more)) => to.extend_from_slice(more),
            (ColumnValues::Bool(to), ColumnValues::Bool(more)) => to.extend_from_slice(more),
            (ColumnValues::Text(to), ColumnValues::Text(more))
            | (ColumnValues::Bytes(to), ColumnValues::Bytes(more)) => {
                let base = to.bytes.len() as u32;
                to.bytes.extend_from_slice(&more.bytes);
                to.ends.extend(more.ends.iter().map(|end| base + end));
            }
            (to, more) => panic!("a column of {} behind one of {}", more.type_name(), to.type_name()),
        }
        if self.present.is_some() || more.present.is_some() {
            let present = self.present.get_or_insert_with(|| vec![true; before]);
            match &more.present {
                Some(more) => present.extend_from_slice(more),
                None => present.resize(before + rows, true),
            }
        }
    }
}

/// Events of one shape. All vectors that are not empty have one slot per row.
#[derive(Clone, Debug)]
pub struct Batch {
    pub shape: Arc<Shape>,
    names: String,
    runs: Vec<Run>,
    /// Event time of each row.
    pub times: Vec<Timestamp>,
    /// The device's own sequence number of each row; empty when none of the rows has one.
    pub seqs: Vec<Option<u64>>,
    /// Empty when every row is good.
    pub quality: Vec<Quality>,
    pub columns: Vec<Column>,
}

impl Batch {
    pub fn empty(shape: Arc<Shape>) -> Batch {
        let columns = shape
            .metrics()
            .iter()
            .map(|metric| Column { values: ColumnValues::of_type(metric.value_type), present: None })
            .collect();
        Batch {
            shape,
            names: String::new(),
            runs: Vec::new(),
            times: Vec::new(),
            seqs: Vec::new(),
            quality: Vec::new(),
            columns,
        }
    }

    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// Makes room for so many rows more, text and bytes apart.
    pub fn reserve(&mut self, rows: usize) {
        self.times.reserve(rows);
        for column in &mut self.columns {
            match &mut column.values {
                ColumnValues::F64(v) => v.reserve(rows),
                ColumnValues::I64(v) => v.reserve(rows),
                ColumnValues::Bool(v) => v.reserve(rows),
                ColumnValues::Text(v) | ColumnValues::Bytes(v) => v.ends.reserve(rows),
            }
        }
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub fn device(&self, run: &Run) -> &str {
        &self.names[run.name.0 as usize..run.name.1 as usize]
    }

    pub fn seq(&self, row: usize) -> Option<u64> {
        self.seqs.get(row).copied().flatten()
    }

    pub fn quality_of(&self, row: usize) -> Quality {
        self.quality.get(row).copied().unwrap_or_default()
    }

    /// Opens a run for `device` that takes the next `rows` rows; decoders then fill the columns themselves.
    pub fn push_run(&mut self, device: &str, rows: u32) {
        let start = self.runs.last().map_or(0, |run| run.end);
        let name_start = self.names.len() as u32;
        self.names.push_str(device);
        self.runs.push(Run { name: (name_start, self.names.len() as u32), start, end: start + rows });
    }

    /// Appends row `row` of `from`, which has the same shape. Consecutive rows of a device share a run.
    pub fn push_row_of(&mut self, from: &Batch, device: &str, row: usize) {
        debug_assert_eq!(self.shape.fingerprint(), from.shape.fingerprint());
        self.extend_last_run(device, 1);
        let seq = from.seq(row);
        self.push_head(from.times[row], seq, from.quality_of(row));
        for (to, column) in self.columns.iter_mut().zip(&from.columns) {
            push_cell(to, column.value(row));
        }
    }

    /// Takes back all rows from `rows` on.
    pub fn truncate(&mut self, rows: usize) {
        while self.runs.last().is_some_and(|run| run.start as usize >= rows) {
            self.runs.pop();
        }
        if let Some(run) = self.runs.last_mut() {
            run.end = run.end.min(rows as u32);
        }
        self.names.truncate(self.runs.last().map_or(0, |run| run.name.1 as usize));
        self.times.truncate(rows);
        self.seqs.truncate(rows);
        self.quality.truncate(rows);
        for column in &mut self.columns {
            column.values.truncate(rows);
            if let Some(present) = &mut column.present {
                present.truncate(rows);
            }
        }
    }

    /// Memory that the batch holds, in bytes, roughly: what byte credits are counted in.
    pub fn weight(&self) -> usize {
        let cells: usize = self
            .columns
            .iter()
            .map(|column| match &column.values {
                ColumnValues::F64(v) => v.len() * 8,
                ColumnValues::I64(v) => v.len() * 8,
                ColumnValues::Bool(v) => v.len(),
                ColumnValues::Text(v) | ColumnValues::Bytes(v) => v.bytes.len() + v.ends.len() * 4,
            })
            .sum();
        cells + self.times.len() * 8 + self.seqs.len() * 16 + self.names.len() + self.runs.len() * 16 + 256
    }

    /// Whether every device has one run.
    pub fn is_grouped(&self) -> bool {
        // Sorted names, as most senders write them, are told without a set.
        let sorted = self.runs.windows(2).all(|pair| self.device(&pair[0]) < self.device(&pair[1]));
        if sorted {
            return true;
        }
        let mut seen: FixedSet<&str> = FixedSet::default();
        seen.reserve(self.runs.len());
        self.runs.iter().all(|run| seen.insert(self.device(run)))
    }

    /// The same rows with one run per device, devices in the order of their first row, rows of a device in their order.
    pub fn grouped(self) -> Batch {
        if self.is_grouped() {
            return self;
        }
        let mut first: FixedMap<&str, usize> = FixedMap::default();
        let mut order: Vec<(usize, Run)> = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let next = first.len();
            order.push((*first.entry(self.device(run)).or_insert(next), *run));
        }
        order.sort_by_key(|(rank, _)| *rank);
        let mut grouped = Batch::empty(self.shape.clone());
        for (_, run) in &order {
            grouped.extend_last_run(self.device(run), run.end - run.start);
        }
        let ranges: Vec<Range<usize>> = order.iter().map(|(_, run)| run.rows()).collect();
        grouped.times = gather(&self.times, &ranges);
        grouped.seqs = gather(&self.seqs, &ranges);
        grouped.quality = gather(&self.quality, &ranges);
        grouped.columns = self.columns.iter().map(|column| column.gather(&ranges)).collect();
        grouped
    }

    /// Appends all rows of `other`, which has the same shape.
    ///
    /// # Panics
    /// When it has another shape.
    pub fn append(&mut self, other: &Batch) {
        assert!(self.shape == other.shape, "batches of different shapes");
        let before = self.rows();
        for run in &other.runs {
            self.extend_last_run(other.device(run), run.end - run.start);
        }
        self.times.extend_from_slice(&other.times);
        extend_optional(&mut self.seqs, &other.seqs, None, before, other.rows());
        extend_optional(&mut self.quality, &other.quality, Quality::Good, before, other.rows());
        for (column, more) in self.columns.iter_mut().zip(&other.columns) {
            column.extend(more);
        }
    }

    /// One batch of the rows of all, which have one shape, in their order; `None` when there is no batch.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn concat(batches: impl IntoIterator<Item = Batch>) -> Option<Batch> {
        let mut batches = batches.into_iter();
        let mut all = batches.next()?;
        batches.for_each(|batch| all.append(&batch));
        Some(all)
    }

    /// A batch with its devices, for a decoder that fills in the rows: `names` end at `ends`, and `counts` are the rows of each.
    pub(crate) fn with_devices(shape: Arc<Shape>, names: String, ends: &[u32], counts: &[u32]) -> Batch {
        let mut batch = Batch::empty(shape);
        let (mut name, mut start) = (0, 0);
        batch.runs.extend(ends.iter().zip(counts).map(|(&name_end, &count)| {
            let run = Run { name: (name, name_end), start, end: start + count };
            (name, start) = (name_end, run.end);
            run
        }));
        batch.names = names;
        batch
    }

    fn extend_last_run(&mut self, device: &str, rows: u32) {
        match self.runs.last_mut() {
            Some(run) if self.names[run.name.0 as usize..run.name.1 as usize] == *device => run.end += rows,
            _ => self.push_run(device, rows),
        }
    }

    fn push_head(&mut self, time: Timestamp, seq: Option<u64>, quality: Quality) {
        let row = self.times.len();
        self.times.push(time);
        if seq.is_some() || !self.seqs.is_empty() {
            self.seqs.resize(row, None);
            self.seqs.push(seq);
        }
        if quality != Quality::Good || !self.quality.is_empty() {
            self.quality.resize(row, Quality::Good);
            self.quality.push(quality);
        }
    }
}

fn gather<T: Copy>(values: &[T], ranges: &[Range<usize>]) -> Vec<T> {
    let mut gathered = Vec::with_capacity(values.len());
    if !values.is_empty() {
        ranges.iter().for_each(|range| gathered.extend_from_slice(&values[range.clone()]));
    }
    gathered
}

/// Appends to a vector that is empty when every slot is the default.
fn extend_optional<T: Copy>(to: &mut Vec<T>, more: &[T], default: T, before: usize, rows: usize) {
    if to.is_empty() && more.is_empty() {
        return;
    }
    to.resize(before, default);
    to.extend_from_slice(more);
    to.resize(before + rows, default);
}

fn push_cell(column: &mut Column, value: Option<Value<'_>>) {
    let row = column.values.len();
    column.values.push(value);
    if value.is_none() && column.present.is_none() {
        column.present = Some(vec![true; row]);
    }
    if let Some(present) = &mut column.present {
        present.push(value.is_some());
    }
}

/// Batches are equal when they hold the same rows of the same devices; where names lie in memory does not matter.
impl PartialEq for Batch {
    fn eq(&self, other: &Batch) -> bool {
        let same_runs = self.runs.len() == other.runs.len()
            && self
                .runs
                .iter()
                .zip(&other.runs)
                .all(|(a, b)| a.rows() == b.rows() && self.device(a) == other.device(b));
        same_runs
            && self.shape == other.shape
            && self.times == other.times
            && (0..self.rows()).all(|row| {
                self.seq(row) == other.seq(row)
                    && self.quality_of(row) == other.quality_of(row)
                    && self.columns.iter().zip(&other.columns).all(|(a, b)| same_cell(a.value(row), b.value(row)))
            })
    }
}

/// Floating-point cells are compared by their bits: a NaN is equal to itself, and 0 differs from −0.
fn same_cell(a: Option<Value<'_>>, b: Option<Value<'_>>) -> bool {
    match (a, b) {
        (Some(Value::F64(a)), Some(Value::F64(b))) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}
