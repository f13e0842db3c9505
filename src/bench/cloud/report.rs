//! What the measurement of a cloud came to.

use std::fmt;

use serde::Serialize;

use crate::bench::Quantiles;

/// The parts that were asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CloudReport {
    pub visible: Option<Visible>,
    pub reconcile: Option<Reconcile>,
    pub drain: Option<Drain>,
    pub query: Option<QueryTimes>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Visible {
    /// From the publish at a site to the answer of a query in the cloud that has it.
    pub event: Quantiles,
    /// From the publish that closes a window of two sites to the alert that the cloud raises on it.
    pub alert: Quantiles,
}

#[derive(Clone, Debug, Serialize)]
pub struct Reconcile {
    pub sites: u16,
    pub events: u64,
    pub seconds: f64,
    /// Events in blocks that the cloud confirmed.
    pub events_per_s: f64,
    /// Of the cloud's process.
    pub cpu_ns_per_event: f64,
    pub rss_peak_bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Drain {
    pub events: u64,
    pub offline_s: u64,
    pub seconds: f64,
    pub times_real_time: f64,
    /// From the publish of an event to the answer of a query in the cloud that has it, while the backlog drains.
    pub live: Quantiles,
    /// What the events are as JSON, one a line.
    pub json_bytes: u64,
    /// What went to the cloud for them: blocks, panes, and the book-keeping.
    pub sent_bytes: u64,
    pub sent_share: f64,
    /// The same without the events themselves.
    pub results_share: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct QueryTimes {
    pub days: u32,
    /// A day by minutes.
    pub day: Quantiles,
    /// A day, value by value.
    pub day_raw: Quantiles,
    /// All days by hours.
    pub all: Quantiles,
    pub rows: u64,
    /// Of the archive, which has six numbers in each event.
    pub bytes_per_sample: f64,
}

impl fmt::Display for CloudReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        if let Some(visible) = &self.visible {
            writeln!(f, "visible in the cloud   {}", visible.event)?;
            writeln!(f, "alert over two sites   {}", visible.alert)?;
        }
        if let Some(reconcile) = &self.reconcile {
            let Reconcile { sites, events, seconds, events_per_s, cpu_ns_per_event, rss_peak_bytes } = reconcile;
            writeln!(
                f,
                "reconciled             {events} events of {sites} sites in {seconds:.1} s: {events_per_s:.0}/s"
            )?;
            writeln!(
                f,
                "  cloud                {cpu_ns_per_event:.0} ns CPU per event, at most {:.0} MiB",
                mib(*rss_peak_bytes)
            )?;
        }
        if let Some(drain) = &self.drain {
            let Drain {
                events, seconds, times_real_time, live, json_bytes, sent_bytes, sent_share, results_share, ..
            } = drain;
            writeln!(
                f,
                "drained                {events} events in {seconds:.1} s: {times_real_time:.0} times real time"
            )?;
            writeln!(f, "  live meanwhile       {live}")?;
            let (all, results) = (sent_share * 100.0, results_share * 100.0);
            let (sent, json) = (mib(*sent_bytes), mib(*json_bytes));
            writeln!(
                f,
                "  sent                 {sent:.1} MiB for {json:.1} MiB of JSON: {all:.1} %, without events {results:.1} %"
            )?;
        }
        if let Some(query) = &self.query {
            writeln!(f, "a day by minutes       {}", query.day)?;
            writeln!(f, "a day, each value      {}", query.day_raw)?;
            writeln!(f, "{} days by hours       {}", query.days, query.all)?;
            writeln!(
                f,
                "archive                {} events, {:.2} bytes per sample",
                query.rows, query.bytes_per_sample
            )?;
        }
        Ok(())
    }
}
