use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::Append;

const AUTHOR: Author = Author { origin: Origin([9; 16]), incarnation: Incarnation(3), opening: 77, written_ms: -5 };

fn encode(records: &[(Seq, Append)], class: Class) -> Vec<u8> {
    let payloads: usize = records.iter().map(|(_, append)| RECORD_HEADER + append.payload.len()).sum();
    let mut out = vec![0xaa; VALUE_HEADER + payloads];
    write_value(&mut out, AUTHOR, class, records.iter().map(|(seq, append)| (*seq, append)));
    out
}

fn some_records() -> impl Strategy<Value = Vec<(Seq, Append)>> {
    let kind = prop::sample::select(vec![RecordKind::Panes, RecordKind::Late]);
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    let one = (1u64..1000, kind, any::<u64>(), any::<u32>(), any::<i64>(), any::<i64>(), payload);
    prop::collection::vec(one, 1..20).prop_map(|records| {
        let mut seq = 0;
        let mut number = |step| {
            seq += step;
            Seq(seq)
        };
        records
            .into_iter()
            .map(|(step, kind, hlc, rows, min, max, payload)| {
                let (min_time, max_time, devices) = (Timestamp(min), Timestamp(max), Vec::new());
                let payload = Bytes::from(payload);
                (number(step), Append { kind, hlc: Hlc(hlc), rows, min_time, max_time, devices, payload })
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(records in some_records(), behind in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut bytes = encode(&records, Class::Pane);
        bytes.extend_from_slice(&behind);
        let value = Value::parse(&bytes).unwrap();
        prop_assert_eq!(value.header.value_bytes() as usize, bytes.len() - behind.len());
        prop_assert_eq!((value.header.origin, value.header.opening, value.header.written_ms), (AUTHOR.origin, 77, -5));
        let read: Vec<RecordRef> = value.records().map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), records.len());
        for (read, (seq, append)) in read.iter().zip(&records) {
            prop_assert_eq!((read.seq, read.kind, read.hlc, read.rows), (*seq, append.kind, append.hlc, append.rows));
            prop_assert_eq!((read.min_time, read.max_time), (append.min_time, append.max_time));
            prop_assert_eq!(read.payload, &append.payload[..]);
            prop_assert_eq!(read.incarnation, AUTHOR.incarnation);
        }
    }

    #[test]
    fn any_changed_bit_is_noticed(records in some_records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = encode(&records, Class::Pane);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Value::parse(&bytes).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
        let _ = Value::parse(&bytes);
        let whole = encode(&[(Seq(1), crate::testing::append(RecordKind::Panes, bytes.clone()))], Class::Pane);
        let cut = cut.min(whole.len());
        prop_assert_eq!(Value::parse(&whole[..cut]).is_ok(), cut == whole.len());
    }
}

#[test]
fn the_layout_of_a_value_does_not_change() {
    let append = Append {
        kind: RecordKind::Late,
        hlc: Hlc(0x0102_0304_0506_0708),
        rows: 3,
        min_time: Timestamp(-2),
        max_time: Timestamp(5),
        devices: vec![1],
        payload: Bytes::from_static(b"abc"),
    };
    let bytes = encode(&[(Seq(258), append)], Class::Pane);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let header = "4d5076616c75650102000000030000000909090909090909090909090909090902010000000000000201000000000000010000002b000000fbffffffffffffff4d00000000000000";
    let record = "03000000000000000300000004000000080706050403020\
                  1feffffffffffffff0500000000000000616263";
    assert_eq!(&hex[..144], header);
    assert_eq!(&hex[160..], record);
}
