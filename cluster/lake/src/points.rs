//! Values of a series, one by one.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use millpond_core::{
    time::Timestamp,
    value::{Value, ValueType},
};

use crate::{
    error::{LakeError, Result},
    lake::Lake,
    manifest::{File, Manifest},
    series::{Found, Series},
    shape::METRICS,
};

/// A value that stands alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    F64(f64),
    I64(i64),
    Bool(bool),
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

impl Cell {
    pub fn of(value: Value<'_>) -> Cell {
        match value {
            Value::F64(value) => Cell::F64(value),
            Value::I64(value) => Cell::I64(value),
            Value::Bool(value) => Cell::Bool(value),
            Value::Text(text) => Cell::Text(text.into()),
            Value::Bytes(bytes) => Cell::Bytes(bytes.into()),
        }
    }

    pub fn as_value(&self) -> Value<'_> {
        match self {
            Cell::F64(value) => Value::F64(*value),
            Cell::I64(value) => Value::I64(*value),
            Cell::Bool(value) => Value::Bool(*value),
            Cell::Text(text) => Value::Text(text),
            Cell::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

/// In the order of time; of the same time in the order of the device's own numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    pub points: Vec<(Timestamp, Cell)>,
    /// There are more than were asked for.
    pub more: bool,
}

/// Days that are read ahead of the one whose turn it is: a store far away answers slowly, but many at once.
pub(crate) const AHEAD: usize = 8;

impl Lake {
    /// The values of a series, at most `limit`.
    ///
    /// # Errors
    /// When the store can not be read, or something of it is damaged.
    pub async fn points(&self, manifest: &Manifest, series: &Series, limit: usize) -> Result<Points> {
        let days = series.files(manifest);
        let each: Vec<BoxFuture<'_, _>> = days.iter().map(|files| self.points_of_day(files, series).boxed()).collect();
        let mut found = stream::iter(each).buffered(AHEAD);
        let mut all = Points::default();
        while let Some(mut points) = found.try_next().await? {
            let room = limit - all.points.len();
            all.more = points.len() > room;
            points.truncate(room);
            all.points.append(&mut points);
            if all.more {
                break;
            }
        }
        Ok(all)
    }

    async fn points_of_day(&self, files: &[&File], series: &Series) -> Result<Vec<(Timestamp, Cell)>> {
        let mut points = Vec::new();
        let mut pieces = 0;
        for file in files {
            let footer = self.footer(file).await?;
            for found in self.find(file, &footer, series, files.len() > 1).await? {
                pieces += 1;
                let value_type = footer.columns.metrics[found.column - METRICS].value_type;
                gather(found, value_type, &mut points)?;
            }
        }
        if pieces > 1 {
            points.sort_by_key(|(time, seq, _): &(Timestamp, Option<u64>, Cell)| (*time, *seq));
        }
        Ok(points.into_iter().map(|(time, _, cell)| (time, cell)).collect())
    }
}

fn gather(mut found: Found, value_type: ValueType, points: &mut Vec<(Timestamp, Option<u64>, Cell)>) -> Result<()> {
    let path: Arc<str> = found.values.path().into();
    found.values.skip(found.inside.start)?;
    let (cells, levels) = found.values.read(found.inside.len())?;
    let mut next = 0;
    for (at, row) in found.inside.enumerate() {
        if levels.is_some_and(|levels| levels[at] == 0) {
            continue;
        }
        let value =
            cells.value(next, value_type).ok_or_else(|| LakeError::damaged(&path, "a value is of another type"))?;
        next += 1;
        points.push((Timestamp(found.times[row]), found.seqs.get(row).copied().flatten(), Cell::of(value)));
    }
    Ok(())
}
