use bytes::Bytes;
use millpond_core::{record::Hlc, time::Timestamp};

use super::*;
use crate::testing::{Disk, open};

fn hash(device: u64) -> u64 {
    (device + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn events(devices: std::ops::Range<u64>, from: i64, to: i64) -> Append {
    Append {
        kind: RecordKind::Events,
        hlc: Hlc(1),
        rows: 10,
        min_time: Timestamp(from),
        max_time: Timestamp(to),
        devices: devices.map(hash).collect(),
        payload: Bytes::from(vec![0; 60_000]),
    }
}

fn series(reader: &Reader, start: i64, end: i64, device: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let each = |record: crate::RecordRef<'_>| {
        found.push(record.seq.0);
        ControlFlow::Continue(())
    };
    reader.scan_series(Timestamp(start), Timestamp(end), hash(device), each).expect("scan");
    found
}

#[test]
fn a_series_is_found_by_time_and_device() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    for i in 0..100i64 {
        let lot = (i % 4) as u64 * 10;
        commit(&mut store, vec![events(lot..lot + 10, i * 100, i * 100 + 99)]);
    }
    let reader = store.reader();
    assert_eq!(series(&reader, 0, 1200, 3), [1, 5, 9]);
    assert_eq!(series(&reader, 1000, 1001, 25), [11]);
    assert_eq!(series(&reader, 999, 1000, 25), [0u64; 0], "lot 20..30 has no events at 999");
    assert_eq!(series(&reader, 0, 10_000, 35).len(), 25);
    assert_eq!(series(&reader, 500, 500, 3), [0u64; 0]);
    drop(store);
    assert_sound(&disk);
}

#[test]
fn a_query_reads_few_values() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    for i in 0..20i64 {
        let records = (0..10).map(|j| events((j as u64) * 500..(j as u64 + 1) * 500, i * 100, i * 100 + 99)).collect();
        commit(&mut store, records);
    }
    drop(store);
    let (store, _) = open(&disk);
    disk.take_reads();
    assert_eq!(series(&store.reader(), 0, 2000, 700).len(), 20);
    let reads = disk.take_reads();
    assert!(reads < 30 * 65_536, "{reads} bytes read to find 20 of 200 values");
}

#[test]
fn records_without_known_devices_or_times_are_handled() {
    let disk = Disk::default();
    let (mut store, _) = open(&disk);
    let unknown = Append { devices: Vec::new(), ..events(0..0, 0, 10) };
    let untimed = Append { min_time: Timestamp::MAX, max_time: Timestamp::MIN, ..events(0..1, 0, 0) };
    let many = events(0..20_000, 0, 10);
    commit(&mut store, vec![unknown]);
    commit(&mut store, vec![untimed]);
    commit(&mut store, vec![many]);
    assert_eq!(series(&store.reader(), 0, 5, 123_456), [1, 3], "any device may be inside the first and the last");
    drop(store);
    assert_sound(&disk);
}
