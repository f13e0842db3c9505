//! What a run leaves behind for the checkers: the journals as they are on the disks, what the floor saw, and what was done to the site.

use std::collections::BTreeMap;

use millpond_actors::config::Config;
use millpond_cluster::habits::Dialect;
use millpond_core::ids::{Incarnation, Origin};
use millpond_store::{Reader, Replica, Store};

use crate::{
    scenario::{Injection, Scenario},
    witness::Witness,
    world::{core::Instant, disk::DiskStats, net::NetStats, trace::Divergence},
};

/// One numbering of records: a node between two losses of its data.
pub type Life = (Origin, Incarnation);

/// Everything known after a run.
pub struct Evidence {
    pub scenario: Scenario,
    pub seed: u64,
    pub witness: Witness,
    pub nodes: Vec<NodeEvidence>,
    /// In the order of time.
    pub injections: Vec<Injection>,
    pub net: NetStats,
    /// When devices stopped measuring, and when the run was over.
    pub ended: (Instant, Instant),
    pub divergence: Option<Divergence>,
}

/// One node, after it was stopped in good order.
pub struct NodeEvidence {
    pub name: String,
    pub config: Config,
    /// Its journal; `Err`: why it could not be opened at the end.
    pub journal: Result<Store, String>,
    /// Whose journal that is.
    pub life: Life,
    /// Its copies of other nodes' journals.
    pub copies: Vec<CopyEvidence>,
    /// Its copies of other sites' records.
    pub others: Vec<OtherCopy>,
    pub disk: DiskStats,
    pub boots: u32,
    /// Times at which the wall clock was changed, and by how many ns it was wrong from then on.
    pub clock_errors: Vec<(Instant, i64)>,
    /// When an operator repaired the journal, and what came of it.
    pub repairs: Vec<(Instant, String)>,
    /// When its program was up: begin and end. The last stretch ends with the run.
    pub up: Vec<(Instant, Instant)>,
    pub samples: Vec<Sample>,
    /// Why starts of the program failed, with how often.
    pub failed_starts: BTreeMap<String, u64>,
}

/// A copy of another node's journal.
pub struct CopyEvidence {
    pub life: Life,
    /// `Err`: why it could not be opened at the end.
    pub replica: Result<Replica, String>,
}

/// A copy of records of another site.
pub struct OtherCopy {
    pub site: String,
    pub life: Life,
    /// `Err`: why it could not be opened at the end.
    pub replica: Result<Replica, String>,
}

/// Sizes at a point in time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub at: Instant,
    pub up: bool,
    pub disk_used: u64,
    pub disk_free: u64,
    /// Bytes in the network towards the node's programs.
    pub buffered: u64,
    /// The node's own metrics, by name with labels, as `/metrics` shows them; counters of one boot.
    pub metrics: BTreeMap<String, f64>,
}

impl NodeEvidence {
    /// # Errors
    /// Why the journal could not be opened.
    pub fn reader(&self) -> Result<Reader, &str> {
        self.journal.as_ref().map(Store::reader).map_err(String::as_str)
    }
}

impl Evidence {
    /// The site that a node belongs to, if it speaks as the others there.
    pub fn site_of(&self, node: &NodeEvidence) -> Option<&str> {
        let spec = self.scenario.nodes.iter().find(|spec| spec.name == node.name)?;
        spec.site.as_deref().filter(|_| spec.wire != Dialect::Alien)
    }

    /// A node and the others of its site; a box on its own is alone.
    pub fn mates<'a>(&'a self, node: &'a NodeEvidence) -> Vec<&'a NodeEvidence> {
        match self.site_of(node) {
            Some(site) => self.nodes.iter().filter(|other| self.site_of(other) == Some(site)).collect(),
            None => vec![node],
        }
    }

    /// When nodes were asked to end.
    pub fn stopped(&self) -> Instant {
        self.ended.0.after(self.scenario.settle.0.max(0) as u64)
    }

    pub fn node(&self, name: &str) -> Option<&NodeEvidence> {
        self.nodes.iter().find(|node| node.name == name)
    }
}
