//! Where the cloud keeps what is old: Parquet in an object store, committed by manifests.
//!
//! ```text
//! events/tenant=T/day=2026-11-20/SHAPE-NUMBER-ID.parquet    one row per event, a column per metric (shape.rs)
//! cold/tenant=T/day=…/…                                     the same, older, compressed harder; maybe in another store
//! events/_manifests/00000000000000000042.json.zst           all files, and whose records they are made of (manifest.rs)
//! ```
//!
//! Records of sites come in by [`Lake::append`], are answered from by [`Lake::points`] and [`Lake::aggregate`], merged by
//! [`Lake::compact`], moved and dropped by [`Lake::age`], and taken out by [`Lake::leave_out`] and [`Lake::forget`]. Each of them writes
//! files first and then one manifest, which says what there is from then on.
//!
//! # What stays true
//! 1. **A record counts here exactly when the ledger of the newest manifest has it.** Its events are in the files that this manifest names,
//!    each once, but for those that were left out, forgotten or dropped for their age.
//! 2. **A manifest is created, never changed.** Of two writers of the same number the store lets one; the other reads what that one did and
//!    begins again on top of it, if there is anything left to do. The newest is the one of the highest number: there is no pointer.
//! 3. **A file is written before a manifest names it, and is never written anew with other bytes**: its name holds a hash of what it is made of.
//! 4. **A call may be repeated**, after an error, a crash, or an answer that got lost: what is done is passed over.
//! 5. **Who reads is not disturbed.** Files stay as long as one of the last 64 manifests, or one that was replaced not
//!    longer ago than the grace, names them ([`Lake::sweep`]). A writer brings in no file that was written for an older manifest than these,
//!    and looks after each commit whether others built upon it: so a sweep needs no lock, and no clock but for the grace.
//! 6. **Damaged bytes are never used.** A manifest has a checksum; it holds that of the end of each file; and there stand those of the rest, in
//!    blocks. Whatever is read is checked first, and an error names the object.
//!
//! Time comes as an argument; nothing here waits, spawns or draws. Encoding and decoding are done where the future is polled: whoever has
//! other things to do on that thread polls it elsewhere.
//!
//! # For others
//! DuckDB, pyarrow and Spark read `events/**/*.parquet` as it lies, by name of column and with Hive's folders. Between a merge and the
//! next sweep files stand there twice, as the old and the new: exact is the list of files that the newest manifest holds.

mod aggregate;
mod append;
mod column;
mod cursor;
mod error;
mod footer;
mod hours;
mod lake;
mod manifest;
mod merge;
mod names;
mod partial;
mod points;
mod rewrite;
mod rows;
mod scan;
mod series;
mod shape;
#[cfg(test)]
mod tests;
mod upkeep;
mod upload;
mod write;

pub use object_store::ObjectStore;

pub use aggregate::Steps;
pub use append::{Piece, Taken};
pub use error::{LakeError, Result};
pub use lake::{Lake, Options};
pub use manifest::{Dropped, File, Ledger, Manifest, MetricOf, Source, SpanOf, Tier, Tombstone, Unit};
pub use partial::Partial;
pub use points::{Cell, Points};
pub use rewrite::{LeftOut, Remains};
pub use scan::{Filter, Row, Scan};
pub use series::Series;
pub use upkeep::{Lifecycle, Swept};

/// A lake in a folder of this machine, which is there. What it says to have written is on the disk: who moves records here forgets them
/// elsewhere after that.
///
/// # Errors
/// When the folder cannot be used.
pub fn folder(path: &std::path::Path) -> std::io::Result<std::sync::Arc<dyn ObjectStore>> {
    let store = object_store::local::LocalFileSystem::new_with_prefix(path).map_err(std::io::Error::other)?;
    Ok(std::sync::Arc::new(store.with_automatic_cleanup(true).with_fsync(true)))
}

/// A lake in a bucket, by the address `s3://BUCKET/PREFIX`. Keys, region and endpoint come from the environment, as other programs of
/// S3 take them.
///
/// # Errors
/// When the address or the environment is of no use. The bucket is not looked at.
#[cfg(feature = "s3")]
pub fn bucket(url: &str) -> std::io::Result<std::sync::Arc<dyn ObjectStore>> {
    use object_store::{aws, prefix::PrefixStore};
    let prefix = url.trim_start_matches("s3://").split_once('/').map_or("", |(_, prefix)| prefix).to_owned();
    let builder = aws::AmazonS3Builder::from_env().with_url(url);
    let builder = builder.with_conditional_put(aws::S3ConditionalPut::ETagMatch);
    let store = builder.build().map_err(std::io::Error::other)?;
    Ok(std::sync::Arc::new(PrefixStore::new(store, prefix)))
}
