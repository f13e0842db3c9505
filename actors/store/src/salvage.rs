//! Finding values of the journal in a file without the help of its trees.

use std::io;

use millpond_core::disk::BlockDevice;

use crate::layout::{MAGIC, VALUE_HEADER, Value, ValueHeader};

const CHUNK: usize = 1 << 20;
/// A file that redb began to set up and did not finish is smaller than this.
const UNFINISHED_BYTES_MAX: u64 = 16 << 20;

/// Empties a file whose founding a crash interrupted. Everything else is left alone.
pub(crate) fn clear_unfinished(device: &dyn BlockDevice) -> io::Result<()> {
    if is_unfinished(device)? {
        device.set_len(0)?;
        device.sync()?;
    }
    Ok(())
}

/// Whether redb began to set the file up and did not finish: it is small, its first bytes are zero, and no value is in it.
pub(crate) fn is_unfinished(device: &dyn BlockDevice) -> io::Result<bool> {
    let len = device.len()?;
    if len == 0 || len > UNFINISHED_BYTES_MAX {
        return Ok(false);
    }
    let mut magic = [0; 8];
    let there = magic.len().min(len as usize);
    device.read(0, &mut magic[..there])?;
    let mut values = 0;
    if magic == [0; 8] {
        scan(device, |_, _| values += 1)?;
    }
    Ok(magic == [0; 8] && values == 0)
}

/// Calls `each` with place and header of every whole value in the file, committed or not, in the order of places.
pub(crate) fn scan(device: &dyn BlockDevice, mut each: impl FnMut(u64, ValueHeader)) -> io::Result<()> {
    let len = device.len()?;
    let mut buffer = vec![0; CHUNK];
    let (mut start, mut value) = (0u64, Vec::new());
    while start + VALUE_HEADER as u64 <= len {
        let there = (len - start).min(CHUNK as u64) as usize;
        let mut resume = start + there as u64 - (VALUE_HEADER as u64 - 1).min(there as u64 - 1);
        if read_lossy(device, start, &mut buffer[..there]) {
            let mut at = 0;
            while let Some(found) = find(&buffer[at..there], &MAGIC) {
                let place = start + (at + found) as u64;
                at += found + 1;
                if let Some(header) = read_at(device, place, &mut value) {
                    each(place, header);
                    let end = place + header.value_bytes();
                    resume = resume.max(end);
                    at = (end - start).min(there as u64) as usize;
                }
            }
        }
        start = resume.max(start + 1);
    }
    Ok(())
}

/// Reads the value at a place into `value`; `None` when there is no whole one.
pub(crate) fn read_at(device: &dyn BlockDevice, place: u64, value: &mut Vec<u8>) -> Option<ValueHeader> {
    value.resize(VALUE_HEADER, 0);
    device.read(place, value).ok()?;
    let header = ValueHeader::decode(value).ok()?;
    let bytes = header.value_bytes();
    if place.checked_add(bytes)? > device.len().ok()? {
        return None;
    }
    value.resize(bytes as usize, 0);
    device.read(place, value).ok()?;
    Value::parse(value).ok().map(|value| value.header)
}

/// Fills `out`; sectors that cannot be read become zeros. False when nothing could be read.
fn read_lossy(device: &dyn BlockDevice, offset: u64, out: &mut [u8]) -> bool {
    if device.read(offset, out).is_ok() {
        return true;
    }
    let mut any = false;
    for (i, sector) in out.chunks_mut(4096).enumerate() {
        match device.read(offset + i as u64 * 4096, sector) {
            Ok(()) => any = true,
            Err(_) => sector.fill(0),
        }
    }
    any
}

fn find(haystack: &[u8], needle: &[u8; 8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = haystack.get(at..)?.iter().position(|byte| *byte == needle[0]) {
        at += found;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}
