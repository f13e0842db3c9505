//! Bounds and pauses of replication.

use crate::wire;

/// Fetches under way, in all, for raw events, and from one peer.
pub const FETCHES_MAX: usize = 8;
pub const RAW_FETCHES_MAX: usize = 6;
pub const FETCHES_PER_PEER_MAX: usize = 2;
/// Bytes asked for in one fetch.
pub const FETCH_BYTES: u64 = wire::RUN_BYTES_MAX as u64;
/// Sequence numbers asked for in one fetch, however small their records are.
pub const FETCH_NUMBERS_MAX: u64 = 2048;
/// Pushes to one peer of one track that it did not acknowledge. Beyond that pushing pauses, and goes on at the head.
pub const PUSHES_MAX: usize = 64;
/// Peers remembered when they are down.
pub const PEERS_MAX: usize = 256;
/// Lives that are copied here, and that are remembered of one peer.
pub const LIVES_MAX: usize = 1024;
/// Ranges remembered of one peer, life and track.
pub const RANGES_MAX: usize = wire::HELD_RANGES_MAX;

/// What a repair brought is told after this, what came live after the longer pause, and everything again and again after the longest.
pub const ANNOUNCE_SOON_MS: u64 = 100;
pub const ANNOUNCE_LATER_MS: u64 = 2_000;
pub const ANNOUNCE_ALL_MS: u64 = 10_000;
/// How long a record that its origin announced may still come live before it is fetched.
pub const LIVE_GRACE_MS: u64 = 1_000;
/// After a run could not be stored, nothing is fetched for this long.
pub const DISK_PAUSE_MS: u64 = 5_000;
/// A peer whose fetch failed is left alone for this long, doubled with each failure in a row.
pub const BACK_OFF_MS: u64 = 500;
pub const BACK_OFF_MS_MAX: u64 = 30_000;

const _: () = {
    assert!(RAW_FETCHES_MAX < FETCHES_MAX, "results must not wait behind raw events");
    assert!(FETCHES_PER_PEER_MAX < RAW_FETCHES_MAX, "one slow peer must not take every place");
    assert!(ANNOUNCE_SOON_MS < LIVE_GRACE_MS && LIVE_GRACE_MS < ANNOUNCE_ALL_MS);
    assert!(FETCH_BYTES as usize <= wire::FRAME_BYTES_MAX);
};
