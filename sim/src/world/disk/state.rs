//! Files by name, space, faults and time: everything behind the lock of a disk.

use std::{collections::BTreeMap, io};

use millpond_core::{map::FixedSet, time::Span};
use millpond_env::DiskSpace;
use rand::{RngExt, rngs::StdRng};

use super::{
    DiskSpec, DiskStats,
    file::File,
    image::{FILE_BYTES_MAX, Image, PAGE, Spare},
    meter::Meter,
    tear::Tally,
};

pub struct State {
    pub spec: DiskSpec,
    pub stats: DiskStats,
    pub meter: Meter,
    pub dead: bool,
    /// Somebody else's bytes.
    pub fill: u64,
    pub lies: bool,
    pub failing_syncs: u32,
    /// Operations until the power is lost, that one included.
    dies_in: Option<u64>,
    /// Counts boots; `live` is whether the latest may use the disk.
    epoch: u64,
    live: bool,
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, File>,
    next_inode: u64,
    /// Bytes of pages of all files.
    used: u64,
    spare: Spare,
    tear: StdRng,
    times: StdRng,
    rot: StdRng,
}

pub fn power_lost() -> io::Error {
    io::Error::other("power lost")
}

impl State {
    pub fn new(spec: DiskSpec, tear: StdRng, times: StdRng, rot: StdRng) -> State {
        State {
            spec,
            stats: DiskStats::default(),
            meter: Meter::default(),
            dead: false,
            fill: 0,
            lies: false,
            failing_syncs: 0,
            dies_in: None,
            epoch: 0,
            live: false,
            names: BTreeMap::new(),
            files: BTreeMap::new(),
            next_inode: 0,
            used: 0,
            spare: Spare::default(),
            tear,
            times,
            rot,
        }
    }

    // Boots.

    pub fn power_on(&mut self) -> u64 {
        (self.epoch, self.live) = (self.epoch + 1, true);
        self.epoch
    }

    pub fn freeze(&mut self) {
        self.live = false;
    }

    pub fn power_off(&mut self) -> Tally {
        let mut tally = Tally::default();
        for file in self.files.values_mut() {
            file.lose_power(&mut self.tear, &mut tally);
        }
        (self.live, self.dead, self.dies_in) = (false, false, None);
        self.drop_unlinked();
        self.stats.power_losses += 1;
        self.stats.power_losses_mid_commit += u64::from(tally.ops > 0);
        self.stats.torn += u64::from(tally.torn);
        self.stats.sectors_kept += tally.kept;
        self.stats.sectors_lost += tally.lost;
        tally
    }

    pub fn close(&mut self) {
        self.live = false;
        if !self.lies {
            for file in self.files.values_mut() {
                file.sync(&mut self.spare);
            }
        }
        self.drop_unlinked();
    }

    pub fn wipe(&mut self) {
        self.live = false;
        self.names.clear();
        self.files.clear();
        self.used = 0;
    }

    fn drop_unlinked(&mut self) {
        self.files.retain(|_, file| !file.unlinked);
        self.used = self.files.values().map(|file| file.image.allocated()).sum();
    }

    /// Every call of a boot begins here.
    pub fn check(&self, epoch: u64) -> io::Result<()> {
        if self.live && !self.dead && self.epoch == epoch { Ok(()) } else { Err(power_lost()) }
    }

    // Faults.

    pub fn die_in(&mut self, operations: u64) {
        self.dead |= operations == 0;
        self.dies_in = (operations > 0).then_some(operations);
    }

    /// Counts an operation that changes something. Whether the power is lost during this one: then it may happen, or in part, and
    /// its caller hears nothing but that.
    pub fn dies_now(&mut self) -> bool {
        let Some(left) = &mut self.dies_in else { return false };
        *left -= 1;
        if *left > 0 {
            return false;
        }
        (self.dies_in, self.dead) = (None, true);
        true
    }

    /// Whether an operation that happens as a whole or not at all has happened, although the power was lost during it.
    pub fn happens(&mut self, dies: bool) -> bool {
        !dies || self.tear.random()
    }

    /// File and bit of each.
    pub fn flip_bits(&mut self, count: u32) -> Vec<(u64, u64)> {
        let mut pages = Vec::new();
        for (inode, file) in &self.files {
            let dirty: FixedSet<u64> = file.dirty_pages().collect();
            pages.extend(file.image.pages().filter(|page| !dirty.contains(page)).map(|page| (*inode, page)));
        }
        let mut flips = Vec::new();
        for _ in 0..if pages.is_empty() { 0 } else { count } {
            let (inode, page) = pages[self.rot.random_range(0..pages.len())];
            let bit = (page * PAGE as u64) * 8 + self.rot.random_range(0..PAGE as u64 * 8);
            if let Some(file) = self.files.get_mut(&inode) {
                file.image.flip(bit);
                flips.push((inode, bit));
            }
        }
        flips
    }

    // Space and time.

    pub fn used(&self) -> u64 {
        self.used
    }

    pub fn space(&self) -> DiskSpace {
        DiskSpace { free: self.free(), total: self.spec.size }
    }

    pub fn free(&self) -> u64 {
        self.spec.size.saturating_sub(self.used).saturating_sub(self.fill)
    }

    /// Fails when `bytes` more of pages do not fit.
    fn find_space(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > 0 && bytes > self.free() {
            self.stats.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn set_used(&mut self, used: u64) {
        self.used = used;
        self.stats.peak_used = self.stats.peak_used.max(used);
    }

    pub fn unsynced(&self) -> usize {
        self.files.values().map(File::unsynced).sum()
    }

    pub fn draw_sync(&mut self) -> u64 {
        let (Span(shortest), Span(longest)) = self.spec.sync;
        let shortest = shortest.max(0);
        self.times.random_range(shortest..=longest.max(shortest)) as u64
    }

    pub fn spend_bytes(&mut self, bytes: u64) {
        if self.meter.is_running() {
            self.meter.spend(bytes.saturating_mul(1_000_000_000) / self.spec.bytes_per_second.max(1));
        }
    }

    fn spend_sync(&mut self) {
        if self.meter.is_running() {
            let ns = self.draw_sync();
            self.meter.spend(ns);
        }
    }

    // Block devices.

    /// Whether there is such a file, so that opening it creates nothing.
    pub fn has(&self, path: &str) -> bool {
        self.names.contains_key(path)
    }

    pub fn open(&mut self, path: &str) -> io::Result<u64> {
        let inode = match self.names.get(path) {
            Some(inode) => *inode,
            None => {
                self.spend_sync();
                self.put(path, File::default())
            }
        };
        let epoch = self.epoch;
        let file = self.file(inode)?;
        if file.owner == Some(epoch) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        file.owner = Some(epoch);
        Ok(inode)
    }

    /// The handle of this boot is dropped.
    pub fn release(&mut self, inode: u64, epoch: u64) {
        let Some(file) = self.files.get_mut(&inode).filter(|file| file.owner == Some(epoch)) else { return };
        file.owner = None;
        if file.unlinked {
            self.used -= file.image.allocated();
            self.files.remove(&inode);
        }
    }

    pub fn file(&mut self, inode: u64) -> io::Result<&mut File> {
        self.files.get_mut(&inode).ok_or_else(power_lost)
    }

    pub fn image(&self, path: &str) -> Option<&Image> {
        Some(&self.files.get(self.names.get(path)?)?.image)
    }

    pub fn write(&mut self, inode: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        let len = data.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let missing = self.file(inode)?.image.missing(offset, len);
        self.find_space(missing)?;
        let file = self.files.get_mut(&inode).ok_or_else(power_lost)?;
        if !data.is_empty() {
            file.write(offset, data, &mut self.spare);
        }
        self.set_used(self.used + missing);
        self.stats.writes += 1;
        self.stats.bytes_written += len;
        self.spend_bytes(len);
        Ok(())
    }

    pub fn set_len(&mut self, inode: u64, len: u64) -> io::Result<()> {
        if len > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let file = self.files.get_mut(&inode).ok_or_else(power_lost)?;
        let before = file.image.allocated();
        file.set_len(len, &mut self.spare);
        self.used -= before - file.image.allocated();
        Ok(())
    }

    /// With `dies` nothing becomes durable for certain.
    pub fn sync(&mut self, inode: u64, dies: bool) -> io::Result<()> {
        self.spend_sync();
        self.stats.syncs += 1;
        let fails = self.fails();
        let file = self.files.get_mut(&inode).ok_or_else(power_lost)?;
        match (dies, fails) {
            (true, _) => Ok(()),
            (_, Err(error)) => {
                file.fail_sync(&mut self.tear);
                Err(error)
            }
            (_, Ok(())) if self.lies => Ok(()),
            (_, Ok(())) => {
                file.sync(&mut self.spare);
                Ok(())
            }
        }
    }

    fn fails(&mut self) -> io::Result<()> {
        match self.failing_syncs {
            0 => Ok(()),
            left => {
                self.failing_syncs = left - 1;
                Err(io::Error::other("the disk failed to write"))
            }
        }
    }

    // Whole files.

    pub fn read(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(image) = self.image(path) else { return Ok(None) };
        let mut content = vec![0; image.len() as usize];
        image.read(0, &mut content)?;
        self.spend_bytes(content.len() as u64);
        Ok(Some(content))
    }

    /// The new content finds its space beside the old.
    pub fn replace(&mut self, path: &str, content: &[u8], happens: bool) -> io::Result<()> {
        let len = content.len() as u64;
        self.find_space(len.next_multiple_of(PAGE as u64))?;
        self.spend_bytes(len);
        self.spend_sync();
        self.stats.writes += 1;
        self.stats.syncs += 1;
        self.stats.bytes_written += len;
        self.fails()?;
        if happens {
            let file = File::with_content(content, &mut self.spare);
            self.set_used(self.used + file.image.allocated());
            self.put(path, file);
        }
        Ok(())
    }

    pub fn rename(&mut self, from: &str, to: &str, happens: bool) -> io::Result<()> {
        let inode = *self.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        self.spend_sync();
        if happens && from != to {
            self.names.remove(from);
            let replaced = self.names.insert(to.to_owned(), inode);
            self.unlink(replaced);
        }
        Ok(())
    }

    pub fn remove(&mut self, path: &str, happens: bool) -> io::Result<()> {
        if !self.has(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.spend_sync();
        if happens {
            let removed = self.names.remove(path);
            self.unlink(removed);
        }
        Ok(())
    }

    /// Names of files and directories in a directory, which is "" or ends with `/`.
    pub fn list(&self, dir: &str) -> Vec<String> {
        let below = self.names.range(dir.to_owned()..).map_while(|(name, _)| name.strip_prefix(dir));
        let mut names: Vec<String> = below.map(|name| name.split('/').next().unwrap_or(name).to_owned()).collect();
        names.sort();
        names.dedup();
        names
    }

    fn put(&mut self, path: &str, file: File) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.files.insert(inode, file);
        let replaced = self.names.insert(path.to_owned(), inode);
        self.unlink(replaced);
        inode
    }

    fn unlink(&mut self, inode: Option<u64>) {
        let Some(inode) = inode else { return };
        let Some(file) = self.files.get_mut(&inode) else { return };
        if file.owner == Some(self.epoch) {
            file.unlinked = true;
        } else {
            self.used -= file.image.allocated();
            self.files.remove(&inode);
        }
    }
}
