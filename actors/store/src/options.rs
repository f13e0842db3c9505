//! How a store is opened.

use millpond_core::ids::Incarnation;

/// Settings of a [`Store`](crate::Store). The defaults suit an edge node with a few gigabytes of flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Memory for pages of the file, in bytes; half of it at most holds pages that are not written yet.
    pub cache_bytes: usize,
    /// Above this length of the file, in bytes, each commit also writes which pages are free and costs a second sync;
    /// in return opening after a crash does not read the whole file.
    pub quick_repair_above: u64,
    /// Space that is held back inside the file, in bytes, so that there is room to delete on a full disk.
    pub ballast_bytes: usize,
    pub dead_letters: DeadLetterLimits,
    /// Of a store that is founded. A node that lost its store but not its identity must not give numbers of an
    /// incarnation that others have copies of.
    pub fresh_incarnation: Incarnation,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 8 << 20,
            quick_repair_above: 128 << 20,
            ballast_bytes: 512 << 10,
            dead_letters: DeadLetterLimits::default(),
            fresh_incarnation: Incarnation(1),
        }
    }
}

/// How many dead letters are kept; past either bound the oldest go, and are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterLimits {
    pub count_max: u64,
    pub bytes_max: u64,
}

impl Default for DeadLetterLimits {
    fn default() -> DeadLetterLimits {
        DeadLetterLimits { count_max: 100_000, bytes_max: 64 << 20 }
    }
}
