//! What a Millpond node remembers: a journal of records by (origin, incarnation, sequence number), and state tables
//! beside it, in one [redb](https://docs.rs/redb) file on a [`BlockDevice`](millpond_core::disk::BlockDevice).
//!
//! Everything is synchronous and deterministic. There is one writer ([`Store`]) and any number of readers
//! ([`Reader`]), which see the last commit and never wait for the writer.
//!
//! A [`Replica`] is a copy of another node's journal, in a file of its own with the same tables: everything that reads a
//! store reads it as well. It has no numbers of its own to give, so the promises 2 to 4 are those of the origin.
//!
//! # What must stay true
//! 1. A commit whose `Ok` was returned is on stable storage, whole. One whose `Err` was returned left nothing behind.
//! 2. Sequence numbers are given once. Each number below the next one is a record that is there, or lies in the range
//!    of a receipt ([`DropRange`](millpond_core::record::DropRange)); records and receipts together count as many.
//! 3. Nothing leaves the journal but oldest first within its class, in a transaction that writes the receipt.
//! 4. Sequence numbers never start again: they go on across incarnations, so that a cursor is a plain number.
//! 5. Each value of the journal can be recognised and checked alone, without the tree around it.
//!
//! # Layout of the file
//! | table | key | value |
//! |---|---|---|
//! | `journal.raw`, `.pane`, `.state`, `.alert` | first sequence number (u64) | many records: see `layout` |
//! | `index` | (class u8, first sequence number u64) | extent of the value, small bloom filters: see `index` |
//! | `bloom` | first sequence number (u64) | bloom filters of more than 32 bytes |
//! | `meta`, `cursors`, … ([`Table`]) | bytes | one entry: see `entries` |
//! | `pieces` | (table u8, key, piece u32) | pieces of entries larger than one value |
//! | `store` | name | identity, schema version, [`Usage`], ballast; in a copy also its floors |
//! | `held` | (track u8, first sequence number u64) | only in a copy: last sequence number of a range that is held |

mod bloom;
mod commit;
mod device;
mod entries;
mod export;
mod fault;
mod file;
mod held;
mod index;
mod layout;
mod options;
mod overlay;
mod packing;
mod reader;
mod repair;
mod replica;
mod retention;
mod salvage;
mod store;
mod tables;
mod transaction;
mod usage;
mod verify;

pub use commit::{Append, Commit, CommitError, Committed, Put, Retention, RetentionRule, Shed};
pub use device::OpenDevice;
pub use export::export;
pub use file::OpenError;
pub use held::Held;
pub use layout::RecordRef;
pub use options::{DeadLetterLimits, Options};
pub use reader::{ReadError, Reader};
pub use repair::{RepairError, Repaired, repair};
pub use replica::{Replica, ReplicaCommit, ReplicaCommitted, ReplicaRun};
pub use store::{Opened, Store};
pub use tables::{SCHEMA_VERSION, Table};
pub use usage::{ClassUsage, DeadLetterUsage, Dropped, Usage};
pub use verify::{Damage, Inspection, Report, inspect, verify};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
