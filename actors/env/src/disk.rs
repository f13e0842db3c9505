//! Files. Paths are relative to the node's data directory and use `/`.

use std::{fmt::Debug, io};

pub use millpond_core::disk::BlockDevice;

/// Room on the file system that holds the node's data, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    pub free: u64,
    pub total: u64,
}

/// The node's data directory. Calls may block: use them from a [`Worker`](crate::Worker) or before the node runs.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens (or creates) a file for random access, for this owner alone: a second owner gets `ResourceBusy`.
    fn open(&self, path: &str) -> io::Result<Box<dyn BlockDevice>>;

    /// The whole file; `None` when there is none.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the whole file, durable on return; after a crash either the old or the new content is there.
    fn write(&self, path: &str, content: &[u8]) -> io::Result<()>;

    /// Moves a file aside or into place, durable on return.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, path: &str) -> io::Result<()>;

    /// Names in a directory, sorted; empty when there is no such directory.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    fn space(&self) -> io::Result<DiskSpace>;
}
