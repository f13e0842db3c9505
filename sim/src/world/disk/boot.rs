//! The disk as one boot of its host has it.

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    io,
    sync::MutexGuard,
};

use foldhash::fast::FixedState;
use millpond_env::{BlockDevice, DiskSpace};

use super::{
    Disk,
    state::{State, power_lost},
};

pub struct Boot {
    disk: Disk,
    epoch: u64,
}

impl Boot {
    pub fn new(disk: Disk, epoch: u64) -> Boot {
        Boot { disk, epoch }
    }

    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.check(self.epoch)?;
        Ok(state)
    }

    /// An operation that happens as a whole, or not at all. `f` is told whether it happens.
    fn whole<T>(
        &self,
        kind: &'static str,
        detail: [u64; 4],
        f: impl FnOnce(&mut State, bool) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state()?;
        self.disk.note(kind, detail);
        let dies = state.dies_now();
        let happens = state.happens(dies);
        let result = f(&mut state, happens);
        if dies { Err(power_lost()) } else { result }
    }
}

impl millpond_env::Disk for Boot {
    fn open(&self, path: &str) -> io::Result<Box<dyn BlockDevice>> {
        let path = clean(path)?;
        let mut state = self.state()?;
        let inode = if state.has(&path) {
            state.open(&path)?
        } else {
            drop(state);
            self.whole("disk create", [hash(path.as_bytes()), 0, 0, 0], |state, happens| {
                if happens { state.open(&path) } else { Err(power_lost()) }
            })?
        };
        Ok(Box::new(Handle { disk: self.disk.clone(), epoch: self.epoch, inode }))
    }

    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        self.state()?.read(&clean(path)?)
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let path = clean(path)?;
        let detail = [hash(path.as_bytes()), 0, content.len() as u64, hash(content)];
        self.whole("disk replace", detail, |state, happens| state.replace(&path, content, happens))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (clean(from)?, clean(to)?);
        let detail = [hash(from.as_bytes()), 0, 0, hash(to.as_bytes())];
        self.whole("disk rename", detail, |state, happens| state.rename(&from, &to, happens))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = clean(path)?;
        let detail = [hash(path.as_bytes()), 0, 0, 0];
        self.whole("disk remove", detail, |state, happens| state.remove(&path, happens))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut dir = clean(path)?;
        if !dir.is_empty() {
            dir.push('/');
        }
        Ok(self.state()?.list(&dir))
    }

    fn space(&self) -> io::Result<DiskSpace> {
        Ok(self.state()?.space())
    }
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boot").field("disk", &self.disk).field("epoch", &self.epoch).finish()
    }
}

/// An open file of one boot.
#[derive(Debug)]
struct Handle {
    disk: Disk,
    epoch: u64,
    inode: u64,
}

impl Handle {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.check(self.epoch)?;
        Ok(state)
    }

    /// An operation that changes something. `f` is told whether the power is lost during it.
    fn change(
        &self,
        kind: &'static str,
        detail: [u64; 3],
        f: impl FnOnce(&mut State, bool) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state()?;
        self.disk.note(kind, [self.inode, detail[0], detail[1], detail[2]]);
        let dies = state.dies_now();
        let result = f(&mut state, dies);
        if dies { Err(power_lost()) } else { result }
    }
}

impl BlockDevice for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.file(self.inode)?.image.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        state.file(self.inode)?.image.read(offset, out)?;
        state.spend_bytes(out.len() as u64);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let detail = [offset, data.len() as u64, hash(data)];
        self.change("disk write", detail, |state, _| state.write(self.inode, offset, data))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change("disk set_len", [len, 0, 0], |state, _| state.set_len(self.inode, len))
    }

    fn sync(&self) -> io::Result<()> {
        self.change("disk sync", [0; 3], |state, dies| state.sync(self.inode, dies))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.lock().release(self.inode, self.epoch);
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// Parts of a path joined by `/`; paths that lead out of the data directory are refused.
fn clean(path: &str) -> io::Result<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if path.starts_with('/') || parts.contains(&"..") {
        let reason = format!("{path} leads out of the data directory");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    Ok(parts.join("/"))
}
