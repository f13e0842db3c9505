//! What was measured, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::{Sampled, drive::Driven, plan::Plan};

/// All durations in the unit of the name; everything of the server is `null` when its process is not known.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub format: &'static str,
    pub connections: u32,
    pub in_flight: u16,
    pub devices: u32,
    pub readings_per_device_and_publish: u32,
    pub metrics: u32,
    pub elapsed_s: f64,
    pub events: u64,
    pub publishes: u64,
    pub events_per_s: f64,
    pub publishes_per_s: f64,
    pub payload_bytes_per_event: f64,
    pub ack_ms_p50: f64,
    pub ack_ms_p99: f64,
    pub ack_ms_p999: f64,
    pub ack_ms_max: f64,
    pub server_cpu_ns_per_event: Option<f64>,
    /// Cores that the server kept busy.
    pub server_cores: Option<f64>,
    pub server_rss_peak_bytes: Option<u64>,
    pub server_rss_bytes: Option<u64>,
    pub generator_cpu_ns_per_event: f64,
    /// Growth of the files in the node's data directory.
    pub disk_bytes_per_event: Option<f64>,
    /// Growth of what the node says its journal holds.
    pub journal_bytes_per_event: Option<f64>,
    /// Events that the node says it has stored since the start of the run.
    pub stored: Option<u64>,
    /// Dead letters since the start of the run.
    pub dead_letters: Option<u64>,
    /// Whether `stored` and the acknowledged `events` are the same number.
    pub stored_agrees: Option<bool>,
    /// The prepared payloads were used up before the time was over: prepare more with `--rate-max`.
    pub ran_dry: bool,
}

impl Report {
    pub(super) fn new(plan: &Plan, driven: &Driven, after: Sampled) -> Report {
        let before = &driven.before;
        let events = driven.events.max(1) as f64;
        let elapsed_s = driven.elapsed.as_secs_f64().max(1e-9);
        let ms = |quantile: f64| driven.latency.value_at_quantile(quantile) as f64 / 1e6;
        let cpu_ns = before.server.zip(after.server).map(|(before, after)| (after.cpu_ns - before.cpu_ns) as f64);
        let both = before.stored.as_ref().zip(after.stored.as_ref());
        let stored = both.and_then(|(before, after)| Some(after.events? - before.events?));
        let growth = |before: u64, after: u64| (after as f64 - before as f64) / events;
        Report {
            format: plan.format.name(),
            connections: plan.connections,
            in_flight: plan.in_flight,
            devices: plan.devices,
            readings_per_device_and_publish: plan.batch,
            metrics: plan.metrics,
            elapsed_s,
            events: driven.events,
            publishes: driven.publishes,
            events_per_s: driven.events as f64 / elapsed_s,
            publishes_per_s: driven.publishes as f64 / elapsed_s,
            payload_bytes_per_event: driven.payload_bytes as f64 / events,
            ack_ms_p50: ms(0.5),
            ack_ms_p99: ms(0.99),
            ack_ms_p999: ms(0.999),
            ack_ms_max: driven.latency.max() as f64 / 1e6,
            server_cpu_ns_per_event: cpu_ns.map(|ns| ns / events),
            server_cores: cpu_ns.map(|ns| ns / 1e9 / elapsed_s),
            server_rss_peak_bytes: after.server.map(|server| server.rss_peak_bytes),
            server_rss_bytes: after.server.map(|server| server.rss_bytes),
            generator_cpu_ns_per_event: (after.own_cpu_ns - before.own_cpu_ns) as f64 / events,
            disk_bytes_per_event: both.map(|(before, after)| growth(before.file_bytes, after.file_bytes)),
            journal_bytes_per_event: both
                .and_then(|(before, after)| Some(growth(before.journal_bytes?, after.journal_bytes?))),
            stored,
            dead_letters: both.and_then(|(before, after)| Some(after.dead_letters? - before.dead_letters?)),
            stored_agrees: stored.map(|stored| stored == driven.events),
            ran_dry: driven.ran_dry,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
        let mut line = |what: &str, value: String| writeln!(f, "{what:<26}{value}");
        line(
            "format",
            format!(
                "{}, {} connections × {} in flight, {} devices × {} readings, {} metrics",
                self.format,
                self.connections,
                self.in_flight,
                self.devices,
                self.readings_per_device_and_publish,
                self.metrics
            ),
        )?;
        line("events", format!("{} in {:.2} s, {} publishes", self.events, self.elapsed_s, self.publishes))?;
        line("events/s", format!("{:.0}", self.events_per_s))?;
        line("publishes/s", format!("{:.0}", self.publishes_per_s))?;
        line(
            "ack p50/p99/p99.9/max",
            format!(
                "{:.2} / {:.2} / {:.2} / {:.2} ms",
                self.ack_ms_p50, self.ack_ms_p99, self.ack_ms_p999, self.ack_ms_max
            ),
        )?;
        if let (Some(ns), Some(cores)) = (self.server_cpu_ns_per_event, self.server_cores) {
            line("server CPU per event", format!("{ns:.1} ns ({cores:.2} cores)"))?;
        }
        line("generator CPU per event", format!("{:.1} ns", self.generator_cpu_ns_per_event))?;
        if let (Some(peak), Some(now)) = (self.server_rss_peak_bytes, self.server_rss_bytes) {
            line("server memory", format!("{} now, {} at most", mib(now), mib(peak)))?;
        }
        line("payload bytes per event", format!("{:.2}", self.payload_bytes_per_event))?;
        if let Some(bytes) = self.disk_bytes_per_event {
            line("disk bytes per event", format!("{bytes:.2} (growth of the files)"))?;
        }
        if let Some(bytes) = self.journal_bytes_per_event {
            line("journal bytes per event", format!("{bytes:.2} (growth of what the journal holds)"))?;
        }
        if let (Some(stored), Some(agrees)) = (self.stored, self.stored_agrees) {
            let verdict = if agrees { "as many as acknowledged" } else { "NOT as many as acknowledged" };
            line("stored", format!("{stored}, {verdict}; {} dead letters", self.dead_letters.unwrap_or_default()))?;
        }
        if self.ran_dry {
            line("note", "the prepared payloads were used up early: raise --rate-max".to_owned())?;
        }
        Ok(())
    }
}

/// A node that does nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    pub rss_bytes: u64,
    pub rss_peak_bytes: u64,
    pub cpu_ms_per_s: f64,
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        writeln!(
            f,
            "idle memory               {:.1} MiB now, {:.1} MiB at most",
            mib(self.rss_bytes),
            mib(self.rss_peak_bytes)
        )?;
        writeln!(f, "idle CPU                  {:.2} ms per second", self.cpu_ms_per_s)
    }
}
