//! Measures what opening costs after `kill -9`: a child process writes a store of the given size and is killed in the
//! middle of its commits; another opens the file and says how long it took and how much memory it used.
//!
//! `cargo run --release -p millpond-store --example reopen [MEGABYTES] [DIRECTORY] [QUICK_REPAIR_ABOVE_MB]`
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::fs::FileExt,
    process::{Command, Stdio},
    time::Instant,
};

use bytes::Bytes;
use millpond_core::{
    disk::BlockDevice,
    ids::Origin,
    record::{Hlc, RecordKind},
    time::Timestamp,
};
use millpond_store::{Append, Commit, OpenDevice, Options, Store};

#[derive(Debug)]
struct FileDevice(File);

impl BlockDevice for FileDevice {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn device(path: &str) -> OpenDevice {
    let path = path.to_string();
    Box::new(move || {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        Ok(Box::new(FileDevice(file)))
    })
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("write") => write(&args[2], args[3].parse().expect("megabytes"), args[4].parse().expect("megabytes")),
        Some("open") => open(&args[2]),
        _ => measure(&args),
    }
}

fn measure(args: &[String]) {
    let megabytes = args.get(1).map_or("1024", String::as_str);
    let directory = args.get(2).map_or("/tmp", String::as_str);
    let quick_above = args.get(3).map_or("128", String::as_str);
    let path = format!("{directory}/millpond-reopen-{}.redb", std::process::id());
    let program = std::env::current_exe().expect("this program");
    let mut writer = Command::new(&program)
        .args(["write", &path, megabytes, quick_above])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    for line in BufReader::new(writer.stdout.take().expect("its output")).lines() {
        let line = line.expect("a line");
        println!("{line}");
        if line.starts_with("full") {
            break;
        }
    }
    writer.kill().expect("kill -9");
    writer.wait().expect("it ended");
    for _ in 0..2 {
        Command::new(&program).args(["open", &path]).status().expect("the opener starts");
    }
    std::fs::remove_file(&path).expect("removed");
}

fn write(path: &str, megabytes: u64, quick_above: u64) {
    let options = Options { quick_repair_above: quick_above << 20, ..Options::default() };
    let (mut store, _) = Store::open(device(path), options, Origin([1; 16])).expect("opens");
    let payload: Bytes = (0..60_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut took = Vec::new();
    for commit in 0u64.. {
        let records = (0..16)
            .map(|i| Append {
                kind: RecordKind::Events,
                hlc: Hlc(commit),
                rows: 10_000,
                min_time: Timestamp(commit as i64),
                max_time: Timestamp(commit as i64 + 1),
                devices: (0..1000u64).map(|d| (d + 1000 * i).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect(),
                payload: payload.clone(),
            })
            .collect();
        let start = Instant::now();
        store.commit(&Commit { records, now_ms: commit as i64, ..Commit::default() }).expect("committed");
        took.push(start.elapsed());
        let megabytes_now = store.usage().journal_bytes() >> 20;
        if commit % 128 == 127 {
            took.sort();
            let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
            println!("{megabytes_now} MB: commits of 960 kB p50 {p50:.1?} p99 {p99:.1?}, {} kB", peak_kb());
            took.clear();
        }
        if megabytes_now >= megabytes {
            println!("full, file of {} MB", store.usage().file_bytes >> 20);
            let small = || Commit { now_ms: 1, ..Commit::default() };
            let start = Instant::now();
            for _ in 0..20 {
                store.commit(&small()).expect("committed");
            }
            eprintln!("empty commits: {:.1?} each", start.elapsed() / 20);
        }
    }
}

fn open(path: &str) {
    let before = peak_kb();
    let start = Instant::now();
    let (store, opened) = Store::open(device(path), Options::default(), Origin([2; 16])).expect("opens");
    let took = start.elapsed();
    println!("open: {took:.1?}, {} kB before, {} kB after, {opened:?}", before, peak_kb());
    let start = Instant::now();
    let stats = store.reader().stats().expect("stats");
    println!("stats: {:.1?}, {} records", start.elapsed(), stats.classes.iter().map(|c| c.records).sum::<u64>());
    let start = Instant::now();
    let (mut found, at) = (0, Timestamp(stats.commits as i64 / 2));
    let series =
        store.reader().scan_series(at, Timestamp(at.0 + 3), 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(500), |_| {
            found += 1;
            std::ops::ControlFlow::Continue(())
        });
    series.expect("scan");
    println!("a series: {:.1?}, {found} records; {} kB", start.elapsed(), peak_kb());
    let start = Instant::now();
    drop(store);
    println!("close: {:.1?}", start.elapsed());
}

/// The most memory this process ever had, in kB.
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}
