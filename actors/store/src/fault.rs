//! What redb reports, sorted by what can be done about it.

use std::io;

/// A failure below the store.
#[derive(Debug)]
pub(crate) enum Fault {
    Full(io::Error),
    Io(io::Error),
    Corrupt(String),
    /// The database was closed while a reader was at work.
    Closed,
}

impl Fault {
    pub fn io(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Full(error),
            _ => Fault::Io(error),
        }
    }

    pub fn corrupt(detail: impl Into<String>) -> Fault {
        Fault::Corrupt(detail.into())
    }

    pub fn detail(&self) -> String {
        match self {
            Fault::Full(error) | Fault::Io(error) => error.to_string(),
            Fault::Corrupt(detail) => detail.clone(),
            Fault::Closed => "the store was closed".into(),
        }
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Fault {
        match error {
            redb::Error::Io(error) => Fault::io(error),
            redb::Error::PreviousIo => Fault::Io(io::Error::other("an earlier access failed")),
            redb::Error::DatabaseClosed => Fault::Closed,
            other => Fault::Corrupt(other.to_string()),
        }
    }
}

impl From<redb::StorageError> for Fault {
    fn from(error: redb::StorageError) -> Fault {
        redb::Error::from(error).into()
    }
}

impl From<redb::TableError> for Fault {
    fn from(error: redb::TableError) -> Fault {
        redb::Error::from(error).into()
    }
}

impl From<redb::TransactionError> for Fault {
    fn from(error: redb::TransactionError) -> Fault {
        redb::Error::from(error).into()
    }
}

impl From<redb::CommitError> for Fault {
    fn from(error: redb::CommitError) -> Fault {
        redb::Error::from(error).into()
    }
}

impl From<redb::DatabaseError> for Fault {
    fn from(error: redb::DatabaseError) -> Fault {
        redb::Error::from(error).into()
    }
}

impl From<redb::SetDurabilityError> for Fault {
    fn from(error: redb::SetDurabilityError) -> Fault {
        Fault::Corrupt(error.to_string())
    }
}
