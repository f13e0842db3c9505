//! The tables of the file.

use millpond_core::record::Class;
use redb::TableDefinition;

/// Version of everything in this crate that is written. A file with a newer one is refused. A table more is no new version: a file that
/// does not have it yet is given it when it is opened for writing.
pub const SCHEMA_VERSION: u32 = 1;

/// State beside the journal: entries by key, each replaced or deleted whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Settings that must survive, of whoever needs them.
    Meta = 1,
    /// How far each consumer has read.
    Cursors = 2,
    /// State of windows and rules with the cursor it is valid at.
    Checkpoints = 3,
    /// Rejected input, by id (u64, big-endian). Written through [`Commit::dead_letters`](crate::Commit::dead_letters).
    DeadLetters = 4,
    /// Notifications that wait for delivery.
    Outbox = 5,
    Alerts = 6,
    Devices = 7,
    /// Retained messages of the broker.
    Retained = 8,
    /// What several nodes may change at once: parts of documents.
    Documents = 9,
    /// What devices reported, by device.
    Twins = 10,
    /// What devices were told to do, by command.
    Commands = 11,
}

impl Table {
    pub const ALL: [Table; 11] = [
        Table::Meta,
        Table::Cursors,
        Table::Checkpoints,
        Table::DeadLetters,
        Table::Outbox,
        Table::Alerts,
        Table::Devices,
        Table::Retained,
        Table::Documents,
        Table::Twins,
        Table::Commands,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Cursors => "cursors",
            Table::Checkpoints => "checkpoints",
            Table::DeadLetters => "dead_letters",
            Table::Outbox => "outbox",
            Table::Alerts => "alerts",
            Table::Devices => "devices",
            Table::Retained => "retained",
            Table::Documents => "documents",
            Table::Twins => "twins",
            Table::Commands => "commands",
        }
    }

    pub(crate) fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name())
    }
}

pub(crate) type ValueTable = TableDefinition<'static, u64, &'static [u8]>;

pub(crate) fn journal(class: Class) -> ValueTable {
    TableDefinition::new(["journal.alert", "journal.state", "journal.pane", "journal.raw"][class as usize])
}

pub(crate) const INDEX: TableDefinition<'static, (u8, u64), &'static [u8]> = TableDefinition::new("index");
pub(crate) const BLOOM: ValueTable = TableDefinition::new("bloom");
pub(crate) const PIECES: TableDefinition<'static, (u8, &'static [u8], u32), &'static [u8]> =
    TableDefinition::new("pieces");
/// What a copy covers: (track, first) → last.
pub(crate) const HELD: TableDefinition<'static, (u8, u64), u64> = TableDefinition::new("held");
pub(crate) const STORE: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("store");

/// Names in the table `store`.
pub(crate) mod names {
    pub const SCHEMA: &str = "schema";
    pub const IDENTITY: &str = "identity";
    pub const USAGE: &str = "usage";
    pub const BALLAST: &str = "ballast";
    /// Only in a copy of another node's journal.
    pub const FLOORS: &str = "floors";
}
