//! The supervision tree, as a page.
//!
//! ```text
//! root
//! ├─ journal               fails → the node ends: without it nothing can be acknowledged
//! ├─ directory             fails → it alone is started again
//! │   └─ device …          on demand, passivated when idle; fails → started again when next needed
//! ├─ notifier              fails → it alone is started again, and goes on from the outbox
//! └─ plane                 one fails → all are replaced, rebuilt from the checkpoint and the journal
//!     ├─ alerts
//!     ├─ window …          one per definition
//!     └─ shard …           one per `node.shards`
//! ```
//!
//! Children start in this order; at the end of the node shards stop first and the journal last.

use millpond_core::time::Span;
use millpond_env::Mono;

/// What happens when an actor fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The failed one is started again.
    OneForOne,
    /// All of the branch are replaced.
    OneForAll,
    /// The node ends, and whoever started it starts it again.
    NodeEnds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    Journal,
    Directory,
    Notifier,
    Plane,
}

/// More failures than this within the time, and the node ends: starting again does not help.
#[derive(Clone, Copy, Debug)]
pub struct Intensity {
    pub failures: usize,
    pub within: Span,
}

pub const TREE: [(Branch, Strategy, Intensity); 4] = [
    (Branch::Journal, Strategy::NodeEnds, Intensity { failures: 0, within: Span::ZERO }),
    (Branch::Directory, Strategy::OneForOne, Intensity { failures: 5, within: Span::from_secs(60) }),
    (Branch::Notifier, Strategy::OneForOne, Intensity { failures: 5, within: Span::from_secs(60) }),
    (Branch::Plane, Strategy::OneForAll, Intensity { failures: 8, within: Span::from_secs(60) }),
];

/// Remembers failures of one branch.
#[derive(Debug, Default)]
pub struct Failures(Vec<Mono>);

impl Failures {
    /// What to do about a failure of `branch` now.
    pub fn judge(&mut self, branch: Branch, now: Mono) -> Strategy {
        let (_, strategy, intensity) = TREE[branch as usize];
        self.0.retain(|at| now.since(*at) < intensity.within);
        self.0.push(now);
        if self.0.len() > intensity.failures { Strategy::NodeEnds } else { strategy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_that_fails_too_often_ends_the_node() {
        let mut failures = Failures::default();
        for n in 0..8 {
            assert_eq!(failures.judge(Branch::Plane, Mono(n)), Strategy::OneForAll);
        }
        assert_eq!(failures.judge(Branch::Plane, Mono(9)), Strategy::NodeEnds);
        let later = Mono(0).after(Span::from_secs(120));
        assert_eq!(failures.judge(Branch::Plane, later), Strategy::OneForAll);
        assert_eq!(failures.judge(Branch::Journal, Mono(0)), Strategy::NodeEnds);
    }

    #[test]
    fn the_tree_lists_its_branches_in_order() {
        for (index, (branch, _, _)) in TREE.iter().enumerate() {
            assert_eq!(*branch as usize, index);
        }
    }
}
