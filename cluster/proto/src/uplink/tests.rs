use std::collections::BTreeSet;

use bytes::Bytes;
use millpond_core::{
    ids::{Incarnation, Origin, Seq},
    record::{Class, DropRange, DropReason, Hlc, RecordKind, Track},
    time::Timestamp,
};
use proptest::prelude::*;

use super::{
    Brought, Delivery, Head, Lane, Receipt, Sent,
    account::Account,
    feed::Feed,
    orders::{Order, Outcome},
};
use crate::{
    RangeSet,
    sites::{Answer, Question},
    wire::{self, Record, Run},
};

fn set(ranges: &[(u64, u64)]) -> RangeSet {
    ranges.iter().copied().collect()
}

#[test]
fn what_is_new_does_not_wait_for_the_backlog() {
    let mut feed = Feed::new(Default::default(), Seq(100));
    let here = set(&[(1, 104)]);
    assert_eq!(feed.next(Lane::Live, &here), Some((Seq(101), Seq(104))));
    assert_eq!(feed.next(Lane::Backlog, &here), Some((Seq(1), Seq(100))));
    assert_eq!(feed.next(Lane::Live, &here), None);
    assert_eq!(feed.next(Lane::Results, &here), Some((Seq(1), Seq(104))));
}

#[test]
fn what_did_not_leave_is_next_again() {
    let mut feed = Feed::new(Default::default(), Seq(100));
    let here = set(&[(1, 100)]);
    assert_eq!(feed.next(Lane::Backlog, &here), Some((Seq(1), Seq(100))));
    feed.sent(Lane::Backlog, (Seq(1), Seq(40)), Seq(100), 10);
    assert_eq!(feed.next(Lane::Backlog, &here), Some((Seq(41), Seq(100))));
    feed.unsent(Lane::Backlog, (Seq(41), Seq(100)));
    feed.stored(Lane::Backlog, (Seq(1), Seq(40)));
    assert_eq!(feed.next(Lane::Backlog, &here), Some((Seq(41), Seq(100))));
}

#[test]
fn what_others_brought_is_not_sent() {
    let mut feed = Feed::new([RangeSet::default(), set(&[(1, 10), (20, 30)])], Seq(40));
    let here = set(&[(1, 40)]);
    feed.has(Track::Raw, &set(&[(11, 15)]));
    assert_eq!(feed.next(Lane::Backlog, &here), Some((Seq(16), Seq(19))));
    assert_eq!(feed.next(Lane::Backlog, &here), Some((Seq(31), Seq(40))));
    assert_eq!(feed.next(Lane::Backlog, &here), None);
}

#[test]
fn a_receipt_for_what_was_not_sent_changes_nothing() {
    let mut feed = Feed::new(Default::default(), Seq(10));
    feed.stored(Lane::Backlog, (Seq(1), Seq(10)));
    assert_eq!(feed.next(Lane::Backlog, &set(&[(1, 10)])), Some((Seq(1), Seq(10))));
}

#[test]
fn a_lane_waits_when_too_much_of_it_is_not_confirmed() {
    let mut feed = Feed::new(Default::default(), Seq(10));
    let here = set(&[(1, 10)]);
    feed.next(Lane::Backlog, &here);
    feed.sent(Lane::Backlog, (Seq(1), Seq(1)), Seq(10), super::UNCONFIRMED_BYTES_MAX);
    assert_eq!(feed.next(Lane::Backlog, &here), None);
    assert!(feed.next(Lane::Results, &here).is_some(), "each lane has its own room");
    feed.stored(Lane::Backlog, (Seq(1), Seq(1)));
    assert_eq!(feed.next(Lane::Backlog, &here), Some((Seq(2), Seq(10))));
}

#[test]
fn a_closed_ledger_has_a_reason_for_each_record() {
    let mut account = Account::default();
    account.heard(Head { head: Seq(100), ..Head::default() }, 0);
    account.passed = 30;
    let dropped = |reason, records| DropRange { class: Class::Raw, first: 1, last: 100, records, events: 0, reason };
    account.dropped(&dropped(DropReason::DiskFull, 5));
    let all = set(&[(1, 100)]);
    let line = account.line([&all, &all], 65);
    assert_eq!((line.delivered, line.aggregated, line.expired["disk_full"]), (65, 30, 5));
    assert_eq!((line.missing, line.at_site, line.sum()), (0, 0, 100));
    let line = account.line([&all, &all], 60);
    assert_eq!((line.missing, line.sum()), (5, 100));
    // A record that was given up after it was delivered is delivered.
    let line = account.line([&all, &all], 68);
    assert_eq!((line.expired["disk_full"], line.sum()), (2, 100));
}

#[test]
fn what_only_one_track_has_reached_is_still_at_the_site() {
    let mut account = Account::default();
    account.heard(Head { head: Seq(100), ..Head::default() }, 0);
    // 20 results and 40 events came, of 80.
    let line = account.line([&set(&[(1, 100)]), &set(&[(1, 50)])], 60);
    assert_eq!((line.at_site, line.missing, line.sum()), (40, 0, 100));
}

#[test]
fn results_are_packed_and_come_out_as_they_were() {
    let record = |n: u64| Record {
        seq: Seq(n),
        kind: RecordKind::Panes,
        hlc: Hlc::default(),
        rows: 1,
        min_time: Timestamp(0),
        max_time: Timestamp(0),
        payload: Bytes::from(vec![b'a'; 2_000]),
    };
    let run = |track| Run {
        origin: Origin([7; 16]),
        incarnation: Incarnation(1),
        track,
        first: Seq(1),
        last: Seq(9),
        records: (1..=9).map(record).collect(),
    };
    let sent = Sent { run: run(Track::Results), passed: vec![(10, 12)] };
    let Delivery::Packed(packed) = sent.clone().into_delivery() else { panic!("results are packed") };
    assert!(packed.len() < 1_000, "{}", packed.len());
    assert_eq!(Sent::unpack(&packed).expect("it was packed so"), sent);
    assert!(Sent::unpack(&packed[..packed.len() / 2]).is_err());
    let raw = Sent { run: run(Track::Raw), passed: Vec::new() };
    assert!(matches!(raw.into_delivery(), Delivery::Sent(_)));
    let huge = miniz_oxide::deflate::compress_to_vec(&vec![0; wire::FRAME_BYTES_MAX + 1], 6);
    assert!(Sent::unpack(&huge).is_err(), "what grows beyond a frame is not unpacked");
}

proptest! {
    #[test]
    fn every_number_is_delivered_whatever_gets_lost(
        held in prop::collection::vec((1u64..200, 1u64..20), 0..8),
        head in 1u64..200,
        more in 0u64..50,
        cuts in prop::collection::vec((0usize..3, 1u64..30, any::<bool>()), 0..60),
    ) {
        let held: RangeSet = held.iter().map(|(first, length)| (*first, first + length)).collect();
        let mut feed = Feed::new([held.clone(), held.clone()], Seq(head));
        let here = set(&[(1, head + more.max(1))]);
        let mut came: [BTreeSet<u64>; 2] = std::array::from_fn(|_| {
            held.iter().flat_map(|(first, last)| first..=last).collect()
        });
        let mut step = |feed: &mut Feed, lane: Lane, length: u64, fails: bool| {
            let Some((first, last)) = feed.next(lane, &here) else { return false };
            if fails {
                feed.unsent(lane, (first, last));
                return true;
            }
            let end = Seq(last.0.min(first.0 + length - 1));
            feed.sent(lane, (first, end), last, 1);
            for number in first.0..=end.0 {
                assert!(came[lane.track() as usize].insert(number), "{number} was sent twice");
            }
            feed.stored(lane, (first, end));
            true
        };
        for (lane, length, fails) in cuts {
            step(&mut feed, Lane::ALL[lane], length, fails);
        }
        for lane in Lane::ALL {
            while step(&mut feed, lane, 64, false) {}
        }
        for track in Track::ALL {
            prop_assert!(feed.held(track).covers(1, here.last()));
        }
        prop_assert_eq!(feed.progress(&[here.clone(), here]).left, [0, 0]);
    }

    #[test]
    fn the_sum_is_always_the_whole(
        head in 0u64..500,
        results in prop::collection::vec((1u64..400, 0u64..60), 0..6),
        raw in prop::collection::vec((1u64..400, 0u64..60), 0..6),
        delivered in 0u64..500,
        passed in 0u64..100,
        dropped in prop::collection::vec((0usize..4, 1u64..50), 0..4),
    ) {
        let ranges = |list: &[(u64, u64)]| -> RangeSet { list.iter().map(|(first, n)| (*first, first + n)).collect() };
        let (results, raw) = (ranges(&results), ranges(&raw));
        let mut account = Account { passed, ..Account::default() };
        account.heard(Head { head: Seq(head), ..Head::default() }, 0);
        let reasons = [DropReason::Age, DropReason::Quota, DropReason::DiskFull, DropReason::Damaged];
        for (reason, records) in dropped {
            let (class, reason) = (Class::Raw, reasons[reason]);
            account.dropped(&DropRange { class, first: 1, last: 9, records, events: 0, reason });
        }
        let mut any = results.clone();
        any.merge(&raw);
        let delivered = delivered.min(any.count());
        let line = account.line([&results, &raw], delivered);
        prop_assert_eq!(line.sum(), line.records);
    }

    #[test]
    fn bytes_of_a_stranger_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Sent::unpack(&bytes);
        let _ = wire::decode::<Question>(&bytes);
        let _ = wire::decode::<Answer>(&bytes);
        let _ = wire::decode::<Delivery>(&bytes);
        let _ = wire::decode::<Receipt>(&bytes);
        let _ = wire::decode::<Order>(&bytes);
        let _ = wire::decode::<Outcome>(&bytes);
        if let Ok(brought) = wire::decode::<Brought>(&bytes) {
            let _ = brought.held(Track::Raw);
        }
    }
}
