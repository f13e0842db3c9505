//! Devices for tests: memory that forgets what was not synced, runs full, and fails when told to.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use millpond_core::{
    disk::BlockDevice,
    ids::Origin,
    record::{Hlc, RecordKind},
    time::Timestamp,
};

use crate::{Append, OpenDevice, Opened, Options, Store};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// Numbers that look random and are the same in every run.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn bytes(&mut self, len: usize) -> Bytes {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

#[derive(Debug)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Debug, Default)]
struct State {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Op>,
    /// Pages that hold space on the "file system"; the others are holes.
    allocated: BTreeSet<usize>,
    pages_max: Option<usize>,
    /// Power fails at the operation that finds 0 here.
    crash_in: Option<u64>,
    dead: bool,
    syncs_that_fail: u32,
    opens_that_fail: u32,
    /// One handle at a time.
    busy: bool,
    epoch: u64,
    pub reads: u64,
}

/// A disk that outlives stores and power cuts.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct Handle {
    disk: Disk,
    epoch: u64,
}

impl Disk {
    pub fn with_bytes(bytes: Vec<u8>) -> Disk {
        let disk = Disk::default();
        {
            let mut state = disk.lock();
            state.allocated = (0..bytes.len().div_ceil(PAGE)).collect();
            (state.durable, state.now) = (bytes.clone(), bytes);
        }
        disk
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.lock().now.clone()
    }

    pub fn opener(&self) -> OpenDevice {
        let disk = self.clone();
        Box::new(move || {
            let mut state = disk.lock();
            if state.opens_that_fail > 0 {
                state.opens_that_fail -= 1;
                return Err(io::Error::other("no such device"));
            }
            if state.busy {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            state.busy = true;
            Ok(Box::new(Handle { disk: disk.clone(), epoch: state.epoch }))
        })
    }

    /// From now on so many bytes of pages can be in use; `None` is endless.
    pub fn limit(&self, bytes: Option<usize>) {
        self.lock().pages_max = bytes.map(|bytes| bytes / PAGE);
    }

    pub fn allocated_bytes(&self) -> usize {
        self.lock().allocated.len() * PAGE
    }

    pub fn crash_in(&self, operations: u64) {
        self.lock().crash_in = Some(operations);
    }

    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    pub fn fail_syncs(&self, count: u32) {
        self.lock().syncs_that_fail = count;
    }

    pub fn fail_opens(&self, count: u32) {
        self.lock().opens_that_fail = count;
    }

    pub fn take_reads(&self) -> u64 {
        std::mem::take(&mut self.lock().reads)
    }

    /// The power comes back: each write since the last sync is there, or not, or in part.
    pub fn restart(&self, dice: &mut Dice) {
        let mut state = self.lock();
        let mut image = std::mem::take(&mut state.durable);
        for op in std::mem::take(&mut state.pending) {
            match dice.below(3) {
                0 => {}
                1 => apply(&mut image, &op, |_| true),
                _ => apply(&mut image, &op, |_| dice.below(2) == 0),
            }
        }
        let (pages_max, epoch) = (state.pages_max, state.epoch + 1);
        let allocated = (0..image.len().div_ceil(PAGE)).collect();
        *state = State { now: image.clone(), durable: image, allocated, pages_max, epoch, ..State::default() };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(image: &mut Vec<u8>, op: &Op, mut keeps: impl FnMut(usize) -> bool) {
    match op {
        Op::SetLen(len) => {
            if keeps(0) {
                image.resize(*len as usize, 0);
            }
        }
        Op::Write(offset, data) => {
            let offset = *offset as usize;
            if image.len() < offset + data.len() {
                image.resize(offset + data.len(), 0);
            }
            for (i, sector) in data.chunks(SECTOR).enumerate() {
                if keeps(i) {
                    image[offset + i * SECTOR..offset + i * SECTOR + sector.len()].copy_from_slice(sector);
                }
            }
        }
    }
}

impl Handle {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.dead || state.epoch != self.epoch {
            return Err(io::Error::other("power lost"));
        }
        Ok(state)
    }

    fn operation(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        match &mut state.crash_in {
            Some(0) => {
                state.dead = true;
                Err(io::Error::other("power lost"))
            }
            Some(left) => {
                *left -= 1;
                Ok(state)
            }
            None => Ok(state),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.epoch == self.epoch {
            state.busy = false;
        }
    }
}

impl BlockDevice for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let start = offset as usize;
        let from = state.now.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        state.reads += out.len() as u64;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.operation()?;
        for page in offset as usize / PAGE..(offset as usize + data.len()).div_ceil(PAGE) {
            if !state.allocated.contains(&page) {
                if state.pages_max.is_some_and(|max| state.allocated.len() >= max) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                state.allocated.insert(page);
            }
        }
        let op = Op::Write(offset, data.to_vec());
        apply(&mut state.now, &op, |_| true);
        state.pending.push(op);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.operation()?;
        let op = Op::SetLen(len);
        apply(&mut state.now, &op, |_| true);
        state.allocated.split_off(&(len as usize).div_ceil(PAGE));
        state.pending.push(op);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.operation()?;
        if state.syncs_that_fail > 0 {
            state.syncs_that_fail -= 1;
            // As Linux does: what failed to be written counts as written from now on, and never is.
            state.pending.clear();
            return Err(io::Error::other("sync failed"));
        }
        for op in std::mem::take(&mut state.pending) {
            apply(&mut state.durable, &op, |_| true);
        }
        Ok(())
    }
}

pub const ORIGIN: Origin = Origin([7; 16]);

pub fn small_options() -> Options {
    Options { cache_bytes: 1 << 20, ballast_bytes: 64 << 10, ..Options::default() }
}

pub fn open(disk: &Disk) -> (Store, Opened) {
    Store::open(disk.opener(), small_options(), ORIGIN).expect("the store opens")
}

pub fn append(kind: RecordKind, payload: impl Into<Bytes>) -> Append {
    Append {
        kind,
        hlc: Hlc(1),
        rows: 1,
        min_time: Timestamp(0),
        max_time: Timestamp(0),
        devices: Vec::new(),
        payload: payload.into(),
    }
}
