//! Rows in, batches out: one batch per shape.
//!
//! The next row nearly always has the shape of the last one. As long as its metrics come as that shape says, the row is *on track*:
//! its names are neither kept nor searched. At the first other metric it leaves the track, and its names are written out.

use std::{ops::Range, sync::Arc};

use super::{Arena, Batch, ColumnValues, Metric, Shape};
use crate::{
    time::Timestamp,
    value::{Quality, Value, ValueType},
};

/// Collects rows as decoders find them. A decoder calls [`begin`](Self::begin), then [`cell`](Self::cell) for each
/// metric, then [`end`](Self::end); a row that turns out bad is left with [`abandon`](Self::abandon).
///
/// Rows with the same metrics in the same order share a batch; the order of rows within a batch is that of arrival.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    open: Vec<Batch>,
    /// The batch that took the last row: the next row nearly always has the same shape.
    last: usize,
    /// The shape of the last row, also when its batch has left.
    track: Option<Arc<Shape>>,
    /// Rows of the last batch with the track's shape: the next one will have about as many.
    rows: usize,
    row: Row,
    /// Rows of each open batch when [`mark`](BatchBuilder::mark) was called.
    marked: Vec<usize>,
}

/// Room that a batch gets in advance at most.
const ROWS_RESERVED_MAX: usize = 256;

#[derive(Debug, Default)]
struct Row {
    device: String,
    time: Timestamp,
    seq: Option<u64>,
    quality: Quality,
    /// The cells so far are the first ones of the last row's shape, by name and type; `names` is empty then.
    on_track: bool,
    text: String,
    /// Where the name of each cell stands in `text`.
    names: Vec<Range<usize>>,
    cells: Vec<Cell>,
    arena: Arena,
}

#[derive(Clone, Copy, Debug)]
enum Cell {
    F64(f64),
    I64(i64),
    Bool(bool),
    Text(usize),
    Bytes(usize),
}

impl BatchBuilder {
    pub fn begin(&mut self, device: &str) {
        self.row.clear();
        self.row.device.push_str(device);
    }

    pub fn device(&mut self, device: &str) {
        self.row.device.clear();
        self.row.device.push_str(device);
    }

    pub fn time(&mut self, time: Timestamp) {
        self.row.time = time;
    }

    pub fn seq(&mut self, seq: u64) {
        self.row.seq = Some(seq);
    }

    pub fn quality(&mut self, quality: Quality) {
        self.row.quality = quality;
    }

    /// Adds a metric if it is the one that stands here in the shape of the last row; `false`, and nothing is added, otherwise.
    /// Saves whoever decodes the checks of a name: it was good then, and cannot occur twice.
    pub fn cell_as_before(&mut self, name: &[u8], value: Value<'_>) -> bool {
        let row = &mut self.row;
        let expected = self.track.as_ref().and_then(|shape| shape.metrics().get(row.cells.len()));
        let fits = row.on_track
            && expected.is_some_and(|metric| metric.name.as_bytes() == name && metric.value_type == value.value_type());
        if fits {
            row.push(value);
        }
        fits
    }

    /// Adds a metric to the current row. `false`, and nothing is added, when the row has this metric already.
    pub fn cell(&mut self, name: &str, value: Value<'_>) -> bool {
        if self.cell_as_before(name.as_bytes(), value) {
            return true;
        }
        self.leave_track();
        let row = &mut self.row;
        if row.names.iter().any(|range| &row.text[range.clone()] == name) {
            return false;
        }
        row.push_name(name);
        row.push(value);
        true
    }

    /// Cells in the current row.
    pub fn cells(&self) -> usize {
        self.row.cells.len()
    }

    /// Completes the current row.
    pub fn end(&mut self) {
        let at = self.batch_for_row();
        self.last = at;
        let (batch, row) = (&mut self.open[at], &self.row);
        if !row.on_track {
            self.track = Some(batch.shape.clone());
        }
        batch.extend_last_run(&row.device, 1);
        batch.push_head(row.time, row.seq, row.quality);
        // The columns of a builder have no gaps: rows with other metrics are in other batches.
        for (column, cell) in batch.columns.iter_mut().zip(&row.cells) {
            match (&mut column.values, *cell) {
                (ColumnValues::F64(values), Cell::F64(x)) => values.push(x),
                (values, cell) => values.push(Some(row.value(cell))),
            }
        }
    }

    /// Forgets the current row.
    pub fn abandon(&mut self) {
        self.row.clear();
    }

    /// Remembers what is in the builder now: [`rollback`](Self::rollback) comes back to it.
    pub fn mark(&mut self) {
        self.marked.clear();
        self.marked.extend(self.open.iter().map(Batch::rows));
    }

    /// Takes back all rows since the last [`mark`](Self::mark), and the current row with them.
    pub fn rollback(&mut self) {
        self.abandon();
        self.open.truncate(self.marked.len());
        for (batch, rows) in self.open.iter_mut().zip(&self.marked) {
            batch.truncate(*rows);
        }
        self.last = 0;
    }

    /// Different shapes since the last [`mark`](Self::mark).
    pub fn new_shapes(&self) -> usize {
        self.open.len().saturating_sub(self.marked.len())
    }

    /// The batches collected, in the order in which their shapes first occurred; the builder is empty again.
    pub fn finish(&mut self) -> Vec<Batch> {
        self.last = 0;
        self.marked.clear();
        self.rows = self.open.iter().map(Batch::rows).max().unwrap_or(0).min(ROWS_RESERVED_MAX);
        std::mem::take(&mut self.open)
    }

    fn batch_for_row(&mut self) -> usize {
        if let (true, Some(track)) = (self.row.on_track, &self.track)
            && track.metrics().len() == self.row.cells.len()
        {
            if self.open.get(self.last).is_some_and(|batch| Arc::ptr_eq(&batch.shape, track)) {
                return self.last;
            }
            if let Some(at) = self.open.iter().position(|batch| Arc::ptr_eq(&batch.shape, track)) {
                return at;
            }
            let mut batch = Batch::empty(track.clone());
            batch.reserve(self.rows);
            self.open.push(batch);
            return self.open.len() - 1;
        }
        self.leave_track();
        if let Some(at) = self.open.iter().position(|batch| self.row.fits(batch)) {
            return at;
        }
        self.open.push(Batch::empty(Arc::new(self.row.shape())));
        self.open.len() - 1
    }

    fn leave_track(&mut self) {
        if !std::mem::replace(&mut self.row.on_track, false) {
            return;
        }
        if let Some(shape) = &self.track {
            let cells = self.row.cells.len();
            for metric in &shape.metrics()[..cells] {
                self.row.push_name(&metric.name);
            }
        }
    }
}

impl Row {
    fn clear(&mut self) {
        self.device.clear();
        self.time = Timestamp::default();
        self.seq = None;
        self.quality = Quality::Good;
        self.on_track = true;
        self.text.clear();
        self.names.clear();
        self.cells.clear();
        self.arena.bytes.clear();
        self.arena.ends.clear();
    }

    fn push_name(&mut self, name: &str) {
        let start = self.text.len();
        self.text.push_str(name);
        self.names.push(start..self.text.len());
    }

    fn push(&mut self, value: Value<'_>) {
        self.cells.push(match value {
            Value::F64(v) => Cell::F64(v),
            Value::I64(v) => Cell::I64(v),
            Value::Bool(v) => Cell::Bool(v),
            Value::Text(v) => {
                self.arena.push(v.as_bytes());
                Cell::Text(self.arena.ends.len() - 1)
            }
            Value::Bytes(v) => {
                self.arena.push(v);
                Cell::Bytes(self.arena.ends.len() - 1)
            }
        });
    }

    fn fits(&self, batch: &Batch) -> bool {
        let metrics = batch.shape.metrics();
        metrics.len() == self.cells.len()
            && metrics.iter().zip(self.names.iter().zip(&self.cells)).all(|(metric, (name, cell))| {
                metric.value_type == cell.value_type() && *metric.name == self.text[name.clone()]
            })
    }

    fn shape(&self) -> Shape {
        let metric = |(name, cell): (&Range<usize>, &Cell)| Metric {
            name: self.text[name.clone()].into(),
            value_type: cell.value_type(),
            unit: "".into(),
        };
        Shape::new(self.names.iter().zip(&self.cells).map(metric).collect())
    }

    fn value(&self, cell: Cell) -> Value<'_> {
        match cell {
            Cell::F64(v) => Value::F64(v),
            Cell::I64(v) => Value::I64(v),
            Cell::Bool(v) => Value::Bool(v),
            Cell::Text(at) => Value::Text(std::str::from_utf8(self.arena.value(at)).unwrap_or_default()),
            Cell::Bytes(at) => Value::Bytes(self.arena.value(at)),
        }
    }
}

impl Cell {
    fn value_type(self) -> ValueType {
        match self {
            Cell::F64(_) => ValueType::F64,
            Cell::I64(_) => ValueType::I64,
            Cell::Bool(_) => ValueType::Bool,
            Cell::Text(_) => ValueType::Text,
            Cell::Bytes(_) => ValueType::Bytes,
        }
    }
}
