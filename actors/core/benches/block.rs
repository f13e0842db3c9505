//! What an event costs on its way through this crate: `cargo bench -p millpond-core --bench block`.
//! An event is one reading of six slowly moving metrics. Prints the best of several rounds.
//!
//! glibc gives the memory of a decoded batch back to the kernel each time it is dropped, and the page faults then cost more than the
//! decoding: run it also with `MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_MMAP_THRESHOLD_=268435456`.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "it measures and prints"
)]

use std::{hint::black_box, sync::Arc, time::Instant};

use millpond_core::{
    admission::{Admitted, Gate, Policy},
    batch::{Batch, BatchBuilder, Metric, Shape},
    block::{Decoder, encode, encode_split, read_series},
    limits::BLOCK_BYTES_TARGET,
    time::Timestamp,
    value::{Value, ValueType},
};

const METRICS: [&str; 6] = ["temperature", "pressure", "vibration", "current", "speed", "oil_level"];
const START_MS: i64 = 1_795_162_500_000;

fn main() {
    for readings in [16, 1] {
        println!("10,000 devices x {readings}");
        blocks(10_000, readings);
    }
    rows();
    for devices in [100, 10_000, 100_000] {
        gate(devices, 16, true);
        gate(devices, 1, true);
        gate(devices, 16, false);
    }
}

/// Machines whose metrics wander by a few steps of their sensors' resolution.
struct Fleet {
    shape: Arc<Shape>,
    state: Vec<[i64; 6]>,
    names: Vec<String>,
    seed: u64,
    turn: u64,
}

impl Fleet {
    fn new(devices: usize) -> Fleet {
        let metric = |name: &&str| Metric { name: (**name).into(), value_type: ValueType::F64, unit: "".into() };
        let mut fleet = Fleet {
            shape: Arc::new(Shape::new(METRICS.iter().map(metric).collect())),
            state: Vec::new(),
            names: (0..devices).map(|device| format!("press-{device:05}")).collect(),
            seed: 1,
            turn: 0,
        };
        let levels = [4500i64, 620, 180, 1250, 1480, 930];
        fleet.state =
            (0..devices).map(|_| levels.map(|level| level + fleet.random(level as u64 / 16) as i64)).collect();
        fleet
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    /// The next `readings` of each device, one per second.
    fn batch(&mut self, readings: u64, seqs: bool) -> Batch {
        let mut batch = Batch::empty(self.shape.clone());
        for device in 0..self.names.len() {
            batch.push_run(&self.names[device], readings as u32);
            let jitter = self.random(1000) as i64;
            for reading in 0..readings {
                let at = self.turn + reading;
                batch.times.push(Timestamp::from_millis(START_MS + at as i64 * 1000 + jitter));
                if seqs {
                    batch.seqs.push(Some(at));
                }
                for metric in 0..6 {
                    let step = [0, 0, 0, 0, 1, 0, 0, -1][self.random(8) as usize];
                    self.state[device][metric] += step;
                    batch.columns[metric].values.push(Some(Value::F64(self.state[device][metric] as f64 / 100.0)));
                }
            }
        }
        self.turn += readings;
        batch
    }
}

/// Prints the best of the rounds, as nanoseconds per event.
fn measure(what: &str, events: usize, mut round: impl FnMut()) {
    let best = (0..7).map(|_| {
        let start = Instant::now();
        round();
        start.elapsed()
    });
    let best = best.min().unwrap_or_default();
    println!("  {what:<40} {:>7.1} ns per event", best.as_nanos() as f64 / events as f64);
}

fn blocks(devices: usize, readings: u64) {
    let batch = Fleet::new(devices).batch(readings, true);
    let rows = batch.rows();
    let blocks = encode_split(&batch, BLOCK_BYTES_TARGET);
    let bytes: usize = blocks.iter().map(Vec::len).sum();
    println!("  {} blocks, {:.2} bytes per event", blocks.len(), bytes as f64 / rows as f64);
    let mut decoder = Decoder::new();
    let decoded: Vec<Batch> = blocks.iter().map(|block| decoder.decode(block).expect("a block")).collect();
    let mut block = Vec::new();
    measure("encode", rows, || {
        for batch in &decoded {
            block.clear();
            encode(black_box(batch), &mut block);
        }
    });
    measure("encode_split", rows, || drop(encode_split(black_box(&batch), BLOCK_BYTES_TARGET)));
    measure("decode", rows, || {
        for block in &blocks {
            drop(black_box(decoder.decode(black_box(block))));
        }
    });
    measure("read one series", rows, || {
        for block in &blocks {
            let found = read_series(block, "press-09999", "speed", &mut |time, value| {
                black_box((time, value));
            });
            let _ = black_box(found);
        }
    });
}

fn rows() {
    println!("rows with six names each into a BatchBuilder, 64 rows per payload");
    let mut builder = BatchBuilder::default();
    let row = |builder: &mut BatchBuilder, i: u64| {
        builder.begin("press-00001");
        builder.time(Timestamp::from_millis(START_MS + i as i64));
        builder.seq(i);
        for (at, metric) in METRICS.iter().enumerate() {
            builder.cell(black_box(metric), Value::F64(20.0 + (i + at as u64) as f64));
        }
        builder.end();
    };
    measure("one payload, one shape", 64_000, || {
        for payload in 0..1000u64 {
            (0..64).for_each(|i| row(&mut builder, payload * 64 + i));
            drop(black_box(builder.finish()));
        }
    });
}

fn gate(devices: usize, readings: u64, seqs: bool) {
    let mut fleet = Fleet::new(devices);
    let mut gate = Gate::new(Policy::default(), Vec::new(), Vec::new()).expect("no problems");
    let mut admitted = Admitted::default();
    let rounds = (2_000_000 / devices / readings as usize).clamp(3, 1000);
    let batches: Vec<Batch> = (0..rounds).map(|_| fleet.batch(readings, seqs)).collect();
    // A block holds about 4,096 events.
    let per_block = (4096 / readings as usize).max(1).min(devices);
    let mut blocks: Vec<Batch> = Vec::new();
    for batch in &batches {
        for runs in batch.runs().chunks(per_block) {
            let mut block = Batch::empty(batch.shape.clone());
            for run in runs {
                run.rows().for_each(|row| block.push_row_of(batch, batch.device(run), row));
            }
            blocks.push(block);
        }
    }
    let received = Timestamp::from_millis(START_MS + 1000 * (rounds as i64 + 1) * readings as i64);
    let warm = blocks.len() / rounds;
    blocks[..warm].iter_mut().for_each(|batch| gate.admit(received, batch, &mut admitted));
    let runs: usize = blocks[warm..].iter().map(|batch| batch.runs().len()).sum();
    let start = Instant::now();
    for batch in &mut blocks[warm..] {
        gate.admit(received, black_box(batch), &mut admitted);
        assert!(admitted.rows.is_none());
    }
    let per_run = start.elapsed().as_nanos() as f64 / runs as f64;
    let what = if seqs { "numbered" } else { "timed" };
    println!(
        "  gate, {devices:>6} devices x {readings:>2} {what:<9} {per_run:>6.1} ns per run, {:>5.1} per event",
        per_run / readings as f64
    );
}
