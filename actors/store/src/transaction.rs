//! The bodies of the store's write transactions.

use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    limits::{RECORD_BYTES_MAX, STATE_KEY_BYTES_MAX},
    record::{Class, DropRange, Hlc},
};
use redb::WriteTransaction;

use crate::{
    commit::{Commit, Committed, Put, Shed},
    entries,
    fault::Fault,
    file::State,
    layout::{Author, u32_at},
    options::{DeadLetterLimits, Options},
    packing,
    retention::{self, Receipts},
    tables::{self, SCHEMA_VERSION, STORE, Table, names},
    usage::Usage,
};

/// Whose file it is.
///
/// ```text
/// 0 16 origin   16 4 incarnation   20 4 boots of the store   24 4 CRC32 of that
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub origin: Origin,
    pub incarnation: Incarnation,
    /// Raised at each opening of the file by a process.
    pub boots: u32,
}

impl Identity {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.origin.0.to_vec();
        out.extend_from_slice(&self.incarnation.0.to_le_bytes());
        out.extend_from_slice(&self.boots.to_le_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(row: &[u8]) -> Result<Identity, Fault> {
        if row.len() != 28 || crc32fast::hash(&row[..24]) != u32_at(row, 24) {
            return Err(Fault::corrupt("the node's identity is damaged"));
        }
        let mut origin = Origin::default();
        origin.0.copy_from_slice(&row[..16]);
        Ok(Identity { origin, incarnation: Incarnation(u32_at(row, 16)), boots: u32_at(row, 20) })
    }
}

/// Creates every table and writes identity and empty usage.
pub(crate) fn found(txn: &WriteTransaction, identity: Identity, state: &State) -> Result<(), Fault> {
    for class in Class::ALL {
        txn.open_table(tables::journal(class))?;
    }
    state_tables(txn)?;
    txn.open_table(tables::INDEX)?;
    txn.open_table(tables::BLOOM)?;
    txn.open_table(tables::PIECES)?;
    let mut store = txn.open_table(STORE)?;
    store.insert(names::SCHEMA, SCHEMA_VERSION.to_le_bytes().as_slice())?;
    store.insert(names::IDENTITY, identity.encode().as_slice())?;
    store.insert(names::USAGE, state.usage.encode().as_slice())?;
    if let Some(held) = &state.held {
        txn.open_table(tables::HELD)?;
        store.insert(names::FLOORS, held.encode_floors().as_slice())?;
    }
    Ok(())
}

/// Creates the state tables that are not there: all of a new file, those of later programs in an older one.
pub(crate) fn state_tables(txn: &WriteTransaction) -> Result<(), Fault> {
    for table in Table::ALL {
        txn.open_table(table.definition())?;
    }
    Ok(())
}

/// The usage of a file that holds nothing yet.
pub(crate) fn empty_usage() -> Usage {
    let mut usage = Usage { next_seq: Seq(1), ..Usage::default() };
    usage.dead_letters.next_id = 1;
    usage
}

/// Checks a commit against the bounds; the text names what is wrong.
pub(crate) fn check(commit: &Commit) -> Result<(), String> {
    for (at, append) in commit.records.iter().enumerate() {
        if append.payload.len() > RECORD_BYTES_MAX {
            let bytes = append.payload.len();
            return Err(format!("record {at} has {bytes} bytes, more than {RECORD_BYTES_MAX}"));
        }
    }
    check_puts(&commit.puts)?;
    if commit.records.len() + commit.puts.len() + commit.dead_letters.len() > u32::MAX as usize / 4 {
        return Err("more than 2^30 items".into());
    }
    Ok(())
}

pub(crate) fn check_puts(puts: &[Put]) -> Result<(), String> {
    for (at, put) in puts.iter().enumerate() {
        if put.key.is_empty() || put.key.len() > STATE_KEY_BYTES_MAX {
            let bytes = put.key.len();
            return Err(format!("the key of put {at} has {bytes} bytes, not 1 to {STATE_KEY_BYTES_MAX}"));
        }
        if put.table == Table::DeadLetters {
            return Err(format!("put {at} goes to the dead letters, which have a list of their own"));
        }
    }
    Ok(())
}

/// The one transaction of a commit, shedding apart.
pub(crate) fn write(
    txn: &WriteTransaction,
    usage: &mut Usage,
    author: Author,
    commit: &Commit,
    limits: DeadLetterLimits,
) -> Result<Committed, Fault> {
    let (first, first_dead_letter) = (usage.next_seq, usage.dead_letters.next_id);
    let bytes = packing::append(txn, usage, author, &commit.records)?;
    entries::apply(txn, &commit.puts)?;
    let dead_letters_dropped =
        entries::dead_letters(txn, usage, &commit.dead_letters, &commit.forget_dead_letters, limits)?;
    let mut receipts = Receipts::default();
    if let Some(retention) = &commit.retain {
        retention::retain(txn, usage, retention, commit.now_ms, first, &mut receipts)?;
    }
    let (dropped, receipt_bytes) = receipts.write(txn, usage, author, receipt_hlc(commit))?;
    let (records, bytes) = (commit.records.len() as u64, bytes + receipt_bytes);
    Ok(Committed { first, records, bytes, first_dead_letter, dropped, dead_letters_dropped })
}

/// The transaction before it that makes room.
pub(crate) fn shed(
    txn: &WriteTransaction,
    usage: &mut Usage,
    author: Author,
    commit: &Commit,
    shed: &Shed,
) -> Result<Vec<DropRange>, Fault> {
    let mut receipts = Receipts::default();
    retention::shed(txn, usage, shed, &commit.retain.unwrap_or_default(), &mut receipts)?;
    Ok(receipts.write(txn, usage, author, receipt_hlc(commit))?.0)
}

/// Puts the ballast in or takes it out.
pub(crate) fn set_ballast(txn: &WriteTransaction, options: &Options, present: bool) -> Result<(), Fault> {
    let mut store = txn.open_table(STORE)?;
    if present {
        // Not zeros: a file system that compresses would give no room for them.
        let mut noise = 0x9e37_79b9_7f4a_7c15u64;
        let ballast: Vec<u8> = (0..options.ballast_bytes)
            .map(|_| {
                noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                (noise >> 56) as u8
            })
            .collect();
        store.insert(names::BALLAST, ballast.as_slice())?;
    } else {
        store.remove(names::BALLAST)?;
    }
    Ok(())
}

/// Receipts carry the clock of the records they come with, or the wall clock's.
fn receipt_hlc(commit: &Commit) -> Hlc {
    let wall = Hlc((commit.now_ms.max(0) as u64) << 16);
    commit.records.iter().map(|record| record.hlc).fold(wall, Hlc::max)
}
