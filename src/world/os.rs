//! Single things that commands want of the operating system: files named by a user, the environment, the size of the machine.
#![expect(clippy::disallowed_methods, reason = "commands reach the operating system only from here")]

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use millpond_core::time::Span;
use millpond_env::DiskSpace;

/// Reads a file that a user named on the command line.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// The files below a directory that a user named whose names end so, in the order of their names; not those in directories below it.
pub fn files(folder: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a file that a user named on the command line, or that is for the user to keep.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)
}

/// CPU time that the calling thread has used so far.
pub fn thread_cpu() -> Span {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec, which is all that the call writes.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Span(time.tv_sec * 1_000_000_000 + time.tv_nsec)
}

/// Opens a file that a user named on the command line, to be read from its start.
pub fn open(path: &Path) -> io::Result<fs::File> {
    fs::File::open(path)
}

/// Creates the directory and those above it, for their owner only; directories that are there stay as they are.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// An environment variable, when it is set to something.
pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Room on the file system of `path`, as an unprivileged process may use it.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.push(0);
    // SAFETY: `name` ends with a zero byte and `stat` is large enough; statvfs writes nothing else.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(name.as_ptr().cast(), &mut stat) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat
    };
    let block = stat.f_frsize as u64;
    Ok(DiskSpace { free: stat.f_bavail as u64 * block, total: stat.f_blocks as u64 * block })
}
