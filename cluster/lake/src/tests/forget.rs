//! Devices that are forgotten.

use super::*;

#[test]
fn a_forgotten_device_is_nowhere_after_a_sweep() {
    block_on(async {
        let lake = open(&memory()).await;
        let pieces = records(1, 12);
        lake.append(&pieces[..6], &[taken(1, 6)], T0).await.unwrap();
        lake.append(&pieces[6..], &[taken(7, 12)], T0).await.unwrap();
        let now = T0 + 10 * DAY_MS;
        assert!(!lake.prove_forgotten("press-1").await.unwrap().is_empty());
        lake.forget(TENANT, "press-1", now).await.unwrap();
        let mut expected = said(&pieces);
        expected.retain(|said| said.1 != "press-1");
        assert_eq!(rows(&lake).await, expected);
        // It is still in the old files, and that is said.
        let remains = lake.prove_forgotten("press-1").await.unwrap();
        assert!(!remains.is_empty() && remains.iter().all(|remains| !remains.counts));
        for number in 0..crate::manifest::KEPT {
            lake.append(&[], &[taken(1000 + number * 2, 1000 + number * 2)], now).await.unwrap();
        }
        lake.sweep(now + DAY_MS).await.unwrap();
        assert_eq!(lake.prove_forgotten("press-1").await.unwrap(), []);
        assert!(!lake.devices(&lake.manifest(), TENANT).await.unwrap().contains("press-1"));
        assert!(!lake.manifest().devices[TENANT].iter().any(|name| **name == *"press-1"));
        assert_eq!(rows(&lake).await, expected);
    });
}

#[test]
fn old_events_of_a_forgotten_device_do_not_come_back_but_new_ones_do() {
    block_on(async {
        let lake = open(&memory()).await;
        lake.append(&[], &[taken(1, 1)], T0).await.unwrap();
        lake.forget(TENANT, "press-1", T0 + 1000).await.unwrap();
        let old = [event("press-1", T0, 1, 1.0), event("press-1", T0 + 1000, 2, 2.0), event("press-2", T0, 3, 3.0)];
        let new = [event("press-1", T0 + 1001, 4, 4.0)];
        lake.append(&[piece(2, &old), piece(3, &new)], &[taken(2, 3)], T0).await.unwrap();
        let seqs: Vec<_> = rows(&lake).await.into_iter().map(|said| said.3).collect();
        assert_eq!(seqs, [Some(4), Some(3)]);
        // Of another tenant a device of that name is another one.
        let mut other = piece(4, &old);
        other.tenant = "other".into();
        lake.append(&[other], &[taken(4, 4)], T0).await.unwrap();
        assert_eq!(rows(&lake).await.len(), 5);
        // What comes later is forgotten later.
        lake.forget(TENANT, "press-1", T0 + DAY_MS).await.unwrap();
        assert_eq!((rows(&lake).await.len(), lake.manifest().forgotten.len()), (4, 1));
    });
}
