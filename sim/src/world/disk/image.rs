//! What readers of a file see: pages, and holes that cost nothing.

use std::{io, mem, sync::Arc};

pub const PAGE: usize = 4096;
pub const SECTOR: usize = 512;
pub const SECTORS_PER_PAGE: u64 = (PAGE / SECTOR) as u64;

/// A file ends here at the latest; the table of its pages stays small.
pub const FILE_BYTES_MAX: u64 = 64 << 30;

pub type Page = Arc<[u8; PAGE]>;

/// Pages that nobody needs any more, for the next write.
#[derive(Debug, Default)]
pub struct Spare(Vec<Page>);

/// A commit replaces some dozens of pages; more than this is somebody filling a file.
const SPARE_PAGES_MAX: usize = 512;

impl Spare {
    /// A page that is owned here alone, with any content.
    fn take(&mut self) -> Page {
        self.0.pop().unwrap_or_else(|| Arc::new([0; PAGE]))
    }

    pub fn give(&mut self, mut page: Page) {
        if self.0.len() < SPARE_PAGES_MAX && Arc::get_mut(&mut page).is_some() {
            self.0.push(page);
        }
    }
}

/// Pages are never changed while somebody else has them: a clone is another file with the same content.
///
/// Beyond `len` there is no page, and the rest of the last one is zeros.
#[derive(Clone, Debug, Default)]
pub struct Image {
    len: u64,
    pages: Vec<Option<Page>>,
    allocated: u64,
}

impl Image {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of pages that hold space.
    pub fn allocated(&self) -> u64 {
        self.allocated * PAGE as u64
    }

    /// Bytes that a write would have to find space for.
    pub fn missing(&self, offset: u64, len: u64) -> u64 {
        let pages = offset / PAGE as u64..(offset + len).div_ceil(PAGE as u64);
        pages.filter(|page| self.page(*page).is_none()).count() as u64 * PAGE as u64
    }

    pub fn page(&self, page: u64) -> Option<&Page> {
        self.pages.get(page as usize)?.as_ref()
    }

    /// Numbers of the pages that hold space.
    pub fn pages(&self) -> impl Iterator<Item = u64> {
        self.pages.iter().enumerate().filter(|(_, page)| page.is_some()).map(|(at, _)| at as u64)
    }

    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, from, part) in parts_mut(offset, out) {
            match self.page(page) {
                Some(content) => part.copy_from_slice(&content[from..from + part.len()]),
                None => part.fill(0),
            }
        }
        Ok(())
    }

    /// Puts new pages in the place of those that `data` concerns and hands out what was there before. The file grows when it has to;
    /// the caller has checked [`FILE_BYTES_MAX`].
    pub fn write(&mut self, offset: u64, data: &[u8], spare: &mut Spare, mut replaced: impl FnMut(u64, Option<Page>)) {
        let (mut rest, mut at) = (data, offset);
        while !rest.is_empty() {
            let (page, from) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let (part, after) = rest.split_at(rest.len().min(PAGE - from));
            let old = self.take(page);
            let mut new = spare.take();
            let content = Arc::get_mut(&mut new).expect("a spare page has one owner");
            if part.len() < PAGE {
                match &old {
                    Some(old) => content.copy_from_slice(&old[..]),
                    None => content.fill(0),
                }
            }
            content[from..from + part.len()].copy_from_slice(part);
            self.put(page, Some(new));
            replaced(page, old);
            (rest, at) = (after, at + part.len() as u64);
        }
        self.len = self.len.max(at);
    }

    /// Cuts the file or extends it with a hole; hands out what was cut off.
    pub fn set_len(&mut self, len: u64, spare: &mut Spare, mut replaced: impl FnMut(u64, Option<Page>)) {
        if len < self.len {
            let (page, keep) = (len / PAGE as u64, (len % PAGE as u64) as usize);
            if keep > 0
                && let Some(old) = self.take(page)
            {
                let mut new = spare.take();
                let content = Arc::get_mut(&mut new).expect("a spare page has one owner");
                content[..keep].copy_from_slice(&old[..keep]);
                content[keep..].fill(0);
                self.put(page, Some(new));
                replaced(page, Some(old));
            }
            let first = len.div_ceil(PAGE as u64);
            for page in first..self.pages.len() as u64 {
                if let Some(old) = self.take(page) {
                    replaced(page, Some(old));
                }
            }
            self.pages.truncate(first as usize);
        }
        self.len = len;
    }

    /// Gives the file its length when pages have been put back on either side of it.
    pub fn cut(&mut self, len: u64) {
        let (first, keep) = (len.div_ceil(PAGE as u64), (len % PAGE as u64) as usize);
        for page in first..self.pages.len() as u64 {
            self.take(page);
        }
        self.pages.truncate(first as usize);
        if keep > 0
            && let Some(Some(page)) = self.pages.get_mut((len / PAGE as u64) as usize)
            && page[keep..].iter().any(|byte| *byte != 0)
        {
            Arc::make_mut(page)[keep..].fill(0);
        }
        self.len = len;
    }

    /// Puts the sectors of `mask` (bit 0: the first of the page) back as they were in `old`.
    pub fn put_back(&mut self, page: u64, old: Option<Page>, mask: u8) {
        match mask {
            0 => {}
            u8::MAX => {
                self.take(page);
                self.put(page, old);
            }
            _ => {
                let mut current = self.take(page).unwrap_or_else(|| Arc::new([0; PAGE]));
                let content = Arc::make_mut(&mut current);
                for sector in (0..PAGE / SECTOR).filter(|sector| mask & 1 << sector != 0) {
                    let range = sector * SECTOR..(sector + 1) * SECTOR;
                    match &old {
                        Some(old) => content[range.clone()].copy_from_slice(&old[range]),
                        None => content[range].fill(0),
                    }
                }
                self.put(page, Some(current));
            }
        }
    }

    /// Turns one bit over, counted from the file's beginning.
    pub fn flip(&mut self, bit: u64) {
        if let Some(Some(page)) = self.pages.get_mut((bit / 8 / PAGE as u64) as usize) {
            Arc::make_mut(page)[(bit / 8 % PAGE as u64) as usize] ^= 1 << (bit % 8);
        }
    }

    fn take(&mut self, page: u64) -> Option<Page> {
        let old = mem::take(self.pages.get_mut(page as usize)?);
        self.allocated -= u64::from(old.is_some());
        old
    }

    fn put(&mut self, page: u64, content: Option<Page>) {
        let at = page as usize;
        if at >= self.pages.len() {
            self.pages.resize(at + 1, None);
        }
        self.allocated += u64::from(content.is_some());
        self.pages[at] = content;
    }
}

/// Parts of `out` that lie in one page each: page, offset in it, part.
fn parts_mut(offset: u64, out: &mut [u8]) -> impl Iterator<Item = (u64, usize, &mut [u8])> {
    let (mut rest, mut at) = (out, offset);
    std::iter::from_fn(move || {
        let (page, from) = (at / PAGE as u64, (at % PAGE as u64) as usize);
        let all = mem::take(&mut rest);
        if all.is_empty() {
            return None;
        }
        let (part, after) = all.split_at_mut(all.len().min(PAGE - from));
        (rest, at) = (after, at + part.len() as u64);
        Some((page, from, part))
    })
}
