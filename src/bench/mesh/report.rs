//! What the measurement of a site came to.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{boxes::BoxesReport, changes::ChangesReport, documents::DocumentsReport};

/// The parts that were asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MeshReport {
    #[serde(flatten)]
    pub site: Option<SiteReport>,
    pub changes: Option<ChangesReport>,
    pub documents: Option<DocumentsReport>,
    pub boxes: Option<BoxesReport>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct SiteReport {
    /// From the publish at one node to the answer of a query at another one that has it.
    pub visible: Quantiles,
    /// Acknowledgements that wait for the node's own disk, and for one more node's.
    pub ack_local: Quantiles,
    pub ack_site: Quantiles,
    /// From the kill of a node until another one shows the open window of its device.
    pub takeover_ms: f64,
    /// The same from the moment at which the other one suspects it.
    pub takeover_after_suspicion_ms: f64,
    pub catch_up_bytes: u64,
    pub catch_up_s: f64,
    /// Acknowledgements at the source while another node catches up.
    pub ack_while_catching_up: Quantiles,
    pub idle_rss_bytes: Vec<u64>,
    /// Bytes that a pair of nodes exchanges per second when nothing happens, both directions.
    pub idle_bytes_per_s_and_pair: f64,
}

/// Of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are a number of digits")
}

pub fn quantiles(times: &Histogram<u64>) -> Quantiles {
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
    Quantiles { p50_ms: ms(0.5), p99_ms: ms(0.99), max_ms: ms(1.0) }
}

impl fmt::Display for MeshReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MeshReport { site, changes, documents, boxes } = self;
        site.iter().try_for_each(|site| site.fmt(f))?;
        changes.iter().try_for_each(|changes| changes.fmt(f))?;
        documents.iter().try_for_each(|documents| documents.fmt(f))?;
        boxes.iter().try_for_each(|boxes| boxes.fmt(f))
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", self.p50_ms, self.p99_ms, self.max_ms)
    }
}

impl fmt::Display for SiteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        writeln!(f, "visible elsewhere      {}", self.visible)?;
        writeln!(f, "acknowledged, local    {}", self.ack_local)?;
        writeln!(f, "acknowledged, site     {}", self.ack_site)?;
        writeln!(
            f,
            "takeover               {:.0} ms after the kill, {:.0} ms after the suspicion",
            self.takeover_ms, self.takeover_after_suspicion_ms
        )?;
        let rate = mib(self.catch_up_bytes) / self.catch_up_s;
        writeln!(
            f,
            "catch-up               {:.0} MiB in {:.1} s: {rate:.0} MiB/s",
            mib(self.catch_up_bytes),
            self.catch_up_s
        )?;
        writeln!(f, "  acknowledged meanwhile {}", self.ack_while_catching_up)?;
        let rss: Vec<String> = self.idle_rss_bytes.iter().map(|bytes| format!("{:.0}", mib(*bytes))).collect();
        writeln!(f, "idle                   {} MiB", rss.join(", "))?;
        writeln!(f, "  talk per pair        {:.0} B/s", self.idle_bytes_per_s_and_pair)
    }
}
