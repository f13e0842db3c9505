//! What the HTTP door counts.

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of the door. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    pub(super) connections: IntGauge,
    pub(super) accepted: IntCounter,
    /// By route and status.
    pub(super) requests: IntCounterVec,
    /// By route.
    pub(super) seconds: HistogramVec,
    pub(super) received_bytes: IntCounter,
    /// By outcome: `accepted`, `duplicate`, `rejected`.
    pub(super) events: IntCounterVec,
    pub(super) malformed: IntCounter,
    pub(super) tap_dropped: IntCounter,
}

impl HttpMetrics {
    /// # Errors
    /// When a name is taken in the registry.
    pub fn new(registry: &Registry) -> prometheus::Result<HttpMetrics> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let connections = IntGauge::new("millpond_http_connections", "Open HTTP connections")?;
        registry.register(Box::new(connections.clone()))?;
        let seconds =
            HistogramOpts::new("millpond_http_request_seconds", "Time until the head of the answer, by route")
                .buckets(vec![0.0005, 0.002, 0.005, 0.02, 0.05, 0.2, 1.0, 5.0]);
        let seconds = HistogramVec::new(seconds, &["route"])?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(HttpMetrics {
            connections,
            seconds,
            accepted: counter("millpond_http_connections_total", "Accepted HTTP connections")?,
            requests: counters("millpond_http_requests_total", "Requests, by route and status", &["route", "status"])?,
            received_bytes: counter("millpond_http_received_bytes_total", "Bytes of telemetry bodies as sent")?,
            events: counters("millpond_http_events_total", "Events of telemetry requests, by outcome", &["outcome"])?,
            malformed: counter("millpond_http_malformed_payloads_total", "Bodies kept as dead letters")?,
            tap_dropped: counter(
                "millpond_http_tap_dropped_events_total",
                "Events that watchers of /v1/tap have missed",
            )?,
        })
    }
}
