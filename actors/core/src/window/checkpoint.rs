//! What the checkpoints of both halves have in common.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{GroupBy, WindowKind, WindowSpec, stats::Wants};
use crate::time::Span;

/// Raised when the layout of a checkpoint changes.
const VERSION: u32 = 1;

/// Why a checkpoint could not be loaded. The state is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("the checkpoint cannot be read: {0}")]
    Unreadable(#[from] rmp_serde::decode::Error),
    #[error("the checkpoint is of version {0}, which this program does not know")]
    Version(u32),
    #[error("the checkpoint belongs to another definition of the window")]
    Definition,
}

/// The part of a window definition that its state depends on. The rest (bound, lateness, when to emit, which of the kept aggregates
/// to report) may change between a checkpoint and its use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Definition {
    kind: WindowKind,
    size: Option<Span>,
    slide: Option<Span>,
    gap: Option<Span>,
    by: GroupBy,
    wants: Wants,
    metrics: Vec<String>,
    device_types: Vec<String>,
    filter: Option<String>,
}

impl Definition {
    fn of(spec: &WindowSpec) -> Definition {
        Definition {
            kind: spec.kind,
            size: spec.size,
            slide: spec.slide,
            gap: spec.gap,
            by: spec.by,
            wants: Wants::of(spec),
            metrics: spec.metrics.clone(),
            device_types: spec.device_types.clone(),
            filter: spec.filter.clone(),
        }
    }
}

/// MessagePack of `[version, definition, state]`, one after the other, so that a checkpoint of another version is known as such.
pub fn encode<S: Serialize>(spec: &WindowSpec, state: &S) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoded = rmp_serde::encode::write(&mut bytes, &VERSION)
        .and_then(|()| rmp_serde::encode::write(&mut bytes, &Definition::of(spec)))
        .and_then(|()| rmp_serde::encode::write(&mut bytes, state));
    // Writing plain structs to memory has no way to fail.
    assert!(encoded.is_ok(), "a window's state could not be encoded: {encoded:?}");
    bytes
}

pub fn decode<S: DeserializeOwned>(spec: &WindowSpec, bytes: &[u8]) -> Result<S, CheckpointError> {
    let mut rest = bytes;
    let version: u32 = rmp_serde::decode::from_read(&mut rest)?;
    if version != VERSION {
        return Err(CheckpointError::Version(version));
    }
    let definition: Definition = rmp_serde::decode::from_read(&mut rest)?;
    if definition != Definition::of(spec) {
        return Err(CheckpointError::Definition);
    }
    Ok(rmp_serde::decode::from_read(&mut rest)?)
}
