//! What must be true of the site.

use millpond_core::{
    ids::{Origin, Seq},
    ranges::RangeSet,
    record::Track,
};

use super::{DiskCopy, REPLICAS, Site, Verdict, node};
use crate::{
    placement,
    replication::{Replication, RunKey, limits::*},
};

impl Site {
    pub(super) fn check_fetch(&self, at: usize, run: RunKey) -> Verdict {
        let same = |of: &RunKey| (of.life, of.track) == (run.life, run.track);
        let twice =
            self.nodes[at].fetches.values().any(|(_, of)| same(of) && of.first <= run.last && run.first <= of.last);
        let here = self.nodes[at].copies.get(&run.life).map(|copy| &copy.covered[run.track as usize]);
        let here = here.is_some_and(|covered| covered.gaps(run.first.0, run.last.0) != [(run.first.0, run.last.0)]);
        let own = run.life.origin == node(at);
        if twice || here || own {
            Err(format!("node {at} fetches {run:?}: twice {twice}, here {here}"))
        } else {
            Ok(())
        }
    }

    pub(super) fn check_confirmed(&mut self, at: usize, head: Seq) -> Verdict {
        self.seen.confirmed += 1;
        let life = self.life(at);
        if head.0 <= self.nodes[at].confirmed || head.0 > self.nodes[at].journal.len() as u64 {
            return Err(format!("node {at} confirms {head:?} after {}", self.nodes[at].confirmed));
        }
        self.nodes[at].confirmed = head.0;
        for (seq, track) in (1..=head.0).zip(&self.nodes[at].journal).skip(self.nodes[at].since as usize) {
            // Or had it, or would give it up at once.
            let holds =
                |copy: &DiskCopy| copy.covered[*track as usize].contains(seq) || seq <= copy.floors[*track as usize];
            let copies = self.nodes.iter().filter(|node| node.copies.get(&life).is_some_and(holds)).count();
            if copies < REPLICAS {
                return Err(format!("node {at} confirms {head:?}, but {copies} others hold {seq}"));
            }
        }
        Ok(())
    }

    pub(super) fn check_converged(&self) -> Verdict {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].machine.is_some()).collect();
        let alive: Vec<Origin> = up.iter().map(|at| node(*at)).collect();
        for (life, written) in &self.written {
            let holders = placement::holders(life.origin, &alive, REPLICAS);
            for track in Track::ALL {
                let mut there = RangeSet::default();
                for at in &up {
                    if self.life(*at) == *life {
                        there.insert(1, written.len() as u64);
                    } else if let Some(copy) = self.nodes[*at].copies.get(life) {
                        let mut offered = copy.covered[track as usize].clone();
                        offered.remove(0, copy.floors[track as usize]);
                        there.merge(&offered);
                    }
                }
                for at in up.iter().filter(|at| node(**at) != life.origin) {
                    if track == Track::Raw && !holders.contains(&node(*at)) {
                        continue;
                    }
                    let none = DiskCopy::default();
                    let copy = self.nodes[*at].copies.get(life).unwrap_or(&none);
                    let mut known = copy.covered[track as usize].clone();
                    known.insert(1, copy.floors[track as usize]);
                    for (first, last) in there.iter() {
                        // Numbers behind the last record of a track need not be told until the next comes.
                        let end = (first..=last).rev().find(|seq| written[*seq as usize - 1] == track).unwrap_or(0);
                        let gaps = known.gaps(first, end);
                        if !gaps.is_empty() {
                            return Err(format!(
                                "node {at} lacks {gaps:?} of {life:?} {track:?}, others have {there:?}"
                            ));
                        }
                    }
                }
            }
        }
        for at in &up {
            let (confirmed, journal) = (self.nodes[*at].confirmed, self.nodes[*at].journal.len() as u64);
            if up.len() > REPLICAS && confirmed != journal {
                return Err(format!("node {at} has {journal} records, confirmed {confirmed}"));
            }
        }
        Ok(())
    }
}

impl Replication {
    /// The sixth promise of the module.
    pub(super) fn check_bounds(&self) -> Verdict {
        let raw = self.fetches.values().filter(|fetch| fetch.run.track == Track::Raw).count();
        if self.fetches.len() > FETCHES_MAX || raw > RAW_FETCHES_MAX {
            return Err(format!("{} fetches under way, {raw} of them raw", self.fetches.len()));
        }
        for (origin, peer) in &self.peers {
            let fetches = self.fetches.values().filter(|fetch| fetch.from == *origin).count();
            let pushes = peer.pushes.iter().map(|pushes| pushes.unacknowledged.len()).max().unwrap_or(0);
            let ranges = peer.held.values().map(|heard| heard.covered.len()).max().unwrap_or(0);
            if fetches > FETCHES_PER_PEER_MAX || pushes > PUSHES_MAX || ranges > 2 * RANGES_MAX {
                return Err(format!("{origin}: {fetches} fetches, {pushes} pushes, {ranges} ranges"));
            }
        }
        Ok(())
    }
}
