//! What a node of another site says, and what is left of records by terms that it may have chosen the names for. Whatever the bytes, nobody
//! panics; what is read can be written again, nothing is asked for that was not offered, and no filter adds anything.
//!
//! The first two bytes choose: the kind of a record, and the terms.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    record::{Class, Hlc, RecordKind, Track},
    time::Timestamp,
    window::WindowSpec,
};
use millpond_proto::{
    RangeSet,
    replication::{FetchEnd, Life, Moment, RunKey},
    sites::{
        Answer, Offer, Question,
        taking::{Step, Taking},
        terms::{ByDevice, Filter, Terms},
    },
    wire::{self, Record, Run},
};
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|data: &[u8]| {
    let Some(([kind, choice], bytes)) = data.split_first_chunk::<2>() else { return };
    let (kind, choice) = (RecordKind::ALL[usize::from(*kind) % RecordKind::ALL.len()], *choice);
    stays_the_same::<Question>(bytes);
    if let Some(terms) = stays_the_same::<Terms>(bytes) {
        left_of(record(kind, b"rubbish"), &terms, &[]);
    }
    let mut windows = serde_json::from_str("[{\"name\": \"each\", \"size\": \"10s\"}]").expect("they are windows");
    match stays_the_same::<Answer>(bytes) {
        Some(Answer::Offers(offers)) => {
            windows = offers.windows;
            take(&offers.offers, choice);
        }
        Some(Answer::Run(run)) => {
            let sound = run.is_sound();
            let terms = Terms { classes: Class::ALL.to_vec(), devices: vec!["press-*".to_owned(), "*7".to_owned()], ..Terms::default() };
            let left = filter(&terms, &windows).run(run.clone());
            assert!(left.records.len() <= run.records.len() && (left.first, left.last) == (run.first, run.last));
            assert!(!sound || left.is_sound());
        }
        Some(Answer::Busy { .. } | Answer::Ledger(_) | Answer::Unknown) | None => {}
    }
    let devices = [vec!["press-*".to_owned()], vec!["*".to_owned()], vec!["*e*s*-*".to_owned()], Vec::new()];
    let classes = if choice & 0x80 == 0 { Class::ALL.to_vec() } else { vec![Class::Pane] };
    let terms = Terms { classes, devices: devices[usize::from(choice) % 4].clone(), ..Terms::default() };
    left_of(record(kind, bytes), &terms, &windows);
});

/// What was read, when it is one. Numbers that are none are not equal to themselves: bytes are compared.
fn stays_the_same<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let read = wire::decode::<T>(bytes).ok()?;
    let written = wire::encode(&read);
    let again = wire::decode::<T>(&written).unwrap_or_else(|error| panic!("what was written cannot be read: {error}"));
    assert_eq!(wire::encode(&again), written);
    Some(read)
}

fn record(kind: RecordKind, payload: &[u8]) -> Record {
    let (min_time, max_time) = (Timestamp(0), Timestamp(1));
    let payload = bytes::Bytes::copy_from_slice(payload);
    Record { seq: Seq(1), kind, hlc: Hlc(1), rows: 1, min_time, max_time, payload }
}

fn filter(terms: &Terms, windows: &[WindowSpec]) -> Filter {
    Filter::new(terms, &Class::ALL, ByDevice::of(windows, &[]))
}

/// What has passed once passes again as it is.
fn left_of(record: Record, terms: &Terms, windows: &[WindowSpec]) {
    let Some(left) = filter(terms, windows).record(record.clone()) else { return };
    assert_eq!((left.seq, left.kind), (record.seq, record.kind));
    assert_eq!(filter(terms, windows).record(left.clone()).map(|again| again.rows), Some(left.rows));
}

/// Takes what is offered from two doors, the second of which has the lower half of it, until there is nothing more to be had.
fn take(offers: &[Offer], choice: u8) {
    let mut taking = Taking::new(2, []);
    let (mut now, mut got) = (Moment(1), std::collections::BTreeMap::<(Life, Track), RangeSet>::new());
    let halves = [offers, &offers[..offers.len() / 2]];
    for turn in 0..64u8 {
        match taking.step(now) {
            Step::Wait { until } => now = until,
            Step::Look { door } if choice.wrapping_add(turn) % 5 == 4 => taking.failed(door, now),
            Step::Look { door } => taking.offered(door, now, halves[door]),
            Step::Fetch { door, wanted } => {
                assert!(1 <= wanted.first.0 && wanted.first <= wanted.last && wanted.last.0 < u64::MAX);
                let got = got.entry((wanted.life, wanted.track)).or_default();
                assert_eq!(got.gaps(wanted.first.0, wanted.last.0), [(wanted.first.0, wanted.last.0)]);
                let last = if turn % 3 == 0 { wanted.first } else { wanted.last };
                let how = [
                    FetchEnd::Done,
                    FetchEnd::Unknown,
                    FetchEnd::Busy { retry_ms: u32::from(choice) << 24 },
                    FetchEnd::Failed,
                ][usize::from(choice.wrapping_mul(31).wrapping_add(turn)) % 4];
                if how == FetchEnd::Done {
                    got.insert(wanted.first.0, last.0);
                    taking.stored(RunKey { last, ..wanted });
                }
                taking.ended(door, now, how);
            }
        }
        let _ = (taking.missing(), taking.lanes().count());
    }
    // Runs that nobody asked for do not come this far; those of the widest range do.
    let life = Life { origin: Origin([9; 16]), incarnation: Incarnation(1) };
    taking.stored(RunKey { life, track: Track::Raw, first: Seq(1), last: Seq(u64::MAX) });
    let _ = Run {
        origin: life.origin,
        incarnation: life.incarnation,
        track: Track::Raw,
        first: Seq(1),
        last: Seq(u64::MAX),
        records: Vec::new(),
    }
    .is_sound();
}
