//! What a node of each released version says, byte for byte: nodes of a later one must understand it.

use super::*;

const V1: &str = include_str!("../../../../tests/golden/wire/v1.txt");
const V2: &str = include_str!("../../../../tests/golden/wire/v2.txt");

fn origin(n: u8) -> Origin {
    Origin([n; 16])
}

/// One of each, with everything in it that version 1 can say.
fn version_1() -> Vec<(&'static str, Bytes)> {
    let (incarnation, track) = (Incarnation(0x0001_0002), Track::Raw);
    let hello = Hello { version: 1, oldest: 1, incarnation, name: "north".to_owned(), wall_ms: 1_760_000_000_000 };
    let held =
        Held { origin: origin(1), incarnation, track: Track::Results, ranges: vec![(1, 7), (9, u64::MAX)], floor: 3 };
    let record = Record {
        seq: Seq(8),
        kind: RecordKind::Events,
        hlc: Hlc(1 << 40),
        rows: 3,
        min_time: Timestamp(-1),
        max_time: Timestamp(1 << 60),
        payload: Bytes::from_static(b"\xc1MPB\x01"),
    };
    let run = Run { origin: origin(1), incarnation, track, first: Seq(7), last: Seq(9), records: vec![record] };
    let stored = Stored { origin: origin(2), incarnation, track, first: Seq(7), last: Seq(9) };
    let rows = vec![(3, Bytes::from_static(b"current"), Bytes::from_static(b"state"))];
    let checkpoint = Checkpoint { origin: origin(1), incarnation, cursor: Seq(9), rows };
    let addr = "[2001:db8::1]:7800".parse().expect("an address");
    let devices = vec!["press-1".to_owned()];
    let repair =
        Request::Repair { origin: origin(1), incarnation, track, first: Seq(1), last: Seq(9), bytes_max: 1 << 20 };
    vec![
        ("message hello", encode(&Message::Hello(hello))),
        ("message held", encode(&Message::Held(vec![held]))),
        ("message run", encode(&Message::Run(run.clone()))),
        ("message stored", encode(&Message::Stored(vec![stored]))),
        ("message checkpoint", encode(&Message::Checkpoint(checkpoint))),
        ("message document", encode(&Message::Document(Bytes::from_static(b"document")))),
        ("message ping", encode(&Message::Ping { sent_ns: 1 })),
        ("message pong", encode(&Message::Pong { sent_ns: 1, wall_ms: 2 })),
        ("message peers", encode(&Message::Peers(vec![(origin(2), addr)]))),
        ("message revoked", encode(&Message::Revoked(Bytes::from_static(b"revoked")))),
        ("message bye", encode(&Message::Bye)),
        ("request repair", encode(&repair)),
        ("request ask", encode(&Request::Ask { what: "query".to_owned(), body: Bytes::from_static(b"body") })),
        ("request seen", encode(&Request::Seen { origin: origin(1), devices })),
        (
            "request accepted",
            encode(&Request::Accepted { devices: vec![Home { device: "press-1".to_owned(), moves: 2 }] }),
        ),
        ("reply run", encode(&Reply::Run(run))),
        ("reply busy", encode(&Reply::Busy { retry_ms: 200 })),
        ("reply unknown", encode(&Reply::Unknown)),
        ("reply answer", encode(&Reply::Answer { status: 200, body: Bytes::from_static(b"body") })),
        ("reply seen", encode(&Reply::Seen(vec![Bytes::from_static(b"known")]))),
    ]
}

/// What version 2 can say beyond that.
fn version_2() -> Vec<(&'static str, Bytes)> {
    let homes = vec![Home { device: "press-1".to_owned(), moves: 2 }];
    let claim = Claim { device: "press-1".to_owned(), seqs: vec![(5, 7)] };
    let claimed = Claimed { seq: 7, time: Timestamp(1 << 60), values: u64::MAX };
    vec![
        ("request homes", encode(&Request::Homes { after: Seq(9) })),
        ("request known", encode(&Request::Known { claims: vec![claim.clone()] })),
        ("request doubles", encode(&Request::Doubles { device: "press-1".to_owned(), events: vec![claimed] })),
        ("reply homes", encode(&Reply::Homes { homes, through: Seq(9), head: Seq(10) })),
        ("reply known", encode(&Reply::Known(vec![claim]))),
        ("reply doubles", encode(&Reply::Doubles(vec![Double { seq: 7, moves: 2, settled: true }]))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

#[test]
fn each_version_is_said_as_it_was_recorded() {
    for (version, said, recorded) in [(1, version_1(), V1), (2, version_2(), V2)] {
        let said: Vec<String> = said.iter().map(|(name, bytes)| format!("{name} {}", hex(bytes))).collect();
        let recorded: Vec<&str> = recorded.lines().collect();
        assert_eq!(
            said,
            recorded,
            "nodes of version {version} could not talk to this one; what would be recorded:\n{}",
            said.join("\n")
        );
    }
}

#[test]
fn recordings_are_understood() {
    for line in V1.lines().chain(V2.lines()) {
        let (name, bytes) = line.rsplit_once(' ').expect("a name and bytes");
        let bytes = unhex(bytes);
        match name.split_once(' ').expect("a lane and a name").0 {
            "message" => drop(decode::<Message>(&bytes).expect(name)),
            "request" => drop(decode::<Request>(&bytes).expect(name)),
            _ => drop(decode::<Reply>(&bytes).expect(name)),
        }
    }
}
