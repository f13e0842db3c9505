use proptest::{collection::vec, prelude::*};

use super::*;

fn origin() -> impl Strategy<Value = Origin> {
    any::<[u8; 16]>().prop_map(Origin)
}

fn life() -> impl Strategy<Value = (Origin, Incarnation)> {
    (origin(), any::<u32>().prop_map(Incarnation))
}

fn track() -> impl Strategy<Value = Track> {
    prop::sample::select(Track::ALL.to_vec())
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn record() -> impl Strategy<Value = Record> {
    let kind = prop::sample::select(RecordKind::ALL.to_vec());
    (any::<u64>(), kind, any::<u64>(), any::<u32>(), any::<i64>(), any::<i64>(), bytes()).prop_map(
        |(seq, kind, hlc, rows, min, max, payload)| Record {
            seq: Seq(seq),
            kind,
            hlc: Hlc(hlc),
            rows,
            min_time: Timestamp(min),
            max_time: Timestamp(max),
            payload,
        },
    )
}

fn run() -> impl Strategy<Value = Run> {
    (life(), track(), any::<u64>(), any::<u64>(), vec(record(), 0..5)).prop_map(
        |((origin, incarnation), track, first, last, records)| {
            let (first, last) = (Seq(first), Seq(last));
            Run { origin, incarnation, track, first, last, records }
        },
    )
}

fn held() -> impl Strategy<Value = Held> {
    (life(), track(), vec(any::<(u64, u64)>(), 0..5), any::<u64>())
        .prop_map(|((origin, incarnation), track, ranges, floor)| Held { origin, incarnation, track, ranges, floor })
}

fn stored() -> impl Strategy<Value = Stored> {
    (life(), track(), any::<u64>(), any::<u64>()).prop_map(|((origin, incarnation), track, first, last)| Stored {
        origin,
        incarnation,
        track,
        first: Seq(first),
        last: Seq(last),
    })
}

fn message() -> impl Strategy<Value = Message> {
    let hello = (any::<u16>(), any::<u16>(), any::<u32>(), "\\PC{0,20}", any::<i64>());
    let hello = hello.prop_map(|(version, oldest, incarnation, name, wall_ms)| Hello {
        version,
        oldest,
        incarnation: Incarnation(incarnation),
        name,
        wall_ms,
    });
    let checkpoint = (life(), any::<u64>(), vec((any::<u8>(), bytes(), bytes()), 0..5));
    let checkpoint = checkpoint.prop_map(|((origin, incarnation), cursor, rows)| Checkpoint {
        origin,
        incarnation,
        cursor: Seq(cursor),
        rows,
    });
    prop_oneof![
        hello.prop_map(Message::Hello),
        vec(held(), 0..5).prop_map(Message::Held),
        run().prop_map(Message::Run),
        vec(stored(), 0..5).prop_map(Message::Stored),
        checkpoint.prop_map(Message::Checkpoint),
        bytes().prop_map(Message::Document),
        bytes().prop_map(Message::Revoked),
        any::<u64>().prop_map(|sent_ns| Message::Ping { sent_ns }),
        any::<(u64, i64)>().prop_map(|(sent_ns, wall_ms)| Message::Pong { sent_ns, wall_ms }),
        Just(Message::Bye),
    ]
}

fn home() -> impl Strategy<Value = Home> {
    ("\\PC{0,20}", any::<u64>()).prop_map(|(device, moves)| Home { device, moves })
}

fn claim() -> impl Strategy<Value = Claim> {
    ("\\PC{0,20}", vec(any::<(u64, u64)>(), 0..5)).prop_map(|(device, seqs)| Claim { device, seqs })
}

fn claimed() -> impl Strategy<Value = Claimed> {
    any::<(u64, i64, u64)>().prop_map(|(seq, time, values)| Claimed { seq, time: Timestamp(time), values })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (stored(), any::<u64>()).prop_map(|(Stored { origin, incarnation, track, first, last }, bytes_max)| {
            Request::Repair { origin, incarnation, track, first, last, bytes_max }
        }),
        ("\\PC{0,20}", bytes()).prop_map(|(what, body)| Request::Ask { what, body }),
        (origin(), vec("\\PC{0,20}", 0..5)).prop_map(|(origin, devices)| Request::Seen { origin, devices }),
        any::<u64>().prop_map(|after| Request::Homes { after: Seq(after) }),
        vec(claim(), 0..5).prop_map(|claims| Request::Known { claims }),
        ("\\PC{0,20}", vec(claimed(), 0..5)).prop_map(|(device, events)| Request::Doubles { device, events }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        run().prop_map(Reply::Run),
        any::<u32>().prop_map(|retry_ms| Reply::Busy { retry_ms }),
        Just(Reply::Unknown),
        (any::<u16>(), bytes()).prop_map(|(status, body)| Reply::Answer { status, body }),
        vec(bytes(), 0..5).prop_map(Reply::Seen),
        (vec(home(), 0..5), any::<(u64, u64)>()).prop_map(|(homes, (through, head))| Reply::Homes {
            homes,
            through: Seq(through),
            head: Seq(head),
        }),
        vec(claim(), 0..5).prop_map(Reply::Known),
        vec(any::<(u64, u64, bool)>().prop_map(|(seq, moves, settled)| Double { seq, moves, settled }), 0..5)
            .prop_map(Reply::Doubles),
    ]
}

proptest! {
    #[test]
    fn what_is_said_is_understood(message in message(), request in request(), reply in reply()) {
        prop_assert_eq!(decode::<Message>(&encode(&message)), Ok(message));
        prop_assert_eq!(decode::<Request>(&encode(&request)), Ok(request));
        prop_assert_eq!(decode::<Reply>(&encode(&reply)), Ok(reply));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode::<Message>(&bytes);
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Reply>(&bytes);
    }

    #[test]
    fn a_frame_that_was_spoilt_does_not_panic(message in message(), spoilt in vec((any::<usize>(), any::<u8>()), 1..4), cut: usize) {
        let mut frame = encode(&message).to_vec();
        let len = frame.len();
        spoilt.into_iter().for_each(|(at, byte)| frame[at % len] = byte);
        frame.truncate(1 + cut % len);
        if let Ok(Message::Run(run)) = decode(&frame) {
            let _ = (run.is_sound(), run.bytes());
        }
    }

    #[test]
    fn a_sound_run_is_in_order_and_of_one_track(mut run in run(), gaps in vec(1..9u64, 5)) {
        let mut seq = 0;
        run.records.retain(|record| record.kind.class().track() == run.track);
        for (record, gap) in run.records.iter_mut().zip(gaps) {
            seq += gap;
            record.seq = Seq(seq);
        }
        (run.first, run.last) = (Seq(1), Seq(seq + 1));
        prop_assert!(run.is_sound());
        let broken = [
            Run { first: Seq(0), ..run.clone() },
            Run { first: Seq(seq + 2), ..run.clone() },
            // No journal takes it.
            Run { last: Seq(u64::MAX), ..run.clone() },
        ];
        prop_assert!(!broken.iter().any(Run::is_sound));
        if let Some(last) = run.records.last().cloned() {
            let outside = Run { last: Seq(seq - 1), ..run.clone() };
            let mut twice = run.clone();
            twice.records.push(last);
            let other = if run.track == Track::Raw { Track::Results } else { Track::Raw };
            let mixed = Run { track: other, ..run };
            prop_assert!(!outside.is_sound() && !twice.is_sound() && !mixed.is_sound());
        }
    }
}

#[test]
fn what_was_added_has_a_default() {
    #[derive(serde::Serialize)]
    struct Earlier {
        origin: Origin,
        incarnation: Incarnation,
        track: Track,
        ranges: Vec<(u64, u64)>,
    }
    let (origin, incarnation, track, ranges) = (Origin([1; 16]), Incarnation(2), Track::Raw, vec![(1, 9)]);
    let earlier = encode(&Earlier { origin, incarnation, track, ranges: ranges.clone() });
    assert_eq!(decode::<Held>(&earlier), Ok(Held { origin, incarnation, track, ranges, floor: 0 }));
}

#[test]
fn a_frame_that_is_too_long_is_refused() {
    assert!(decode::<Message>(&vec![0xc0; FRAME_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_run_with_a_record_that_no_journal_takes_is_not_sound() {
    let run = |bytes: usize| {
        let record = Record {
            seq: Seq(1),
            kind: RecordKind::Events,
            hlc: Hlc(1),
            rows: 1,
            min_time: Timestamp(0),
            max_time: Timestamp(0),
            payload: vec![0; bytes].into(),
        };
        let (origin, incarnation, track) = (Origin([1; 16]), Incarnation(2), Track::Raw);
        Run { origin, incarnation, track, first: Seq(1), last: Seq(1), records: vec![record] }
    };
    assert!(run(RECORD_BYTES_MAX).is_sound());
    assert!(!run(RECORD_BYTES_MAX + 1).is_sound());
}
