//! Where the cloud keeps what is old: Parquet in an object store, committed by manifests.

mod aggregate;
mod append;
mod column;
mod cursor;
mod downsample;
mod error;
mod footer;
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
pub use downsample::{lttb, min_max};
pub use error::{LakeError, Result};
pub use lake::{Lake, Options};
pub use manifest::{Dropped, File, Ledger, Manifest, MetricOf, Source, SpanOf, Tier, Tombstone, Unit};
pub use partial::Partial;
pub use points::{Cell, Points};
pub use rewrite::{LeftOut, Remains};
pub use scan::{Filter, Row};
pub use series::Series;
pub use upkeep::{Lifecycle, Swept};

/// A lake in a folder of this machine, which is created when it is missing.
///
/// # Errors
/// When the folder cannot be made or used.
pub fn folder(path: &std::path::Path) -> std::io::Result<std::sync::Arc<dyn ObjectStore>> {
    let store = object_store::local::LocalFileSystem::new_with_prefix(path).map_err(std::io::Error::other)?;
    Ok(std::sync::Arc::new(store.with_automatic_cleanup(true)))
}
