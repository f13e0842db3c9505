//! Merging, ageing and sweeping change nothing but files.

use super::*;
use crate::{Lifecycle, Tier};

#[test]
fn many_small_files_become_one_and_nothing_else_changes() {
    block_on(async {
        let lake = open(&memory()).await;
        let pieces = records(1, 40);
        for at in 0..40 {
            lake.append(&pieces[at..at + 1], &[taken(at as u64 + 1, at as u64 + 1)], T0).await.unwrap();
        }
        let old = lake.manifest();
        lake.compact(T0 + 10 * DAY_MS).await.unwrap();
        assert!(files_by_day(&lake).values().all(|files| *files == 1), "{:?}", files_by_day(&lake));
        assert_rows(&lake, &pieces).await;
        assert_eq!(lake.manifest().ledger, old.ledger);
        // Rows are sorted within the file.
        let manifest = lake.manifest();
        let mut last: Option<(i32, String, i64)> = None;
        let mut see = |row: &crate::Row<'_>| {
            let next = (crate::names::day_of(row.time.0), row.device.to_owned(), row.time.0);
            assert!(last.as_ref().is_none_or(|last| *last <= next), "{last:?} before {next:?}");
            last = Some(next);
        };
        lake.scan(&manifest, &Filter::default(), &mut see).await.unwrap();
        // Nothing is left to do.
        assert_eq!(lake.compact(T0 + 10 * DAY_MS).await.unwrap().number, manifest.number);
    });
}

#[test]
fn an_open_day_is_merged_when_it_pays() {
    block_on(async {
        let lake = open(&memory()).await;
        let mut most = 0;
        for number in 1..=60 {
            lake.append(&records(number, number), &[taken(number, number)], T0).await.unwrap();
            lake.compact(T0).await.unwrap();
            most = most.max(files_by_day(&lake).values().copied().max().unwrap());
        }
        assert!(most <= 16, "{most} files of a day");
        assert_rows(&lake, &records(1, 60)).await;
    });
}

#[test]
fn merging_goes_on_in_rounds_where_memory_is_small() {
    block_on(async {
        let options = Options { merge_bytes: 1 << 20, file_bytes: 20_000, ..small() };
        let lake = Lake::open(memory(), options).await.unwrap();
        let pieces = records(1, 100);
        for at in (0..100).step_by(5) {
            lake.append(&pieces[at..at + 5], &[taken(at as u64 + 1, at as u64 + 5)], T0).await.unwrap();
        }
        for _ in 0..10 {
            lake.compact(T0 + 10 * DAY_MS).await.unwrap();
        }
        assert_rows(&lake, &pieces).await;
        assert!(files_by_day(&lake).values().all(|files| (1..20).contains(files)), "{:?}", files_by_day(&lake));
    });
}

#[test]
fn old_days_move_to_another_store_and_are_read_from_there() {
    block_on(async {
        let (warm, cold) = (memory(), memory());
        let lake = Lake::open(warm.clone(), Options { cold: Some(cold.clone()), ..small() }).await.unwrap();
        let pieces = records(1, 20);
        lake.append(&pieces, &[taken(1, 20)], T0).await.unwrap();
        let lifecycle = Lifecycle { warm: Span::from_secs(86_400), cold: Span::from_secs(30 * 86_400) };
        lake.age(T0 + 2 * DAY_MS + DAY_MS / 2, lifecycle).await.unwrap();
        assert_rows(&lake, &pieces).await;
        let tiers: Vec<Tier> = lake.manifest().files.iter().map(|file| file.tier).collect();
        assert_eq!(tiers, [Tier::Cold, Tier::Warm]);
        lake.age(T0 + 20 * DAY_MS, lifecycle).await.unwrap();
        assert_rows(&lake, &pieces).await;
        lake.age(T0 + 60 * DAY_MS, lifecycle).await.unwrap();
        assert_eq!(lake.manifest().files, []);
        let dropped = &lake.manifest().dropped;
        assert_eq!((dropped[0].rows, dropped[0].files), (said(&pieces).len() as u64, 2));
        // What was dropped does not come again.
        lake.append(&pieces, &[taken(1, 20)], T0).await.unwrap();
        assert_eq!(lake.manifest().rows(), 0);
    });
}

#[test]
fn a_sweep_leaves_what_readers_of_kept_manifests_need() {
    block_on(async {
        let store = memory();
        let lake = open(&store).await;
        let pieces = records(1, 8);
        lake.append(&pieces[..4], &[taken(1, 4)], T0).await.unwrap();
        lake.append(&pieces[4..], &[taken(5, 8)], T0).await.unwrap();
        let reader = open(&store).await;
        lake.compact(T0 + 10 * DAY_MS).await.unwrap();
        assert_eq!(lake.sweep(T0 + 10 * DAY_MS).await.unwrap(), crate::Swept::default());
        assert_rows(&reader, &pieces).await;
        for number in 0..crate::manifest::KEPT {
            lake.append(&[], &[taken(1000 + number * 2, 1000 + number * 2)], T0 + 10 * DAY_MS).await.unwrap();
        }
        // All that is old enough by number but not by time stays.
        assert_eq!(lake.sweep(T0).await.unwrap(), crate::Swept::default());
        let swept = lake.sweep(T0 + 20 * DAY_MS).await.unwrap();
        assert!(swept.files >= 4 && swept.manifests >= 3, "{swept:?}");
        assert_rows(&lake, &pieces).await;
        let fresh = Lake::open(store, small()).await.unwrap();
        assert!(fresh.scan(&reader.manifest(), &Filter::default(), &mut |_| {}).await.is_err());
    });
}
