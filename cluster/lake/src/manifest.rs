//! What the lake holds, as one value: a manifest names all files, and whose records they are made of.
//!
//! On the store it is JSON, compressed with a checksum by zstd. Keys that this program does not know are kept.

use std::{collections::BTreeMap, sync::Arc};

use millpond_core::{ranges::RangeSet, time::Timestamp, value::ValueType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::{LakeError, Result},
    names,
};

mod edit;
mod ledger;
pub(crate) use edit::{Edit, NewFile, older_than};
pub use ledger::{Ledger, Source};

pub const FORMAT: u32 = 1;
/// Manifests that stay readable after they were replaced, whatever their age. A commit brings in no file that was written for a manifest
/// further back than that, so that what is older and unknown can be swept away.
pub const KEPT: u64 = 64;
/// Sources of a file that are listed one by one.
pub const SPANS_MAX: usize = 64;
/// Devices of a tenant that are listed by name.
pub const NAMES_MAX: usize = 200_000;
/// A manifest unpacked.
const BYTES_MAX: usize = 1 << 30;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub number: u64,
    /// When it was written, by its writer's clock.
    pub at_ms: i64,
    /// The manifests before this one with the hashes of their bytes, newest first, up to [`KEPT`]: who finds a later one sees in it
    /// whether his own was built upon.
    pub before: Vec<(u64, String)>,
    pub files: Vec<File>,
    /// Columns of the files, by [`File::shape`].
    pub shapes: BTreeMap<String, Vec<MetricOf>>,
    /// Devices by tenant. A place is empty when its device is gone.
    pub devices: BTreeMap<String, Vec<Arc<str>>>,
    pub ledger: Ledger,
    pub forgotten: Vec<Tombstone>,
    pub dropped: Vec<Dropped>,
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    #[default]
    Warm,
    Cold,
}

/// The unit of the times of a file: the coarsest in which they are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Ms,
    Us,
    Ns,
}

impl Unit {
    pub fn nanos(self) -> i64 {
        [1_000_000, 1_000, 1][self as usize]
    }

    pub(crate) fn of(time: i64) -> Unit {
        [Unit::Ms, Unit::Us].into_iter().find(|unit| time % unit.nanos() == 0).unwrap_or(Unit::Ns)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricOf {
    pub name: String,
    #[serde(rename = "type")]
    pub value_type: ValueType,
    pub unit: String,
}

/// Records of one source, some of whose events stand in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanOf {
    #[serde(flatten)]
    pub source: Source,
    pub first: u64,
    pub last: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    pub path: String,
    pub tier: Tier,
    pub tenant: Arc<str>,
    /// Days since 1970, and the same as a date.
    pub day: i32,
    pub date: String,
    pub shape: String,
    pub unit: Unit,
    pub rows: u64,
    pub bytes: u64,
    /// Where the part begins that is read and checked as a whole before anything else, and its CRC-32: the last bytes of the rows, page
    /// indices and footer.
    pub tail: u64,
    pub tail_crc: u32,
    pub min_time: Timestamp,
    pub max_time: Timestamp,
    pub min_device: Arc<str>,
    pub max_device: Arc<str>,
    /// Places in [`Manifest::devices`], as ranges; `None` when the tenant has more than can be listed.
    pub devices: Option<Vec<(u64, u64)>>,
    /// `None` when there are more than [`SPANS_MAX`].
    pub spans: Option<Vec<SpanOf>>,
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// A device that was forgotten: its events up to `until` are not taken any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub tenant: Arc<str>,
    pub device: Arc<str>,
    pub until: Timestamp,
}

/// What became too old.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub tenant: Arc<str>,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    /// The latest day of which something was dropped, since 1970.
    pub day: i32,
}

impl Manifest {
    /// Of a lake that nobody has written to.
    pub fn empty() -> Manifest {
        Manifest { format: FORMAT, ..Manifest::default() }
    }

    pub fn path(&self) -> String {
        names::manifest_path(self.number)
    }

    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Where a device stands in the list of its tenant.
    pub(crate) fn place_of(&self, tenant: &str, device: &str) -> Option<u64> {
        let devices = self.devices.get(tenant)?;
        devices.iter().position(|name| **name == *device).map(|at| at as u64)
    }

    /// Whether `file` may have rows of a device, whose place is known or not.
    pub(crate) fn may_hold(file: &File, device: &str, place: Option<u64>) -> bool {
        let between = *file.min_device <= *device && *device <= *file.max_device;
        between
            && match (&file.devices, place) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(ranges), Some(place)) => ranges.iter().any(|(first, last)| (*first..=*last).contains(&place)),
            }
    }

    /// Until when the events of a device are not wanted.
    pub fn forgotten_until(&self, tenant: &str, device: &str) -> Option<Timestamp> {
        let of_it = |stone: &&Tombstone| *stone.tenant == *tenant && *stone.device == *device;
        self.forgotten.iter().filter(of_it).map(|stone| stone.until).max()
    }

    pub(crate) fn devices_of(&self, file: &File) -> Option<impl Iterator<Item = &Arc<str>>> {
        let names = self.devices.get(&*file.tenant).map_or(&[][..], Vec::as_slice);
        let ranges: RangeSet = file.devices.as_ref()?.iter().copied().collect();
        let places = ranges.iter().flat_map(|(first, last)| first..=last).collect::<Vec<_>>();
        Some(places.into_iter().filter_map(|place| names.get(place as usize)))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).unwrap_or_else(|error| panic!("a manifest is JSON: {error}"));
        pack(&json).unwrap_or_else(|error| panic!("memory can be written to: {error}"))
    }

    pub(crate) fn decode(path: &str, bytes: &[u8]) -> Result<Manifest> {
        let json = unpack(bytes).map_err(|error| LakeError::damaged(path, error))?;
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(&json).map_err(|error| LakeError::damaged(path, error))?;
        if head.format != FORMAT {
            return Err(LakeError::Format { path: path.to_owned(), format: head.format });
        }
        let manifest: Manifest = serde_json::from_slice(&json).map_err(|error| LakeError::damaged(path, error))?;
        if names::number_of_manifest(path) != Some(manifest.number) {
            return Err(LakeError::damaged(path, format!("it says to be number {}", manifest.number)));
        }
        Ok(manifest)
    }
}

fn pack(json: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3)?;
    encoder.include_checksum(true)?;
    std::io::Write::write_all(&mut encoder, json)?;
    encoder.finish()
}

fn unpack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, Read};
    // The third bit of the frame's descriptor says that a checksum follows. Nobody here writes without.
    if bytes.get(4).is_none_or(|descriptor| descriptor & 4 == 0) {
        return Err(Error::other("it has no checksum"));
    }
    let mut json = Vec::new();
    zstd::Decoder::new(bytes)?.single_frame().take(BYTES_MAX as u64).read_to_end(&mut json)?;
    Ok(json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> Manifest {
        let mut manifest = Manifest { number: 7, at_ms: 5, ..Manifest::empty() };
        let source = Source { site: "north".into(), origin: Default::default(), incarnation: Default::default() };
        manifest.ledger.take(&source, 1, 10);
        manifest.more.insert("moon".into(), Value::from(3));
        manifest
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_with_what_nobody_knows() {
        let manifest = some();
        assert_eq!(Manifest::decode(&manifest.path(), &manifest.encode()).unwrap(), manifest);
    }

    #[test]
    fn a_manifest_of_another_number_or_format_is_not_taken() {
        let manifest = some();
        let other = Manifest::decode(&names::manifest_path(8), &manifest.encode());
        assert!(matches!(other, Err(LakeError::Damaged { .. })));
        let later = Manifest { format: 2, ..some() };
        assert!(matches!(Manifest::decode(&later.path(), &later.encode()), Err(LakeError::Format { format: 2, .. })));
    }

    proptest! {
        #[test]
        fn a_damaged_manifest_is_an_error(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let manifest = some();
            let mut bytes = manifest.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            // What is read in spite of it must be what was written.
            if let Ok(read) = Manifest::decode(&manifest.path(), &bytes) {
                prop_assert_eq!(read, manifest);
            }
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::decode(&names::manifest_path(1), &bytes);
            let packed = pack(&bytes).unwrap();
            prop_assert!(Manifest::decode(&names::manifest_path(1), &packed).is_err());
        }
    }

    #[test]
    fn the_coarsest_unit_holds_a_time_whole() {
        assert_eq!([0, -5_000_000, 1_000, 1].map(Unit::of), [Unit::Ms, Unit::Ms, Unit::Us, Unit::Ns]);
    }
}
