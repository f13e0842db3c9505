//! Who listens in a node of a cloud, so that it is known in which order the results of sites were told.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use millpond_cluster::cloud::Consumer;
use millpond_core::{
    record::{self, RecordKind},
    window::Pane,
};
use millpond_proto::{replication::Life, wire::Record};

use crate::evidence::{Given, GivenRecord};

/// What was told, over all lives of the program.
#[derive(Clone, Default)]
pub struct Listener(Arc<Mutex<Vec<Given>>>);

impl Listener {
    /// Listens to one life of the program: boots of the node, and disks that it had lost.
    pub fn of_boot(&self, boot: (u32, u32)) -> Arc<dyn Consumer> {
        Arc::new(OfBoot { boot, given: self.0.clone() })
    }

    pub fn take(&self) -> Vec<Given> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct OfBoot {
    boot: (u32, u32),
    given: Arc<Mutex<Vec<Given>>>,
}

#[async_trait]
impl Consumer for OfBoot {
    async fn apply(&self, site: &str, life: Life, records: &[Record]) {
        let records = records.iter().map(|record| GivenRecord { seq: record.seq.0, of: lives_of(record) }).collect();
        let life = (life.origin, life.incarnation);
        let given = Given { boot: self.boot, site: site.to_owned(), life, records };
        self.given.lock().unwrap_or_else(PoisonError::into_inner).push(given);
    }
}

/// In whose place a record speaks, and up to where it knew them.
fn lives_of(record: &Record) -> Vec<(crate::evidence::Life, u64)> {
    if record.kind != RecordKind::Panes {
        return Vec::new();
    }
    let panes = record::decode::<Vec<Pane>>(&record.payload).unwrap_or_default();
    let of = panes.iter().filter_map(|pane| pane.of.as_ref());
    let mut lives: Vec<_> = of.map(|of| ((of.origin, of.incarnation), of.through.0)).collect();
    lives.sort_unstable();
    lives.dedup();
    lives
}
