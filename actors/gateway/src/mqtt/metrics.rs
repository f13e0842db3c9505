//! What the MQTT door counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of the door. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MqttMetrics {
    pub(super) connections: IntGauge,
    pub(super) connects: IntCounter,
    /// By reason: `limit`, `login`, `protocol`, `shutdown`.
    pub(super) refused: IntCounterVec,
    /// By reason, as the log names it.
    pub(super) disconnects: IntCounterVec,
    pub(super) received_bytes: IntCounter,
    pub(super) sent_bytes: IntCounter,
    pub(super) publishes: IntCounter,
    pub(super) acknowledged: IntCounter,
    /// Publishes by reason: `not_authorized`, `full`, `failed`, `topic`, `retained_full`.
    pub(super) rejected: IntCounterVec,
    pub(super) malformed: IntCounter,
    /// Telemetry publishes of one submission: how well reads are shared.
    pub(super) batch: Histogram,
}

impl MqttMetrics {
    /// # Errors
    /// When a name is taken in the registry.
    pub fn new(registry: &Registry) -> prometheus::Result<MqttMetrics> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let by_reason = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), &["reason"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let connections = IntGauge::new("millpond_mqtt_connections", "Connected MQTT clients")?;
        registry.register(Box::new(connections.clone()))?;
        let batch = HistogramOpts::new("millpond_mqtt_submission_publishes", "Publishes decoded into one submission")
            .buckets(vec![1.0, 4.0, 16.0, 64.0, 256.0, 1024.0]);
        let batch = Histogram::with_opts(batch)?;
        registry.register(Box::new(batch.clone()))?;
        Ok(MqttMetrics {
            connections,
            batch,
            connects: counter("millpond_mqtt_connects_total", "Accepted CONNECT packets")?,
            refused: by_reason("millpond_mqtt_connects_refused_total", "Connections refused, by reason")?,
            disconnects: by_reason("millpond_mqtt_disconnects_total", "Connections that ended, by reason")?,
            received_bytes: counter("millpond_mqtt_received_bytes_total", "Bytes read from MQTT clients")?,
            sent_bytes: counter("millpond_mqtt_sent_bytes_total", "Bytes written to MQTT clients")?,
            publishes: counter("millpond_mqtt_publishes_total", "PUBLISH packets of MQTT clients")?,
            acknowledged: counter("millpond_mqtt_acknowledged_total", "PUBACK packets that said success")?,
            rejected: by_reason(
                "millpond_mqtt_publishes_rejected_total",
                "Publishes that were not acknowledged, by reason",
            )?,
            malformed: counter("millpond_mqtt_malformed_payloads_total", "Payloads kept as dead letters")?,
        })
    }
}
