//! What an operator does to a node that is not running.

use std::{io, sync::Arc};

use millpond_env::Disk;
use millpond_store::{OpenDevice, Options, RepairError, Repaired, repair, verify};

use crate::running::STORE_FILE;

/// What came of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing was wrong, and nothing was changed.
    NotNeeded,
    /// The damaged journal is kept under the name `aside`.
    Done { repaired: Box<Repaired>, aside: String },
}

/// Saves every sound record of a damaged journal into a new one, which takes its place. The old one is kept aside.
///
/// # Errors
/// The journal is as it was.
pub fn repair_journal(disk: &Arc<dyn Disk>, now_ms: i64) -> Result<Repair, RepairError> {
    let target = |error: io::Error| RepairError::Target { detail: error.to_string() };
    let (draft, aside) = (format!("{STORE_FILE}.repaired"), format!("{STORE_FILE}.damaged-{now_ms}"));
    // What an interrupted repair left is half a file.
    if disk.list("").map_err(target)?.contains(&draft) {
        disk.remove(&draft).map_err(target)?;
    }
    if verify(&device(disk, STORE_FILE)).map_err(RepairError::Source)?.is_sound() {
        return Ok(Repair::NotNeeded);
    }
    let repaired = repair(&device(disk, STORE_FILE), &device(disk, &draft), Options::default(), now_ms)?;
    disk.rename(STORE_FILE, &aside).map_err(target)?;
    disk.rename(&draft, STORE_FILE).map_err(target)?;
    Ok(Repair::Done { repaired: Box::new(repaired), aside })
}

fn device(disk: &Arc<dyn Disk>, file: &str) -> OpenDevice {
    let (disk, file) = (disk.clone(), file.to_owned());
    Box::new(move || disk.open(&file))
}
