//! A file as it was at one moment, for checkers.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use millpond_env::BlockDevice;

use super::image::{FILE_BYTES_MAX, Image, Spare};

/// Shares pages with the file that it was taken from; neither sees what is written to the other.
#[derive(Debug)]
pub struct View {
    state: Mutex<(Image, Spare)>,
}

impl View {
    pub fn new(image: Image) -> View {
        View { state: Mutex::new((image, Spare::default())) }
    }

    fn lock(&self) -> MutexGuard<'_, (Image, Spare)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockDevice for View {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().0.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.lock().0.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (image, spare) = &mut *self.lock();
        image.write(offset, data, spare, |_, _| {});
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (image, spare) = &mut *self.lock();
        image.set_len(len.min(FILE_BYTES_MAX), spare, |_, _| {});
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
