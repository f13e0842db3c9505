//! Questions in SQL, over all tiers, answered by DataFusion.
//!
//! There is one table, [`readings`](table): a row for each value of each event of the sites of one tenant. Questions only read; each may use so
//! much memory and take so long, one at a time, so that none gets in the way of what sites deliver.

mod bounds;
mod rows;
mod table;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use datafusion::{
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::{DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef},
        datatypes::{UInt8Type, UInt16Type, UInt32Type, UInt64Type},
        error::ArrowError,
        util::display::{ArrayFormatter, FormatOptions},
    },
    error::DataFusionError,
    execution::{
        context::{SQLOptions, SessionConfig, SessionContext},
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::GreedyMemoryPool,
        runtime_env::RuntimeEnvBuilder,
    },
};
use futures_util::StreamExt;
use millpond_actors::merged::DEFAULT_TENANT;
use millpond_core::time::Span;
use millpond_gateway::port::{AskError, Json};
use serde_json::json;

use self::table::Readings;
use super::Cloud;

/// What a question may hold of sorted, grouped and joined rows.
const MEMORY_BYTES: usize = 128 << 20;
const LONGEST: Span = Span::from_secs(60);
const ROWS_DEFAULT: usize = 10_000;
const ROWS_MAX: usize = 100_000;
/// Rows that DataFusion looks at together.
const BATCH: usize = 8 << 10;
/// How often a question is asked that events were archived under.
const ATTEMPTS: usize = 5;

impl Cloud {
    /// Answers `sql`, with at most `limit` rows (10 000, at most 100 000), of the sites of `tenant`.
    ///
    /// # Errors
    /// When the question is none, is too large, or something cannot be read.
    pub(super) async fn sql(&self, body: &Json) -> Result<Json, AskError> {
        let sql = body["sql"].as_str().ok_or_else(|| AskError::Invalid("`sql` is missing".into()))?;
        let limit = match &body["limit"] {
            Json::Null => ROWS_DEFAULT,
            limit => {
                let limit = limit.as_u64().and_then(|limit| usize::try_from(limit).ok());
                let limit = limit.filter(|limit| (1..=ROWS_MAX).contains(limit));
                limit.ok_or_else(|| AskError::Invalid(format!("`limit` is from 1 to {ROWS_MAX}")))?
            }
        };
        let tenant = body["tenant"].as_str().unwrap_or(DEFAULT_TENANT);
        let answer = self.0.env.timeout(LONGEST, async {
            let _turn = self.0.sql.acquire().await;
            for _ in 0..ATTEMPTS {
                if let Some(answer) = self.sql_once(tenant, sql, limit).await? {
                    return Ok(answer);
                }
            }
            Err(AskError::Unavailable)
        });
        answer.await.unwrap_or_else(|_| {
            Err(AskError::Invalid(format!("it takes longer than {LONGEST}: ask for less time, or for fewer devices")))
        })
    }

    /// `None` when events were moved into the archive under the question.
    async fn sql_once(&self, tenant: &str, sql: &str, limit: usize) -> Result<Option<Json>, AskError> {
        let torn = Arc::new(AtomicBool::new(false));
        let readings = Readings::new(self.clone(), tenant, torn.clone())?;
        let answer = answer(readings, sql, limit).await;
        if torn.load(Relaxed) {
            return Ok(None);
        }
        answer.map(Some).map_err(|error| told(&error))
    }
}

async fn answer(readings: Readings, sql: &str, limit: usize) -> Result<Json, DataFusionError> {
    // One task, on the executor that polls it: nothing is spawned.
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH).with_information_schema(true);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY_BYTES)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    context.register_table("readings", Arc::new(readings))?;
    let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(sql, only_reads).await?;
    // One more shows whether there are more.
    let mut found = frame.limit(0, Some(limit + 1))?.execute_stream().await?;
    let schema = found.schema();
    let mut rows = Vec::new();
    while let Some(batch) = found.next().await {
        add_rows(&batch?, &mut rows)?;
    }
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let mut answer = json!({ "columns": columns_of(&schema), "rows": rows });
    if truncated {
        answer["truncated"] = true.into();
    }
    Ok(answer)
}

fn columns_of(schema: &SchemaRef) -> Vec<Json> {
    let columns = schema.fields().iter();
    columns.map(|field| json!({ "name": field.name(), "type": field.data_type().to_string() })).collect()
}

/// Numbers and truth values as they are, everything else as text. JSON has no infinite numbers: they are texts too.
fn add_rows(batch: &RecordBatch, rows: &mut Vec<Json>) -> Result<(), ArrowError> {
    let options = FormatOptions::new();
    let columns = batch.columns().iter();
    let columns = columns.map(|column| Ok((&**column, ArrayFormatter::try_new(&**column, &options)?)));
    let columns = columns.collect::<Result<Vec<(&dyn Array, _)>, ArrowError>>()?;
    for row in 0..batch.num_rows() {
        rows.push(columns.iter().map(|(column, text)| cell(*column, text, row)).collect());
    }
    Ok(())
}

fn cell(column: &dyn Array, text: &ArrayFormatter<'_>, row: usize) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    let as_text = || Json::from(text.value(row).to_string());
    let number = |value: f64| serde_json::Number::from_f64(value).map_or_else(as_text, Json::Number);
    match column.data_type() {
        DataType::Null => Json::Null,
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => number(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(row)),
        _ => as_text(),
    }
}

/// What went wrong, in words for who asked.
fn told(error: &DataFusionError) -> AskError {
    match error.find_root() {
        DataFusionError::External(inner) => match inner.downcast_ref::<AskError>() {
            Some(error) => error.clone(),
            None => AskError::Failed(inner.to_string()),
        },
        DataFusionError::ResourcesExhausted(_) => AskError::Invalid(format!(
            "it takes more than {} MiB of memory: ask for less time, or for fewer devices, or group before sorting",
            MEMORY_BYTES >> 20
        )),
        DataFusionError::Internal(_) | DataFusionError::IoError(_) => AskError::Failed(error.strip_backtrace()),
        other => AskError::Invalid(other.strip_backtrace()),
    }
}
