//! What the mesh itself writes to the node's journal and tables, in order.

use millpond_actors::Writer;
use millpond_core::{record::Class, time::Span};
use millpond_env::Env;
use millpond_gateway::port::{AskError, Json};
use millpond_proto::{
    documents::SaveId,
    twin::{Reported, commands::CommandId},
};
use millpond_store::{Append, Put};
use tokio::sync::{mpsc, oneshot};

/// Bytes, about, that are written in one transaction when much waits.
const BATCH_BYTES: usize = 1 << 20;
/// How long to wait after a write that failed.
const AGAIN_AFTER: Span = Span::from_millis(500);

/// Whoever waits for an answer.
pub(super) type Reply = oneshot::Sender<Result<Json, AskError>>;

#[derive(Default)]
pub(super) struct Job {
    pub records: Vec<Append>,
    pub puts: Vec<Put>,
    pub then: Option<Then>,
}

/// Who waits for a job.
pub(crate) enum Then {
    Document(SaveId),
    Command(CommandId),
    Report { device: String, change: Reported, reply: Reply },
}

impl Job {
    pub fn put(put: Put) -> Job {
        Job { puts: vec![put], ..Job::default() }
    }

    fn bytes(&self) -> usize {
        let puts = self.puts.iter().map(|put| put.key.len() + put.value.as_ref().map_or(0, |value| value.len()));
        self.records.iter().map(|record| record.payload.len()).chain(puts).sum()
    }
}

/// Writes jobs in their order, several at once when they wait. With `insists` a job that fails is written again until it is on disk, and all
/// behind it wait; otherwise it is told that it failed.
pub(super) async fn write(
    env: Env,
    writer: Writer,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    insists: bool,
    tell: impl Fn(Vec<Then>, bool),
) {
    while let Some(first) = jobs.recv().await {
        let (mut bytes, mut records, mut puts, mut then) = (0, Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(job) = next {
            bytes += job.bytes();
            records.extend(job.records);
            puts.extend(job.puts);
            then.extend(job.then);
            next = if bytes < BATCH_BYTES { jobs.try_recv().ok() } else { None };
        }
        let mut stored = writer.write(Class::State, records.clone(), puts.clone()).await;
        while insists && !stored {
            if jobs.is_closed() {
                return;
            }
            env.sleep(AGAIN_AFTER).await;
            stored = writer.write(Class::State, records.clone(), puts.clone()).await;
        }
        tell(then, stored);
    }
}
