//! Rows in columns, as they are read from files and gathered for them.

use std::sync::Arc;

use millpond_core::{
    batch::{Column, ColumnValues},
    value::{Quality, Value},
};

use crate::{manifest::Source, shape::Columns};

/// What a row has besides its metrics. Rows are sorted by this, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head<'a> {
    pub device: &'a str,
    pub time: i64,
    pub seq: Option<u64>,
    pub source: &'a Source,
    pub record: u64,
    pub quality: Quality,
}

#[derive(Debug, Default)]
pub struct Rows {
    devices: Vec<Arc<str>>,
    sources: Vec<Source>,
    pub device: Vec<u32>,
    pub time: Vec<i64>,
    pub seq: Vec<Option<u64>>,
    pub source: Vec<u32>,
    pub record: Vec<u64>,
    pub quality: Vec<Quality>,
    pub metrics: Vec<Column>,
    /// Bytes of text and the like.
    pub heap: usize,
}

impl Rows {
    pub fn of(columns: &Columns) -> Rows {
        let empty = |value_type| Column { values: ColumnValues::of_type(value_type), present: None };
        Rows { metrics: columns.metrics.iter().map(|metric| empty(metric.value_type)).collect(), ..Rows::default() }
    }

    pub fn len(&self) -> usize {
        self.time.len()
    }

    pub fn head(&self, row: usize) -> Head<'_> {
        Head {
            device: self.device_name(row),
            time: self.time[row],
            seq: self.seq[row],
            source: self.source_of(row),
            record: self.record[row],
            quality: self.quality[row],
        }
    }

    pub fn device_name(&self, row: usize) -> &Arc<str> {
        &self.devices[self.device[row] as usize]
    }

    pub fn source_of(&self, row: usize) -> &Source {
        &self.sources[self.source[row] as usize]
    }

    /// Appends a row; its metrics are pushed to each column after that by [`Rows::cell`].
    pub fn push(&mut self, head: &Head<'_>) {
        let device = self.place_of_device(head.device.as_bytes(), || head.device.into());
        self.device.push(device);
        self.time.push(head.time);
        self.seq.push(head.seq);
        let source = self.place_of_source(head.source);
        self.source.push(source);
        self.record.push(head.record);
        self.quality.push(head.quality);
    }

    /// The cell of the row that was pushed last.
    pub fn cell(&mut self, column: usize, value: Option<Value<'_>>) {
        if let Some(Value::Text(_) | Value::Bytes(_)) = value {
            self.heap += 4 + bytes_of(value);
        }
        push_cell(&mut self.metrics[column], value);
    }

    /// Rows come sorted: a name is that of the last row, or a new one.
    pub fn place_of_device(&mut self, name: &[u8], make: impl FnOnce() -> Arc<str>) -> u32 {
        if self.devices.last().is_none_or(|last| last.as_bytes() != name) {
            self.devices.push(make());
        }
        self.devices.len() as u32 - 1
    }

    /// Sources are few.
    pub fn place_of_source(&mut self, source: &Source) -> u32 {
        let last = self.source.last().copied();
        if let Some(last) = last.filter(|last| self.sources[*last as usize] == *source) {
            return last;
        }
        let known = self.sources.iter().position(|known| known == source);
        known.unwrap_or_else(|| {
            self.sources.push(source.clone());
            self.sources.len() - 1
        }) as u32
    }

    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    pub fn clear(&mut self) {
        self.devices.clear();
        self.sources.clear();
        self.device.clear();
        self.time.clear();
        self.seq.clear();
        self.source.clear();
        self.record.clear();
        self.quality.clear();
        self.heap = 0;
        for column in &mut self.metrics {
            column.present = None;
            match &mut column.values {
                ColumnValues::F64(values) => values.clear(),
                ColumnValues::I64(values) => values.clear(),
                ColumnValues::Bool(values) => values.clear(),
                ColumnValues::Text(values) | ColumnValues::Bytes(values) => {
                    values.bytes.clear();
                    values.ends.clear();
                }
            }
        }
    }
}

fn bytes_of(value: Option<Value<'_>>) -> usize {
    match value {
        Some(Value::Text(text)) => text.len(),
        Some(Value::Bytes(bytes)) => bytes.len(),
        _ => 0,
    }
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
