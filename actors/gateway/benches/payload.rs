//! Time to decode one event, by format: `cargo bench -p millpond-gateway --bench payload`.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use millpond_core::dead_letter::PayloadFormat;
use millpond_gateway::payload::PayloadDecoder;

const METRICS: [&str; 6] = ["temperature", "pressure", "vibration_x", "vibration_y", "current", "speed"];
/// Payloads per `finish`, as one read of a busy connection brings them.
const PAYLOADS: usize = 64;
const ROUNDS: usize = 2_000;

fn main() {
    let json = |n: usize| {
        let metrics: Vec<String> = METRICS
            .iter()
            .enumerate()
            .map(|(i, name)| format!("\"{name}\":{:.3}", 20.0 + (n * 7 + i) as f64 * 0.013))
            .collect();
        format!("{{\"ts\":\"2026-11-20T08:15:{:02}.250Z\",\"seq\":{n},{},\"unit_ok\":true}}", n % 60, metrics.join(","))
    };
    let single: Vec<Bytes> = (0..PAYLOADS).map(|n| json(n).into()).collect();
    println!("a JSON object has {} bytes", single[0].len());
    measure("JSON object per payload", PayloadFormat::Unknown, Some("press-17"), &single, 1);
    let array: Bytes = format!("[{}]", (0..64).map(json).collect::<Vec<_>>().join(",")).into();
    measure("JSON array of 64", PayloadFormat::Json, Some("press-17"), &[array], 64);
    let lines: Bytes = (0..64)
        .map(|n| json(n).replace("{\"ts\"", "{\"device\":\"press-17\",\"ts\"") + "\n")
        .collect::<String>()
        .into();
    measure("NDJSON of 64 lines", PayloadFormat::Ndjson, None, &[lines], 64);

    let rows: Vec<Bytes> = (0..PAYLOADS).map(|n| msgpack_row(n).into()).collect();
    println!("a MessagePack row has {} bytes", rows[0].len());
    measure("MessagePack row per payload", PayloadFormat::Unknown, Some("press-17"), &rows, 1);
    let all: Bytes = (0..64).flat_map(msgpack_row).collect::<Vec<u8>>().into();
    measure("MessagePack, 64 rows", PayloadFormat::Msgpack, Some("press-17"), &[all], 64);
}

fn measure(name: &str, format: PayloadFormat, device: Option<&str>, payloads: &[Bytes], events: usize) {
    let mut decoder = PayloadDecoder::new();
    let mut best = f64::MAX;
    for _ in 0..15 {
        let start = Instant::now();
        for _ in 0..ROUNDS / 15 {
            for payload in payloads {
                black_box(decoder.decode(format, device, payload).expect("the benchmark's payloads are good"));
            }
            black_box(decoder.finish());
        }
        let decoded = (ROUNDS / 15 * payloads.len() * events) as f64;
        best = best.min(start.elapsed().as_nanos() as f64 / decoded);
    }
    println!("{name:<30} {best:>7.0} ns per event");
}

fn msgpack_row(n: usize) -> Vec<u8> {
    let mut row = Vec::new();
    let text = |row: &mut Vec<u8>, text: &str| {
        row.push(0xa0 | text.len() as u8);
        row.extend_from_slice(text.as_bytes());
    };
    row.push(0x88);
    text(&mut row, "ts");
    row.push(0xcf);
    row.extend_from_slice(&(1_795_162_500_000u64 + n as u64).to_be_bytes());
    text(&mut row, "seq");
    row.push(0xce);
    row.extend_from_slice(&(n as u32).to_be_bytes());
    for (i, name) in METRICS.iter().enumerate() {
        text(&mut row, name);
        row.push(0xcb);
        row.extend_from_slice(&(20.0 + (n * 7 + i) as f64 * 0.013).to_be_bytes());
    }
    row
}
