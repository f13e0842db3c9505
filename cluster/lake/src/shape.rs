//! The columns of a file.
//!
//! ```text
//! device       string      required   dictionary
//! time         timestamp   required   UTC; milliseconds, microseconds or nanoseconds: the coarsest in which all are whole
//! seq          u64         optional   the device's own number
//! site         string      required   dictionary
//! origin       string      required   the node that wrote the record, 32 hexadecimal digits
//! incarnation  u32         required
//! record       i64         required   number of the record
//! quality      string      optional   `uncertain` or `bad`; nothing when good
//! …            a column for each metric, sorted by name: double, i64, boolean, string or bytes; optional
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millpond_core::{
    batch::Shape,
    value::{Quality, ValueType},
};
use parquet::{
    basic::{Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr},
    schema::types::{ColumnPath, Type, TypePtr},
};

use crate::{
    manifest::{MetricOf, Unit},
    names,
};

pub const DEVICE: usize = 0;
pub const TIME: usize = 1;
pub const SEQ: usize = 2;
pub const SITE: usize = 3;
pub const ORIGIN: usize = 4;
pub const INCARNATION: usize = 5;
pub const RECORD: usize = 6;
pub const QUALITY: usize = 7;
/// Columns before the first metric.
pub const METRICS: usize = names::FIXED_COLUMNS.len();

/// A dictionary that grows beyond this does not pay.
const DICTIONARY_BYTES: usize = 512 << 10;

/// Metrics in the order of their columns.
#[derive(Debug, PartialEq)]
pub struct Columns {
    pub id: String,
    pub metrics: Vec<MetricOf>,
    pub names: Vec<String>,
}

impl Columns {
    pub fn new(mut metrics: Vec<MetricOf>) -> Columns {
        metrics.sort_by(|a, b| (&a.name, a.value_type, &a.unit).cmp(&(&b.name, b.value_type, &b.unit)));
        let said: Vec<String> =
            metrics.iter().map(|m| format!("{}\u{0}{}\u{0}{}\u{1}", m.name, m.value_type.name(), m.unit)).collect();
        let mut taken = BTreeSet::new();
        let mut names = Vec::new();
        for metric in &metrics {
            let mut name = names::column_of(&metric.name);
            while !taken.insert(name.to_ascii_lowercase()) {
                name.push('\'');
            }
            names.push(name);
        }
        Columns { id: names::hashed(&said.concat()), metrics, names }
    }

    /// The columns of a shape, and for each of them the place of its metric in the shape.
    pub fn of_shape(shape: &Shape) -> (Columns, Vec<usize>) {
        let all = shape.metrics();
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by(|a, b| {
            let key = |at: usize| (&all[at].name, all[at].value_type, &all[at].unit);
            key(*a).cmp(&key(*b))
        });
        let metric = |at: &usize| MetricOf {
            name: all[*at].name.to_string(),
            value_type: all[*at].value_type,
            unit: all[*at].unit.to_string(),
        };
        (Columns::new(order.iter().map(metric).collect()), order)
    }

    pub fn schema(&self, unit: Unit) -> Result<TypePtr, parquet::errors::ParquetError> {
        let column = |name: &str, physical, repetition, logical: Option<LogicalType>| {
            Type::primitive_type_builder(name, physical)
                .with_repetition(repetition)
                .with_logical_type(logical)
                .build()
                .map(Arc::new)
        };
        let (required, optional) = (Repetition::REQUIRED, Repetition::OPTIONAL);
        let text = || Some(LogicalType::String);
        let precision = match unit {
            Unit::Ms => TimeUnit::MILLIS,
            Unit::Us => TimeUnit::MICROS,
            Unit::Ns => TimeUnit::NANOS,
        };
        let mut fields = vec![
            column("device", Physical::BYTE_ARRAY, required, text())?,
            column("time", Physical::INT64, required, Some(LogicalType::timestamp(true, precision)))?,
            column("seq", Physical::INT64, optional, Some(LogicalType::integer(64, false)))?,
            column("site", Physical::BYTE_ARRAY, required, text())?,
            column("origin", Physical::BYTE_ARRAY, required, text())?,
            column("incarnation", Physical::INT32, required, Some(LogicalType::integer(32, false)))?,
            column("record", Physical::INT64, required, None)?,
            column("quality", Physical::BYTE_ARRAY, optional, text())?,
        ];
        for (metric, name) in self.metrics.iter().zip(&self.names) {
            fields.push(match metric.value_type {
                ValueType::F64 => column(name, Physical::DOUBLE, optional, None)?,
                ValueType::I64 => column(name, Physical::INT64, optional, None)?,
                ValueType::Bool => column(name, Physical::BOOLEAN, optional, None)?,
                ValueType::Text => column(name, Physical::BYTE_ARRAY, optional, text())?,
                ValueType::Bytes => column(name, Physical::BYTE_ARRAY, optional, None)?,
            });
        }
        Type::group_type_builder("event").with_fields(fields).build().map(Arc::new)
    }

    /// `repeats` says of each metric whether its numbers are few.
    pub fn properties(
        &self,
        zstd: i32,
        page_rows: usize,
        repeats: &[bool],
    ) -> Result<WriterPropertiesPtr, parquet::errors::ParquetError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(zstd)?))
            .set_created_by(format!("millpond {}", env!("CARGO_PKG_VERSION")))
            .set_statistics_enabled(EnabledStatistics::Page)
            // Names of devices are compared: they must be whole.
            .set_statistics_truncate_length(None)
            .set_column_index_truncate_length(None)
            .set_data_page_row_count_limit(page_rows)
            .set_write_batch_size(page_rows.min(4096))
            .set_dictionary_page_size_limit(DICTIONARY_BYTES);
        let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
        for name in ["time", "seq", "record"] {
            properties = properties
                .set_column_dictionary_enabled(path(name), false)
                .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
        }
        for ((metric, name), repeats) in self.metrics.iter().zip(&self.names).zip(repeats) {
            let name = path(name);
            properties = match metric.value_type {
                // Readings of a sensor mostly repeat. Where they do not, or a dictionary becomes too large, their bytes are put together by
                // their places: the first ones are much alike.
                ValueType::F64 => properties
                    .set_column_dictionary_enabled(name.clone(), *repeats)
                    .set_column_encoding(name, Encoding::BYTE_STREAM_SPLIT),
                ValueType::I64 => properties
                    .set_column_dictionary_enabled(name.clone(), false)
                    .set_column_encoding(name, Encoding::DELTA_BINARY_PACKED),
                ValueType::Bool => properties.set_column_dictionary_enabled(name, false),
                ValueType::Text | ValueType::Bytes => {
                    properties.set_column_statistics_enabled(name, EnabledStatistics::Chunk)
                }
            };
        }
        Ok(Arc::new(properties.build()))
    }
}

pub fn quality_text(quality: Quality) -> Option<&'static str> {
    match quality {
        Quality::Good => None,
        Quality::Uncertain => Some("uncertain"),
        Quality::Bad => Some("bad"),
    }
}

pub fn quality_of(text: &[u8]) -> Option<Quality> {
    [Quality::Uncertain, Quality::Bad]
        .into_iter()
        .find(|quality| quality_text(*quality).map(str::as_bytes) == Some(text))
}

/// Columns by the fingerprints of the shapes they were made for: batches come in few shapes.
#[derive(Default)]
pub struct KnownShapes(BTreeMap<u64, Vec<(Arc<Shape>, Arc<Columns>, Arc<[usize]>)>>);

impl KnownShapes {
    pub fn of(&mut self, shape: &Arc<Shape>) -> (Arc<Columns>, Arc<[usize]>) {
        let same = self.0.entry(shape.fingerprint()).or_default();
        if let Some((_, columns, order)) = same.iter().find(|(known, ..)| **known == **shape) {
            return (columns.clone(), order.clone());
        }
        let (columns, order) = Columns::of_shape(shape);
        let (columns, order): (Arc<Columns>, Arc<[usize]>) = (Arc::new(columns), order.into());
        same.push((shape.clone(), columns.clone(), order.clone()));
        (columns, order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, value_type: ValueType) -> MetricOf {
        MetricOf { name: name.into(), value_type, unit: String::new() }
    }

    #[test]
    fn the_order_of_metrics_does_not_matter() {
        let (a, b) = (metric("a", ValueType::F64), metric("b", ValueType::I64));
        assert_eq!(Columns::new(vec![a.clone(), b.clone()]), Columns::new(vec![b.clone(), a.clone()]));
        let other = Columns::new(vec![a, metric("b", ValueType::F64)]);
        assert_ne!(Columns::new(vec![b]).id, other.id);
    }

    #[test]
    fn columns_that_engines_take_for_the_same_have_different_names() {
        let columns = Columns::new(["Temp", "temp", "time"].map(|name| metric(name, ValueType::F64)).into());
        assert_eq!(columns.names, ["Temp", "temp'", "metric:time"]);
    }
}
