//! What a run leaves behind for the checkers: the journals as they are on the disks, what the floor saw, and what was done to the site.

use std::collections::BTreeMap;

use millpond_actors::config::Config;
use millpond_cluster::habits::Dialect;
use millpond_core::ids::{Incarnation, Origin};
use millpond_lake::{Lake, Source};
use millpond_proto::RangeSet;
use millpond_store::{Reader, Replica, Store};

use crate::{
    scenario::{Injection, Scenario},
    witness::Witness,
    world::{bucket::StoreStats, clock::EPOCH, core::Instant, disk::DiskStats, net::NetStats, trace::Divergence},
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
    /// What it told of the results of sites, when it is one of a cloud.
    pub given: Vec<Given>,
    /// Its archive, when it is one of a cloud.
    pub lake: Option<LakeEvidence>,
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

/// What a node of a cloud has archived, as it is in the object store.
pub struct LakeEvidence {
    /// `Err`: why it could not be opened at the end.
    pub lake: Result<Lake, String>,
    pub store: StoreStats,
}

/// Results of a life that a node of a cloud told of in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Boots of the node, and disks that it had lost.
    pub boot: (u32, u32),
    pub site: String,
    pub life: Life,
    /// In the order in which they were told.
    pub records: Vec<GivenRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenRecord {
    pub seq: u64,
    /// Lives in whose place something is said in it, and up to which number each was known.
    pub of: Vec<(Life, u64)>,
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
    /// Bytes that went over its lines to clouds, either way, by the cloud's site.
    pub carried: BTreeMap<String, u64>,
    /// The node's own metrics, by name with labels, as `/metrics` shows them; counters of one boot.
    pub metrics: BTreeMap<String, f64>,
}

impl NodeEvidence {
    /// # Errors
    /// Why the journal could not be opened.
    pub fn reader(&self) -> Result<Reader, &str> {
        self.journal.as_ref().map(Store::reader).map_err(String::as_str)
    }

    /// Numbers of records of events of another site that count in its archive.
    pub fn archived(&self, site: &str, (origin, incarnation): Life) -> RangeSet {
        let lake = self.lake.as_ref().and_then(|archive| archive.lake.as_ref().ok());
        let source = Source { site: site.into(), origin, incarnation };
        lake.and_then(|lake| lake.manifest().ledger.of(&source).cloned()).unwrap_or_default()
    }

    /// When its wall clock said so, in true ms since 1970; drift is left out of account.
    pub fn true_ms(&self, wall_ms: i64) -> i64 {
        let began = |at: Instant| EPOCH.as_millis() + (at.0 / 1_000_000) as i64;
        let mut said = self.clock_errors.iter().rev().map(|(at, error)| (*at, wall_ms - error / 1_000_000));
        said.clone().find(|(at, ms)| *ms >= began(*at)).or_else(|| said.next_back()).map_or(wall_ms, |(_, ms)| ms)
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
