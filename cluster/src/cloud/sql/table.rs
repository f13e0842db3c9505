//! The table `readings`: what is archived and what is not yet, each record on its side of the border that the manifest draws.

use std::{
    fmt,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::{Session, TableProvider},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use futures_util::stream;
use millpond_actors::query::{Journal, Wanted, each_event};
use millpond_core::time::Timestamp;
use millpond_env::Env;
use millpond_gateway::port::AskError;
use millpond_lake::{Filter, Lake, LakeError, Manifest, Row, Scan};
use tokio::sync::mpsc;

use super::{
    BATCH,
    bounds::Bounds,
    rows::{Reading, Rows, SCHEMA},
};
use crate::cloud::Cloud;

/// Batches out of the journals that wait for the question.
const AHEAD: usize = 2;

/// All readings of a tenant, as they were when the question came.
pub(super) struct Readings {
    cloud: Cloud,
    tenant: String,
    archived: Option<(Lake, Arc<Manifest>)>,
    /// Set when events were archived before the journals were read.
    torn: Arc<AtomicBool>,
}

impl Readings {
    /// # Errors
    /// While nobody knows what is archived.
    pub fn new(cloud: Cloud, tenant: &str, torn: Arc<AtomicBool>) -> std::result::Result<Readings, AskError> {
        let archived = cloud.border()?;
        Ok(Readings { cloud, tenant: tenant.to_owned(), archived, torn })
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Readings {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let helps = |filter: &&Expr| match Bounds::of([*filter]) == Bounds::all() {
            true => TableProviderFilterPushDown::Unsupported,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(helps).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..SCHEMA.fields().len()).collect());
        let schema = Arc::new(SCHEMA.project(&columns)?);
        let part = Arc::new(Part {
            env: self.cloud.0.env.clone(),
            journals: self.cloud.journals(&self.tenant, self.archived.as_ref().map(|(_, manifest)| &**manifest)),
            cloud: self.cloud.clone(),
            archived: self.archived.clone(),
            tenant: self.tenant.clone(),
            torn: self.torn.clone(),
            bounds: Bounds::of(filters),
            schema: schema.clone(),
            columns,
        });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![part], None, None, false, limit)?))
    }
}

/// The readings that a question asks for.
struct Part {
    env: Env,
    cloud: Cloud,
    archived: Option<(Lake, Arc<Manifest>)>,
    /// With the names of their sites.
    journals: Vec<(String, Journal)>,
    tenant: String,
    torn: Arc<AtomicBool>,
    bounds: Bounds,
    schema: SchemaRef,
    columns: Vec<usize>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = Rows::new(self.schema.clone(), &self.columns);
        let flow = Flow {
            recent: Some(self.recent()),
            archived: self.archived.as_ref().map(|(lake, manifest)| lake.rows(manifest, self.filter())),
            manifest: self.archived.as_ref().map(|(_, manifest)| manifest.number),
            cloud: self.cloud.clone(),
            torn: self.torn.clone(),
            metric: self.bounds.metric.clone(),
            rows,
        };
        let batches = stream::try_unfold(flow, async |mut flow| {
            let batch = flow.next().await?;
            Ok(batch.map(|batch| (batch, flow)))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

type Batches = mpsc::Receiver<Result<Option<RecordBatch>>>;

impl Part {
    fn filter(&self) -> Filter {
        Filter {
            tenant: Some(self.tenant.clone()),
            device: self.bounds.device.clone(),
            metric: self.bounds.metric.clone(),
            start: (self.bounds.start > Timestamp(i64::MIN)).then_some(self.bounds.start),
            end: (self.bounds.end < Timestamp(i64::MAX)).then_some(self.bounds.end),
        }
    }

    /// Begins to read the journals, off the executor. At the end stands `None`.
    fn recent(&self) -> Batches {
        let (batches, recent) = mpsc::channel(AHEAD);
        let bounds = self.bounds.clone();
        let mut rows = Rows::new(self.schema.clone(), &self.columns);
        let (env, journals) = (self.env.clone(), self.journals.clone());
        self.env.spawn(async move {
            let job = move || {
                let read =
                    journals.iter().try_for_each(|(site, journal)| read(site, journal, &bounds, &mut rows, &batches));
                let last = match read {
                    Ok(()) if rows.len() > 0 => rows.take().map(Some).map_err(DataFusionError::from),
                    Ok(()) => Ok(None),
                    Err(error) => Err(DataFusionError::External(Box::new(error))),
                };
                let ends = matches!(last, Ok(None) | Err(_));
                // Nobody listens when the question was given up.
                if batches.blocking_send(last).is_ok() && !ends {
                    let _ = batches.blocking_send(Ok(None));
                }
            };
            env.unblock(job).await;
        });
        recent
    }
}

/// Sends what a journal has in whole batches, and leaves the rest in `rows`.
fn read(
    site: &str,
    journal: &Journal,
    bounds: &Bounds,
    rows: &mut Rows,
    batches: &mpsc::Sender<Result<Option<RecordBatch>>>,
) -> std::result::Result<(), AskError> {
    let wanted = Wanted { device: bounds.device.clone(), start: bounds.start, end: bounds.end };
    each_event(journal, &wanted, |event| {
        for (metric, value) in event.cells() {
            if bounds.metric.as_deref().is_none_or(|wanted| wanted == metric) {
                let (time, device, quality) = (event.time, event.device, event.quality);
                rows.push(&Reading { time, device, metric, value, quality, site });
            }
        }
        if rows.len() < BATCH {
            return ControlFlow::Continue(());
        }
        let batch = rows.take().map(Some).map_err(DataFusionError::from);
        match batches.blocking_send(batch) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
}

/// What a question has still to see.
struct Flow {
    /// Out of the journals, until all was seen.
    recent: Option<Batches>,
    archived: Option<Scan>,
    /// What was archived when the question came.
    manifest: Option<u64>,
    cloud: Cloud,
    torn: Arc<AtomicBool>,
    metric: Option<String>,
    rows: Rows,
}

impl Flow {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(recent) = &mut self.recent {
            let ask_again = || DataFusionError::External(Box::new(AskError::Unavailable));
            if let Some(batch) = recent.recv().await.ok_or_else(ask_again)?? {
                return Ok(Some(batch));
            }
            self.recent = None;
            // What was archived meanwhile may be gone from the journals already.
            if self.cloud.manifest_number() != self.manifest {
                self.torn.store(true, Relaxed);
                return Err(ask_again());
            }
        }
        let Some(archived) = &mut self.archived else { return Ok(None) };
        let (rows, only) = (&mut self.rows, self.metric.as_deref());
        let mut more = true;
        while more && rows.len() < BATCH {
            let mut see = |row: &Row<'_>| {
                for (metric, value) in row.cells() {
                    if only.is_none_or(|only| only == metric.name) {
                        let (time, device, metric) = (row.time, row.device, &*metric.name);
                        rows.push(&Reading {
                            time,
                            device,
                            metric,
                            value,
                            quality: row.quality,
                            site: &row.source.site,
                        });
                    }
                }
            };
            let cannot = |error: LakeError| AskError::Failed(format!("the archive cannot be read: {error}"));
            more = archived.some(&mut see).await.map_err(|error| DataFusionError::External(Box::new(cannot(error))))?;
        }
        if !more {
            self.archived = None;
        }
        match rows.len() {
            0 => Ok(None),
            _ => Ok(Some(rows.take()?)),
        }
    }
}
