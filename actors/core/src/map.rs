//! Hash maps with a fixed hasher: as fast as the standard ones, and iterating in the same order in every run.
#![expect(clippy::disallowed_types, reason = "only here: the hasher is fixed")]

use std::collections::{HashMap, HashSet};

pub type FixedMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
pub type FixedSet<K> = HashSet<K, foldhash::fast::FixedState>;
