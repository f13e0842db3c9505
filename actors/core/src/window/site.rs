//! The panes of a site: every node that took events of a window's key says its *share*, and the pane is their merge.
//!
//! A share is named by whose it is (origin and store); of two of the same name the one with the higher revision holds. So the state of
//! a site's pane is a map from origin to (revision, partial aggregates) whose join is the greater revision per origin: it can be
//! told in any order and any number of times, and all who know the same shares see the same pane (Almeida et al., "Delta state
//! replicated data types", 2018).
//!
//! Whoever holds the records of a node that is gone can say its share for it: the share is a function of the records, so that it is the same,
//! revision and all, that the node itself says when it is back.
//!
//! Limits. Sessions of one key on several nodes are not joined: their bounds differ. Windows `by = "node"` are of each node alone.

use super::{GroupBy, Pane, PartMetric, WindowSpec, delta::merge};

/// Whether the panes of this window are merged from the shares of all nodes.
pub fn of_site(spec: &WindowSpec) -> bool {
    spec.by != GroupBy::Node
}

/// The pane of the site from the newest share of each node, of one window, key, start and end. The order does not matter.
///
/// A pane of a device is closed when one node saw the device's watermark pass its end; one of a group when all did.
/// A share that carries no partial aggregates counts only when it is alone. A pane that was merged already holds as it is.
pub fn merge_shares(spec: &WindowSpec, shares: &[&Pane]) -> Option<Pane> {
    // Several nodes may merge the panes of other sites: each says all of it.
    if let Some(merged) = shares.iter().filter(|share| share.merged).max_by_key(|share| share.revision) {
        return Some((*merged).clone());
    }
    let (first, rest) = shares.split_first()?;
    if rest.is_empty() {
        return Some(Pane { share: None, of: None, ..(*first).clone() });
    }
    let mut metrics: Vec<PartMetric> = Vec::new();
    for share in shares {
        merge(&mut metrics, share.share.as_deref().unwrap_or_default());
    }
    // Nothing is added to the share of a node that is gone, so that it holds no window open, unless there are no others.
    let present = |share: &&&Pane| !share.is_retraction() && share.of.is_none();
    let counted: Vec<bool> = match shares.iter().filter(present).count() {
        0 => shares.iter().map(|share| share.open).collect(),
        _ => shares.iter().filter(present).map(|share| share.open).collect(),
    };
    let open = if spec.by == GroupBy::Device { counted.iter().all(|open| *open) } else { counted.contains(&true) };
    let said: u32 = shares.iter().fold(0, |said, share| said.saturating_add(share.revision).saturating_add(1));
    Some(Pane {
        window: first.window.clone(),
        key: first.key.clone(),
        start: first.start,
        end: first.end,
        revision: said - 1,
        open,
        metrics: metrics.iter().map(|metric| metric.stats.report(&metric.name, spec)).collect(),
        share: None,
        of: None,
        merged: false,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        time::Timestamp,
        window::{Delta, Panes, Part, Progress, Stats, WindowEffect, stats::Wants},
    };

    fn spec(by: GroupBy) -> WindowSpec {
        WindowSpec { by, ..crate::window::testing::tumbling(10) }
    }

    fn part(values: &[f64]) -> Part {
        let mut stats = Stats::default();
        for (at, value) in values.iter().enumerate() {
            stats.add(Timestamp(at as i64), *value, Wants::default());
        }
        Part { start: Timestamp(0), end: Timestamp(10_000_000), metrics: vec![PartMetric { name: "t".into(), stats }] }
    }

    /// What a node says of the window when its device has passed the end, or is idle before that.
    fn share(spec: &WindowSpec, values: &[f64], progress: Progress) -> Pane {
        let mut panes = Panes::new(Arc::new(spec.clone()), 1).with_shares(true);
        let mut out = Vec::new();
        let judged = Timestamp(i64::MIN);
        let delta = Delta { key: "d".into(), judged, progress, parts: vec![part(values)], late: vec![] };
        panes.apply(0, vec![delta], &mut out);
        let fired = out.into_iter().find_map(|effect| match effect {
            WindowEffect::Fire(pane) => Some(pane),
            _ => None,
        });
        fired.expect("it fires")
    }

    #[test]
    fn shares_of_two_nodes_add_up_in_any_order() {
        let spec = spec(GroupBy::Device);
        let whole = share(&spec, &[1.0, 2.0, 4.0, 8.0], Progress::Reached(Timestamp(20_000_000)));
        let left = share(&spec, &[1.0, 8.0], Progress::Idle);
        let right = share(&spec, &[4.0, 2.0], Progress::Reached(Timestamp(20_000_000)));
        assert!(left.open && !right.open);
        let merged = merge_shares(&spec, &[&left, &right]).unwrap();
        assert_eq!(merged.metrics, whole.metrics);
        assert!(!merged.open, "the device went on where the window was closed");
        assert_eq!(merge_shares(&spec, &[&right, &left]).unwrap(), merged);
    }

    #[test]
    fn a_group_is_open_as_long_as_one_node_holds_it_open() {
        let spec = spec(GroupBy::Site);
        let left = Pane { open: true, ..share(&spec, &[1.0], Progress::Reached(Timestamp(20_000_000))) };
        let right = share(&spec, &[4.0], Progress::Reached(Timestamp(20_000_000)));
        assert!(merge_shares(&spec, &[&left, &right]).unwrap().open);
    }

    #[test]
    fn a_share_that_contradicts_itself_is_merged_all_the_same() {
        let spec = WindowSpec { quantiles: vec![0.5, f64::NAN], ..spec(GroupBy::Device) };
        let mut stats = Stats::default();
        stats.add(Timestamp(1), 2.0, Wants { sketch: true, ..Wants::default() });
        // The least of its values is greater than the greatest.
        (stats.count, stats.skipped, stats.min, stats.max) = (u64::MAX, u64::MAX, 5.0, -5.0);
        let made_up = vec![PartMetric { name: "t".into(), stats }];
        let left = Pane { share: Some(made_up), ..share(&spec, &[1.0], Progress::Idle) };
        let merged = merge_shares(&spec, &[&left, &left]).unwrap();
        assert_eq!((merged.metrics[0].count, merged.metrics[0].min), (u64::MAX, Some(5.0)));
    }

    #[test]
    fn a_pane_that_was_merged_already_holds_as_it_is() {
        let spec = spec(GroupBy::Site);
        let share = share(&spec, &[1.0], Progress::Reached(Timestamp(20_000_000)));
        let said = |revision| Pane { revision, merged: true, share: None, ..share.clone() };
        let merged = merge_shares(&spec, &[&share, &said(3), &said(2)]);
        assert_eq!(merged, Some(said(3)));
    }

    #[test]
    fn what_was_taken_back_adds_nothing() {
        let spec = spec(GroupBy::Device);
        let left = share(&spec, &[1.0], Progress::Reached(Timestamp(20_000_000)));
        let right = Pane { metrics: Vec::new(), share: None, ..left.clone() };
        assert_eq!(merge_shares(&spec, &[&left, &right]).unwrap().metrics, left.metrics);
    }
}
