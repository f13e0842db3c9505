//! Under which definitions alerts begin to fire, and how many did. It is on disk with the alerts themselves, so that a start in between forgets
//! none: who rolls definitions out counts what they raise.

use bytes::Bytes;
use millpond_core::record;
use millpond_store::{Put, ReadError, Reader, Table};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

const KEY: &[u8] = b"definitions";

/// Windows, rules, schemas and kinds of devices, as a site agreed on them last. What the configuration alone says while a node starts does
/// not count as other definitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defined {
    hash: String,
    /// Goes up when they become others.
    pub number: u32,
    /// Alerts that began to fire since then.
    pub fired: u64,
}

impl Defined {
    /// # Errors
    /// When the store cannot be read. A row that nobody understands counts as none.
    pub fn read(reader: &Reader) -> Result<Defined, ReadError> {
        let row = reader.get(Table::Meta, KEY)?;
        Ok(row.and_then(|row| record::decode(&row).ok()).unwrap_or_default())
    }

    pub fn put(&self) -> Put {
        Put { table: Table::Meta, key: KEY.to_vec(), value: Some(Bytes::from(record::encode(self))) }
    }

    /// These definitions hold from now on; whether they are others than before.
    pub fn agree(&mut self, settings: &Settings) -> bool {
        let Settings { device_types, schemas, windows, rules, .. } = settings;
        let hash = blake3::hash(&record::encode(&(device_types, schemas, windows, rules)));
        let hash = hash.to_hex()[..16].to_owned();
        let are_others = hash != self.hash;
        if are_others {
            *self = Defined { hash, number: self.number.wrapping_add(1), fired: 0 };
        }
        are_others
    }
}
