//! A [`BlockDevice`] as redb sees it.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use millpond_core::disk::BlockDevice;

/// Opens the store's file. Called again after a failure, when the device opened before has been dropped.
pub type OpenDevice = Box<dyn Fn() -> io::Result<Box<dyn BlockDevice>> + Send + Sync>;

/// redb's header lies in the first page of the file; it names the roots of the last commit.
const HEADER_BYTES: usize = 4096;

/// What outlives one opening of the device.
///
/// A commit of redb becomes visible with one write of the header, followed by a sync. When that sync fails, nobody
/// knows what is on the disk, and the kernel may show pages as written that never will be. So the watch keeps the header
/// as it was at the last sync that succeeded; before the file is used again this header is written back, which undoes
/// the failed commit for certain (its pages were free before and are free again).
#[derive(Debug, Default)]
pub(crate) struct Watch {
    header: Mutex<Header>,
    full: AtomicBool,
    len: AtomicU64,
}

#[derive(Debug, Default)]
struct Header {
    current: Vec<u8>,
    synced: Vec<u8>,
}

impl Watch {
    /// Length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Whether the device said "no space left" since this was last asked.
    pub fn take_full(&self) -> bool {
        self.full.swap(false, Ordering::AcqRel)
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            self.full.store(true, Ordering::Release);
        }
        result
    }
}

/// One opening of the device, until redb closes it. A reader that outlives it gets an error, never bytes of a later
/// opening.
#[derive(Debug)]
pub(crate) struct Backend {
    device: RwLock<Option<Box<dyn BlockDevice>>>,
    watch: Arc<Watch>,
}

impl Backend {
    /// The device for the first time, or again after a failure: then the header of the last good sync is put back.
    pub fn attach(device: Box<dyn BlockDevice>, watch: Arc<Watch>) -> io::Result<Backend> {
        let len = device.len()?;
        {
            let mut header = watch.header.lock().unwrap_or_else(PoisonError::into_inner);
            let mut on_disk = vec![0; HEADER_BYTES.min(len as usize)];
            device.read(0, &mut on_disk)?;
            if len == 0 {
                header.synced.clear();
            } else if header.synced.is_empty() {
                header.synced.clone_from(&on_disk);
                header.synced.resize(HEADER_BYTES, 0);
            }
            if !header.synced.is_empty() && on_disk.len() == HEADER_BYTES && on_disk != header.synced {
                device.write(0, &header.synced)?;
                device.sync()?;
                on_disk.clone_from(&header.synced);
            }
            on_disk.resize(HEADER_BYTES, 0);
            header.current = on_disk;
        }
        watch.len.store(len, Ordering::Release);
        Ok(Backend { device: RwLock::new(Some(device)), watch })
    }

    fn with<T>(&self, f: impl FnOnce(&dyn BlockDevice) -> io::Result<T>) -> io::Result<T> {
        let device = self.device.read().unwrap_or_else(PoisonError::into_inner);
        let device = device.as_deref().ok_or_else(|| io::Error::other("the store was closed"))?;
        self.watch.note(f(device))
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.with(|device| device.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|device| device.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|device| device.set_len(len))?;
        self.watch.len.store(len, Ordering::Release);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|device| device.sync())?;
        let mut header = self.watch.header.lock().unwrap_or_else(PoisonError::into_inner);
        let Header { current, synced } = &mut *header;
        synced.clone_from(current);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|device| device.write(offset, data))?;
        if offset < HEADER_BYTES as u64 {
            let start = offset as usize;
            let end = HEADER_BYTES.min(start + data.len());
            let mut header = self.watch.header.lock().unwrap_or_else(PoisonError::into_inner);
            header.current[start..end].copy_from_slice(&data[..end - start]);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.device.write().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}
