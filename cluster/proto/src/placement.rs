//! Which nodes hold the raw records of an origin.
//!
//! Rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998): each node gets a score for each
//! origin, and the highest win. When a node comes or goes, only the origins move that it wins or won; nobody has to agree on anything
//! but who is alive.

use millpond_core::ids::Origin;

/// The `replicas` members that hold the raw records of `origin`, best first; itself is never among them. Fewer when there are not as many.
pub fn holders(origin: Origin, members: &[Origin], replicas: usize) -> Vec<Origin> {
    let mut scored: Vec<(u64, Origin)> =
        members.iter().filter(|member| **member != origin).map(|member| (score(origin, *member), *member)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.dedup();
    scored.into_iter().take(replicas).map(|(_, member)| member).collect()
}

/// Never changes: nodes of different versions must choose the same (FNV-1a with 64 bits, finished by MurmurHash3's mixer).
pub(crate) fn score(origin: Origin, member: Origin) -> u64 {
    let bytes = origin.0.iter().chain(&member.0);
    let fnv =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> Origin {
        Origin([number; 16])
    }

    #[test]
    fn the_choice_never_changes() {
        let members: Vec<Origin> = (0..8).map(node).collect();
        let names = |origin| holders(node(origin), &members, 3).iter().map(|node| node.0[0]).collect::<Vec<_>>();
        assert_eq!(score(node(1), node(2)), 11_203_020_043_870_428_281);
        assert!(!names(3).contains(&3));
        assert_eq!(names(3).len(), 3);
        assert_eq!(holders(node(1), &[node(1)], 2), []);
        assert_eq!(holders(node(1), &[node(2), node(1), node(2)], 2), [node(2)]);
    }

    #[test]
    fn the_order_of_the_members_says_nothing() {
        let mut members: Vec<Origin> = (0..20).map(node).collect();
        let before = holders(node(9), &members, 4);
        members.reverse();
        assert_eq!(holders(node(9), &members, 4), before);
    }

    #[test]
    fn who_leaves_is_replaced_and_nobody_else_moves() {
        let members: Vec<Origin> = (0..12).map(node).collect();
        for gone in 0..12 {
            let left: Vec<Origin> = members.iter().copied().filter(|member| *member != node(gone)).collect();
            for origin in 0..12 {
                let (before, after) = (holders(node(origin), &members, 3), holders(node(origin), &left, 3));
                let stayed = before.iter().filter(|holder| **holder != node(gone));
                assert!(stayed.clone().all(|holder| after.contains(holder)));
                assert_eq!(after.len(), 3);
            }
        }
    }

    #[test]
    fn the_load_is_spread() {
        let members: Vec<Origin> = (0..10).map(node).collect();
        let mut load = [0; 10];
        for origin in 0..200u8 {
            for holder in holders(Origin([origin, 1, 2, 3, origin, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]), &members, 2)
            {
                load[holder.0[0] as usize] += 1;
            }
        }
        assert!(load.iter().all(|count| (20..65).contains(count)), "{load:?}");
    }
}
