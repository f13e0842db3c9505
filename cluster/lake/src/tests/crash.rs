//! A failure between any two operations of the store leaves the old or the new, and the same call again makes it right.

use super::{
    faulty::{FAULTS, Faulty},
    *,
};
use crate::{LeftOut, Lifecycle, Manifest, Result};

/// Makes a store, does something on it that fails at the k-th operation, for all k and in all ways, and then does it again.
fn check<F>(before: impl AsyncFn(&Lake), act: impl Fn(Lake) -> F, after: impl AsyncFn(&Lake))
where
    F: Future<Output = Result<Arc<Manifest>>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut faults = 0;
        for fault in FAULTS {
            for at in 1.. {
                let store = memory();
                let lake = open(&store).await;
                before(&lake).await;
                let old = lake.manifest();
                let old_rows = rows(&lake).await;
                let faulty = Faulty::new(store.clone(), at, fault);
                let result = match Lake::open(Arc::new(faulty.clone()), small()).await {
                    Ok(lake) => act(lake).await.map(drop),
                    Err(error) => Err(error),
                };
                let hit = faulty.operations() >= at;
                faults += usize::from(hit);
                // Somebody else sees the old or the new, and nothing between.
                let lake = open(&store).await;
                if lake.manifest().number == old.number {
                    assert_eq!(rows(&lake).await, old_rows, "{fault:?} at {at}");
                }
                act(lake.clone()).await.unwrap();
                after(&lake).await;
                after(&open(&store).await).await;
                if !hit {
                    assert!(result.is_ok());
                    break;
                }
            }
        }
        assert!(faults > 12, "only {faults} faults");
    });
}

#[test]
fn an_append_that_fails_anywhere_is_done_once() {
    let pieces = records(1, 12);
    check(
        async |lake| {
            lake.append(&pieces[..6], &[taken(1, 6)], T0).await.unwrap();
        },
        |lake| {
            let pieces = pieces.clone();
            async move { lake.append(&pieces, &[taken(1, 12)], T0).await }
        },
        async |lake| assert_rows(lake, &pieces).await,
    );
}

#[test]
fn a_merge_that_fails_anywhere_loses_and_doubles_nothing() {
    let pieces = records(1, 12);
    check(
        async |lake| {
            for at in 0..3 {
                let (first, last) = (at * 4, at * 4 + 4);
                let ranges = [taken(first as u64 + 1, last as u64)];
                lake.append(&pieces[first..last], &ranges, T0).await.unwrap();
            }
        },
        |lake| async move { lake.compact(T0 + 10 * DAY_MS).await },
        async |lake| {
            assert_rows(lake, &pieces).await;
            assert!(files_by_day(lake).values().all(|files| *files == 1), "{:?}", files_by_day(lake));
        },
    );
}

#[test]
fn events_left_out_by_a_call_that_fails_anywhere_are_out() {
    let pieces = records(1, 8);
    let gone = |said: &Said| said.4 == 3 && said.1 == "press-2";
    let seqs: Vec<u64> = said(&pieces).into_iter().filter(gone).filter_map(|said| said.3).collect();
    assert!(!seqs.is_empty());
    let events = [LeftOut { site: "north".into(), record: record(3), device: "press-2".into(), seqs }];
    check(
        async |lake| {
            lake.append(&pieces[..4], &[taken(1, 4)], T0).await.unwrap();
            lake.append(&pieces[4..], &[taken(5, 8)], T0).await.unwrap();
        },
        |lake| {
            let events = events.clone();
            async move { lake.leave_out(&events, T0).await }
        },
        async |lake| {
            let mut expected = said(&pieces);
            expected.retain(|said| !gone(said));
            assert_eq!(rows(lake).await, expected);
        },
    );
}

#[test]
fn days_that_age_by_a_call_that_fails_anywhere_stay_or_go_whole() {
    let pieces = records(1, 8);
    let lifecycle = Lifecycle { warm: Span::from_secs(3600), cold: Span::from_secs(24 * 3600) };
    // The first day ended a day and a half ago, the second half a day.
    let now = T0 + 2 * DAY_MS + DAY_MS / 2;
    check(
        async |lake| {
            lake.append(&pieces[..4], &[taken(1, 4)], T0).await.unwrap();
            lake.append(&pieces[4..], &[taken(5, 8)], T0).await.unwrap();
        },
        |lake| async move { lake.age(now, lifecycle).await },
        async |lake| {
            let all = said(&pieces);
            let (old, young): (Vec<_>, Vec<_>) = all.into_iter().partition(|said| said.2 < (T0 + DAY_MS) * 1_000_000);
            assert!(!old.is_empty() && !young.is_empty());
            assert_eq!(rows(lake).await, young);
            assert_eq!(lake.manifest().dropped.iter().map(|dropped| dropped.rows).sum::<u64>(), old.len() as u64);
            assert!(lake.manifest().files.iter().all(|file| file.tier == crate::Tier::Cold));
        },
    );
}

#[test]
fn a_sweep_that_fails_anywhere_removes_nothing_that_is_needed() {
    let pieces = records(1, 4);
    check(
        async |lake| {
            for at in 0..4 {
                lake.append(&pieces[at..at + 1], &[taken(at as u64 + 1, at as u64 + 1)], T0).await.unwrap();
            }
            lake.compact(T0 + 10 * DAY_MS).await.unwrap();
            for number in 100..100 + crate::manifest::KEPT {
                lake.append(&[], &[taken(number * 2, number * 2)], T0 + 10 * DAY_MS).await.unwrap();
            }
        },
        |lake| async move {
            lake.sweep(T0 + 20 * DAY_MS).await?;
            Ok(lake.manifest())
        },
        async |lake| {
            assert_rows(lake, &pieces).await;
            assert_eq!(lake.sweep(T0 + 20 * DAY_MS).await.unwrap(), crate::Swept::default());
        },
    );
}
