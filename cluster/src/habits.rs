//! What a rehearsal asks of a node and no configuration can: to be as a node will be in years, without the years.

use millpond_core::time::Span;
use millpond_proto::documents::OPS_MAX;

pub use crate::transport::Dialect;

use crate::identity::VALID;

/// The default is how every node is that people run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// Operations of a document before its next epoch begins.
    pub document_operations: u64,
    /// How long the certificates are valid that it issues, where the site was founded.
    pub certificate_life: Span,
    /// What it speaks with other nodes.
    pub dialect: Dialect,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits { document_operations: OPS_MAX, certificate_life: VALID, dialect: Dialect::Own }
    }
}
