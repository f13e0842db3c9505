//! Disks of hosts (skeleton).

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
};

use millpond_env::{BlockDevice, DiskSpace};

use super::core::{Core, HostId};

#[derive(Clone, Debug, PartialEq)]
pub struct DiskSpec {
    pub size: u64,
}

#[derive(Clone, Debug)]
pub struct Disk {
    _core: Arc<Core>,
}

impl Disk {
    pub fn new(core: Arc<Core>, _host: HostId, _name: &str, _spec: DiskSpec) -> Disk {
        Disk { _core: core }
    }
    pub fn power_on(&self) -> Arc<dyn millpond_env::Disk> {
        none()
    }
    pub fn freeze(&self) {}
    pub fn power_off(&self) {}
    pub fn close(&self) {}
    pub fn foresee(&self) -> u64 {
        0
    }
    pub fn begin_job(&self, _behind: Arc<AtomicU64>, _foreseen: u64) {}
    pub fn end_job(&self) -> u64 {
        0
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
