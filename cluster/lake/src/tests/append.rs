//! Records come in once.

use std::sync::Arc;

use millpond_core::value::Value;

use super::*;
use crate::LakeError;

#[test]
fn what_was_appended_is_there_also_for_others() {
    block_on(async {
        let store = memory();
        let lake = open(&store).await;
        let pieces = records(1, 30);
        lake.append(&pieces, &[taken(1, 33)], T0).await.unwrap();
        assert_rows(&lake, &pieces).await;
        let other = open(&store).await;
        assert_rows(&other, &pieces).await;
        assert_eq!(other.manifest(), lake.manifest());
        let source = crate::Source::of(&"north".into(), &record(1));
        assert!(other.manifest().ledger.covers(&source, 1, 33) && !other.manifest().ledger.has(&source, 34));
        let devices: Vec<String> =
            other.devices(&other.manifest(), TENANT).await.unwrap().iter().map(|d| d.to_string()).collect();
        assert_eq!(devices, ["press-0", "press-1", "press-2", "press-3", "press-4"]);
    });
}

#[test]
fn what_the_ledger_has_is_passed_over() {
    block_on(async {
        let lake = open(&memory()).await;
        let pieces = records(1, 20);
        lake.append(&pieces[..10], &[taken(1, 10)], T0).await.unwrap();
        let number = lake.append(&pieces[..10], &[taken(1, 10)], T0).await.unwrap().number;
        assert_eq!(number, 1);
        lake.append(&pieces[5..], &[taken(6, 20)], T0).await.unwrap();
        lake.append(&pieces, &[taken(1, 20)], T0).await.unwrap();
        assert_rows(&lake, &pieces).await;
        assert_eq!(lake.manifest().number, 2);
    });
}

#[test]
fn a_piece_that_no_range_accounts_for_is_not_taken() {
    block_on(async {
        let lake = open(&memory()).await;
        let refused = lake.append(&records(1, 2), &[taken(1, 1)], T0).await;
        assert!(matches!(refused, Err(LakeError::NotTaken { .. })));
        let refused = lake.append(&[records(1, 1), records(1, 1)].concat(), &[taken(1, 1)], T0).await;
        assert!(matches!(refused, Err(LakeError::Twice { .. })));
        assert_eq!(lake.manifest().number, 0);
    });
}

#[test]
fn events_that_count_elsewhere_are_not_taken() {
    block_on(async {
        let lake = open(&memory()).await;
        let mut pieces = records(1, 3);
        let of_device = |said: &Said| said.1 == "press-1" && said.4 == 2;
        let left_out: Vec<u64> = said(&pieces).into_iter().filter(of_device).filter_map(|said| said.3).collect();
        assert!(!left_out.is_empty());
        pieces[1].left_out = vec![("press-1".into(), left_out)];
        lake.append(&pieces, &[taken(1, 3)], T0).await.unwrap();
        let mut expected = said(&pieces);
        expected.retain(|said| !of_device(said));
        assert_eq!(rows(&lake).await, expected);
    });
}

#[test]
fn records_without_events_are_in_the_ledger_all_the_same() {
    block_on(async {
        let lake = open(&memory()).await;
        let manifest = lake.append(&[], &[taken(5, 9)], T0).await.unwrap();
        assert_eq!((manifest.number, manifest.files.len()), (1, 0));
    });
}

#[test]
fn every_type_of_value_and_every_name_is_kept() {
    block_on(async {
        let store = memory();
        let lake = open(&store).await;
        let strange = |at: i64| Event {
            device: format!("größe/{at}%"),
            ms: T0 + at,
            seq: (at % 2 == 0).then_some(u64::MAX - at as u64),
            cells: vec![
                ("Time", Cell::F64([f64::NAN, -0.0, 1e300, f64::INFINITY][at as usize % 4])),
                ("day", Cell::I64(i64::MIN + at)),
                ("a.b", Cell::Text(format!("text {at}").into())),
                ("", Cell::Bytes(vec![0, at as u8].into())),
                ("metric:x", Cell::Bool(at % 2 == 0)),
            ],
        };
        let sparse = |at: i64| Event { cells: vec![("day", Cell::I64(at))], ..strange(at + 50) };
        let mut first = piece(1, &(0..9).map(strange).collect::<Vec<_>>());
        let second = piece(2, &(0..9).map(sparse).collect::<Vec<_>>());
        first.tenant = "a b/ü".into();
        // Nanoseconds and times at the ends of what there is.
        first.batch.times[0] = Timestamp(i64::MIN);
        first.batch.times[1] = Timestamp(i64::MAX);
        let pieces = [first, second];
        lake.append(&pieces, &[taken(1, 2)], T0).await.unwrap();
        assert_rows(&lake, &pieces).await;
        assert!(matches!(pieces[0].batch.columns[0].value(1), Some(Value::F64(_))));
    });
}

#[test]
fn a_lake_on_a_disk_is_the_same() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let local = || {
            let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
            Arc::new(store.with_fsync(true)) as Arc<dyn ObjectStore>
        };
        let mut pieces = records(1, 30);
        pieces[3].tenant = "a b/ü".into();
        let lake = open(&local()).await;
        lake.append(&pieces[..15], &[taken(1, 15)], T0).await.unwrap();
        lake.append(&pieces[15..], &[taken(16, 30)], T0).await.unwrap();
        lake.compact(T0 + 10 * DAY_MS).await.unwrap();
        assert_rows(&open(&local()).await, &pieces).await;
    });
}
