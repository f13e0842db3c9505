//! Masks on a block of events: it is packed again when a row of it is masked.

use std::sync::Arc;

use millpond_core::{
    batch::{Batch, Column, ColumnValues, Metric, Shape},
    block::{self, Decoder},
    limits::BLOCK_TEXT_BYTES_MAX,
    value::{Value, ValueType, rounded, rounded_integer},
};

use super::{
    Masking,
    act::{Act, Who},
};
use crate::wire::Record;

/// What is done with a run: under which name it leaves when it is not its own, and what with each column.
struct Masked {
    name: Option<String>,
    acts: Vec<Act>,
}

/// A value that leaves.
enum Left<'a> {
    Same(Value<'a>),
    Text(String),
    Bytes(Vec<u8>),
}

impl Masking {
    pub(super) fn block(&self, record: Record, decoder: &mut Decoder) -> Option<Record> {
        let batch = decoder.decode(&record.payload).ok()?;
        let runs = self.runs(&batch);
        let untouched = |run: &Masked| run.name.is_none() && run.acts.iter().all(|act| *act == Act::Keep);
        if runs.iter().all(untouched) {
            return Some(record);
        }
        let part = self.part(&batch, &runs);
        let (min, max) = (part.times.iter().min().copied()?, part.times.iter().max().copied()?);
        let mut payload = Vec::new();
        block::encode(&part, &mut payload);
        Some(Record { rows: part.rows() as u32, min_time: min, max_time: max, payload: payload.into(), ..record })
    }

    fn runs(&self, batch: &Batch) -> Vec<Masked> {
        let metrics = batch.shape.metrics();
        let on: Vec<Vec<bool>> = self
            .rules
            .iter()
            .map(|rule| metrics.iter().map(|metric| rule.has_metric(&metric.name)).collect())
            .collect();
        let of_run = |run| {
            let device = batch.device(run);
            let mut acts = vec![Act::Keep; metrics.len()];
            for (rule, on) in self.rules.iter().zip(&on).filter(|(rule, _)| rule.concerns(Who::Device(device))) {
                for (act, _) in acts.iter_mut().zip(on).filter(|(_, on)| **on) {
                    *act = rule.act.max(*act);
                }
            }
            Masked { name: self.name(device), acts }
        };
        batch.runs().iter().map(of_run).collect()
    }

    /// A row of which nothing is left does not leave, nor does a column.
    fn part(&self, batch: &Batch, runs: &[Masked]) -> Batch {
        let mut columns: Vec<Column> = batch.columns.iter().map(empty).collect();
        let mut part = Batch::empty(Arc::new(Shape::new(Vec::new())));
        let mut text: usize = batch.columns.iter().map(text_bytes).sum();
        for (run, masked) in batch.runs().iter().zip(runs) {
            let mut rows = 0;
            for row in run.rows() {
                let left: Vec<Option<Left<'_>>> = batch
                    .columns
                    .iter()
                    .zip(&masked.acts)
                    .map(|(column, act)| {
                        let left = self.value(*act, column.value(row)?)?;
                        // Tokens may be longer than what they stand for, and a block that nobody can read is of no use.
                        text += left.bytes_more();
                        (text <= BLOCK_TEXT_BYTES_MAX || left.bytes_more() == 0).then_some(left)
                    })
                    .collect();
                let had_some = batch.columns.iter().any(|column| column.is_present(row));
                if had_some && left.iter().all(Option::is_none) {
                    continue;
                }
                for (column, left) in columns.iter_mut().zip(&left) {
                    column.values.push(left.as_ref().map(Left::value));
                    column.present.get_or_insert_default().push(left.is_some());
                }
                part.times.push(batch.times[row]);
                if !batch.seqs.is_empty() {
                    part.seqs.push(batch.seq(row));
                }
                if !batch.quality.is_empty() {
                    part.quality.push(batch.quality_of(row));
                }
                rows += 1;
            }
            if rows > 0 {
                part.push_run(masked.name.as_deref().unwrap_or(batch.device(run)), rows);
            }
        }
        let (shape, columns) = of_use(&batch.shape, columns);
        (part.shape, part.columns) = (Arc::new(shape), columns);
        part
    }

    fn value<'a>(&self, act: Act, value: Value<'a>) -> Option<Left<'a>> {
        match (act, value) {
            (Act::Keep, value) => Some(Left::Same(value)),
            (Act::Token, Value::Text(text)) => Some(Left::Text(self.token(text.as_bytes()))),
            (Act::Token, Value::Bytes(bytes)) => Some(Left::Bytes(self.token(bytes).into_bytes())),
            (Act::Round(digits), Value::F64(v)) => Some(Left::Same(Value::F64(rounded(v, digits.0)))),
            (Act::Round(digits), Value::I64(v)) => Some(Left::Same(Value::I64(rounded_integer(v, digits.0)))),
            (Act::Token | Act::Round(_) | Act::Drop, _) => None,
        }
    }
}

impl Left<'_> {
    fn value(&self) -> Value<'_> {
        match self {
            Left::Same(value) => *value,
            Left::Text(text) => Value::Text(text),
            Left::Bytes(bytes) => Value::Bytes(bytes),
        }
    }

    fn bytes_more(&self) -> usize {
        match self {
            Left::Same(_) => 0,
            Left::Text(text) => text.len(),
            Left::Bytes(bytes) => bytes.len(),
        }
    }
}

fn text_bytes(column: &Column) -> usize {
    match &column.values {
        ColumnValues::Text(arena) | ColumnValues::Bytes(arena) => arena.bytes.len(),
        ColumnValues::F64(_) | ColumnValues::I64(_) | ColumnValues::Bool(_) => 0,
    }
}

fn empty(column: &Column) -> Column {
    let value_type = match &column.values {
        ColumnValues::F64(_) => ValueType::F64,
        ColumnValues::I64(_) => ValueType::I64,
        ColumnValues::Bool(_) => ValueType::Bool,
        ColumnValues::Text(_) => ValueType::Text,
        ColumnValues::Bytes(_) => ValueType::Bytes,
    };
    Column { values: ColumnValues::of_type(value_type), present: None }
}

/// The columns that hold anything; without gaps where there are none.
fn of_use(shape: &Shape, columns: Vec<Column>) -> (Shape, Vec<Column>) {
    let mut metrics: Vec<Metric> = Vec::new();
    let mut left = Vec::new();
    for (metric, column) in shape.metrics().iter().zip(columns) {
        let present = column.present.unwrap_or_default();
        if present.contains(&true) {
            let present = present.contains(&false).then_some(present);
            metrics.push(metric.clone());
            left.push(Column { present, ..column });
        }
    }
    (Shape::new(metrics), left)
}
