//! What shall be measured.

use clap::ValueEnum;
use millpond_core::time::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Blocks of many devices to `telemetry`
    Block,
    /// MessagePack arrays of rows of many devices to `telemetry`
    Msgpack,
    /// One JSON object to `devices/{id}/telemetry`
    Json,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Block => "block",
            Format::Msgpack => "msgpack",
            Format::Json => "json",
        }
    }

    /// More events per second than this machine will ever take: how much is prepared, and how fast event time runs.
    pub fn rate_max(self) -> u64 {
        match self {
            Format::Block => 10_000_000,
            Format::Msgpack => 3_000_000,
            Format::Json => 1_500_000,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Target {
    /// A node of our own, as a second process.
    Own,
    /// A server that runs already; with its process id, its CPU time and memory are measured too.
    Peer { host: String, port: u16, pid: Option<u32> },
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub format: Format,
    pub target: Target,
    pub login: Option<(String, String)>,
    pub connections: u32,
    pub in_flight: u16,
    pub devices: u32,
    /// Readings of a device in one publish; JSON has one.
    pub batch: u32,
    /// Metrics of a reading, from 1 to 8: up to six numbers, then a text, then a boolean.
    pub metrics: u32,
    pub duration: Span,
    pub threads: u32,
    /// Events per second that payloads are prepared for.
    pub rate_max: u64,
    pub seed: u64,
}

impl Plan {
    /// Readings that one device can have during the run, at most.
    pub fn readings_per_device(&self) -> u64 {
        let events = self.rate_max as f64 * self.duration.as_secs_f64();
        let batch = u64::from(self.batch);
        ((events / f64::from(self.devices.max(1))) as u64).div_ceil(batch) * batch + batch
    }

    /// Time between two readings of a device: a second, or less where the run would then last longer than an hour in event time.
    pub fn period(&self) -> Span {
        const HOUR_MS: i64 = 3_600_000;
        let readings = self.readings_per_device().min(i64::MAX as u64) as i64;
        Span::from_millis((HOUR_MS / readings.max(1)).clamp(1, 1000))
    }
}
