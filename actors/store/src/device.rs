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

/// Reading from the end in steps of this size finds where a file's content ends; holes are filled in such steps.
const STEP: usize = 64 << 10;

/// A gap larger than this stays a hole; redb leaves one only where a new region of 4 GB begins.
const FILL_BYTES_MAX: u64 = 64 << 20;

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
    keep_len: AtomicBool,
    len: AtomicU64,
    /// The file has no holes below this offset.
    backed: Mutex<u64>,
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

    /// While set, the file does not grow. On a full disk its new part would be a hole that cannot be filled, and redb may
    /// choose pages there although others are free.
    pub fn keep_len(&self, keep: bool) {
        self.keep_len.store(keep, Ordering::Release);
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
        *watch.backed.lock().unwrap_or_else(PoisonError::into_inner) = content_end(device.as_ref(), len)?;
        watch.len.store(len, Ordering::Release);
        Ok(Backend { device: RwLock::new(Some(device)), watch })
    }

    fn with<T>(&self, f: impl FnOnce(&dyn BlockDevice) -> io::Result<T>) -> io::Result<T> {
        let device = self.device.read().unwrap_or_else(PoisonError::into_inner);
        let device = device.as_deref().ok_or_else(|| io::Error::other("the store was closed"))?;
        self.watch.note(f(device))
    }
}

/// Where the zeros begin that the file ends with, rounded up: from there on it may be holes.
fn content_end(device: &dyn BlockDevice, len: u64) -> io::Result<u64> {
    let (mut end, mut buffer) = (len, vec![0; STEP]);
    while end > 0 {
        let start = (end - 1) / STEP as u64 * STEP as u64;
        let step = &mut buffer[..(end - start) as usize];
        device.read(start, step)?;
        if step.iter().any(|byte| *byte != 0) {
            return Ok(end);
        }
        end = start;
    }
    Ok(0)
}

/// Writes zeros where a write would leave a hole behind. redb doubles the file when it grows, and its pages are not used
/// from the beginning on; without this, space that was freed inside the file could still turn out to be missing on the
/// disk. The zeros are mostly overwritten before the next sync and then cost no write of the disk.
fn fill(device: &dyn BlockDevice, from: u64, to: u64) -> io::Result<()> {
    if to.saturating_sub(from) > FILL_BYTES_MAX {
        return Ok(());
    }
    let zeros = [0; 4096];
    let mut at = from;
    while at < to {
        let step = (to - at).min(zeros.len() as u64);
        device.write(at, &zeros[..step as usize])?;
        at += step;
    }
    Ok(())
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.with(|device| device.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|device| device.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|device| {
            if len > self.watch.len() && self.watch.keep_len.load(Ordering::Acquire) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            device.set_len(len)
        })?;
        self.watch.len.store(len, Ordering::Release);
        let mut backed = self.watch.backed.lock().unwrap_or_else(PoisonError::into_inner);
        *backed = len.min(*backed);
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
        self.with(|device| {
            let end = offset + data.len() as u64;
            let mut backed = self.watch.backed.lock().unwrap_or_else(PoisonError::into_inner);
            if end <= *backed {
                drop(backed);
                return device.write(offset, data);
            }
            fill(device, *backed, offset)?;
            device.write(offset, data)?;
            *backed = end;
            Ok(())
        })?;
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
