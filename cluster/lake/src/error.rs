//! What can go wrong, and what it leaves behind.

use millpond_core::ids::RecordId;
use parquet::errors::ParquetError;

/// Whatever failed, the lake is as the newest manifest says: either as before, or with all that was asked for. The same call again does
/// what is left of it.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The store did not do it, or did it and lost the answer.
    #[error("{path} in the lake: {source}")]
    Store { path: String, source: object_store::Error },
    /// The bytes are not those that were written. Nothing of them was used.
    #[error("{path} in the lake is damaged: {why}")]
    Damaged { path: String, why: String },
    #[error("{path} is of format {format}, which this program does not know")]
    Format { path: String, format: u32 },
    /// Nothing was committed: another writer's manifest could be lost.
    #[error(
        "the object store writes over what is there, though it is told not to (`If-None-Match: *`); use one that takes conditional writes"
    )]
    Overwrites,
    /// Nothing was committed; files that were written are swept away later.
    #[error("other writers to the lake came first {attempts} times in a row")]
    Contended { attempts: u32 },
    /// Nothing was written: rows that no range accounts for would come again.
    #[error("record {} of {site} stands in none of the ranges that are said to be taken", name(record))]
    NotTaken { site: String, record: RecordId },
    #[error("record {} of {site} stands there twice", name(record))]
    Twice { site: String, record: RecordId },
    #[error("{path} can not be written as Parquet: {why}")]
    Unwritable { path: String, why: String },
}

pub type Result<T> = std::result::Result<T, LakeError>;

fn name(record: &RecordId) -> String {
    format!("{}/{}/{}", record.origin.short(), record.incarnation.0, record.seq.0)
}

impl LakeError {
    pub(crate) fn store(path: impl Into<String>) -> impl FnOnce(object_store::Error) -> LakeError {
        let path = path.into();
        move |source| LakeError::Store { path, source }
    }

    pub(crate) fn damaged(path: &str, why: impl std::fmt::Display) -> LakeError {
        LakeError::Damaged { path: path.to_owned(), why: why.to_string() }
    }

    pub(crate) fn parquet(path: &str) -> impl FnOnce(ParquetError) -> LakeError {
        let path = path.to_owned();
        move |error| LakeError::Damaged { path, why: error.to_string() }
    }
}
