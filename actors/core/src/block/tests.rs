use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    batch::{ColumnValues, Metric, Shape, UNTIMED},
    value::{Quality, ValueType},
};

/// A cell, as the strategies make it: what of it counts is decided by the column's type.
#[derive(Clone, Debug)]
struct Cell {
    present: bool,
    bits: u64,
    decimal: i32,
    kind: u8,
    text: String,
}

#[derive(Clone, Debug)]
struct Row {
    device: u8,
    time: i64,
    seq: Option<u64>,
    quality: u8,
    cells: Vec<Cell>,
}

fn cell() -> impl Strategy<Value = Cell> {
    let specials = prop_oneof![
        Just(f64::NAN.to_bits()),
        Just((-0.0f64).to_bits()),
        Just(f64::INFINITY.to_bits()),
        Just(0x7ff0_0000_0000_0001),
        Just(0xfff8_dead_beef_0001),
        any::<u64>()
    ];
    (prop::bool::weighted(0.9), specials, -5000i32..5000, 0u8..10, "[a-cä]{0,4}")
        .prop_map(|(present, bits, decimal, kind, text)| Cell { present, bits, decimal, kind, text })
}

fn rows(columns: usize) -> impl Strategy<Value = Vec<Row>> {
    let time = prop_oneof![
        4 => (0i64..1000).prop_map(|s| 1_795_162_500_000_000_000 + s * 1_000_000_000),
        2 => (0i64..100_000).prop_map(|ms| 1_795_162_500_000_000_000 + ms * 1_000_000),
        1 => any::<i64>(),
        1 => Just(UNTIMED.0),
    ];
    let seq = prop_oneof![3 => (0u64..1000).prop_map(Some), 1 => any::<Option<u64>>()];
    let quality = prop_oneof![9 => Just(0u8), 1 => 0u8..3];
    let row = (0u8..6, time, seq, quality, prop::collection::vec(cell(), columns))
        .prop_map(|(device, time, seq, quality, cells)| Row { device, time, seq, quality, cells });
    prop::collection::vec(row, 0..300)
}

fn batches() -> impl Strategy<Value = Batch> {
    (prop::collection::vec(0u8..5, 0..7), any::<bool>(), any::<bool>(), any::<bool>()).prop_flat_map(
        |(types, seqs, gaps, wild)| rows(types.len()).prop_map(move |rows| batch_of(&types, rows, seqs, gaps, wild)),
    )
}

fn batch_of(types: &[u8], rows: Vec<Row>, seqs: bool, gaps: bool, wild: bool) -> Batch {
    let metric = |(at, &code): (usize, &u8)| Metric {
        name: format!("metric_{at}").into(),
        value_type: ValueType::from_u8(code).unwrap(),
        unit: if at % 2 == 0 { "Cel".into() } else { "".into() },
    };
    let mut batch = Batch::empty(Arc::new(Shape::new(types.iter().enumerate().map(metric).collect())));
    let shape = batch.shape.clone();
    for row in rows {
        let mut one = Batch::empty(shape.clone());
        let device = format!("press-{}", row.device);
        one.push_run(&device, 1);
        one.times.push(Timestamp(row.time));
        one.seqs.extend(seqs.then_some(row.seq));
        one.quality.push(Quality::from_u8(row.quality).unwrap());
        for (column, (cell, metric)) in one.columns.iter_mut().zip(row.cells.iter().zip(shape.metrics())) {
            let value = match metric.value_type {
                ValueType::F64 if wild || cell.kind == 0 => Value::F64(f64::from_bits(cell.bits)),
                ValueType::F64 => Value::F64(f64::from(cell.decimal) / 100.0),
                ValueType::I64 if wild => Value::I64(cell.bits as i64),
                ValueType::I64 => Value::I64(i64::from(cell.decimal)),
                ValueType::Bool => Value::Bool(cell.decimal > 0),
                ValueType::Text => Value::Text(&cell.text),
                ValueType::Bytes => Value::Bytes(cell.text.as_bytes()),
            };
            let present = cell.present || !gaps;
            column.values.push(present.then_some(value));
            column.present = gaps.then(|| vec![present]);
        }
        batch.append(&one);
    }
    batch
}

fn encoded(batch: &Batch) -> Vec<u8> {
    let mut block = Vec::new();
    encode(batch, &mut block);
    block
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_batch_comes_back_bit_by_bit(batch in batches()) {
        let block = encoded(&batch);
        let decoded = Decoder::new().decode(&block).unwrap();
        let grouped = batch.clone().grouped();
        prop_assert_eq!(&decoded, &grouped);
        prop_assert_eq!(&encoded(&decoded), &block, "the same rows are the same bytes");
        let summary = peek(&block).unwrap();
        prop_assert_eq!(summary.rows as usize, batch.rows());
        prop_assert_eq!(summary.devices as usize, grouped.runs().len());
        prop_assert_eq!(summary.bytes as usize, block.len());
        prop_assert_eq!(summary.min_time, batch.times.iter().min().copied().unwrap_or_default());
        prop_assert_eq!(summary.max_time, batch.times.iter().max().copied().unwrap_or_default());
    }

    #[test]
    fn a_series_is_what_the_rows_say(batch in batches()) {
        let block = encoded(&batch);
        let grouped = batch.grouped();
        let mut listed = Vec::new();
        devices(&block, &mut |name, rows| listed.push((name.to_string(), rows as usize))).unwrap();
        let expected: Vec<_> = grouped.runs().iter().map(|run| (grouped.device(run).to_string(), run.rows().len())).collect();
        prop_assert_eq!(listed, expected);
        for run in grouped.runs() {
            for (metric, column) in grouped.shape.metrics().iter().zip(&grouped.columns) {
                let mut expected = run.rows().filter_map(|row| Some((grouped.times[row], column.value(row)?)));
                let mut point = |time, value: Value<'_>| {
                    let (at, wanted) = expected.next().unwrap();
                    assert_eq!(format!("{time:?} {value:?}"), format!("{at:?} {wanted:?}"));
                };
                prop_assert!(read_series(&block, grouped.device(run), &metric.name, &mut point).unwrap());
                prop_assert!(expected.next().is_none());
            }
        }
        prop_assert_eq!(read_series(&block, "press-0", "no such metric", &mut |_, _| ()), Ok(false));
        prop_assert_eq!(read_series(&block, "no such device", "metric_0", &mut |_, _| ()), Ok(false));
    }

    #[test]
    fn split_blocks_hold_the_same_rows(batch in batches(), max_bytes in 100usize..5000) {
        let blocks = encode_split(&batch, max_bytes);
        let mut decoder = Decoder::new();
        let decoded: Vec<Batch> = blocks.iter().map(|block| decoder.decode(block).unwrap()).collect();
        prop_assert!(blocks.iter().zip(&decoded).all(|(block, batch)| block.len() <= max_bytes || batch.rows() == 1));
        let whole = Batch::concat(decoded).unwrap_or(Batch::empty(batch.shape.clone()));
        prop_assert_eq!(whole, batch.grouped());
    }

    #[test]
    fn damaged_blocks_are_refused(batch in batches(), at: prop::sample::Index, bit in 0u8..8) {
        let mut block = encoded(&batch);
        let at = at.index(block.len());
        block[at] ^= 1 << bit;
        prop_assert!(Decoder::new().decode(&block).is_err());
        prop_assert!(Decoder::new().decode(&block[..at]).is_err());
    }

    #[test]
    fn forged_blocks_never_panic(batch in batches(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut block = encoded(&batch);
        for (at, byte) in changes {
            let at = at.index(block.len());
            block[at] = byte;
        }
        survive(&mut block);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survive(&mut bytes);
        let mut headed = header::MAGIC.to_vec();
        headed.push(1);
        headed.append(&mut bytes);
        survive(&mut headed);
    }
}

/// Reads bytes in every way, with the length and checksum that they should have.
fn survive(block: &mut [u8]) {
    if block.len() >= header::BYTES {
        let length = block.len() as u32;
        block[8..12].copy_from_slice(&length.to_le_bytes());
        let crc = header::checksum(block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    let decoded = Decoder::new().decode(block);
    if let Ok(batch) = decoded {
        for column in &batch.columns {
            (0..batch.rows()).for_each(|row| assert!(column.value(row).is_some() == column.is_present(row)));
        }
        let again = encoded(&batch);
        assert_eq!(Decoder::new().decode(&again).unwrap(), batch.grouped());
    }
    let _ = peek(block);
    let _ = devices(block, &mut |_, _| ());
    let _ = read_series(block, "press-1", "metric_1", &mut |_, _| ());
    let _ = statistics(block, "metric_1");
}

/// The blocks of `tests/golden/blocks` and what is in them. They never change: what they say was once written by a released version.
fn golden() -> Vec<(&'static str, &'static [u8], Batch)> {
    let moving = |rows: u32, devices: u32| {
        let names = ["temperature", "pressure", "speed"];
        let metric = |name: &str| Metric { name: name.into(), value_type: ValueType::F64, unit: "".into() };
        let mut batch = Batch::empty(Arc::new(Shape::new(names.iter().map(|name| metric(name)).collect())));
        for device in 0..devices {
            batch.push_run(&format!("press-{device:03}"), rows);
            for row in 0..rows {
                let wave = i64::from((device * 37 + row * row) % 11);
                batch.times.push(Timestamp::from_millis(1_795_162_500_000 + i64::from(row) * 250 + wave % 2));
                batch.seqs.push(Some(u64::from(1000 + row)));
                for (at, column) in batch.columns.iter_mut().enumerate() {
                    let tenths = (200 + 100 * at as i64 + i64::from(device % 7) * 5 + wave) as f64;
                    column.values.push(Some(Value::F64(tenths / 10.0)));
                }
            }
        }
        batch
    };
    vec![
        ("moving", include_bytes!("../../../../tests/golden/blocks/v1-moving.bin"), moving(20, 30)),
        ("single", include_bytes!("../../../../tests/golden/blocks/v1-single.bin"), moving(1, 1)),
        ("mixed", include_bytes!("../../../../tests/golden/blocks/v1-mixed.bin"), mixed()),
        ("empty", include_bytes!("../../../../tests/golden/blocks/v1-empty.bin"), moving(1, 0)),
    ]
}

/// All types, gaps, qualities, untimed rows, numbers that are no decimals.
fn mixed() -> Batch {
    let odd = [f64::NAN, -0.0, f64::INFINITY, 5e-324, 0.1, 1.0 / 3.0, f64::from_bits(0x7ff0_0000_0000_0001)];
    let rows = (0..150u64).map(|row| {
        let cell = |at: u64| Cell {
            present: (row + at) % 7 != 3,
            bits: if row % 3 == 0 {
                odd[row as usize / 3 % odd.len()].to_bits()
            } else {
                (row * at).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            },
            decimal: (row * 31 + at * 7) as i32 % 90 - 45,
            kind: (row % 10) as u8,
            text: ["on", "off", "störung", ""][(row + at) as usize % 4].into(),
        };
        Row {
            device: (row / 10 % 4) as u8,
            time: if row % 40 == 39 { UNTIMED.0 } else { 1_795_162_500_123_456_789 + row as i64 * 1_000_003 },
            seq: (row % 5 != 0).then_some(row),
            quality: u8::from(row % 50 == 7) * 2,
            cells: (0..6).map(cell).collect(),
        }
    });
    batch_of(&[0, 0, 1, 2, 3, 4], rows.collect(), true, true, false)
}

#[test]
fn golden_blocks_are_read_and_written_as_ever() {
    for (name, block, batch) in golden() {
        let decoded = Decoder::new().decode(block).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded, batch.clone().grouped(), "{name}");
        assert!(encoded(&batch) == block, "{name} is encoded in other bytes");
    }
}

#[test]
fn statistics_spare_the_decoding() {
    let (_, block, batch) = golden().swap_remove(0);
    let ColumnValues::F64(values) = &batch.columns[1].values else { panic!() };
    let stats = statistics(block, "pressure").unwrap().unwrap();
    assert_eq!(stats.count, values.len() as u64);
    assert_eq!(stats.min, values.iter().copied().fold(f64::INFINITY, f64::min));
    assert_eq!(stats.max, values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    assert!((stats.sum - values.iter().sum::<f64>()).abs() < 1e-6);
    assert_eq!(statistics(block, "no such metric"), Ok(None));
}

#[test]
fn a_few_bytes_never_stand_for_many() {
    let check = |change: &dyn Fn(&mut [u8]), expected: &str| {
        let mut block = encoded(&golden()[0].2);
        change(&mut block);
        let crc = header::checksum(&block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Decoder::new().decode(&block).unwrap_err().to_string(), expected);
    };
    check(&|b| b[16..20].copy_from_slice(&70_000u32.to_le_bytes()), "the block has 70000 rows, more than 65536");
    check(&|b| b[6..8].copy_from_slice(&300u16.to_le_bytes()), "the block has 300 metrics, more than 256");
    check(&|b| b[20..24].copy_from_slice(&9999u32.to_le_bytes()), "the block is malformed in its header");
    check(&|b| b[4] = 2, "a block of version 2, which this program does not know");
    check(&|b| b[24] ^= 1, "the block is malformed in its range of times");

    let text = Metric { name: "state".into(), value_type: ValueType::Text, unit: "".into() };
    let mut batch = Batch::empty(Arc::new(Shape::new(vec![text])));
    batch.push_run("press-1", 4000);
    batch.times.resize(4000, Timestamp(0));
    (0..4000).for_each(|_| batch.columns[0].values.push(Some(Value::Text(&"x".repeat(4000)))));
    assert!(!fits(&batch));
    let blocks = encode_split(&batch, 60_000);
    assert_eq!(blocks.len(), 2);
    assert!(blocks.iter().all(|block| block.len() < 5000), "one text is kept once");
}

#[test]
fn a_decoder_shares_shapes() {
    let mut decoder = Decoder::new();
    let (_, block, _) = golden().swap_remove(0);
    let (one, two) = (decoder.decode(block).unwrap(), decoder.decode(block).unwrap());
    assert!(Arc::ptr_eq(&one.shape, &two.shape));
}
