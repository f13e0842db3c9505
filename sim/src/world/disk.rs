//! The disk of one host: files in memory that forget what was not synced when the power goes.
//!
//! # The model
//! A write lands in memory, the page cache of an operating system, and readers see it at once. From there the system and the disk
//! write it back when they like and in any order, 512 bytes (a sector) at a time; a sector is never half written. A sync returns
//! when everything written before is on the medium. So when the power goes,
//! - what a sync has covered is there, whole;
//! - each sector written since then holds one of the contents that it had since then, its content at the last sync included: a write
//!   was kept, lost, or torn. Sectors decide for themselves, so a later write may be there while an earlier one is not;
//! - of changes of the file's length a beginning has happened, the rest has not: a file system journals them in order. Cutting a file
//!   is such a change, and what it cut off is gone exactly when it has happened;
//! - replacing, moving, creating and removing whole files have happened when they returned.
//!
//! Each file has one image, what readers see. A write never changes a page of 4 KiB but puts another in its place, and the page
//! replaced goes to a log of what can be undone; a sync forgets the log. So neither costs more than the bytes written, and a page is
//! copied once. Losing power walks the log backwards and puts back what was lost.
//!
//! The log is bounded ([`log::OLD_PAGES_MAX`]): past it the oldest writes count as written back, as they would be by a system that
//! does not keep dirty pages for ever, or by a disk that lies and whose cache is finite.
//!
//! # What must stay true
//! 1. What a sync that said yes has covered survives, unless the disk lies ([`Disk::set_lies`]) or rots ([`Disk::flip_bits`]).
//! 2. Handles of one boot reach nothing in another, and nothing after [`Disk::freeze`] or after the power was lost.
//! 3. Tearing, times and rot are drawn from streams of their own: a longer sync does not change what a power loss tears.
//! 4. An operation takes time only within a job, and reading a file from outside ([`Disk::snapshot`]) costs and changes nothing.

mod boot;
mod file;
mod image;
mod log;
mod meter;
mod state;
mod tear;
#[cfg(test)]
mod tests;
mod view;

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use millpond_core::time::Span;
use millpond_env::{BlockDevice, DiskSpace};
use serde::{Deserialize, Serialize};

use self::{boot::Boot, state::State, view::View};
use super::core::{Core, HostId};

/// A disk, before it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskSpec {
    /// Bytes of the file system.
    pub size: u64,
    /// The shortest and the longest time of a sync; each between them is equally likely.
    pub sync: (Span, Span),
    /// How fast bytes are read and written.
    pub bytes_per_second: u64,
}

impl Default for DiskSpec {
    fn default() -> DiskSpec {
        DiskSpec { size: 2 << 30, sync: (Span(500_000), Span(3_000_000)), bytes_per_second: 100_000_000 }
    }
}

/// What a disk has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskStats {
    /// Writes to block devices and of whole files.
    pub writes: u64,
    pub syncs: u64,
    pub bytes_written: u64,
    /// Bytes of pages that hold space, now and at most.
    pub used: u64,
    pub peak_used: u64,
    pub power_losses: u64,
    /// Those that found un-synced writes.
    pub power_losses_mid_commit: u64,
    /// Those in which some of the sectors of one write were lost, but not all.
    pub torn: u64,
    /// Contents of sectors that a power loss has taken away.
    pub sectors_lost: u64,
    /// Sectors whose un-synced content outlived a power loss.
    pub sectors_kept: u64,
    /// How often there was no space left.
    pub full: u64,
}

/// The disk of one host. It outlives boots; clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    host: HostId,
    state: Mutex<State>,
}

impl Disk {
    pub fn new(core: Arc<Core>, host: HostId, name: &str, spec: DiskSpec) -> Disk {
        let stream = |what: &str| core.rng(&format!("disk/{name}/{what}"));
        let state = State::new(spec, stream("tear"), stream("time"), stream("rot"));
        Disk { shared: Arc::new(Shared { core, host, state: Mutex::new(state) }) }
    }

    /// The disk as the next boot of its host sees it.
    pub fn power_on(&self) -> Arc<dyn millpond_env::Disk> {
        let epoch = self.lock().power_on();
        Arc::new(Boot::new(self.clone(), epoch))
    }

    /// Everything that this boot has of the disk fails from now on.
    pub fn freeze(&self) {
        self.lock().freeze();
    }

    /// The power is gone: un-synced writes are kept, lost or torn.
    pub fn power_off(&self) {
        let mut state = self.lock();
        let tally = state.power_off();
        self.note("disk power off", [tally.kept, tally.lost, u64::from(tally.torn), tally.ops]);
    }

    /// The program has ended and its system lives on, which writes back what was not synced. When the power was lost before
    /// ([`Disk::die_in`]) this is [`Disk::power_off`].
    pub fn close(&self) {
        if self.is_dead() {
            return self.power_off();
        }
        self.lock().close();
    }

    /// How long the next job may take, in nanoseconds: most are one commit, and that is one sync.
    pub fn foresee(&self) -> u64 {
        self.lock().draw_sync()
    }

    /// From now on operations take time, until [`Disk::end_job`]. `behind` is what is left of `foreseen` at each moment: the job runs
    /// at the end of the time foreseen for it, so its clock is behind by what it has not spent yet.
    pub fn begin_job(&self, behind: Arc<AtomicU64>, foreseen: u64) {
        self.lock().meter.begin(behind, foreseen);
    }

    /// Returns what the job has spent, in nanoseconds.
    pub fn end_job(&self) -> u64 {
        self.lock().meter.end()
    }

    /// The power is lost during the `operations`-th operation from now (from 1) that changes anything, or at once with 0. That
    /// operation may have happened, or in part; the next call finds a dead disk, whose host somebody has to switch off. It holds
    /// across boots, until the power is lost.
    pub fn die_in(&self, operations: u64) {
        self.lock().die_in(operations);
    }

    /// Whether the power was lost during an operation, and the host has not been switched off since.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Whether a power loss now would find un-synced writes.
    pub fn is_mid_commit(&self) -> bool {
        self.lock().unsynced() > 0
    }

    pub fn set_sync_time(&self, range: (Span, Span)) {
        self.lock().spec.sync = range;
    }

    pub fn set_bytes_per_second(&self, bytes: u64) {
        self.lock().spec.bytes_per_second = bytes;
    }

    /// So many bytes of the file system are somebody else's.
    pub fn set_fill(&self, bytes: u64) {
        self.lock().fill = bytes;
    }

    /// Somebody else takes all but `bytes` of what is free now.
    pub fn free_leave(&self, bytes: u64) {
        let mut state = self.lock();
        state.fill = state.spec.size.saturating_sub(state.used()).saturating_sub(bytes);
    }

    /// While set, syncs of block devices say yes and make nothing durable.
    pub fn set_lies(&self, lies: bool) {
        self.lock().lies = lies;
    }

    /// The next `count` syncs fail. As Linux does it: what could not be written counts as written from then on, readers see it, and
    /// it is gone after a power loss, unless it is written once more.
    pub fn fail_syncs(&self, count: u32) {
        self.lock().failing_syncs = count;
    }

    /// Turns random bits over in pages without un-synced writes, and returns how many: fewer than `count` only when there is no page.
    pub fn flip_bits(&self, count: u32) -> u32 {
        let flips = self.lock().flip_bits(count);
        for (inode, bit) in &flips {
            self.note("disk rot", [*inode, *bit, 0, 0]);
        }
        flips.len() as u32
    }

    /// Another, empty disk. The boot that is running loses it.
    pub fn wipe(&self) {
        self.lock().wipe();
        self.note("disk wiped", [0; 4]);
    }

    pub fn stats(&self) -> DiskStats {
        let state = self.lock();
        DiskStats { used: state.used(), ..state.stats }
    }

    /// Bytes that can still be written to new pages.
    pub fn free(&self) -> u64 {
        self.lock().free()
    }

    /// What a reader of the file sees now, un-synced writes included, as a device of its own: writing to it changes nothing here.
    pub fn snapshot(&self, path: &str) -> Option<Box<dyn BlockDevice>> {
        let image = self.lock().image(path)?.clone();
        Some(Box::new(View::new(image)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kind: &'static str, detail: [u64; 4]) {
        let mut bytes = [0; 32];
        for (to, from) in bytes.chunks_exact_mut(8).zip(detail) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        self.shared.core.note(self.shared.host, kind, &bytes);
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("host", &self.shared.host).finish_non_exhaustive()
    }
}

/// For hosts without a disk.
pub fn none() -> Arc<dyn millpond_env::Disk> {
    Arc::new(NoDisk)
}

#[derive(Debug)]
struct NoDisk;

impl millpond_env::Disk for NoDisk {
    fn open(&self, _: &str) -> io::Result<Box<dyn BlockDevice>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read(&self, _: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn write(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
