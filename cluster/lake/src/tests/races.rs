//! Two writers at once.

use super::{
    faulty::{Fault, Faulty},
    *,
};
use crate::{LeftOut, Lifecycle};

#[test]
fn of_two_writers_of_different_records_both_are_heard() {
    block_on(async {
        let store = memory();
        let (a, b) = (open(&store).await, open(&store).await);
        let pieces = records(1, 40);
        for at in (0..40).step_by(2) {
            a.append(&pieces[at..at + 1], &[taken(at as u64 + 1, at as u64 + 1)], T0).await.unwrap();
            b.append(&pieces[at + 1..at + 2], &[taken(at as u64 + 2, at as u64 + 2)], T0).await.unwrap();
        }
        assert_eq!(a.refresh().await.unwrap().number, 40);
        assert_rows(&a, &pieces).await;
    });
}

#[test]
fn of_two_writers_of_the_same_records_one_is_heard() {
    block_on(async {
        let store = memory();
        let (a, b) = (open(&store).await, open(&store).await);
        let pieces = records(1, 9);
        a.append(&pieces[..6], &[taken(1, 6)], T0).await.unwrap();
        // Does not know of the other, and has some of the same.
        let manifest = b.append(&pieces[3..], &[taken(4, 9)], T0 + 1).await.unwrap();
        assert_eq!(manifest.number, 2);
        assert_rows(&b, &pieces).await;
        // The very same call of both: the second finds its own bytes.
        let (c, d) = (open(&store).await, open(&store).await);
        let more = records(10, 10);
        let first = c.append(&more, &[taken(10, 10)], T0).await.unwrap().number;
        let second = d.append(&more, &[taken(10, 10)], T0).await.unwrap().number;
        assert_eq!((first, second), (3, 3));
        assert_eq!(a.refresh().await.unwrap().number, 3);
    });
}

#[test]
fn a_store_that_cannot_keep_two_writers_apart_is_not_written_to() {
    block_on(async {
        let store = memory();
        let careless: Arc<dyn ObjectStore> = Arc::new(Faulty::new(store.clone(), 1, Fault::Overwrites));
        let lake = open(&careless).await;
        let refused = lake.append(&records(1, 4), &[taken(1, 4)], T0).await;
        assert!(matches!(refused, Err(crate::LakeError::Overwrites)), "{refused:?}");
        assert_eq!(open(&store).await.manifest().number, 0);
    });
}

#[test]
fn a_merge_and_an_append_do_not_disturb_each_other() {
    block_on(async {
        let store = memory();
        let (a, b) = (open(&store).await, open(&store).await);
        let pieces = records(1, 12);
        a.append(&pieces[..4], &[taken(1, 4)], T0).await.unwrap();
        a.append(&pieces[4..8], &[taken(5, 8)], T0).await.unwrap();
        b.refresh().await.unwrap();
        a.append(&pieces[8..], &[taken(9, 12)], T0).await.unwrap();
        // Knows of two of three.
        b.compact(T0 + 10 * DAY_MS).await.unwrap();
        assert_rows(&b, &pieces).await;
        // Does not know that these files are merged.
        a.compact(T0 + 10 * DAY_MS).await.unwrap();
        a.refresh().await.unwrap();
        assert_rows(&a, &pieces).await;
    });
}

#[test]
fn what_is_forgotten_or_left_out_while_others_write_is_gone() {
    block_on(async {
        let store = memory();
        let (a, b) = (open(&store).await, open(&store).await);
        let pieces = records(1, 12);
        a.append(&pieces[..6], &[taken(1, 6)], T0).await.unwrap();
        b.refresh().await.unwrap();
        a.append(&pieces[6..], &[taken(7, 12)], T0).await.unwrap();
        a.compact(T0 + 10 * DAY_MS).await.unwrap();
        b.forget(TENANT, "press-1", T0 + 10 * DAY_MS).await.unwrap();
        let gone = |said: &Said| said.4 == 9 && said.1 == "press-3";
        let seqs: Vec<u64> = said(&pieces).into_iter().filter(gone).filter_map(|said| said.3).collect();
        assert!(!seqs.is_empty());
        let event = LeftOut { site: "north".into(), record: record(9), device: "press-3".into(), seqs };
        // Does not know of what was forgotten.
        a.leave_out(&[event], T0).await.unwrap();
        let mut expected = said(&pieces);
        expected.retain(|said| said.1 != "press-1" && !gone(said));
        assert_eq!(rows(&a).await, expected);
        // Nor does who appends.
        let late = open(&store).await;
        b.forget(TENANT, "press-2", T0 + 10 * DAY_MS).await.unwrap();
        let more = records(13, 14);
        late.append(&more, &[taken(13, 14)], T0).await.unwrap();
        expected.extend(said(&more));
        expected.retain(|said| said.1 != "press-1" && said.1 != "press-2");
        expected.sort();
        assert_eq!(rows(&late).await, expected);
    });
}

#[test]
fn a_writer_that_wakes_up_after_a_sweep_is_not_believed() {
    block_on(async {
        let store = memory();
        let (a, late) = (open(&store).await, open(&store).await);
        let all = crate::manifest::KEPT + 10;
        let pieces = records(1, all);
        for number in 1..all {
            let at = number as usize;
            a.append(&pieces[at - 1..at], &[taken(number, number)], T0).await.unwrap();
        }
        assert!(a.sweep(T0 + DAY_MS).await.unwrap().manifests > 0);
        // The place of manifest 1 is free again.
        late.append(&pieces[all as usize - 1..], &[taken(all, all)], T0).await.unwrap();
        a.refresh().await.unwrap();
        assert_rows(&a, &pieces).await;
        assert_rows(&late, &pieces).await;
    });
}

#[test]
fn ageing_twice_at_once_moves_days_once() {
    block_on(async {
        let store = memory();
        let (a, b) = (open(&store).await, open(&store).await);
        let pieces = records(1, 8);
        a.append(&pieces, &[taken(1, 8)], T0).await.unwrap();
        b.refresh().await.unwrap();
        let lifecycle = Lifecycle { warm: Span::from_secs(3600), cold: Span::from_secs(90 * 86_400) };
        a.age(T0 + 9 * DAY_MS, lifecycle).await.unwrap();
        b.age(T0 + 9 * DAY_MS, lifecycle).await.unwrap();
        b.refresh().await.unwrap();
        assert_rows(&b, &pieces).await;
    });
}
