//! What happened to a file since its last sync, and what was there before.

use std::ops::Range;

use super::image::{Page, SECTOR, Spare};

/// Past so many pages (64 MiB) the older half of the log is forgotten: it counts as written back.
pub const OLD_PAGES_MAX: usize = 16 << 10;

#[derive(Debug, Default)]
pub struct Log {
    ops: Vec<Op>,
    /// Pages that were replaced, of all operations in their order.
    olds: Vec<Old>,
}

#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub what: What,
    pub len_before: u64,
    pub len_after: u64,
    /// Where its pages end in the list of all.
    olds_end: usize,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Never of no bytes.
    Write {
        offset: u64,
        len: u64,
    },
    SetLen,
}

/// A page as it was before an operation; without content: a hole.
#[derive(Debug)]
pub struct Old {
    pub page: u64,
    pub content: Option<Page>,
}

impl Op {
    pub fn changes_len(&self) -> bool {
        self.len_before != self.len_after
    }

    /// Whether it took something off the file's end.
    pub fn is_cut(&self) -> bool {
        self.len_after < self.len_before
    }

    /// Sectors whose content it may have changed; those of a cut have no end.
    pub fn sectors(&self) -> Range<u64> {
        let sector = SECTOR as u64;
        match self.what {
            What::Write { offset, len } => offset / sector..(offset + len).div_ceil(sector),
            What::SetLen if self.is_cut() => self.len_after / sector..u64::MAX,
            What::SetLen => 0..0,
        }
    }
}

impl Log {
    /// To be called for each page that an operation replaces, before [`Log::push`] of it.
    pub fn push_old(&mut self, page: u64, content: Option<Page>) {
        self.olds.push(Old { page, content });
    }

    pub fn push(&mut self, what: What, len_before: u64, len_after: u64) {
        self.ops.push(Op { what, len_before, len_after, olds_end: self.olds.len() });
    }

    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Pages that operations of the log replaced.
    pub fn pages(&self) -> impl Iterator<Item = u64> {
        self.olds.iter().map(|old| old.page)
    }

    /// How many of the oldest operations are to be forgotten so that the log stays within its bound.
    pub fn surplus(&self) -> usize {
        if self.olds.len() <= OLD_PAGES_MAX { 0 } else { self.ops.len().div_ceil(2) }
    }

    /// The `count` oldest operations cannot be undone any more.
    pub fn forget(&mut self, count: usize, spare: &mut Spare) {
        let Some(last) = count.checked_sub(1) else { return };
        let olds = self.ops[last].olds_end;
        self.ops.drain(..count);
        for op in &mut self.ops {
            op.olds_end -= olds;
        }
        self.olds.drain(..olds).filter_map(|old| old.content).for_each(|page| spare.give(page));
    }

    /// Takes the latest operation, with the pages that it replaced.
    pub fn pop(&mut self) -> Option<(Op, impl Iterator<Item = Old>)> {
        let op = self.ops.pop()?;
        let start = self.ops.last().map_or(0, |before| before.olds_end);
        Some((op, self.olds.drain(start..)))
    }
}
