//! The checkpoints that are kept.
//!
//! The newest one is where recovery begins. When events before it come to light that count in another journal ([`LeftOut`]), the windows
//! are to be rebuilt without them, and that takes an older one: so the last checkpoint is kept too before which nothing of that kind
//! can be found any more. Both lie in slots of their own; which slot is which stands in two rows that are written in one commit with
//! the parts.

use std::ops::ControlFlow;

use bytes::Bytes;
use millpond_core::{
    ids::Seq,
    record::{self, Class, LeftOut, RecordKind},
};
use millpond_store::{Put, ReadError, Reader, Table};
use serde::{Deserialize, Serialize};

/// Keys of the rows in [`Table::Checkpoints`] that say what is in the slots.
const CURRENT_ROW: &[u8] = b"current";
const BASE_ROW: &[u8] = b"base";

/// Which parts belong together and where the journal stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRow {
    /// Records up to here are contained in the parts.
    pub cursor: u64,
    pub shards: u32,
    pub parts: Vec<String>,
    pub hlc: u64,
    /// Where the parts lie.
    #[serde(default)]
    pub slot: u8,
}

/// What is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub current: Option<CheckpointRow>,
    /// An older one, as long as something before `current` may have to be left out. With cursor 0 it stands for the journal's beginning.
    pub base: Option<CheckpointRow>,
}

impl Saved {
    /// # Errors
    /// When the store cannot be read.
    pub fn read(reader: &Reader) -> Result<Saved, ReadError> {
        Ok(Saved { current: row(reader, CURRENT_ROW)?, base: row(reader, BASE_ROW)? })
    }

    /// What is to be on disk with a new checkpoint, when records up to `settled` cannot be left out any more. Its slot is chosen here.
    pub fn next(&self, new: CheckpointRow, settled: Seq) -> Saved {
        let slot = self.current.as_ref().map_or(0, |current| current.slot);
        if settled.0 >= new.cursor {
            return Saved { current: Some(CheckpointRow { slot, ..new }), base: None };
        }
        match (&self.current, &self.base) {
            (Some(current), Some(base)) if settled.0 < current.cursor => {
                Saved { current: Some(CheckpointRow { slot, ..new }), base: Some(base.clone()) }
            }
            (Some(current), _) => {
                Saved { current: Some(CheckpointRow { slot: 1 - slot.min(1), ..new }), base: Some(current.clone()) }
            }
            (None, _) => {
                let beginning = CheckpointRow { cursor: 0, shards: new.shards, parts: Vec::new(), hlc: 0, slot: 1 };
                Saved { current: Some(CheckpointRow { slot: 0, ..new }), base: Some(beginning) }
            }
        }
    }

    /// The rows that say so.
    pub fn puts(&self) -> Vec<Put> {
        let put = |key: &[u8], row: &Option<CheckpointRow>| Put {
            table: Table::Checkpoints,
            key: key.to_vec(),
            value: row.as_ref().map(|row| Bytes::from(record::encode(row))),
        };
        vec![put(CURRENT_ROW, &self.current), put(BASE_ROW, &self.base)]
    }

    /// Records up to here cannot be left out any more.
    pub fn settled(&self) -> Seq {
        let row = self.base.as_ref().or(self.current.as_ref());
        Seq(row.map_or(0, |row| row.cursor))
    }

    /// The state that recovery begins with, and what is to be left out after it. Nothing stands for the beginning of the journal.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn begin(self, reader: &Reader) -> Result<(Option<CheckpointRow>, Vec<LeftOut>), ReadError> {
        let from = Seq(self.settled().0);
        let (mut left_out, mut since) = (Vec::new(), Vec::new());
        let cursor = self.current.as_ref().map_or(0, |current| current.cursor);
        reader.scan(Class::State, from.next(), |row| {
            if row.kind == RecordKind::LeftOut {
                let found = record::decode::<Vec<LeftOut>>(row.payload).unwrap_or_default();
                if row.seq.0 > cursor { since.extend(found) } else { left_out.extend(found) }
            }
            ControlFlow::Continue(())
        })?;
        // The newest state does not know of what was left out since; of what comes after it nothing is in it.
        let is_older = |left: &LeftOut| left.record <= cursor;
        let row = match self.base {
            Some(base) if since.iter().any(is_older) => (base.cursor > 0).then_some(base),
            _ => self.current,
        };
        left_out.append(&mut since);
        Ok((row, left_out))
    }
}

fn row(reader: &Reader, key: &[u8]) -> Result<Option<CheckpointRow>, ReadError> {
    let Some(row) = reader.get(Table::Checkpoints, key)? else { return Ok(None) };
    let row = record::decode(&row);
    if row.is_err() {
        tracing::warn!("a checkpoint cannot be read; what it held is replayed");
    }
    Ok(row.ok())
}

/// Key of a part of a checkpoint in [`Table::Checkpoints`].
pub fn part_key(slot: u8, name: &str) -> Vec<u8> {
    if slot == 0 { format!("part/{name}").into_bytes() } else { format!("part{slot}/{name}").into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cursor: u64) -> CheckpointRow {
        CheckpointRow { cursor, shards: 1, parts: Vec::new(), hlc: 0, slot: 0 }
    }

    fn cursors(saved: &Saved) -> (Option<u64>, Option<u64>) {
        (saved.current.as_ref().map(|row| row.cursor), saved.base.as_ref().map(|row| row.cursor))
    }

    #[test]
    fn an_older_checkpoint_is_kept_until_a_newer_one_is_settled() {
        let saved = Saved::default().next(at(10), Seq(0));
        assert_eq!(cursors(&saved), (Some(10), Some(0)));
        let saved = saved.next(at(20), Seq(5));
        assert_eq!(cursors(&saved), (Some(20), Some(0)), "10 was not settled when 20 was made");
        let saved = saved.next(at(30), Seq(20));
        assert_eq!(cursors(&saved), (Some(30), Some(20)));
        assert_eq!(saved.settled(), Seq(20));
        let slots: Vec<u8> = [&saved.current, &saved.base].into_iter().flatten().map(|row| row.slot).collect();
        assert_eq!(slots, [1, 0], "the older one is not written over");
        let saved = saved.next(at(40), Seq(40));
        assert_eq!(cursors(&saved), (Some(40), None));
        assert_eq!(saved.settled(), Seq(40));
    }
}
