//! The real world: what [`millpond_env`] asks for, on the operating system. Nothing else in the program reads a clock, opens a
//! file or a socket, draws randomness or starts a thread.

mod blocking;
mod clock;
mod files;
mod neighbours;
mod net;
pub mod os;

use std::{io, path::Path, sync::Arc};

use millpond_env::{Entropy, Env, Spawner, Trace};
use rand::{TryRng, rngs::SysRng};
use tokio::runtime::Handle;

/// Makes the outside of nodes and of commands.
#[derive(Clone, Copy, Debug)]
pub struct World;

impl World {
    /// The world of a node whose data is in `data_dir`, which is created when it is missing (for its owner's eyes only). Must be called inside a tokio runtime,
    /// to which all tasks of the node will belong.
    ///
    /// # Errors
    /// When the directory is not there and cannot be created.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(data_dir: &Path) -> io::Result<Env> {
        os::create_private_dir(data_dir)?;
        Ok(World::around(data_dir))
    }

    /// The world of a command that talks to nodes and keeps no data: its disk is the current directory.
    pub fn client() -> Env {
        World::around(Path::new("."))
    }

    #[expect(clippy::disallowed_methods, reason = "Env spawns on the runtime that it was made in")]
    fn around(data_dir: &Path) -> Env {
        let runtime = Handle::current();
        Env {
            clock: Arc::new(clock::SystemClock::start()),
            net: Arc::new(net::Tcp),
            disk: Arc::new(files::Directory::new(data_dir)),
            entropy: Arc::new(SystemEntropy),
            spawner: Arc::new(RuntimeSpawner(runtime.clone())),
            blocking: Arc::new(blocking::Threads::new(runtime)),
            trace: Arc::new(Untraced),
        }
    }
}

/// The executor of the program: at most four threads, because the work of a node is done in few, large steps.
///
/// # Errors
/// When the operating system gives no threads.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(os::cores().min(4)).enable_all().build()
}

#[derive(Debug)]
struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    /// When the operating system has no randomness to give: no identity or token could be trusted then.
    fn seed(&self, _purpose: &str) -> [u8; 32] {
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed).expect("the operating system gives randomness");
        seed
    }
}

#[derive(Debug)]
struct RuntimeSpawner(Handle);

impl Spawner for RuntimeSpawner {
    fn spawn(&self, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }
}

#[derive(Debug)]
struct Untraced;

impl Trace for Untraced {
    fn event(&self, _kind: &'static str, _detail: &[u8]) {}
}
