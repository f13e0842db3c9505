//! Results in causal order: each life's in the order of its numbers, and what was said in the place of another life not before the records
//! of that one which it was computed from.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use millpond_core::{
    ids::Seq,
    planted::{self, Bug},
    record::{self, Class, DropRange, RecordKind},
    time::Span,
    window::Pane,
};
use millpond_proto::{replication::Life, wire::Record};
use millpond_store::{ReadError, Reader, RecordRef};
use ractor::ActorRef;
use tokio::sync::{Notify, oneshot};

use super::{Inner, site::SiteMsg};

/// Bytes of records that are applied together.
const BYTES_MAX: usize = 1 << 20;
/// How often is looked whether a life that waits for another one can go on.
const LOOK_EVERY: Span = Span::from_secs(1);

/// What can be applied.
#[derive(Default)]
pub(super) struct Due {
    /// From where and up to where results are there without a gap.
    pub lives: Vec<(Life, Reader, Seq, Seq)>,
    pub applied: BTreeMap<Life, Seq>,
}

pub(super) struct Done {
    pub through: Seq,
    pub dropped: Vec<DropRange>,
    pub unreadable: u64,
}

pub(super) async fn apply(cloud: Arc<Inner>, site: String, actor: ActorRef<SiteMsg>, wake: Arc<Notify>) {
    loop {
        let (reply, answer) = oneshot::channel();
        if actor.cast(SiteMsg::ToApply(reply)).is_err() {
            return;
        }
        let Ok(Due { lives, mut applied }) = answer.await else { return };
        let mut progress = false;
        for (life, reader, first, through) in lives {
            let known = applied.clone();
            let read = cloud.env.unblock(move || read(&reader, first, through, &known)).await;
            let read = match read {
                Some(Ok(read)) => read,
                Some(Err(error)) => {
                    tracing::warn!(site, origin = %life.origin, %error, "results could not be read");
                    continue;
                }
                None => return,
            };
            if read.through < first {
                continue;
            }
            for consumer in &cloud.consumers {
                consumer.apply(&site, life, &read.records).await;
            }
            progress = true;
            applied.insert(life, read.through);
            let done = Done { through: read.through, dropped: read.dropped, unreadable: read.unreadable };
            if actor.cast(SiteMsg::Applied(life, done)).is_err() {
                return;
            }
        }
        if !progress {
            tokio::select! {
                biased;
                () = wake.notified() => {}
                () = cloud.env.sleep(LOOK_EVERY) => {}
            }
        }
    }
}

#[derive(Default)]
struct Read {
    records: Vec<Record>,
    /// Up to here; before the first when the first has to wait.
    through: Seq,
    dropped: Vec<DropRange>,
    unreadable: u64,
}

fn read(reader: &Reader, first: Seq, through: Seq, applied: &BTreeMap<Life, Seq>) -> Result<Read, ReadError> {
    let mut read = Read { through, ..Read::default() };
    for class in [Class::Alert, Class::State, Class::Pane] {
        let mut bytes = 0;
        reader.scan(class, first, |row| {
            if row.seq > read.through {
                return ControlFlow::Break(());
            }
            if bytes > BYTES_MAX {
                read.through = Seq(row.seq.0 - 1);
                return ControlFlow::Break(());
            }
            bytes += row.payload.len();
            read.records.push(copied(&row));
            ControlFlow::Continue(())
        })?;
    }
    read.records.sort_by_key(|record| record.seq);
    let waits = read.records.iter().find(|record| has_to_wait(record, applied)).map(|record| record.seq);
    if let Some(waits) = waits.filter(|seq| *seq <= read.through) {
        read.through = Seq(waits.0 - 1);
    }
    read.records.retain(|record| record.seq <= read.through);
    for record in read.records.iter().filter(|record| record.kind == RecordKind::DropRange) {
        match DropRange::decode(&record.payload) {
            Ok(range) if !planted::is(Bug::ForgetDropRanges) => read.dropped.push(range),
            Ok(_) => {}
            Err(_) => read.unreadable += 1,
        }
    }
    Ok(read)
}

/// What was said for another life names how far that one's records were known.
fn has_to_wait(record: &Record, applied: &BTreeMap<Life, Seq>) -> bool {
    if record.kind != RecordKind::Panes || planted::is(Bug::ApplyBeforeAfter) {
        return false;
    }
    let panes = record::decode::<Vec<Pane>>(&record.payload).unwrap_or_default();
    panes.iter().filter_map(|pane| pane.of.as_ref()).any(|of| {
        let life = Life { origin: of.origin, incarnation: of.incarnation };
        applied.get(&life).is_none_or(|applied| *applied < of.through)
    })
}

fn copied(row: &RecordRef<'_>) -> Record {
    Record {
        seq: row.seq,
        kind: row.kind,
        hlc: row.hlc,
        rows: row.rows,
        min_time: row.min_time,
        max_time: row.max_time,
        payload: Bytes::copy_from_slice(row.payload),
    }
}
