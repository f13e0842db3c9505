//! A way to the journal for those who are no actors of the node.

use millpond_core::record::Class;
use millpond_store::{Append, Put};
use ractor::ActorRef;
use tokio::sync::oneshot;

use crate::journal::{JournalMsg, Unit, Work};

/// Writes to the node's journal and state tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer {
    journal: ActorRef<JournalMsg>,
}

impl Writer {
    pub(crate) fn new(journal: ActorRef<JournalMsg>) -> Writer {
        Writer { journal }
    }

    /// Appends records and sets entries in one transaction; true once it is on disk. The journal stamps the records' clock.
    pub async fn write(&self, class: Class, records: Vec<Append>, puts: Vec<Put>) -> bool {
        let (tx, rx) = oneshot::channel();
        let unit = Unit::awaited(class, Work { records, puts, ..Work::default() }, tx);
        self.journal.cast(JournalMsg::Append(unit)).is_ok() && matches!(rx.await, Ok(true))
    }
}
