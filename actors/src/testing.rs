//! A small world for tests: real time, memory for a disk, no network.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use millpond_core::time::Timestamp;
use millpond_env::{
    BlockDevice, Blocking, Clock, Datagrams, Disk, DiskSpace, Entropy, Env, Listener, Mono, Net, Spawner, Stream,
    Trace, Worker,
};

/// Files that outlive the nodes that write them.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Arc<Mutex<Vec<u8>>>>>>);

impl Memory {
    pub fn device(&self, path: &str) -> Box<dyn BlockDevice> {
        Box::new(File(self.0.lock().expect("not poisoned").entry(path.into()).or_default().clone()))
    }
}

#[expect(clippy::disallowed_methods, reason = "the world of tests is the real one")]
pub fn env(memory: &Memory) -> Env {
    let world = Arc::new(World { memory: memory.clone(), runtime: tokio::runtime::Handle::current() });
    Env {
        clock: world.clone(),
        net: world.clone(),
        disk: world.clone(),
        entropy: world.clone(),
        spawner: world.clone(),
        blocking: world.clone(),
        trace: world,
    }
}

#[derive(Debug)]
struct World {
    memory: Memory,
    runtime: tokio::runtime::Handle,
}

#[expect(clippy::disallowed_methods, reason = "the world of tests is the real one")]
impl Clock for World {
    fn now(&self) -> Mono {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        Mono(START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64)
    }

    fn wall(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Timestamp(since.as_nanos() as i64)
    }

    fn timer(&self, at: Mono) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(Duration::from_nanos(at.0.saturating_sub(self.now().0))))
    }
}

#[async_trait]
impl Net for World {
    async fn listen(&self, _: std::net::SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn bind(&self, _: std::net::SocketAddr) -> io::Result<Arc<dyn Datagrams>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, _: &str, _: u16) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

impl Disk for World {
    fn open(&self, path: &str) -> io::Result<Box<dyn BlockDevice>> {
        Ok(self.memory.device(path))
    }

    fn read(&self, _: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn write(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        Ok(DiskSpace { free: 1 << 40, total: 1 << 40 })
    }
}

impl Entropy for World {
    fn seed(&self, purpose: &str) -> [u8; 32] {
        let mut seed = [7; 32];
        purpose.bytes().enumerate().for_each(|(at, byte)| seed[at % 32] ^= byte);
        seed
    }
}

impl Spawner for World {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.runtime.spawn(task);
    }
}

impl Blocking for World {
    fn worker(&self, _: &str) -> Box<dyn Worker> {
        Box::new(Inline)
    }

    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

/// Devices whose data makes a shard fail: in its gate, in its windows.
pub const IN_GATE: &str = "makes-the-gate-fail";
pub const IN_APPLY: &str = "makes-windows-fail";

impl Trace for World {
    fn event(&self, _: &'static str, _: &[u8]) {}

    fn trips(&self, place: &'static str) -> Option<String> {
        Some(if place == "gate" { IN_GATE } else { IN_APPLY }.to_owned())
    }
}

#[derive(Debug)]
struct Inline;

impl Worker for Inline {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

#[derive(Debug)]
struct File(Arc<Mutex<Vec<u8>>>);

impl BlockDevice for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("not poisoned").len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().expect("not poisoned");
        let from = bytes.get(offset as usize..offset as usize + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock().expect("not poisoned");
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().expect("not poisoned").resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
