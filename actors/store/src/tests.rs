//! The store as its callers see it.

mod basics;
mod crashes;
mod failures;
mod full_disk;
mod queries;
mod repairs;
mod replicas;
mod retention;

use std::ops::ControlFlow;

use millpond_core::{
    ids::Seq,
    record::{Class, RecordKind},
};

use crate::{Append, Commit, Committed, Reader, Retention, Store, testing::append};

fn commit(store: &mut Store, records: Vec<Append>) -> Committed {
    store.commit(&Commit { records, now_ms: 1000, ..Commit::default() }).expect("committed")
}

fn raw(bytes: usize) -> Append {
    append(RecordKind::Events, vec![b'r'; bytes])
}

/// Sequence number and payload of every record.
fn everything(reader: &Reader) -> Vec<(u64, RecordKind, Vec<u8>)> {
    let mut found = Vec::new();
    crate::export(reader, Seq(1), |record| {
        found.push((record.seq.0, record.kind, record.payload.to_vec()));
        ControlFlow::Continue(())
    })
    .expect("the journal can be read");
    found
}

fn seqs(reader: &Reader, class: Class) -> Vec<u64> {
    let mut found = Vec::new();
    reader
        .scan(class, Seq(0), |record| {
            found.push(record.seq.0);
            ControlFlow::Continue(())
        })
        .expect("the class can be read");
    found
}

fn assert_sound(disk: &crate::testing::Disk) {
    let report = crate::verify(&disk.opener()).expect("the device can be read");
    assert!(report.is_sound(), "missing {:?}, damage {:#?}", report.missing, report.damage);
}

fn quota(class: Class, max_bytes: u64) -> Option<Retention> {
    let mut retention = Retention::default();
    retention.rules[class as usize].max_bytes = max_bytes;
    Some(retention)
}
