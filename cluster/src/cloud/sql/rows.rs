//! Readings as columns of Arrow.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::{
    array::{ArrayRef, Float64Builder, RecordBatch, RecordBatchOptions, StringBuilder, TimestampNanosecondBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
};
use millpond_core::{
    time::Timestamp,
    value::{Quality, Value},
};

const UTC: &str = "UTC";

/// Time of the event; whose and which metric; the value as a number (truth values are 0 and 1) or as a text (bytes in hexadecimal digits);
/// `good`, `uncertain` or `bad`; where it was measured.
pub(super) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into()));
    Arc::new(Schema::new(vec![
        Field::new("time", time, false),
        Field::new("device", DataType::Utf8, false),
        Field::new("metric", DataType::Utf8, false),
        Field::new("value", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("quality", DataType::Utf8, false),
        Field::new("site", DataType::Utf8, false),
    ]))
});

/// One value of one event.
pub(super) struct Reading<'a> {
    pub time: Timestamp,
    pub device: &'a str,
    pub metric: &'a str,
    pub value: Value<'a>,
    pub quality: Quality,
    pub site: &'a str,
}

enum Column {
    Time(TimestampNanosecondBuilder),
    Device(StringBuilder),
    Metric(StringBuilder),
    Value(Float64Builder),
    Text(StringBuilder),
    Quality(StringBuilder),
    Site(StringBuilder),
}

/// Gathers the columns that are asked for.
pub(super) struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    count: usize,
}

impl Rows {
    /// `columns` are places in [`SCHEMA`].
    pub fn new(schema: SchemaRef, columns: &[usize]) -> Rows {
        let column = |at: &usize| match at {
            0 => Column::Time(TimestampNanosecondBuilder::new().with_timezone(UTC)),
            1 => Column::Device(StringBuilder::new()),
            2 => Column::Metric(StringBuilder::new()),
            3 => Column::Value(Float64Builder::new()),
            4 => Column::Text(StringBuilder::new()),
            5 => Column::Quality(StringBuilder::new()),
            _ => Column::Site(StringBuilder::new()),
        };
        Rows { schema, columns: columns.iter().map(column).collect(), count: 0 }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn push(&mut self, reading: &Reading<'_>) {
        self.count += 1;
        for column in &mut self.columns {
            match column {
                Column::Time(times) => times.append_value(reading.time.0),
                Column::Device(names) => names.append_value(reading.device),
                Column::Metric(names) => names.append_value(reading.metric),
                Column::Value(values) => values.append_option(reading.value.as_f64()),
                Column::Text(texts) => match reading.value {
                    Value::Text(text) => texts.append_value(text),
                    Value::Bytes(bytes) => texts.append_value(hex(bytes)),
                    Value::F64(_) | Value::I64(_) | Value::Bool(_) => texts.append_null(),
                },
                Column::Quality(names) => names.append_value(match reading.quality {
                    Quality::Good => "good",
                    Quality::Uncertain => "uncertain",
                    Quality::Bad => "bad",
                }),
                Column::Site(names) => names.append_value(reading.site),
            }
        }
    }

    /// What was gathered; after that there is nothing.
    pub fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = self.columns.iter_mut().map(Column::take).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.count)));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}

impl Column {
    fn take(&mut self) -> ArrayRef {
        match self {
            Column::Time(times) => Arc::new(times.finish()),
            Column::Value(values) => Arc::new(values.finish()),
            Column::Device(texts)
            | Column::Metric(texts)
            | Column::Text(texts)
            | Column::Quality(texts)
            | Column::Site(texts) => Arc::new(texts.finish()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
