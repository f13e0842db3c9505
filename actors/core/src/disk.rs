//! The disk as the store sees it. The trait stands here, not in `millpond-env`, because the store knows only this crate.

use std::{fmt::Debug, io};

/// A file addressed by bytes, open for reading and writing by one owner at a time.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a device is empty")]
pub trait BlockDevice: Debug + Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;

    /// Fills `out` from `offset`. Reading past the end is an error of kind `UnexpectedEof`.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts the file or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when everything written before is on stable storage.
    fn sync(&self) -> io::Result<()>;
}
