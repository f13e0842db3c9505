//! The node's data directory.
#![expect(clippy::disallowed_methods, reason = "these are the files behind Env")]

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use millpond_env::{BlockDevice, Disk, DiskSpace};

use super::os;

/// All files lie below one directory and are readable by their owner only.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    pub fn new(root: &Path) -> Directory {
        Directory { root: root.to_owned() }
    }

    fn path(&self, path: &str) -> io::Result<PathBuf> {
        let path = Path::new(path);
        if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            Ok(self.root.join(path))
        } else {
            let reason = format!("{} leads out of the data directory", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
        }
    }
}

impl Disk for Directory {
    fn open(&self, path: &str) -> io::Result<Box<dyn BlockDevice>> {
        let path = self.path(path)?;
        let dir = parent(&path);
        os::create_private_dir(dir)?;
        let is_new = !path.exists();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let reason = format!("{} is in use by another process", path.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, reason));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if is_new {
            sync_dir(dir)?;
        }
        Ok(Box::new(LockedFile { file }))
    }

    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(path)?) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let path = self.path(path)?;
        let dir = parent(&path);
        os::create_private_dir(dir)?;
        let mut draft = path.clone().into_os_string();
        draft.push(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        sync_dir(dir)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        os::create_private_dir(parent(&to))?;
        fs::rename(&from, &to)?;
        sync_dir(parent(&to))?;
        if parent(&from) != parent(&to) { sync_dir(parent(&from)) } else { Ok(()) }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.path(path)?;
        fs::remove_file(&path)?;
        sync_dir(parent(&path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(path)?) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn space(&self) -> io::Result<DiskSpace> {
        os::disk_space(&self.root)
    }
}

/// An open file that no other process can open as long as this lives: the lock is the kernel's, and ends with the process at the latest.
#[derive(Debug)]
struct LockedFile {
    file: File,
}

impl BlockDevice for LockedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A new name is durable only when its directory is.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::new(dir.path());
        let first = disk.open("journal.redb").unwrap();
        assert_eq!(disk.open("journal.redb").unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(first);
        disk.open("journal.redb").unwrap();
    }

    #[test]
    fn a_block_device_keeps_what_was_written_where() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::new(dir.path());
        let device = disk.open("sub/device").unwrap();
        device.write(4096, b"pond").unwrap();
        assert_eq!(device.len().unwrap(), 4100);
        let mut out = [0; 4];
        device.read(4096, &mut out).unwrap();
        assert_eq!(&out, b"pond");
        assert_eq!(device.read(4098, &mut out).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        device.set_len(10).unwrap();
        device.sync().unwrap();
        assert_eq!(device.len().unwrap(), 10);
    }

    #[test]
    fn whole_files_are_replaced_moved_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::new(dir.path());
        assert_eq!(disk.read("a").unwrap(), None);
        assert!(disk.list("keys").unwrap().is_empty());
        disk.write("keys/a", b"one").unwrap();
        disk.write("keys/a", b"two").unwrap();
        assert_eq!(disk.read("keys/a").unwrap().as_deref(), Some(&b"two"[..]));
        disk.rename("keys/a", "old/b").unwrap();
        assert_eq!((disk.list("keys").unwrap(), disk.list("old").unwrap()), (vec![], vec!["b".to_owned()]));
        disk.remove("old/b").unwrap();
        assert_eq!(disk.read("old/b").unwrap(), None);
    }

    #[test]
    fn no_path_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::new(dir.path());
        for path in ["../x", "/etc/passwd", "a/../../x"] {
            assert_eq!(disk.read(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn files_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        Directory::new(dir.path()).write("keys/token", b"secret").unwrap();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("keys"), mode("keys/token")), (0o700, 0o600));
    }

    #[test]
    fn space_is_that_of_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let space = Directory::new(dir.path()).space().unwrap();
        assert!(space.free > 0 && space.free <= space.total);
    }
}
