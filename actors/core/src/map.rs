//! Hash maps with a fixed hasher: as fast as the standard ones, and iterating in the same order in every run.

use std::collections::{HashMap, HashSet};

pub type FixedMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
pub type FixedSet<K> = HashSet<K, foldhash::fast::FixedState>;
