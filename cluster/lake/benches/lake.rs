//! What the archive costs: `cargo bench -p millpond-lake --bench lake -- [days [devices]]`, 7 days of 20 devices when not said.
//!
//! Devices report six slowly moving metrics with two or three decimals once a second, with a jitter of some milliseconds. With a folder of
//! recorded data beside this checkout it says what that comes to, too.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "it measures and prints"
)]

use std::{path::Path, sync::Arc, time::Instant};

use millpond_core::{
    batch::{Batch, Column, ColumnValues, Metric, Shape},
    ids::{Incarnation, Origin, RecordId, Seq},
    time::{Span, Timestamp},
    value::ValueType,
};
use millpond_lake::{Lake, Lifecycle, Options, Piece, Series, Taken};
use object_store::{ObjectStore, local::LocalFileSystem};

/// Name, level, greatest step, all in units of its resolution, and how many of them are one.
const METRICS: [(&str, i64, i64, f64); 6] = [
    ("temperature", 4500, 3, 100.0),
    ("pressure", 6200, 4, 1000.0),
    ("vibration", 180, 9, 1000.0),
    ("current", 1250, 12, 100.0),
    ("speed", 14_800, 10, 10.0),
    ("oil_level", 9300, 1, 100.0),
];
const START_MS: i64 = 1_795_046_400_000;
const DAY_S: i64 = 86_400;

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    let mut number = |default: usize| words.next().and_then(|word| word.parse().ok()).unwrap_or(default);
    let (days, devices) = (number(7), number(20));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime is built");
    let folder = tempfile::tempdir().expect("a folder is made");
    runtime.block_on(async {
        fleet(folder.path(), days as i64, devices).await;
        recorded(folder.path()).await;
    });
}

fn store(folder: &Path, name: &str) -> Arc<dyn ObjectStore> {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).expect("a folder is made");
    Arc::new(LocalFileSystem::new_with_prefix(folder).expect("a store is opened"))
}

struct Fleet {
    shape: Arc<Shape>,
    state: Vec<[i64; 6]>,
    seed: u64,
    record: u64,
}

impl Fleet {
    fn random(&mut self, below: i64) -> i64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as i64 % below
    }

    /// Seconds `from..to` of all devices: records of 16 readings of each.
    fn pieces(&mut self, from: i64, to: i64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for start in (from..to).step_by(16) {
            let readings = (to - start).min(16);
            let mut batch = Batch::empty(self.shape.clone());
            for device in 0..self.state.len() {
                batch.push_run(&format!("press-{device:03}"), readings as u32);
                for second in start..start + readings {
                    batch.times.push(Timestamp::from_millis(START_MS + second * 1000 + self.random(7)));
                    batch.seqs.push(Some(second as u64));
                    for (at, (_, level, step, one)) in METRICS.iter().enumerate() {
                        let drift = (level - self.state[device][at]).signum() * i64::from(self.random(8) == 0);
                        self.state[device][at] += drift + self.random(2 * step + 1) - step;
                        let value = self.state[device][at] as f64 / one;
                        if let Column { values: ColumnValues::F64(values), .. } = &mut batch.columns[at] {
                            values.push(value);
                        }
                    }
                }
            }
            self.record += 1;
            pieces.push(Piece {
                tenant: "acme".into(),
                site: "north".into(),
                record: record(self.record),
                batch,
                left_out: Vec::new(),
            });
        }
        pieces
    }
}

fn record(number: u64) -> RecordId {
    RecordId { origin: Origin([7; 16]), incarnation: Incarnation(1), seq: Seq(number) }
}

fn taken(pieces: &[Piece]) -> Taken {
    let RecordId { origin, incarnation, seq: first } = pieces[0].record;
    let last = pieces[pieces.len() - 1].record.seq;
    Taken { site: "north".into(), origin, incarnation, first: first.0, last: last.0 }
}

async fn fleet(folder: &Path, days: i64, devices: usize) {
    let metric = |(name, ..): &(&str, i64, i64, f64)| Metric {
        name: (*name).into(),
        value_type: ValueType::F64,
        unit: "".into(),
    };
    let shape = Arc::new(Shape::new(METRICS.iter().map(metric).collect()));
    let mut fleet = Fleet { shape, state: vec![METRICS.map(|metric| metric.1); devices], seed: 1, record: 0 };
    let store = store(folder, "fleet");
    let lake = Lake::open(store.clone(), Options::default()).await.expect("it opens");
    println!("{devices} devices, {} metrics, 1 Hz, {days} days", METRICS.len());

    let (mut append, mut compact, mut compact_mb, mut events) = (0.0, 0.0, 0, 0);
    for day in 0..days {
        // A million events at a time, at most.
        let pace = (1_000_000 / devices as i64).min(DAY_S / 2);
        for from in (0..DAY_S).step_by(pace as usize) {
            let pieces = fleet.pieces(day * DAY_S + from, day * DAY_S + (from + pace).min(DAY_S));
            let range = taken(&pieces);
            if day == 0 && from == 0 {
                println!("memory before the first append {} MB", peak_mb());
            }
            let began = Instant::now();
            lake.append(&pieces, &[range], START_MS).await.expect("it is appended");
            append += began.elapsed().as_secs_f64();
            let some: usize = pieces.iter().map(|piece| piece.batch.rows()).sum();
            events += some;
            if day == 0 && from == 0 {
                println!("memory after an append of {some} events {} MB (the events among it)", peak_mb());
            }
        }
        reset_peak();
        let before = peak_mb();
        let began = Instant::now();
        lake.compact(START_MS + (day + 2) * DAY_S * 1000).await.expect("it is compacted");
        compact += began.elapsed().as_secs_f64();
        compact_mb = compact_mb.max(peak_mb().saturating_sub(before));
    }
    let manifest = lake.manifest();
    let samples = events as f64 * METRICS.len() as f64;
    println!("append   {:>12.0} events/s", events as f64 / append);
    println!("compact  {:>12.0} events/s, {compact_mb} MB more than before", events as f64 / compact);
    println!("warm     {:>12.3} bytes/sample, {} files", manifest.bytes() as f64 / samples, manifest.files.len());
    println!("manifest {:>12} bytes", store_bytes(&store, &manifest).await);

    queries(&store, days, devices).await;

    let began = Instant::now();
    let lifecycle = Lifecycle { warm: Span::ZERO, cold: Span::from_secs(10_000 * DAY_S) };
    lake.age(START_MS + (days + 2) * DAY_S * 1000, lifecycle).await.expect("it ages");
    let rate = events as f64 / began.elapsed().as_secs_f64();
    println!("age      {rate:>12.0} events/s");
    println!("cold     {:>12.3} bytes/sample", lake.manifest().bytes() as f64 / samples);
}

async fn store_bytes(store: &Arc<dyn ObjectStore>, manifest: &millpond_lake::Manifest) -> u64 {
    use object_store::ObjectStoreExt;
    let path = object_store::path::Path::parse(manifest.path()).expect("a path");
    store.head(&path).await.expect("it is there").size
}

async fn queries(store: &Arc<dyn ObjectStore>, days: i64, devices: usize) {
    let series = |device: usize, from: i64, to: i64| Series {
        tenant: Some("acme".into()),
        device: format!("press-{:03}", device % devices),
        metric: METRICS[device % METRICS.len()].0.into(),
        start: Timestamp::from_millis(START_MS + from * 1000),
        end: Timestamp::from_millis(START_MS + to * 1000),
    };
    let whole = days * DAY_S;
    for (what, span, step) in [
        ("1 h", 3600, None),
        ("24 h", DAY_S, None),
        ("24 h by 1 min", DAY_S, Some(60)),
        ("all days by 1 h", whole, Some(3600)),
        ("all days by 1 d", whole, Some(DAY_S)),
    ] {
        for warm in [false, true] {
            let mut times = Vec::new();
            let mut found = 0;
            let spent = cpu_ms();
            let mut lake = Lake::open(store.clone(), Options::default()).await.expect("it opens");
            for turn in 0..40 {
                if !warm {
                    lake = Lake::open(store.clone(), Options::default()).await.expect("it opens");
                }
                let from = (turn as i64 * 7919) % (whole - span + 1).max(1);
                let series = series(turn, from, from + span);
                let began = Instant::now();
                found = match step {
                    None => lake.points(&lake.manifest(), &series, usize::MAX).await.expect("it is read").points.len(),
                    Some(step) => {
                        let step = Some(Span::from_secs(step));
                        let steps = lake.aggregate(&lake.manifest(), &series, step, usize::MAX).await;
                        steps.expect("it is read").steps.len()
                    }
                };
                times.push(began.elapsed().as_secs_f64() * 1000.0);
            }
            times.sort_by(f64::total_cmp);
            let cache = if warm { "footers known" } else { "from nothing" };
            let spent = (cpu_ms() - spent) / 40.0;
            let (p50, p95) = (times[20], times[38]);
            println!(
                "{what:<16} {cache:<14} p50 {p50:>8.2} ms, p95 {p95:>8.2} ms, CPU {spent:>8.2} ms, {found} values"
            );
        }
    }
    println!("memory at most {} MB", peak_mb());
}

/// The recorded machine and room, each as a device with one metric.
async fn recorded(folder: &Path) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/recorded");
    let data = if data.is_dir() { data } else { "/work/shared/data/recorded".into() };
    for name in ["machine_temperature_system_failure", "ambient_temperature_system_failure"] {
        let Ok(text) = std::fs::read_to_string(data.join(name).with_extension("csv")) else {
            println!("{name} is not beside this checkout");
            continue;
        };
        let metric = Metric { name: "temperature".into(), value_type: ValueType::F64, unit: "".into() };
        let mut batch = Batch::empty(Arc::new(Shape::new(vec![metric])));
        for line in text.lines().skip(1) {
            let (time, value) = line.split_once(',').expect("two columns");
            batch.push_run("machine", 1);
            batch.times.push(time.parse().expect("a time"));
            if let ColumnValues::F64(values) = &mut batch.columns[0].values {
                values.push(value.parse().expect("a number"));
            }
        }
        // A file for each day would be mostly footer: all on one day, a second apart where it was minutes.
        let rows = batch.rows();
        for (at, time) in batch.times.iter_mut().enumerate() {
            *time = Timestamp::from_millis(START_MS + at as i64 * 1000);
        }
        let lake = Lake::open(store(folder, name), Options::default()).await.expect("it opens");
        let piece =
            Piece { tenant: "acme".into(), site: "north".into(), record: record(1), batch, left_out: Vec::new() };
        let range = taken(std::slice::from_ref(&piece));
        let manifest = lake.append(&[piece], &[range], START_MS).await.expect("it is appended");
        println!("{name}: {:.3} bytes/sample of {rows}", manifest.bytes() as f64 / rows as f64);
    }
}

/// Processor time of this process in milliseconds, in steps of ten.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() * 10.0
}

/// Lets the most memory be what there is now.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that this process has had, in megabytes.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
