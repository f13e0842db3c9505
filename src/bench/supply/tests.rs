use std::collections::BTreeSet;

use millpond_core::time::Timestamp;

use super::*;
use crate::bench::plan::Target;

fn plan(format: Format) -> Plan {
    Plan {
        format,
        target: Target::Own,
        login: None,
        connections: 3,
        in_flight: 4,
        devices: 20,
        batch: if format == Format::Json { 1 } else { 5 },
        metrics: 6,
        duration: Span::from_secs(1),
        threads: 1,
        rate_max: 20_000,
        seed: 1,
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_795_162_500_000)
}

#[test]
fn json_payloads_never_repeat_and_do_not_lead_into_the_future() {
    let mut supply = Supply::prepare(&plan(Format::Json), now()).unwrap();
    let mut seen = BTreeSet::new();
    for lane in &mut supply.lanes {
        for _ in 0..1000 {
            let outgoing = lane.next().unwrap();
            let value: serde_json::Value = serde_json::from_slice(outgoing.payload).unwrap();
            let (ts, seq) = (value["ts"].as_i64().unwrap(), value["seq"].as_u64().unwrap());
            assert!(ts <= now().as_millis() && seq >= FIRST_SEQ);
            assert_eq!(value.as_object().unwrap().len(), 8);
            assert!(seen.insert((outgoing.topic.to_owned(), seq)), "{} {seq} came twice", outgoing.topic);
        }
    }
    assert_eq!(seen.iter().map(|(topic, _)| topic).collect::<BTreeSet<_>>().len(), 20);
}

#[test]
fn msgpack_payloads_hold_every_reading_of_a_device_once() {
    let mut supply = Supply::prepare(&plan(Format::Msgpack), now()).unwrap();
    let mut seen = BTreeSet::new();
    for lane in &mut supply.lanes {
        for _ in 0..40 {
            let outgoing = lane.next().unwrap();
            assert!(outgoing.payload.len() <= PAYLOAD_BYTES && outgoing.payload[0] == 0xdd);
            let mut bytes = &outgoing.payload[5..];
            let mut rows = 0;
            while !bytes.is_empty() {
                let device_len = usize::from(bytes[8] & 0x1f);
                let device = String::from_utf8(bytes[9..9 + device_len].to_vec()).unwrap();
                let at = 9 + device_len;
                assert_eq!(&bytes[at..at + 4], b"\xa2ts\xcf");
                assert_eq!(&bytes[at + 12..at + 17], b"\xa3seq\xcf");
                let seq = u64::from_be_bytes(bytes[at + 17..at + 25].try_into().unwrap());
                assert!(seen.insert((device, seq)));
                bytes = &bytes[at + 25..];
                let metrics = 6;
                for _ in 0..metrics {
                    let name_len = usize::from(bytes[0] & 0x1f);
                    assert_eq!(bytes[1 + name_len], 0xcb);
                    bytes = &bytes[1 + name_len + 9..];
                }
                rows += 1;
            }
            assert_eq!(rows, outgoing.events);
        }
    }
}

#[test]
fn more_connections_than_devices_are_refused() {
    let plan = Plan { devices: 2, ..plan(Format::Json) };
    assert!(Supply::prepare(&plan, now()).is_err());
}
