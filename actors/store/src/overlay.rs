//! A device that is only read: what is written to it stays in memory. Verifying and repairing look at a file through it,
//! because redb writes when it opens one.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use millpond_core::disk::BlockDevice;

const PAGE: u64 = 4096;

/// Memory grows by a page for each page written; opening a database writes few.
#[derive(Debug)]
pub(crate) struct Overlay {
    base: Arc<dyn BlockDevice>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// Bytes of the base from here on are hidden.
    base_len: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub fn new(base: Arc<dyn BlockDevice>) -> io::Result<Overlay> {
        let len = base.len()?;
        Ok(Overlay { base, state: Mutex::new(State { len, base_len: len, pages: BTreeMap::new() }) })
    }

    fn base_page(&self, base_len: u64, page: u64) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; PAGE as usize].into_boxed_slice();
        let there = base_len.saturating_sub(page * PAGE).min(PAGE) as usize;
        self.base.read(page * PAGE, &mut bytes[..there])?;
        Ok(bytes)
    }
}

impl BlockDevice for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if offset + out.len() as u64 > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let there = state.base_len.saturating_sub(offset).min(out.len() as u64) as usize;
        self.base.read(offset, &mut out[..there])?;
        out[there..].fill(0);
        let end = offset + out.len() as u64;
        for (page, bytes) in state.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = (page * PAGE).max(offset);
            let stop = ((page + 1) * PAGE).min(end);
            out[(start - offset) as usize..(stop - offset) as usize]
                .copy_from_slice(&bytes[(start - page * PAGE) as usize..(stop - page * PAGE) as usize]);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset + data.len() as u64;
        state.len = state.len.max(end);
        for page in offset / PAGE..end.div_ceil(PAGE) {
            let base_len = state.base_len;
            let mut bytes = match state.pages.remove(&page) {
                Some(bytes) => bytes,
                None => self.base_page(base_len, page)?,
            };
            let start = (page * PAGE).max(offset);
            let stop = ((page + 1) * PAGE).min(end);
            bytes[(start - page * PAGE) as usize..(stop - page * PAGE) as usize]
                .copy_from_slice(&data[(start - offset) as usize..(stop - offset) as usize]);
            state.pages.insert(page, bytes);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.len = len;
        state.base_len = state.base_len.min(len);
        state.pages.split_off(&len.div_ceil(PAGE));
        if !len.is_multiple_of(PAGE)
            && let Some(page) = state.pages.get_mut(&(len / PAGE))
        {
            page[(len % PAGE) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
